//! What this host can do, measured or asked before anything is built on it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringbolt_engine::env::{DiskError, DiskErrorKind};
use ringbolt_ring::{Event, FileOp, FileOutcome, Ring, RingConfig, RingError};

/// How a log write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// `O_DSYNC`: the write itself is durable when it completes.
    Dsync,
    /// A write, and an `fdatasync` linked behind it.
    WriteDatasync,
}

impl Durability {
    /// The name under which it is recorded and shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dsync => "O_DSYNC",
            Self::WriteDatasync => "write+fdatasync",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Dsync, Self::WriteDatasync]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the durability probe measured: 4 KiB writes into a zero-filled file, one at a time, through
/// a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurabilityReport {
    /// The mode to use.
    pub mode: Durability,
    /// Median of `O_DSYNC` writes.
    pub dsync_p50: Duration,
    /// Median of writes with `fdatasync`.
    pub datasync_p50: Duration,
    /// Writes measured, of both modes.
    pub samples: usize,
}

/// The file that the durability probe makes and removes.
const PROBE_FILE: &str = ".ringbolt-probe";
const PROBE_BYTES: usize = 1 << 20;
const PROBE_SAMPLES_MIN: usize = 5;
/// Writes in one mode before it is the other's turn.
const PROBE_TURN: usize = 4;
const PROBE_SAMPLES_MAX: usize = 2000;
const BLOCK: usize = 4096;

/// Measures both durability modes in `dir` for about `budget` each and picks one. Blocks;
/// leaves no file behind.
///
/// # Errors
///
/// A [`DiskError`]: `Refused` where the file system has no direct I/O (tmpfs of old kernels,
/// overlays) or io_uring cannot be had, or the disk's own.
pub fn durability(dir: &Path, budget: Duration) -> Result<DurabilityReport, DiskError> {
    let path = dir.join(PROBE_FILE);
    let measured = measure_both(&path, budget);
    let _ = std::fs::remove_file(&path);
    measured
}

fn measure_both(path: &Path, budget: Duration) -> Result<DurabilityReport, DiskError> {
    let fail = |op: &'static str| move |error: io::Error| DiskError::from_io(op, path, &error);
    // Zero-filled and synced first: what is measured is overwriting, as in a recycled segment.
    std::fs::write(path, vec![0; PROBE_BYTES]).map_err(fail("write"))?;
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(fail("sync"))?;
    let mut ring = Ring::new(&RingConfig {
        entries: 8,
        cq_entries: 64,
        buffers: 2,
        buffer_bytes: 64,
        connections_max: 1,
        ..RingConfig::default()
    })
    .map_err(|error| DiskError {
        kind: DiskErrorKind::Refused,
        op: "probe",
        path: path.to_path_buf(),
        detail: error.to_string(),
    })?;
    let mut dsync = Trial::open(path, Durability::Dsync)?;
    let mut datasync = Trial::open(path, Durability::WriteDatasync)?;
    let began = Instant::now();
    // By turns, so that what else the disk is at (writing these zeros, say) slows both alike.
    while began.elapsed() < 2 * budget && dsync.times.len() < PROBE_SAMPLES_MAX
        || dsync.times.len() < PROBE_SAMPLES_MIN
    {
        for trial in [&mut dsync, &mut datasync] {
            for _ in 0..PROBE_TURN {
                trial.write(path, &mut ring)?;
            }
        }
    }
    let (mut dsync, mut datasync) = (dsync.times, datasync.times);
    let samples = dsync.len() + datasync.len();
    let (dsync_p50, datasync_p50) = (median(&mut dsync), median(&mut datasync));
    Ok(DurabilityReport {
        mode: choice(dsync_p50, datasync_p50),
        dsync_p50,
        datasync_p50,
        samples,
    })
}

