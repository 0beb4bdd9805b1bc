//! The real disk: direct I/O, all of it through the core's hot ring.
//!
//! Every file is opened with `O_DIRECT`. A log file's writes are durable when they complete, by
//! `O_DSYNC` or by an `fdatasync` linked behind each, as the probe chose ([`Durability`]).
//!
//! What may block the core's thread, and why that is right: `len`, `free_bytes` (metadata that the
//! kernel has in memory: microseconds), `create_dir_all` and `list` (at start only), and closing.
//! Closing a file that was removed frees its blocks: *remove* runs on a kernel worker, so close
//! before you remove, and the core does not pay for it. Everything else (open, rename, remove,
//! truncate, sync, read, write) is a request to the ring. Requests are never under a timeout: a
//! dropped future abandons the answer, not the operation.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringbolt_engine::env::{
    AlignedBuf, Disk, DiskError, DiskErrorKind, DiskFile, FileClass, SECTOR,
};
use ringbolt_ring::{FileBuf, FileOp, FileOutcome};

use super::probe::Durability;
use super::requests::{Answer, Requests};

/// Read buffers kept for reuse, in bytes over all sizes.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// Read buffers longer than this are not kept.
const SPARE_ONE_MAX: usize = 1 << 20;
/// Sizes that are kept: powers of two from a sector up.
const SPARE_CLASSES: usize = 9;

/// An engine buffer while the ring works on it.
struct IoBuf(AlignedBuf);

// SAFETY: an `AlignedBuf` points to a heap block that moves neither with the value nor with its
// handles, initialised over `len()`. While it is shared its bytes cannot be changed through any
// handle. For reads `RealFile::read_at` passes a buffer of which it has the only handle.
unsafe impl FileBuf for IoBuf {
    fn addr(&mut self) -> *mut u8 {
        self.0.as_ptr().cast_mut()
    }
    fn len(&self) -> usize {
        (*self.0).len()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn unwrap_buf(buf: Option<Box<dyn FileBuf>>) -> Option<AlignedBuf> {
    let buf = buf?.into_any().downcast::<IoBuf>().ok()?;
    Some(buf.0)
}

/// Read buffers for reuse, so that a read neither allocates nor zeroes.
#[derive(Default)]
struct Spare {
    by_class: RefCell<[Vec<AlignedBuf>; SPARE_CLASSES]>,
    bytes: std::cell::Cell<usize>,
}

impl Spare {
    fn class(capacity: usize) -> usize {
        (capacity / SECTOR).trailing_zeros() as usize
    }

    /// A buffer of at least `len` bytes; what is in it is arbitrary.
    fn take(&self, len: usize) -> AlignedBuf {
        if len > SPARE_ONE_MAX {
            return AlignedBuf::zeroed(len);
        }
        let capacity = len.max(SECTOR).next_power_of_two();
        let spare = self.by_class.borrow_mut()[Self::class(capacity)].pop();
        match spare {
            Some(buf) => {
                self.bytes.set(self.bytes.get() - capacity);
                buf
            }
            None => AlignedBuf::zeroed(capacity),
        }
    }

    fn give(&self, buf: AlignedBuf) {
        let capacity = buf.capacity();
        if capacity <= SPARE_ONE_MAX
            && capacity.is_power_of_two()
            && self.bytes.get() + capacity <= SPARE_BYTES_MAX
            && buf.is_unique()
        {
            self.bytes.set(self.bytes.get() + capacity);
            self.by_class.borrow_mut()[Self::class(capacity)].push(buf);
        }
    }
}

/// Bytes that were read. The buffer is reused once they are dropped.
pub struct ReadBytes {
    /// `None` only while dropping.
    buf: Option<AlignedBuf>,
    len: usize,
    spare: Rc<Spare>,
}

impl Deref for ReadBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.buf {
            Some(buf) => &buf[..self.len],
            None => &[],
        }
    }
}

impl Drop for ReadBytes {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.spare.give(buf);
        }
    }
}

