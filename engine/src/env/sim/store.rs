//! What survives the simulated process: files, names, operations that were under way when it died,
//! and the settings and counts of faults.
//!
//! Every operation is first registered as under way, takes its time, and then has its effect. A
//! crash in between finds it in the table and decides how much of it was done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::fault::{Counts, Fault, FaultRule};
use super::inode::{Content, Cut, Damage, Inode};
use super::names::{NameChange, Names, Node};
use super::rng::Rng;
use crate::env::{DiskErrorKind, FileClass, SECTOR, TaskClass};

/// What a disk operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IoOp {
    /// `open`.
    Open,
    /// `create` or `create_dir_all`.
    Create,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `list`, `free_bytes` or `len`.
    Look,
    /// `sync_dir`.
    SyncDir,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `sync`.
    Sync,
    /// `set_len`.
    SetLen,
}

/// One disk operation, for choosing and describing crash points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoEvent {
    /// What it does.
    pub op: IoOp,
    /// The class of the file; `None` for names and directories.
    pub class: Option<FileClass>,
    /// The class of the task that asked for it.
    pub task: TaskClass,
    /// The file or directory.
    pub path: PathBuf,
}

/// Picks disk operations; `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct IoMatch {
    /// What it does.
    pub op: Option<IoOp>,
    /// The class of the file.
    pub class: Option<FileClass>,
    /// The class of the task.
    pub task: Option<TaskClass>,
    /// A part of the path.
    pub path_contains: Option<String>,
}

impl IoMatch {
    /// Whether the operation is one of those picked.
    #[must_use]
    pub fn matches(&self, event: &IoEvent) -> bool {
        self.op.is_none_or(|op| op == event.op)
            && self.class.is_none_or(|class| Some(class) == event.class)
            && self.task.is_none_or(|task| task == event.task)
            && self
                .path_contains
                .as_ref()
                .is_none_or(|part| event.path.to_string_lossy().contains(part.as_str()))
    }
}

/// The effect that an operation under way will have.
pub(super) enum Effect {
    None,
    Write {
        ino: u64,
        sector: usize,
        data: Vec<Content>,
        durable: bool,
    },
    SetLen {
        ino: u64,
        len: u64,
    },
    Name(NameChange),
}

/// Where a misdirected write fell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The file that it hit.
    pub path: PathBuf,
    /// The sectors of it that it destroyed; none where nothing had been written.
    pub sectors: Vec<usize>,
}

struct InFlight {
    event: IoEvent,
    effect: Effect,
}

/// A failure without its file, which the caller knows.
pub(super) type Failure = (DiskErrorKind, &'static str);

const EIO: Failure = (DiskErrorKind::Io, "injected I/O error");
const ENOSPC: Failure = (
    DiskErrorKind::NoSpace,
    "no space left on the simulated disk",
);

pub(super) struct State {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) names: Names,
    in_flight: BTreeMap<u64, InFlight>,
    next_ino: u64,
    stamp: u64,
    zero: Rc<[u8; SECTOR]>,
    capacity: u64,
    rules: Vec<FaultRule>,
    pub(super) rng: Rng,
    counts: Counts,
    /// Where misdirected writes fell.
    pub(super) strays: Vec<Stray>,
    crash_at: Option<(IoMatch, u64)>,
    /// Raised by each crash, so that handles of an earlier life are not counted.
    pub(super) life: u64,
}

impl State {
    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    pub(super) fn new_inode(&mut self) -> u64 {
        self.next_ino += 1;
        self.inodes.insert(self.next_ino, Inode::default());
        self.next_ino
    }

    /// Splits a buffer into sectors; all-zero ones share one allocation.
    pub(super) fn sectors(&self, bytes: &[u8]) -> Vec<Content> {
        bytes
            .chunks_exact(SECTOR)
            .map(|chunk| {
                if chunk == &self.zero[..] {
                    return Some(self.zero.clone());
                }
                let mut sector = [0; SECTOR];
                sector.copy_from_slice(chunk);
                Some(Rc::new(sector))
            })
            .collect()
    }

    /// Registers an operation. Returns its number and whether the machine is to crash around it.
    pub(super) fn begin(&mut self, event: IoEvent, effect: Effect) -> (u64, bool) {
        let crash = match &mut self.crash_at {
            Some((wanted, left)) if wanted.matches(&event) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            _ => false,
        };
        if crash {
            self.crash_at = None;
        }
        let id = self.next_stamp();
        self.in_flight.insert(id, InFlight { event, effect });
        (id, crash)
    }