/// `O_DSYNC`, unless a sync is faster by more than a quarter. What is measured is a lone write; under
/// load a sync costs more, for each takes a thread of the kernel's that needs the core's CPU. Where
/// the device makes a difference it is one of several times.
fn choice(dsync: Duration, datasync: Duration) -> Durability {
    match dsync * 3 / 4 <= datasync {
        true => Durability::Dsync,
        false => Durability::WriteDatasync,
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// One mode, and how long its writes took.
struct Trial {
    mode: Durability,
    fd: Rc<OwnedFd>,
    times: Vec<Duration>,
}

impl Trial {
    fn open(path: &Path, mode: Durability) -> Result<Self, DiskError> {
        let flags = match mode {
            Durability::Dsync => libc::O_DIRECT | libc::O_DSYNC,
            Durability::WriteDatasync => libc::O_DIRECT,
        };
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(|error| open_failed(path, &error))?;
        Ok(Self {
            mode,
            fd: Rc::new(OwnedFd::from(file)),
            times: Vec::new(),
        })
    }

    fn write(&mut self, path: &Path, ring: &mut Ring) -> Result<(), DiskError> {
        // Aligned within a longer vector, whose block stays where it is.
        let block = Block::new();
        let start = Instant::now();
        ring.file(
            0,
            FileOp::Write {
                fd: Rc::clone(&self.fd),
                offset: (self.times.len() * BLOCK % PROBE_BYTES) as u64,
                buf: Box::new(block),
                len: BLOCK,
                datasync: self.mode == Durability::WriteDatasync,
            },
        );
        finished(path, ring)?;
        self.times.push(start.elapsed());
        Ok(())
    }
}

/// Waits for the one write under way.
fn finished(path: &Path, ring: &mut Ring) -> Result<(), DiskError> {
    loop {
        ring.wait(Duration::from_secs(1))
            .map_err(|error| DiskError {
                kind: DiskErrorKind::Io,
                op: "probe",
                path: path.to_path_buf(),
                detail: error.to_string(),
            })?;
        while let Some(event) = ring.next_event() {
            let Event::FileDone { result, .. } = event else {
                continue;
            };
            let errno = match result {
                Ok(FileOutcome::Bytes(BLOCK)) => return Ok(()),
                Ok(_) => libc::EIO,
                Err(errno) => errno,
            };
            let error = io::Error::from_raw_os_error(errno);
            return Err(DiskError::from_io("write", path, &error));
        }
    }
}

fn open_failed(path: &Path, error: &io::Error) -> DiskError {
    if error.raw_os_error() == Some(libc::EINVAL) {
        return DiskError {
            kind: DiskErrorKind::Refused,
            op: "open",
            path: path.to_path_buf(),
            detail: "the file system has no direct I/O (O_DIRECT); use ext4 or xfs on a local disk"
                .to_owned(),
        };
    }
    DiskError::from_io("open", path, error)
}

/// One aligned block.
struct Block {
    memory: Vec<u8>,
    skip: usize,
}

impl Block {
    fn new() -> Self {
        let memory = vec![0; 2 * BLOCK];
        let skip = memory.as_ptr().align_offset(BLOCK);
        Self { memory, skip }
    }
}

// SAFETY: points into a vector's heap block, which does not move with the value and of which the
// value is the only owner; `skip + BLOCK` is within its length.
unsafe impl ringbolt_ring::FileBuf for Block {
    fn addr(&mut self) -> *mut u8 {
        self.memory[self.skip..].as_mut_ptr()
    }
    fn len(&self) -> usize {
        BLOCK
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

/// io_uring is of no use here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {remedy}")]
pub struct UringUnavailable {
    /// Why, as far as can be told.
    pub reason: String,
    /// What to change.
    pub remedy: String,
}

/// Whether rings as the server needs them can be made. Cheap; makes one and drops it.
///
/// # Errors
///
/// The reason and the remedy.
pub fn io_uring() -> Result<(), UringUnavailable> {
    // On a thread of its own: the ring belongs to the thread that makes it.
    let made = std::thread::spawn(|| {
        Ring::new(&RingConfig {
            entries: 8,
            cq_entries: 64,
            buffers: 2,
            buffer_bytes: 64,
            connections_max: 1,
            ..RingConfig::default()
        })
        .map(drop)
    })
    .join();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(UringUnavailable {
            reason: "the io_uring probe panicked".to_owned(),
            remedy: "report this as a bug".to_owned(),
        }),
    }
}

fn explain(error: &RingError) -> UringUnavailable {
    let said = |reason: &str, remedy: &str| UringUnavailable {
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    };
    let errno = match error {
        RingError::Unavailable(error) | RingError::Memory(error) | RingError::Failed(error) => {
            error.raw_os_error()
        }
        RingError::Config { .. } => None,
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.as_deref().map_or("0", str::trim);
    match errno {
        Some(libc::EPERM | libc::EACCES) if disabled == "2" => said(
            "io_uring is switched off on this host (kernel.io_uring_disabled = 2)",
            "set it to 0: sysctl -w kernel.io_uring_disabled=0",
        ),
        Some(libc::EPERM | libc::EACCES) if disabled == "1" => said(
            "io_uring is only for a privileged group on this host (kernel.io_uring_disabled = 1)",
            "set it to 0, or add the user to the group of kernel.io_uring_group",
        ),
        Some(libc::EPERM | libc::EACCES) => said(
            "io_uring is forbidden, probably by the container's seccomp profile",
            "allow io_uring_setup, io_uring_enter and io_uring_register (Docker: \
             --security-opt seccomp=unconfined or a profile of your own)",
        ),
        Some(libc::ENOSYS) => said(
            "this kernel has no io_uring, or a sandbox hides it",
            "use Linux 6.1 or newer, not under gVisor",
        ),
        Some(libc::EINVAL) | None => said(
            "this kernel's io_uring is too old",
            "use Linux 6.1 or newer",
        ),
        Some(libc::ENOMEM) => said(
            "too little memory may be locked for io_uring",
            "raise the limit: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
        ),
        Some(libc::EMFILE | libc::ENFILE) => said(
            "no file descriptor is left for io_uring",
            "raise the limit: ulimit -n 65536, or LimitNOFILE=65536 in the unit",
        ),
        Some(_) => UringUnavailable {
            reason: error.to_string(),
            remedy: "look into the kernel's log".to_owned(),
        },
    }
}

/// The limit on locked memory and what the server takes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLock {
    /// The soft limit in bytes; `u64::MAX` is no limit.
    pub limit: u64,
    /// What the cores may lock together, in bytes: on kernels that count it, the memory that each
    /// executor registers on its three rings. Twice that is wise, since the memory of a process
    /// that has just ended may still be counted.
    pub needed: u64,
}

impl MemoryLock {
    /// Whether the limit is enough.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.limit >= self.needed
    }
}

/// Executor memory that is registered, in bytes: 64 KiB on three rings.
const LOCKED_BYTES_PER_CORE: u64 = 3 * (64 << 10);

/// The locked-memory preflight for this many cores.
#[must_use]
pub fn memory_lock(cores: usize) -> MemoryLock {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live struct of the type that is filled in.
    let limit = match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } {
        0 => limit.rlim_cur,
        _ => libc::RLIM_INFINITY,
    };
    MemoryLock {
        limit,
        needed: cores as u64 * LOCKED_BYTES_PER_CORE,
    }
}

/// What direct I/O on a file must be aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Alignment of memory in bytes; 0 means that the file takes no direct I/O.
    pub memory: u32,
    /// Alignment of offset and length in bytes.
    pub offset: u32,
}