impl std::fmt::Debug for ReadBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadBytes({} bytes)", self.len)
    }
}

/// The file system as one core sees it.
pub struct RealDisk {
    requests: Rc<Requests>,
    spare: Rc<Spare>,
    durability: Durability,
    can_truncate: bool,
}

impl RealDisk {
    pub(super) fn new(requests: Rc<Requests>, durability: Durability, can_truncate: bool) -> Self {
        Self {
            requests,
            spare: Rc::default(),
            durability,
            can_truncate,
        }
    }

    async fn open_with(
        &self,
        op: &'static str,
        path: &Path,
        class: FileClass,
        flags: i32,
    ) -> Result<RealFile, DiskError> {
        let mut flags = flags | libc::O_DIRECT;
        if class == FileClass::Log && self.durability == Durability::Dsync {
            flags |= libc::O_DSYNC;
        }
        let opened = self.open_raw(op, path, flags).await;
        let fd = opened.map_err(|error| match error.kind {
            DiskErrorKind::Io if error.detail.contains("os error 22") => no_direct_io(error),
            _ => error,
        })?;
        Ok(RealFile {
            fd: Rc::new(fd),
            path: path.to_path_buf(),
            requests: Rc::clone(&self.requests),
            spare: Rc::clone(&self.spare),
            datasync: class == FileClass::Log && self.durability == Durability::WriteDatasync,
            can_truncate: self.can_truncate,
        })
    }

    async fn open_raw(
        &self,
        op: &'static str,
        path: &Path,
        flags: i32,
    ) -> Result<OwnedFd, DiskError> {
        let open = FileOp::Open {
            path: c_path(op, path)?,
            flags,
            mode: 0o600,
        };
        match self.requests.start(open).await.0 {
            Ok(FileOutcome::Opened(fd)) => Ok(fd),
            Ok(_) => Err(failed(op, path, libc::EIO)),
            Err(errno) => Err(failed(op, path, errno)),
        }
    }
}

/// The file system said `EINVAL` to `O_DIRECT`.
fn no_direct_io(error: DiskError) -> DiskError {
    DiskError {
        kind: DiskErrorKind::Refused,
        detail: "the file system has no direct I/O (O_DIRECT); use ext4 or xfs on a local disk"
            .to_owned(),
        ..error
    }
}

fn failed(op: &'static str, path: &Path, errno: i32) -> DiskError {
    DiskError::from_io(op, path, &io::Error::from_raw_os_error(errno))
}

fn c_path(op: &'static str, path: &Path) -> Result<CString, DiskError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(op, path, libc::EINVAL))
}

impl Disk for RealDisk {
    type File = RealFile;

    async fn open(&self, path: &Path, class: FileClass) -> Result<RealFile, DiskError> {
        let flags = match class {
            FileClass::Table => libc::O_RDONLY,
            FileClass::Log | FileClass::Manifest => libc::O_RDWR,
        };
        self.open_with("open", path, class, flags).await
    }

    async fn create(&self, path: &Path, class: FileClass) -> Result<RealFile, DiskError> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        self.open_with("create", path, class, flags).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let rename = FileOp::Rename {
            from: c_path("rename", from)?,
            to: c_path("rename", to)?,
        };
        let (result, _) = self.requests.start(rename).await;
        result
            .map(drop)
            .map_err(|errno| failed("rename", from, errno))
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let remove = FileOp::Unlink {
            path: c_path("remove", path)?,
        };
        let (result, _) = self.requests.start(remove).await;
        result
            .map(drop)
            .map_err(|errno| failed("remove", path, errno))
    }

    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        std::fs::create_dir_all(path)
            .map_err(|error| DiskError::from_io("create directory", path, &error))
    }

    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        let fail = |error: io::Error| DiskError::from_io("list", path, &error);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            paths.push(entry.map_err(fail)?.path());
        }
        paths.sort();
        Ok(paths)
    }

    async fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let fd = Rc::new(self.open_raw("sync directory", path, flags).await?);
        let (result, _) = self.requests.start(FileOp::Sync { fd }).await;
        result
            .map(drop)
            .map_err(|errno| failed("sync directory", path, errno))
    }

    async fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        super::probe::free_bytes(path)
    }
}

