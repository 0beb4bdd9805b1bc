//! File requests: positioned reads and writes, syncs, and the few operations on names.
//!
//! A request owns its buffer and shares its descriptor until the kernel is done with them, so
//! neither can go while the device still works on them. Reads and writes that the kernel cuts short
//! are resumed here.
//!
//! A write with `datasync` is a write and an `fdatasync` linked behind it, of which exactly one
//! completes: a write that succeeds whole is silent (`CQE_SKIP_SUCCESS`), so the sync speaks for
//! both; a write that fails or is short breaks the link, speaks for itself, and silences the sync.
//! Then the rest of the write and the sync are sent again. So a durable write wakes the core once.

use std::any::Any;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use crate::Event;
use crate::ring::Ring;
use crate::token::{Op, encode, next_generation};

/// A buffer that a file request owns while the kernel works on it.
///
/// # Safety
///
/// `addr()` is valid for reads of `len()` initialised bytes until the value is dropped, stays the
/// same when the value is moved, and nobody writes the bytes meanwhile. A buffer given to
/// [`FileOp::Read`] is also valid for writes, and nobody else reads it meanwhile.
pub unsafe trait FileBuf: Any {
    /// The first byte.
    fn addr(&mut self) -> *mut u8;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The way back to the concrete type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

// SAFETY: a vector's heap block does not move with the vector, and the box gives sole access.
unsafe impl FileBuf for Vec<u8> {
    fn addr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
    fn len(&self) -> usize {
        self.as_slice().len()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl std::fmt::Debug for dyn FileBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileBuf({} bytes)", self.len())
    }
}

/// What to do with a file.
#[derive(Debug)]
pub enum FileOp {
    /// Reads up to `len` bytes at `offset` into the front of `buf`; fewer only at the end of file.
    Read {
        /// The file.
        fd: Rc<OwnedFd>,
        /// Where in the file, in bytes.
        offset: u64,
        /// Where to. At least `len` bytes.
        buf: Box<dyn FileBuf>,
        /// How much, in bytes, below 2 GiB.
        len: usize,
    },
    /// Writes the first `len` bytes of `buf` at `offset`, all of them or an error.
    Write {
        /// The file. With `O_DSYNC` the write is durable when it is done.
        fd: Rc<OwnedFd>,
        /// Where in the file, in bytes.
        offset: u64,
        /// Where from. At least `len` bytes.
        buf: Box<dyn FileBuf>,
        /// How much, in bytes, below 2 GiB.
        len: usize,
        /// Whether an `fdatasync` follows before the request is done.
        datasync: bool,
    },
    /// Makes content and length durable (`fdatasync`).
    Datasync {
        /// The file.
        fd: Rc<OwnedFd>,
    },
    /// Makes everything durable (`fsync`); for directories too.
    Sync {
        /// The file or directory.
        fd: Rc<OwnedFd>,
    },
    /// Sets the length. Needs Linux 6.9 ([`Ring::can_truncate`]).
    Truncate {
        /// The file.
        fd: Rc<OwnedFd>,
        /// Its new length in bytes.
        len: u64,
    },
    /// Opens or creates a file; `O_CLOEXEC` is added.
    Open {
        /// Its path.
        path: CString,
        /// `O_…` flags.
        flags: i32,
        /// Permissions of a file that is created.
        mode: u32,
    },
    /// Renames a file over whatever `to` is.
    Rename {
        /// The present path.
        from: CString,
        /// The path afterwards.
        to: CString,
    },
    /// Removes a name.
    Unlink {
        /// The path.
        path: CString,
    },
}

/// What a file request brought.
#[derive(Debug)]
pub enum FileOutcome {
    /// Bytes read or written.
    Bytes(usize),
    /// The opened file.
    Opened(OwnedFd),
    /// It is done.
    Done,
}

pub(crate) struct Slot {
    generation: u32,
    state: Option<State>,
}

struct State {
    token: u64,
    op: FileOp,
    /// Bytes read or written so far.
    done: usize,
    /// The first error.
    errno: i32,
    /// The kernel did a part, or was interrupted: the rest goes again.
    again: bool,
    opened: Option<OwnedFd>,
}

/// File requests with the kernel.
#[derive(Default)]
pub(crate) struct Files {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Files {
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

const LEN_MAX: usize = 0x7fff_f000;
/// Reads and writes of at most so many bytes go ahead of other requests: a block, or a group of the log, which
/// somebody waits for. Longer ones are background work's, and take longer to start.
const SHORT_BYTES_MAX: usize = 128 << 10;

impl Ring {
    /// Starts a file request; [`Event::FileDone`] with `token` follows, always. Requests are not
    /// ordered among each other.
    pub fn file(&mut self, token: u64, op: FileOp) {
        if let FileOp::Read { buf, len, .. } | FileOp::Write { buf, len, .. } = &op
            && (*len > buf.len() || *len > LEN_MAX)
        {
            let buf = into_buf(op);
            self.ready.push_back(Event::FileDone {
                token,
                result: Err(libc::EINVAL),
                buf,
            });
            return;
        }
        let state = State {
            token,
            op,
            done: 0,
            errno: 0,
            again: false,
            opened: None,
        };
        let slot = match self.files.free.pop() {
            Some(slot) => slot,
            None => {
                self.files.slots.push(Slot {
                    generation: 0,
                    state: None,
                });
                (self.files.slots.len() - 1) as u32
            }
        };
        self.files.slots[slot as usize].state = Some(state);
        self.start_file(slot);
    }

    /// File requests that are not done yet.
    #[must_use]
    pub fn files_in_flight(&self) -> usize {
        self.files.in_flight()
    }

    /// Whether [`FileOp::Truncate`] works on this kernel.
    #[must_use]
    pub fn can_truncate(&self) -> bool {
        self.truncate_supported
    }

