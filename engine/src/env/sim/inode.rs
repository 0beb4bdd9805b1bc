//! One simulated file: what reads see, what is on the medium, and what lies between the two.
//!
//! Each sector written but not yet synced keeps all its versions since the medium's. A power cut
//! chooses among them sector by sector, which yields lost, kept, reordered and (by mixing two
//! versions in pieces of 512 bytes) torn writes.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::fault::{Counts, Fault};
use super::rng::Rng;
use crate::env::SECTOR;

/// The smallest piece of a sector that a device writes whole.
const PIECE: usize = 512;

/// A sector's content; `None` where it was never written and reads as zeros.
pub(super) type Content = Option<Rc<[u8; SECTOR]>>;

/// What has happened to a sector behind the file system's back.
#[derive(Clone)]
pub(super) enum Damage {
    /// It reads as these bytes.
    Bytes(Content),
    /// It cannot be read.
    Unreadable,
}

#[derive(Clone)]
struct Version {
    stamp: u64,
    content: Content,
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy)]
pub(super) enum Cut {
    /// Nothing of it is there.
    LoseAll,
    /// All of it is there.
    KeepAll,
    /// What was done up to this stamp is there.
    UpTo(u64),
    /// Each sector, name and length decides for itself.
    Independent,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) len: u64,
    view: Vec<Content>,
    durable_len: u64,
    durable: Vec<Content>,
    dirty: BTreeMap<usize, Vec<Version>>,
    lens: Vec<(u64, u64)>,
    pub(super) damage: BTreeMap<usize, Damage>,
    /// Every write and sync fails.
    pub(super) broken: bool,
    pub(super) handles: u32,
}

impl Inode {
    /// Bytes that this file takes from the disk.
    pub(super) fn allocated(&self) -> u64 {
        (self.view.iter().filter(|s| s.is_some()).count() * SECTOR) as u64
    }

    /// Bytes that writing these sectors would take on top.
    pub(super) fn would_allocate(&self, first: usize, count: usize) -> u64 {
        let new = (first..first + count).filter(|&i| self.content(i).is_none());
        (new.count() * SECTOR) as u64
    }

    fn content(&self, sector: usize) -> &Content {
        self.view.get(sector).unwrap_or(&None)
    }

    /// The sectors that hold something.
    pub(super) fn written_sectors(&self) -> Vec<usize> {
        let written = |&i: &usize| self.view.get(i).is_some_and(Option::is_some);
        (0..self.view.len()).filter(written).collect()
    }

    /// What a read of this sector gives; `Err` if it cannot be read.
    pub(super) fn read_sector(&self, sector: usize) -> Result<Content, ()> {
        match self.damage.get(&sector) {
            Some(Damage::Unreadable) => Err(()),
            Some(Damage::Bytes(content)) => Ok(content.clone()),
            None => Ok(self.content(sector).clone()),
        }
    }

