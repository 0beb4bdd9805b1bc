//! The simulated disk as the engine sees it: each operation takes virtual time, may be struck by a
//! fault, and has its effect when it completes.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::executor::{Core, nanos};
use super::fault::Fault;
use super::names::{NameChange, Node};
use super::store::{Effect, Failure, IoEvent, IoOp, SimStore};
use super::{Latency, SimOptions};
use crate::env::{AlignedBuf, Disk, DiskError, DiskErrorKind, DiskFile, FileClass, SECTOR};

/// How much longer a struck operation takes.
const SPIKE_FACTOR: u64 = 500;
/// How long a write takes that hangs: longer than anything that is simulated.
const HANG_NS: u64 = 1_000_000_000 * 86_400;

/// The disk of one life of the simulated process.
#[derive(Clone)]
pub struct SimDisk {
    core: Rc<Core>,
    store: SimStore,
    latency: Latency,
}

/// An operation under way. Dropped unfinished while the process lives, it may or may not have
/// happened; dropped because the process dies, it is left for the crash to decide.
struct Running {
    core: Rc<Core>,
    store: SimStore,
    id: u64,
    ended: Cell<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended.get()
            && !self.core.is_dead()
            && let Ok(mut state) = self.store.0.try_borrow_mut()
        {
            state.abandon(self.id);
        }
    }
}

impl SimDisk {
    pub(super) fn new(core: Rc<Core>, store: SimStore, options: &SimOptions) -> Self {
        Self {
            core,
            store,
            latency: options.latency,
        }
    }

    /// The medium behind this disk.
    #[must_use]
    pub fn store(&self) -> &SimStore {
        &self.store
    }

    /// Registers an operation and lets its time pass. Returns the fault decided for it, if any.
    async fn run(
        &self,
        op: IoOp,
        class: Option<FileClass>,
        path: &Path,
        effect: Effect,
    ) -> (Running, Option<Fault>) {
        let event = IoEvent {
            op,
            class,
            task: self.core.running(),
            path: path.to_path_buf(),
        };
        let (kinds, base): (&[Fault], _) = match op {
            IoOp::Read => (
                &[Fault::ReadError, Fault::ReadErrorSticky, Fault::BitFlip],
                self.latency.read,
            ),
            IoOp::Write => (
                &[
                    Fault::WriteError,
                    Fault::WriteErrorSticky,
                    Fault::NoSpace,
                    Fault::LostWrite,
                    Fault::MisdirectedWrite,
                ],
                self.latency.write,
            ),
            IoOp::Sync | IoOp::SyncDir => (&[Fault::SyncError], self.latency.sync),
            IoOp::Look => (&[], self.latency.name),
            IoOp::Open | IoOp::Create | IoOp::Rename | IoOp::Remove | IoOp::SetLen => {
                (&[Fault::NameError], self.latency.name)
            }
        };
        let (running, fault, wait_ns) = {
            let mut state = self.store.0.borrow_mut();
            let (id, crash) = state.begin(event, effect);
            let base = nanos(base);
            let mut wait_ns = state.rng.between(base / 2, base.saturating_mul(3) / 2);
            if crash {
                // At once, or at any moment of the operation.
                let after = match state.rng.one_in(2) {
                    true => 0,
                    false => state.rng.below(wait_ns),
                };
                self.core.crash_at_ns(self.core.now_ns() + after);
            }
            let fault = state.strike(kinds, class);
            if state.strike(&[Fault::LatencySpike], class).is_some() {
                wait_ns = wait_ns.saturating_mul(SPIKE_FACTOR);
            }
            if op == IoOp::Write && state.strike(&[Fault::WriteHang], class).is_some() {
                wait_ns = HANG_NS;
            }
            let running = Running {
                core: self.core.clone(),
                store: self.store.clone(),
                id,
                ended: Cell::new(false),
            };
            (running, fault, wait_ns)
        };
        self.core.trace.event(
            || format!("{op:?} {} takes {wait_ns} ns, {fault:?}", path.display()),
            wait_ns ^ ((op as u64) << 56),
        );
        self.core.sleep(wait_ns).await;
        running.ended.set(true);
        (running, fault)
    }

    fn file(&self, ino: u64, path: &Path, class: FileClass, writable: bool) -> SimFile {
        let life = {
            let mut state = self.store.0.borrow_mut();
            if let Some(inode) = state.inodes.get_mut(&ino) {
                inode.handles += 1;
            }
            state.life
        };
        SimFile {
            handle: Rc::new(Handle {
                disk: self.clone(),
                ino,
                life,
                path: path.to_path_buf(),
                class,
                writable,
            }),
        }
    }
}

fn error(failure: Failure, op: &'static str, path: &Path) -> DiskError {
    DiskError {
        kind: failure.0,
        op,
        path: path.to_path_buf(),
        detail: failure.1.to_owned(),
    }
}