impl DirectAlignment {
    /// Whether the engine's 4,096-byte sectors satisfy it.
    #[must_use]
    pub fn suits_engine(&self) -> bool {
        let fits = |align: u32| align != 0 && 4096 % align == 0;
        fits(self.memory) && fits(self.offset)
    }
}

/// Asks the file system (`STATX_DIOALIGN`) about a regular file. `None` if it does not say.
///
/// # Errors
///
/// The disk's.
pub fn direct_alignment(file: &Path) -> Result<Option<DirectAlignment>, DiskError> {
    let fail = |error: io::Error| DiskError::from_io("statx", file, &error);
    let path = CString::new(file.as_os_str().as_bytes())
        .map_err(|_| fail(io::Error::from_raw_os_error(libc::EINVAL)))?;
    // SAFETY: an all-zero `statx` is a valid value of that plain struct.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a live C string and `stat` a live struct of the type that is filled in.
    let done = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    if done < 0 {
        return Err(fail(io::Error::last_os_error()));
    }
    if stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(None);
    }
    Ok(Some(DirectAlignment {
        memory: stat.stx_dio_mem_align,
        offset: stat.stx_dio_offset_align,
    }))
}

fn statfs(path: &Path) -> Result<libc::statfs, DiskError> {
    let fail = |error: io::Error| DiskError::from_io("statfs", path, &error);
    let directory = File::open(path).map_err(fail)?;
    // SAFETY: an all-zero `statfs` is a valid value of that plain struct.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `stat` a live struct of the type that is filled in.
    if unsafe { libc::fstatfs(directory.as_raw_fd(), &raw mut stat) } < 0 {
        return Err(fail(io::Error::last_os_error()));
    }
    Ok(stat)
}

/// Bytes that an unprivileged process can still write on the file system of `path`.
///
/// # Errors
///
/// The disk's.
pub fn free_bytes(path: &Path) -> Result<u64, DiskError> {
    let stat = statfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs()))
}

/// Refuses file systems that lose everything with the power: tmpfs and ramfs.
///
/// # Errors
///
/// `Refused` with what to do instead, or the disk's own.
pub fn refuse_memory_file_system(dir: &Path) -> Result<(), DiskError> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    if [TMPFS, RAMFS].contains(&statfs(dir)?.f_type) {
        return Err(DiskError {
            kind: DiskErrorKind::Refused,
            op: "check",
            path: dir.to_path_buf(),
            detail: "this file system lives in memory and loses its data with the power; put the \
                     data folder on a disk (ext4 or xfs)"
                .to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_must_be_faster_by_far() {
        let us = Duration::from_micros;
        assert_eq!(choice(us(100), us(104)), Durability::Dsync);
        assert_eq!(choice(us(100), us(80)), Durability::Dsync);
        assert_eq!(choice(us(100), us(74)), Durability::WriteDatasync);
        assert_eq!(choice(us(2500), us(150)), Durability::WriteDatasync);
    }
}