    /// Queues what is left of a request.
    fn start_file(&mut self, slot: u32) {
        let entry = &mut self.files.slots[slot as usize];
        let user_data = encode(Op::File, slot, entry.generation);
        let sync_data = encode(Op::FileSync, slot, entry.generation);
        let Some(state) = entry.state.as_mut() else {
            return;
        };
        state.again = false;
        let done = state.done;
        let is_short = match &state.op {
            FileOp::Read { len, .. } | FileOp::Write { len, .. } => len - done <= SHORT_BYTES_MAX,
            _ => false,
        };
        let sqe = match &mut state.op {
            FileOp::Read {
                fd,
                offset,
                buf,
                len,
            } => {
                // `file` checked that `len` is at most the buffer's; `done` is at most `len`.
                let addr = buf.addr().wrapping_add(done);
                opcode::Read::new(raw(fd), addr, (*len - done) as u32)
                    .offset(*offset + done as u64)
                    .build()
            }
            FileOp::Write {
                fd,
                offset,
                buf,
                len,
                datasync,
            } => {
                let addr = buf.addr().wrapping_add(done);
                let write = opcode::Write::new(raw(fd), addr, (*len - done) as u32)
                    .offset(*offset + done as u64)
                    .build()
                    .user_data(user_data);
                if *datasync {
                    let sync = opcode::Fsync::new(raw(fd))
                        .flags(types::FsyncFlags::DATASYNC)
                        .build()
                        .user_data(sync_data);
                    let quiet = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
                    // The write completes only if it fails, and then the sync does not run.
                    self.push_write_and_sync([write.flags(quiet), sync], is_short);
                    return;
                }
                write
            }
            FileOp::Datasync { fd } => opcode::Fsync::new(raw(fd))
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            FileOp::Sync { fd } => opcode::Fsync::new(raw(fd)).build(),
            FileOp::Truncate { fd, len } => opcode::Ftruncate::new(raw(fd), *len).build(),
            // The paths live in the request, on the heap, until it is done.
            FileOp::Open { path, flags, mode } => {
                opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
                    .flags(*flags | libc::O_CLOEXEC)
                    .mode(*mode)
                    .build()
            }
            FileOp::Rename { from, to } => opcode::RenameAt::new(
                types::Fd(libc::AT_FDCWD),
                from.as_ptr(),
                types::Fd(libc::AT_FDCWD),
                to.as_ptr(),
            )
            .build(),
            FileOp::Unlink { path } => {
                opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build()
            }
        };
        match is_short {
            true => self.push_ahead(sqe.user_data(user_data)),
            false => self.push(sqe.user_data(user_data)),
        }
    }

    /// The completion of a request: of its operation, or of the sync behind a write.
    pub(crate) fn on_file(
        &mut self,
        slot: u32,
        generation: u32,
        is_sync: bool,
        result: i32,
    ) -> Option<Event> {
        let entry = self.files.slots.get_mut(slot as usize);
        let Some(entry) = entry.filter(|entry| entry.generation == generation) else {
            self.stats.strays += 1;
            return None;
        };
        let Some(state) = entry.state.as_mut() else {
            self.stats.strays += 1;
            return None;
        };
        state.take(is_sync, result);
        if state.again && state.errno == 0 {
            self.start_file(slot);
            return None;
        }
        let mut state = entry.state.take()?;
        entry.generation = next_generation(entry.generation);
        self.files.free.push(slot);
        self.stats.file_requests += 1;
        let result = match (state.errno, &state.op) {
            (0, FileOp::Read { .. } | FileOp::Write { .. }) => Ok(FileOutcome::Bytes(state.done)),
            (0, _) => Ok(match state.opened.take() {
                Some(fd) => FileOutcome::Opened(fd),
                None => FileOutcome::Done,
            }),
            (errno, _) => Err(errno),
        };
        Some(Event::FileDone {
            token: state.token,
            result,
            buf: into_buf(state.op),
        })
    }
}

impl State {
    /// Books one completion.
    fn take(&mut self, is_sync: bool, result: i32) {
        if is_sync {
            match (&self.op, result) {
                // Of whatever kind: a sync is never tried twice.
                (_, ..0) => self.fail(-result),
                (FileOp::Write { len, .. }, _) => self.done = *len,
                _ => {}
            }
            return;
        }
        let is_sync = matches!(self.op, FileOp::Datasync { .. } | FileOp::Sync { .. });
        if result == -libc::EINTR && !is_sync {
            self.again = true;
            return;
        }
        if result < 0 {
            self.fail(-result);
            return;
        }
        match &self.op {
            FileOp::Read { len, .. } => {
                let got = result as usize;
                self.done += got;
                // An unaligned count is the end of the file; direct reads cannot go on from there.
                self.again = got > 0 && self.done < *len && got.is_multiple_of(512);
            }
            FileOp::Write { len, .. } => {
                self.done += result as usize;
                if self.done < *len {
                    if result == 0 {
                        self.fail(libc::EIO);
                    } else {
                        self.again = true;
                    }
                }
            }
            FileOp::Open { .. } => {
                // SAFETY: the kernel just opened this descriptor for this request.
                self.opened = Some(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
            }
            _ => {}
        }
    }

    fn fail(&mut self, errno: i32) {
        if self.errno == 0 {
            self.errno = errno;
        }
    }
}

fn raw(fd: &Rc<OwnedFd>) -> types::Fd {
    types::Fd(fd.as_raw_fd())
}

fn into_buf(op: FileOp) -> Option<Box<dyn FileBuf>> {
    match op {
        FileOp::Read { buf, .. } | FileOp::Write { buf, .. } => Some(buf),
        _ => None,
    }
}