const NOT_FOUND: Failure = (DiskErrorKind::NotFound, "no such file or directory");
const EXISTS: Failure = (DiskErrorKind::AlreadyExists, "file exists");
const NAME_FAILED: Failure = (DiskErrorKind::Io, "injected I/O error");

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, class: FileClass) -> Result<SimFile, DiskError> {
        let (running, fault) = self.run(IoOp::Open, Some(class), path, Effect::None).await;
        let found = {
            let mut state = self.store.0.borrow_mut();
            state.end(running.id);
            state.names.get(path)
        };
        match found {
            _ if fault.is_some() => Err(error(NAME_FAILED, "open", path)),
            Some(Node::File(ino)) => Ok(self.file(ino, path, class, class != FileClass::Table)),
            _ => Err(error(NOT_FOUND, "open", path)),
        }
    }

    async fn create(&self, path: &Path, class: FileClass) -> Result<SimFile, DiskError> {
        // The name can be there after a crash even if this never returns.
        let ino = self.store.0.borrow_mut().new_inode();
        let change = NameChange::Add {
            path: path.to_path_buf(),
            node: Node::File(ino),
        };
        let checked = {
            let mut state = self.store.0.borrow_mut();
            if !state.names.parent_exists(path) {
                Err(NOT_FOUND)
            } else if state.names.get(path).is_some() {
                Err(EXISTS)
            } else {
                state.room_for_a_name()
            }
        };
        let effect = match checked {
            Ok(()) => Effect::Name(change.clone()),
            Err(_) => Effect::None,
        };
        let (running, fault) = self.run(IoOp::Create, Some(class), path, effect).await;
        {
            let mut state = self.store.0.borrow_mut();
            state.end(running.id);
            checked.map_err(|failure| error(failure, "create", path))?;
            if fault.is_some() {
                return Err(error(NAME_FAILED, "create", path));
            }
            if state.names.get(path).is_some() {
                return Err(error(EXISTS, "create", path));
            }
            let stamp = state.next_stamp();
            state.names.change(change, stamp);
        }
        Ok(self.file(ino, path, class, true))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let node = self.store.0.borrow().names.get(from);
        let Some(node @ Node::File(_)) = node else {
            return Err(error(NOT_FOUND, "rename", from));
        };
        let change = NameChange::Rename {
            from: from.to_path_buf(),
            to: to.to_path_buf(),
            node,
        };
        let (running, fault) = self
            .run(IoOp::Rename, None, to, Effect::Name(change.clone()))
            .await;
        let mut state = self.store.0.borrow_mut();
        state.end(running.id);
        if fault.is_some() {
            return Err(error(NAME_FAILED, "rename", from));
        }
        if state.names.get(from) != Some(node) || !state.names.parent_exists(to) {
            return Err(error(NOT_FOUND, "rename", from));
        }
        let stamp = state.next_stamp();
        state.names.change(change, stamp);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let node = self.store.0.borrow().names.get(path);
        let Some(node @ Node::File(_)) = node else {
            return Err(error(NOT_FOUND, "remove", path));
        };
        let change = NameChange::Remove {
            path: path.to_path_buf(),
            node,
        };
        let (running, fault) = self
            .run(IoOp::Remove, None, path, Effect::Name(change.clone()))
            .await;
        let mut state = self.store.0.borrow_mut();
        state.end(running.id);
        if fault.is_some() {
            return Err(error(NAME_FAILED, "remove", path));
        }
        if state.names.get(path) != Some(node) {
            return Err(error(NOT_FOUND, "remove", path));
        }
        let stamp = state.next_stamp();
        state.names.change(change, stamp);
        Ok(())
    }

    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        let (running, fault) = self.run(IoOp::Create, None, path, Effect::None).await;
        let mut state = self.store.0.borrow_mut();
        state.end(running.id);
        if fault.is_some() {
            return Err(error(NAME_FAILED, "create directory", path));
        }
        let mut missing: Vec<PathBuf> = Vec::new();
        for ancestor in path.ancestors() {
            match state.names.get(ancestor) {
                None => missing.push(ancestor.to_path_buf()),
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(error(EXISTS, "create directory", ancestor)),
            }
        }
        for dir in missing.into_iter().rev() {
            let stamp = state.next_stamp();
            let change = NameChange::Add {
                path: dir,
                node: Node::Dir,
            };
            state.names.change(change, stamp);
        }
        Ok(())
    }

    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        let (running, _) = self.run(IoOp::Look, None, path, Effect::None).await;
        let mut state = self.store.0.borrow_mut();
        state.end(running.id);
        if state.names.get(path) != Some(Node::Dir) {
            return Err(error(NOT_FOUND, "list", path));
        }
        Ok(state.names.list(path))
    }

    async fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        let upto = self.store.0.borrow().stamp();
        let (running, fault) = self.run(IoOp::SyncDir, None, path, Effect::None).await;
        let mut state = self.store.0.borrow_mut();
        state.end(running.id);
        if fault.is_some() {
            return Err(error(NAME_FAILED, "sync directory", path));
        }
        if state.names.get(path) != Some(Node::Dir) {
            return Err(error(NOT_FOUND, "sync directory", path));
        }
        state.names.sync_dir(path, upto);
        state.forget_unreachable();
        Ok(())
    }

    async fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        let (running, _) = self.run(IoOp::Look, None, path, Effect::None).await;
        let mut state = self.store.0.borrow_mut();
        state.end(running.id);
        Ok(state.free())
    }
}