/// An open file. Closing it (by dropping the last handle and request) frees the descriptor at once.
pub struct RealFile {
    fd: Rc<OwnedFd>,
    path: PathBuf,
    requests: Rc<Requests>,
    spare: Rc<Spare>,
    /// Whether each write is followed by an `fdatasync`.
    datasync: bool,
    can_truncate: bool,
}

impl RealFile {
    fn fail(&self, op: &'static str, errno: i32) -> DiskError {
        failed(op, &self.path, errno)
    }

    async fn done(&self, op: &'static str, request: FileOp) -> Result<(), DiskError> {
        let (result, _) = self.requests.start(request).await;
        result.map(drop).map_err(|errno| self.fail(op, errno))
    }
}

impl DiskFile for RealFile {
    type ReadBuf = ReadBytes;

    async fn len(&self) -> Result<u64, DiskError> {
        // SAFETY: an all-zero `stat` is a valid value of that plain struct.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and `stat` is a live struct of the type that is filled in.
        if unsafe { libc::fstat(self.fd.as_raw_fd(), &raw mut stat) } < 0 {
            let error = io::Error::last_os_error();
            return Err(DiskError::from_io("stat", &self.path, &error));
        }
        Ok(stat.st_size.unsigned_abs())
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<ReadBytes, DiskError> {
        let buf = self.spare.take(len);
        let read = FileOp::Read {
            fd: Rc::clone(&self.fd),
            offset,
            buf: Box::new(IoBuf(buf)),
            len,
        };
        let (result, buf): Answer = self.requests.start(read).await;
        let buf = unwrap_buf(buf);
        match (result, buf) {
            (Ok(FileOutcome::Bytes(got)), Some(buf)) => Ok(ReadBytes {
                len: got.min(len),
                buf: Some(buf),
                spare: Rc::clone(&self.spare),
            }),
            (Err(errno), Some(buf)) => {
                self.spare.give(buf);
                Err(self.fail("read", errno))
            }
            _ => Err(self.fail("read", libc::EIO)),
        }
    }

    async fn write_at(&self, offset: u64, buf: AlignedBuf) -> (Result<(), DiskError>, AlignedBuf) {
        let len = buf.len();
        let write = FileOp::Write {
            fd: Rc::clone(&self.fd),
            offset,
            buf: Box::new(IoBuf(buf)),
            len,
            datasync: self.datasync,
        };
        let (result, buf) = self.requests.start(write).await;
        // The ring brings back the buffer it was given.
        let buf = unwrap_buf(buf).unwrap_or_else(|| AlignedBuf::zeroed(len));
        let result = match result {
            Ok(FileOutcome::Bytes(written)) if written == len => Ok(()),
            Ok(_) => Err(self.fail("write", libc::EIO)),
            Err(errno) => Err(self.fail("write", errno)),
        };
        (result, buf)
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let fd = Rc::clone(&self.fd);
        self.done("sync", FileOp::Datasync { fd }).await
    }

    async fn set_len(&self, len: u64) -> Result<(), DiskError> {
        if self.can_truncate {
            let fd = Rc::clone(&self.fd);
            return self.done("set length", FileOp::Truncate { fd, len }).await;
        }
        let fail = |error| DiskError::from_io("set length", &self.path, &error);
        let offset =
            libc::off_t::try_from(len).map_err(|_| self.fail("set length", libc::EFBIG))?;
        // SAFETY: takes an open descriptor and a number.
        if unsafe { libc::ftruncate(self.fd.as_raw_fd(), offset) } < 0 {
            return Err(fail(io::Error::last_os_error()));
        }
        Ok(())
    }
}
