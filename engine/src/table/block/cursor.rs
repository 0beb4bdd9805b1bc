//! Walks the rows of one block, both ways.

use std::rc::Rc;

use super::rows::{Bound, Entry, Rows};
use super::{Block, RESTART_INTERVAL};

/// A position in a block, with the whole key of the entry it stands on.
#[derive(Default)]
pub struct BlockCursor {
    block: Option<Rc<Block>>,
    at: usize,
    restart: usize,
    entry: Option<Entry>,
    key: Vec<u8>,
    /// The entries of the restart's run up to the one it stands on, kept while it walks back.
    run: Vec<(usize, Entry, usize)>,
    run_keys: Vec<u8>,
}

/// The block contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

/// Turns a checked step into a result.
fn checked<T>(step: Option<T>) -> Result<T, Damaged> {
    step.ok_or(Damaged)
}

impl BlockCursor {
    /// Takes a block, standing nowhere in it.
    pub(in crate::table) fn enter(&mut self, block: Rc<Block>) {
        self.leave();
        self.block = Some(block);
    }

    /// Lets go of the block.
    pub(in crate::table) fn leave(&mut self) {
        self.block = None;
        self.entry = None;
        self.run.clear();
    }

    /// The block, if it has one.
    pub(in crate::table) fn block(&self) -> Option<&Rc<Block>> {
        self.block.as_ref()
    }

    /// The entry it stands on and the block's bytes.
    #[inline]
    pub(in crate::table) fn entry(&self) -> Option<(&Entry, &[u8])> {
        let (_, bytes) = self.block.as_ref()?.rows()?;
        Some((self.entry.as_ref()?, bytes))
    }

    /// The key it stands on.
    #[inline]
    pub(in crate::table) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Stands on the first entry at or after the target, or nowhere. Whether it stands.
    pub(in crate::table) fn seek(&mut self, key: &[u8], version: u64) -> Result<bool, Damaged> {
        let Some(block) = self.block.clone() else {
            return Ok(false);
        };
        let (rows, bytes) = checked(block.rows())?;
        self.run.clear();
        match checked(rows.lower_bound(bytes, key, version))? {
            Bound::At { at, restart, .. } => {
                self.stand(rows, bytes, restart, |here, _| here >= at)?;
                Ok(true)
            }
            Bound::End => {
                self.entry = None;
                Ok(false)
            }
        }
    }

    /// Stands on the first entry.
    pub(in crate::table) fn seek_first(&mut self) -> Result<bool, Damaged> {
        let Some(block) = self.block.clone() else {
            return Ok(false);
        };
        let (rows, bytes) = checked(block.rows())?;
        self.run.clear();
        self.stand(rows, bytes, 0, |_, _| true)?;
        Ok(true)
    }

    /// Stands on the last entry.
    pub(in crate::table) fn seek_last(&mut self) -> Result<bool, Damaged> {
        let Some(block) = self.block.clone() else {
            return Ok(false);
        };
        let (rows, bytes) = checked(block.rows())?;
        self.run.clear();
        let end = rows.entries_end;
        self.stand(rows, bytes, rows.restarts - 1, |_, next| next >= end)?;
        Ok(true)
    }

    /// Moves to the next entry. Whether it stands.
    #[inline]
    pub(in crate::table) fn next(&mut self) -> Result<bool, Damaged> {
        let (Some(block), Some(entry)) = (&self.block, &self.entry) else {
            return Ok(false);
        };
        let (rows, bytes) = checked(block.rows())?;
        if entry.end >= rows.entries_end {
            self.entry = None;
            return Ok(false);
        }
        let at = entry.end;
        if at >= checked(rows.run_end(bytes, self.restart))? {
            self.restart += 1;
            self.key.clear();
        }
        let next = checked(rows.entry(bytes, at))?;
        if next.shared > self.key.len() {
            return Err(Damaged);
        }
        self.key.truncate(next.shared);
        self.key.extend_from_slice(next.suffix(bytes));
        self.at = at;
        self.entry = Some(next);
        self.run.clear();
        Ok(true)
    }

    /// Moves to the entry before. Whether it stands.
    pub(in crate::table) fn prev(&mut self) -> Result<bool, Damaged> {
        let (Some(block), true) = (self.block.clone(), self.entry.is_some()) else {
            return Ok(false);
        };
        let (rows, bytes) = checked(block.rows())?;
        if self.at == 0 {
            self.entry = None;
            return Ok(false);
        }
        if self.run.is_empty() {
            let end = self.at;
            if checked(rows.restart(bytes, self.restart))? == self.at {
                self.restart = self.restart.checked_sub(1).ok_or(Damaged)?;
            }
            self.remember_run(rows, bytes, end)?;
        } else {
            self.run.pop();
        }
        let Some((at, entry, key_start)) = self.run.last().copied() else {
            // It stood on the run's first entry: the run before is next.
            return self.prev();
        };
        self.run_keys
            .truncate(key_start + entry.shared + (entry.value_at - entry.key_at));
        self.key.clear();
        self.key
            .extend_from_slice(checked(self.run_keys.get(key_start..))?);
        self.at = at;
        self.entry = Some(entry);
        Ok(true)
    }

    /// Decodes the restart's run up to `end`, with all keys.
    fn remember_run(&mut self, rows: &Rows, bytes: &[u8], end: usize) -> Result<(), Damaged> {
        self.run.clear();
        self.run_keys.clear();
        let mut at = checked(rows.restart(bytes, self.restart))?;
        let mut key_start = 0;
        while at < end {
            let entry = checked(rows.entry(bytes, at))?;
            let start = self.run_keys.len();
            if entry.shared > start - key_start || self.run.len() >= RESTART_INTERVAL {
                return Err(Damaged);
            }
            self.run_keys
                .extend_from_within(key_start..key_start + entry.shared);
            self.run_keys.extend_from_slice(entry.suffix(bytes));
            self.run.push((at, entry, start));
            key_start = start;
            at = entry.end;
        }
        if self.run.is_empty() {
            return Err(Damaged);
        }
        Ok(())
    }

    /// Decodes from a restart until `is_there(place, next place)`, building the key.
    fn stand(
        &mut self,
        rows: &Rows,
        bytes: &[u8],
        restart: usize,
        is_there: impl Fn(usize, usize) -> bool,
    ) -> Result<(), Damaged> {
        self.restart = restart;
        self.key.clear();
        self.entry = None;
        let mut at = checked(rows.restart(bytes, restart))?;
        loop {
            let entry = checked(rows.entry(bytes, at))?;
            if entry.shared > self.key.len() {
                return Err(Damaged);
            }
            self.key.truncate(entry.shared);
            self.key.extend_from_slice(entry.suffix(bytes));
            if is_there(at, entry.end) {
                self.at = at;
                self.entry = Some(entry);
                return Ok(());
            }
            at = entry.end;
        }
    }
}