struct Handle {
    disk: SimDisk,
    ino: u64,
    life: u64,
    path: PathBuf,
    class: FileClass,
    writable: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.store.0.try_borrow_mut()
            && state.life == self.life
            && let Some(inode) = state.inodes.get_mut(&self.ino)
        {
            inode.handles = inode.handles.saturating_sub(1);
            if inode.handles == 0 {
                state.forget_unreachable();
            }
        }
    }
}

/// An open simulated file. Clones share one handle.
#[derive(Clone)]
pub struct SimFile {
    handle: Rc<Handle>,
}

impl SimFile {
    fn error(&self, failure: Failure, op: &'static str) -> DiskError {
        error(failure, op, &self.handle.path)
    }

    async fn run(&self, op: IoOp, effect: Effect) -> (Running, Option<Fault>) {
        let handle = &self.handle;
        handle
            .disk
            .run(op, Some(handle.class), &handle.path, effect)
            .await
    }

    fn assert_writable(&self) {
        assert!(
            self.handle.writable,
            "{} was opened for reading only",
            self.handle.path.display()
        );
    }
}

/// Misaligned access is a fault of the caller that a real disk would refuse.
fn assert_aligned(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(SECTOR as u64) && len.is_multiple_of(SECTOR),
        "offset {offset} or length {len} is no multiple of {SECTOR}"
    );
}

impl DiskFile for SimFile {
    type ReadBuf = Vec<u8>;

    async fn len(&self) -> Result<u64, DiskError> {
        let (running, _) = self.run(IoOp::Look, Effect::None).await;
        let mut state = self.handle.disk.store.0.borrow_mut();
        state.end(running.id);
        Ok(state.inodes.get(&self.handle.ino).map_or(0, |i| i.len))
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        assert_aligned(offset, len);
        let (running, fault) = self.run(IoOp::Read, Effect::None).await;
        let mut state = self.handle.disk.store.0.borrow_mut();
        state.end(running.id);
        state
            .finish_read(self.handle.ino, offset, len, fault)
            .map_err(|failure| self.error(failure, "read"))
    }

    async fn write_at(&self, offset: u64, buf: AlignedBuf) -> (Result<(), DiskError>, AlignedBuf) {
        assert_aligned(offset, buf.len());
        self.assert_writable();
        let effect = Effect::Write {
            ino: self.handle.ino,
            sector: (offset / SECTOR as u64) as usize,
            data: self.handle.disk.store.0.borrow().sectors(&buf),
            durable: self.handle.class == FileClass::Log,
        };
        let (running, fault) = self.run(IoOp::Write, effect).await;
        let mut state = self.handle.disk.store.0.borrow_mut();
        let done = state
            .finish_write(running.id, fault)
            .map_err(|failure| self.error(failure, "write"));
        if fault == Some(Fault::MisdirectedWrite)
            && let Some(stray) = state.strays.last()
        {
            let word = stray.sectors.first().map_or(0, |&sector| sector as u64);
            let trace = &self.handle.disk.core.trace;
            trace.event(|| format!("it went to {stray:?}"), word);
        }
        (done, buf)
    }

    async fn sync(&self) -> Result<(), DiskError> {
        // Only what had completed before the call is covered.
        let upto = self.handle.disk.store.0.borrow().stamp();
        let (running, fault) = self.run(IoOp::Sync, Effect::None).await;
        let mut state = self.handle.disk.store.0.borrow_mut();
        state.end(running.id);
        state
            .finish_sync(self.handle.ino, upto, fault)
            .map_err(|failure| self.error(failure, "sync"))
    }

    async fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.assert_writable();
        let effect = Effect::SetLen {
            ino: self.handle.ino,
            len,
        };
        let (running, fault) = self.run(IoOp::SetLen, effect).await;
        let mut state = self.handle.disk.store.0.borrow_mut();
        state.end(running.id);
        if fault.is_some() {
            return Err(self.error(NAME_FAILED, "set length of"));
        }
        let stamp = state.next_stamp();
        if let Some(inode) = state.inodes.get_mut(&self.handle.ino) {
            inode.set_len(len, stamp);
        }
        Ok(())
    }
}