    /// Up to `len` bytes at `offset` as a read sees them.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, ()> {
        let end = self.len.min(offset.saturating_add(len as u64));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let within = (at % SECTOR as u64) as usize;
            let take = (SECTOR - within).min((end - at) as usize);
            match self.read_sector((at / SECTOR as u64) as usize)? {
                Some(content) => bytes.extend_from_slice(&content[within..within + take]),
                None => bytes.resize(bytes.len() + take, 0),
            }
            at += take as u64;
        }
        Ok(bytes)
    }

    /// Writes one sector. `durable`: it is on the medium when this returns.
    pub(super) fn write_sector(
        &mut self,
        sector: usize,
        content: Content,
        stamp: u64,
        durable: bool,
    ) {
        self.damage.remove(&sector);
        put(&mut self.view, sector, content.clone());
        let end = (sector as u64 + 1) * SECTOR as u64;
        if durable {
            put(&mut self.durable, sector, content);
            self.dirty.remove(&sector);
            self.durable_len = self.durable_len.max(end);
            // A length noted before this write can no longer be what a cut or a sync leaves.
            let durable_len = self.durable_len;
            self.lens.retain(|&(_, len)| len > durable_len);
        } else {
            self.note_version(sector, content, stamp);
        }
        if end > self.len {
            self.len = end;
            if !durable {
                self.lens.push((stamp, end));
            }
        }
    }

    fn note_version(&mut self, sector: usize, content: Content, stamp: u64) {
        let versions = self.dirty.entry(sector).or_default();
        versions.push(Version { stamp, content });
    }

    /// Makes what sectors read as their content, also on the medium. Those that cannot be read stay
    /// so.
    pub(super) fn settle(&mut self, stamp: u64) {
        for (sector, damage) in std::mem::take(&mut self.damage) {
            match damage {
                Damage::Bytes(content) => self.write_sector(sector, content, stamp, true),
                Damage::Unreadable => {
                    self.damage.insert(sector, damage);
                }
            }
        }
    }

    pub(super) fn set_len(&mut self, len: u64, stamp: u64) {
        if len < self.len {
            let first_gone = len.div_ceil(SECTOR as u64) as usize;
            for sector in first_gone..self.view.len() {
                if self.view[sector].is_some() {
                    self.note_version(sector, None, stamp);
                }
                self.damage.remove(&sector);
            }
            self.view.truncate(first_gone);
            let within = (len % SECTOR as u64) as usize;
            if within != 0
                && let Some(Some(content)) = self.view.get(first_gone - 1)
            {
                let mut zeroed = **content;
                zeroed[within..].fill(0);
                let zeroed = Some(Rc::new(zeroed));
                put(&mut self.view, first_gone - 1, zeroed.clone());
                self.note_version(first_gone - 1, zeroed, stamp);
            }
        }
        if len != self.len {
            self.len = len;
            self.lens.push((stamp, len));
        }
    }

    /// Makes everything up to `stamp` durable. With `failing`, each sector may instead be dropped
    /// for good, and no later sync brings it back.
    pub(super) fn sync(&mut self, stamp: u64, failing: Option<&mut Rng>) {
        let mut failing = failing;
        let durable = &mut self.durable;
        self.dirty.retain(|&sector, versions| {
            let upto = versions.partition_point(|v| v.stamp <= stamp);
            let last = versions.drain(..upto).next_back();
            if let Some(version) = last {
                let dropped = failing.as_mut().is_some_and(|rng| rng.one_in(2));
                if !dropped {
                    put(durable, sector, version.content);
                }
            }
            !versions.is_empty()
        });
        let upto = self.lens.partition_point(|&(at, _)| at <= stamp);
        if let Some((_, len)) = self.lens.drain(..upto).next_back() {
            let dropped = failing.as_mut().is_some_and(|rng| rng.one_in(2));
            if !dropped {
                self.durable_len = len;
            }
        }
    }

    /// Decides what of the unsynced is there after a power cut. The file then reads so.
    pub(super) fn power_cut(&mut self, cut: Cut, rng: &mut Rng, counts: &mut Counts) {
        let mut newest_kept = 0;
        let mut oldest_lost = u64::MAX;
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let before = self.durable.get(sector).cloned().unwrap_or(None);
            let kept = match cut {
                Cut::LoseAll => 0,
                Cut::KeepAll => versions.len(),
                Cut::UpTo(stamp) => versions.partition_point(|v| v.stamp <= stamp),
                Cut::Independent => rng.index(versions.len() + 1),
            };
            if let Some(lost) = versions.get(kept) {
                counts.add(Fault::SectorLost);
                oldest_lost = oldest_lost.min(lost.stamp);
            }
            let mut content = before.clone();
            if let Some(version) = kept.checked_sub(1).and_then(|i| versions.get(i)) {
                counts.add(Fault::SectorKept);
                newest_kept = newest_kept.max(version.stamp);
                content = version.content.clone();
            }
            if matches!(cut, Cut::Independent | Cut::UpTo(_)) && rng.one_in(4) {
                let older = kept.checked_sub(2).and_then(|i| versions.get(i));
                let newer = versions.get(kept).or(older);
                let other = newer.map_or(before, |v| v.content.clone());
                content = tear(&content, &other, rng);
                counts.add(Fault::SectorTorn);
            }
            put(&mut self.durable, sector, content);
        }
        if oldest_lost < newest_kept {
            counts.add(Fault::Reordered);
        }
        let kept = match cut {
            Cut::LoseAll => 0,
            Cut::KeepAll => self.lens.len(),
            Cut::UpTo(stamp) => self.lens.partition_point(|&(at, _)| at <= stamp),
            Cut::Independent => rng.index(self.lens.len() + 1),
        };
        if kept < self.lens.len() {
            counts.add(Fault::LengthLost);
        }
        if let Some(&(_, len)) = kept.checked_sub(1).and_then(|i| self.lens.get(i)) {
            self.durable_len = len;
        }
        self.lens.clear();
        self.len = self.durable_len;
        self.durable
            .truncate(self.len.div_ceil(SECTOR as u64) as usize);
        self.view = self.durable.clone();
        self.handles = 0;
    }
}

fn put(sectors: &mut Vec<Content>, at: usize, content: Content) {
    if at >= sectors.len() {
        sectors.resize(at + 1, None);
    }
    sectors[at] = content;
}

/// Each piece from one of the two.
fn tear(one: &Content, other: &Content, rng: &mut Rng) -> Content {
    let mut torn = one.as_deref().copied().unwrap_or([0; SECTOR]);
    let other = other.as_deref().copied().unwrap_or([0; SECTOR]);
    for (to, from) in torn.chunks_mut(PIECE).zip(other.chunks(PIECE)) {
        if rng.one_in(2) {
            to.copy_from_slice(from);
        }
    }
    Some(Rc::new(torn))
}