    /// The operation is over: its effect is the caller's to apply.
    pub(super) fn end(&mut self, id: u64) -> Effect {
        self.in_flight
            .remove(&id)
            .map_or(Effect::None, |op| op.effect)
    }

    /// The first rule that strikes, counted.
    pub(super) fn strike(&mut self, kinds: &[Fault], class: Option<FileClass>) -> Option<Fault> {
        for rule in &mut self.rules {
            let applies = rule.at_most > 0
                && kinds.contains(&rule.fault)
                && (rule.class.is_none() || rule.class == class);
            if applies && self.rng.one_in(rule.one_in) {
                rule.at_most -= 1;
                self.counts.add(rule.fault);
                return Some(rule.fault);
            }
        }
        None
    }

    /// Bytes taken by the files that are named or open.
    fn used(&self) -> u64 {
        let named = self.names.named();
        self.inodes
            .iter()
            .filter(|(ino, inode)| inode.handles > 0 || named.contains(ino))
            .map(|(_, inode)| inode.allocated())
            .sum()
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    /// Whether a file of no bytes can still be created.
    pub(super) fn room_for_a_name(&mut self) -> Result<(), Failure> {
        if self.free() < SECTOR as u64 {
            self.counts.add(Fault::NoSpace);
            return Err(ENOSPC);
        }
        Ok(())
    }

    /// Ends a write: with whatever fault was decided for it.
    pub(super) fn finish_write(&mut self, id: u64, fault: Option<Fault>) -> Result<(), Failure> {
        let Effect::Write {
            ino,
            sector,
            data,
            durable,
        } = self.end(id)
        else {
            return Err(EIO);
        };
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return Err(EIO);
        };
        if inode.broken {
            return Err(EIO);
        }
        let needed = inode.would_allocate(sector, data.len());
        let short = needed > 0 && needed > self.free();
        if short {
            self.counts.add(Fault::NoSpace);
        }
        match fault {
            Some(Fault::WriteError | Fault::WriteErrorSticky) => {
                if !short {
                    self.write_some(ino, sector, &data, durable);
                }
                if let Some(inode) = self.inodes.get_mut(&ino) {
                    inode.broken = matches!(fault, Some(Fault::WriteErrorSticky));
                }
                return Err(EIO);
            }
            Some(Fault::NoSpace) => {
                if !short {
                    let whole = self.rng.index(data.len());
                    self.write_all(ino, sector, &data[..whole], durable);
                }
                return Err(ENOSPC);
            }
            _ if short => return Err(ENOSPC),
            _ => {}
        }
        let before: Vec<Content> = match self.inodes.get(&ino) {
            Some(inode) => (sector..sector + data.len())
                .map(|i| inode.read_sector(i).unwrap_or(None))
                .collect(),
            None => Vec::new(),
        };
        self.write_all(ino, sector, &data, durable);
        if matches!(fault, Some(Fault::LostWrite | Fault::MisdirectedWrite)) {
            if matches!(fault, Some(Fault::MisdirectedWrite)) {
                self.misdirect(ino, sector, &data);
            }
            if let Some(inode) = self.inodes.get_mut(&ino) {
                for (i, old) in before.into_iter().enumerate() {
                    inode.damage.insert(sector + i, Damage::Bytes(old));
                }
            }
        }
        Ok(())
    }

    fn write_all(&mut self, ino: u64, sector: usize, data: &[Content], durable: bool) {
        let stamp = self.next_stamp();
        if let Some(inode) = self.inodes.get_mut(&ino) {
            for (i, content) in data.iter().enumerate() {
                inode.write_sector(sector + i, content.clone(), stamp, durable);
            }
        }
    }

    /// Any part of a write: each sector done or not.
    fn write_some(&mut self, ino: u64, sector: usize, data: &[Content], durable: bool) {
        let stamp = self.next_stamp();
        if let Some(inode) = self.inodes.get_mut(&ino) {
            for (i, content) in data.iter().enumerate() {
                if self.rng.one_in(2) {
                    let durable = durable && self.rng.one_in(2);
                    inode.write_sector(sector + i, content.clone(), stamp, durable);
                }
            }
        }
    }

    /// Puts the data over somebody else's sectors.
    fn misdirect(&mut self, ino: u64, sector: usize, data: &[Content]) {
        let mut victims: Vec<(PathBuf, u64)> = self
            .names
            .files()
            .map(|(path, ino)| (path.clone(), ino))
            .collect();
        victims.retain(|(_, victim)| {
            let inode = self.inodes.get(victim);
            inode.is_some_and(|inode| inode.allocated() > 0)
        });
        if victims.is_empty() {
            return;
        }
        let at = self.rng.index(victims.len());
        let (path, victim) = victims.swap_remove(at);
        let Some(inode) = self.inodes.get_mut(&victim) else {
            return;
        };
        let written = inode.written_sectors();
        let start = written[self.rng.index(written.len())];
        let mut sectors = Vec::new();
        for (i, content) in data.iter().enumerate() {
            let at = start + i;
            let own = victim == ino && (sector..sector + data.len()).contains(&at);
            if written.binary_search(&at).is_ok() && !own {
                inode.damage.insert(at, Damage::Bytes(content.clone()));
                sectors.push(at);
            }
        }
        self.strays.push(Stray { path, sectors });
    }

    pub(super) fn finish_sync(
        &mut self,
        ino: u64,
        upto: u64,
        fault: Option<Fault>,
    ) -> Result<(), Failure> {
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return Err(EIO);
        };
        if inode.broken || fault.is_some() {
            inode.sync(upto, Some(&mut self.rng));
            return Err(EIO);
        }
        inode.sync(upto, None);
        Ok(())
    }

    /// Reads, with a fault decided for it. Sticky errors and flipped bits stay on the medium.
    pub(super) fn finish_read(
        &mut self,
        ino: u64,
        offset: u64,
        len: usize,
        fault: Option<Fault>,
    ) -> Result<Vec<u8>, Failure> {
        let first = (offset / SECTOR as u64) as usize;
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return Err(EIO);
        };
        let readable = inode.len.saturating_sub(offset).min(len as u64) as usize;
        let sectors = readable.div_ceil(SECTOR);
        match fault {
            Some(Fault::ReadError) => return Err(EIO),
            Some(Fault::ReadErrorSticky) if sectors > 0 => {
                let at = first + self.rng.index(sectors);
                inode.damage.insert(at, Damage::Unreadable);
            }
            Some(Fault::BitFlip) if readable > 0 => {
                let at = self.rng.index(readable);
                flip(inode, offset + at as u64, self.rng.below(8) as u32);
            }
            _ => {}
        }
        inode.read(offset, len).map_err(|()| EIO)
    }

    /// An operation whose future was dropped while it was under way: it was done, or not, or in
    /// part.
    pub(super) fn abandon(&mut self, id: u64) {
        let effect = self.end(id);
        if matches!(effect, Effect::Write { .. }) {
            self.counts.add(Fault::WriteCutShort);
        }
        match effect {
            Effect::Write {
                ino,
                sector,
                data,
                durable,
            } => match self.rng.below(3) {
                0 => {}
                1 => self.write_all(ino, sector, &data, durable),
                _ => self.write_some(ino, sector, &data, durable),
            },
            Effect::SetLen { ino, len } if self.rng.one_in(2) => {
                let stamp = self.next_stamp();
                if let Some(inode) = self.inodes.get_mut(&ino) {
                    inode.set_len(len, stamp);
                }
            }
            Effect::Name(change) if self.rng.one_in(2) => {
                let stamp = self.next_stamp();
                self.names.change(change, stamp);
            }
            _ => {}
        }
    }

    /// The process died; the machine did not.
    fn kill(&mut self) {
        self.counts.add(Fault::Kill);
        for id in self.in_flight.keys().copied().collect::<Vec<_>>() {
            self.abandon(id);
        }
        self.end_life();
    }

    /// The power went.
    fn power_cut(&mut self) {
        self.counts.add(Fault::PowerCut);
        let before = self.stamp;
        for (_, op) in std::mem::take(&mut self.in_flight) {
            let stamp = self.next_stamp();
            match op.effect {
                Effect::Write {
                    ino, sector, data, ..
                } => {
                    self.counts.add(Fault::WriteCutShort);
                    // As unsynced sectors, whatever the class: each is decided below.
                    if let Some(inode) = self.inodes.get_mut(&ino) {
                        for (i, content) in data.into_iter().enumerate() {
                            inode.write_sector(sector + i, content, stamp, false);
                        }
                    }
                }
                Effect::SetLen { ino, len } => {
                    if let Some(inode) = self.inodes.get_mut(&ino) {
                        inode.set_len(len, stamp);
                    }
                }
                Effect::Name(change) => self.names.change(change, stamp),
                Effect::None => {}
            }
        }
        let cut = match self.rng.below(6) {
            0 => Cut::LoseAll,
            1 => Cut::KeepAll,
            2 => Cut::UpTo(self.rng.between(before / 2, self.stamp)),
            _ => Cut::Independent,
        };
        self.names.power_cut(cut, &mut self.rng, &mut self.counts);
        for inode in self.inodes.values_mut() {
            inode.power_cut(cut, &mut self.rng, &mut self.counts);
        }
        self.end_life();
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.crash_at = None;
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
        }
        self.forget_unreachable();
    }

    /// Frees the files that neither a name, a handle nor a crash can lead to any more.
    pub(super) fn forget_unreachable(&mut self) {
        let mut reachable = self.names.named();
        reachable.extend(self.names.recoverable());
        for op in self.in_flight.values() {
            match &op.effect {
                Effect::Write { ino, .. } | Effect::SetLen { ino, .. } => {
                    reachable.insert(*ino);
                }
                Effect::Name(
                    NameChange::Add { node, .. }
                    | NameChange::Rename { node, .. }
                    | NameChange::Remove { node, .. },
                ) => {
                    if let Node::File(ino) = node {
                        reachable.insert(*ino);
                    }
                }
                Effect::None => {}
            }
        }
        self.inodes
            .retain(|ino, inode| inode.handles > 0 || reachable.contains(ino));
    }
}

fn flip(inode: &mut Inode, byte: u64, bit: u32) {
    let _unreadable = alter(inode, byte, 1, |bytes| bytes[0] ^= 1 << (bit % 8));
}

/// Alters what a range of a file reads as, one piece for each sector that it touches. Fails where it
/// cannot be read.
fn alter(
    inode: &mut Inode,
    offset: u64,
    len: usize,
    mut change: impl FnMut(&mut [u8]),
) -> Result<(), ()> {
    let end = offset + len as u64;
    let mut at = offset;
    while at < end {
        let sector = (at / SECTOR as u64) as usize;
        let from = (at % SECTOR as u64) as usize;
        let to = SECTOR.min(from + (end - at) as usize);
        let content = inode.read_sector(sector)?;
        let mut bytes = content.as_deref().copied().unwrap_or([0; SECTOR]);
        change(&mut bytes[from..to]);
        inode
            .damage
            .insert(sector, Damage::Bytes(Some(Rc::new(bytes))));
        at += (to - from) as u64;
    }
    Ok(())
}

/// The medium and its settings: a cheap handle, shared by the world and the disks of each life.
/// Everything here takes effect at once and takes no virtual time.
#[derive(Clone)]
pub struct SimStore(pub(super) Rc<RefCell<State>>);

impl SimStore {
    pub(super) fn new(capacity: u64, rules: Vec<FaultRule>, rng: Rng) -> Self {
        Self(Rc::new(RefCell::new(State {
            inodes: BTreeMap::new(),
            names: Names::default(),
            in_flight: BTreeMap::new(),
            next_ino: 0,
            stamp: 0,
            zero: Rc::new([0; SECTOR]),
            capacity,
            rules,
            rng,
            counts: Counts::default(),
            strays: Vec::new(),
            crash_at: None,
            life: 0,
        })))
    }

    /// Replaces the fault rules. An empty list injects nothing more.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        self.0.borrow_mut().rules = rules;
    }

    /// Sets how many bytes the disk holds. Below what is used, nothing more can be allocated.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// Bytes used by files that are named or open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.borrow().used()
    }

    /// The faults injected so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.borrow().counts.clone()
    }

    /// Where misdirected writes fell, in order; healing does not shorten it.
    #[must_use]
    pub fn strays(&self) -> Vec<Stray> {
        self.0.borrow().strays.clone()
    }

    /// Crashes around the `nth` operation (from 1) that matches: while it is under way. Cleared by
    /// any crash.
    pub fn crash_at_io(&self, which: IoMatch, nth: u64) {
        self.0.borrow_mut().crash_at = Some((which, nth.max(1)));
    }

    /// The operations under way; after a run that ended in a crash, those that it cut short.
    #[must_use]
    pub fn in_flight(&self) -> Vec<IoEvent> {
        let state = self.0.borrow();
        state
            .in_flight
            .values()
            .map(|op| op.event.clone())
            .collect()
    }

    /// Every file with its length in bytes, sorted by name.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.0.borrow();
        let len = |ino| state.inodes.get(&ino).map_or(0, |inode: &Inode| inode.len);
        state
            .names
            .files()
            .map(|(path, ino)| (path.clone(), len(ino)))
            .collect()
    }

    /// Flips one bit of a file on the medium until the sector is written again or healed. Returns
    /// whether the file has that byte.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u32) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(Node::File(ino)) = state.names.get(path) else {
            return false;
        };
        let Some(inode) = state.inodes.get_mut(&ino).filter(|inode| byte < inode.len) else {
            return false;
        };
        flip(inode, byte, bit);
        state.counts.add(Fault::BitFlip);
        true
    }

    /// Has two ranges of files of `len` bytes, each given by its file and first byte, read as each
    /// other until the sectors are written again or healed. They must not overlap. Returns whether
    /// both are there and readable.
    pub fn swap(&self, one: (&Path, u64), other: (&Path, u64), len: usize) -> bool {
        let mut state = self.0.borrow_mut();
        let content = |(path, offset): (&Path, u64)| {
            let Some(Node::File(ino)) = state.names.get(path) else {
                return None;
            };
            let bytes = state.inodes.get(&ino)?.read(offset, len).ok()?;
            (bytes.len() == len).then_some((ino, offset, bytes))
        };
        let (Some(one), Some(other)) = (content(one), content(other)) else {
            return false;
        };
        for ((ino, offset, _), (_, _, bytes)) in [(&one, &other), (&other, &one)] {
            let Some(inode) = state.inodes.get_mut(ino) else {
                return false;
            };
            let mut rest = &bytes[..];
            let altered = alter(inode, *offset, len, |piece| {
                let (front, back) = rest.split_at(piece.len());
                piece.copy_from_slice(front);
                rest = back;
            });
            if altered.is_err() {
                return false;
            }
        }
        state.counts.add(Fault::Swapped);
        true
    }

    /// Makes one sector of a file unreadable until it is written again or healed. Returns whether
    /// the file has that byte.
    pub fn make_unreadable(&self, path: &Path, byte: u64) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(Node::File(ino)) = state.names.get(path) else {
            return false;
        };
        let Some(inode) = state.inodes.get_mut(&ino).filter(|inode| byte < inode.len) else {
            return false;
        };
        let sector = (byte / SECTOR as u64) as usize;
        inode.damage.insert(sector, Damage::Unreadable);
        state.counts.add(Fault::ReadErrorSticky);
        true
    }

    /// Whether anything happened behind the back of a file whose name contains `part`.
    #[must_use]
    pub fn is_damaged(&self, part: &str) -> bool {
        let state = self.0.borrow();
        let mut files = state.names.files();
        files.any(|(path, ino)| {
            let inode = state.inodes.get(&ino);
            path.to_string_lossy().contains(part) && inode.is_some_and(|i| !i.damage.is_empty())
        })
    }

    /// Takes what files whose names contain `part` read as for what was written: [`SimStore::heal`]
    /// does not undo it any more.
    pub fn settle(&self, part: &str) {
        let mut state = self.0.borrow_mut();
        let files: Vec<_> = state
            .names
            .files()
            .map(|(p, ino)| (p.clone(), ino))
            .collect();
        let stamp = state.next_stamp();
        for (path, ino) in files {
            let Some(inode) = state.inodes.get_mut(&ino) else {
                continue;
            };
            if path.to_string_lossy().contains(part) {
                inode.settle(stamp);
            }
        }
    }

    /// Undoes what happened behind the file system's back: flipped bits, lost and misdirected
    /// writes, unreadable sectors, broken files. Returns how many sectors and files were damaged.
    pub fn heal(&self) -> usize {
        let mut state = self.0.borrow_mut();
        let mut healed = 0;
        for inode in state.inodes.values_mut() {
            healed += inode.damage.len() + usize::from(inode.broken);
            inode.damage.clear();
            inode.broken = false;
        }
        healed
    }

    /// Makes everything readable and writable again; what reads see wrongly stays as it is.
    pub fn mend(&self) {
        let mut state = self.0.borrow_mut();
        for inode in state.inodes.values_mut() {
            let is_unreadable = |damage: &Damage| matches!(damage, Damage::Unreadable);
            inode.damage.retain(|_, damage| !is_unreadable(damage));
            inode.broken = false;
        }
    }

    /// The whole content of a file as reads see it; `None` if it is not there or not readable.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        let Some(Node::File(ino)) = state.names.get(path) else {
            return None;
        };
        let inode = state.inodes.get(&ino)?;
        inode.read(0, inode.len as usize).ok()
    }

    pub(super) fn kill(&self) {
        self.0.borrow_mut().kill();
    }

    pub(super) fn power_cut(&self) {
        self.0.borrow_mut().power_cut();
    }
}
