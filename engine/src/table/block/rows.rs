//! Searches a block of rows. Believes nothing: every step is checked, and `None` means that the
//! block is damaged, although its checksum was right.

use super::writer::shared_len;
use super::{FLAG_CREATED, FLAG_DELETE, FLAG_EXPIRES, FLAG_LINK, RESTART_BYTES, ROWS_TAIL_BYTES};
use crate::row::{Cell, RowMeta};
use crate::table::varint;

/// The shape of a block of rows.
#[derive(Debug, Clone, Copy)]
pub(in crate::table) struct Rows {
    /// Where the entries end and the restart offsets begin.
    pub entries_end: usize,
    /// How many restarts there are, at least one.
    pub restarts: usize,
    shared: usize,
    base_version: u64,
    base_updated: u64,
}

/// One decoded entry. The places are those of the block it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::table) struct Entry {
    /// Key bytes shared with the entry before.
    pub shared: usize,
    /// Where the key's other bytes begin.
    pub key_at: usize,
    /// Where they end and the value begins.
    pub value_at: usize,
    /// Where the value ends and the next entry begins.
    pub end: usize,
    /// Version and times; the times of what is not a put are 0.
    pub meta: RowMeta,
    is_delete: bool,
}

impl Entry {
    #[inline]
    pub fn suffix<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.key_at..self.value_at).unwrap_or_default()
    }

    #[inline]
    pub fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.value_at..self.end).unwrap_or_default()
    }

    #[inline]
    pub fn cell<'b>(&self, bytes: &'b [u8]) -> Cell<'b> {
        if self.is_delete {
            return Cell::Delete {
                version: self.meta.version,
            };
        }
        Cell::Put {
            meta: self.meta,
            value: self.value(bytes),
        }
    }
}

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::table) enum Bound {
    /// The first entry at or after the target.
    At {
        /// The entry.
        entry: Entry,
        /// Where it begins.
        at: usize,
        /// The restart it was reached from.
        restart: usize,
        /// Whether its key is the target's.
        same_key: bool,
    },
    /// All entries are before the target.
    End,
}

impl Rows {
    /// Reads the shape; `None` if it contradicts itself.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let tail_at = bytes.len().checked_sub(ROWS_TAIL_BYTES)?;
        let tail = bytes.get(tail_at..)?;
        let restarts = u32_at(tail, 20)? as usize;
        let entries_end = tail_at.checked_sub(restarts.checked_mul(RESTART_BYTES)?)?;
        let rows = Self {
            entries_end,
            restarts,
            shared: u32_at(tail, 16)? as usize,
            base_version: u64_at(tail, 0)?,
            base_updated: u64_at(tail, 8)?,
        };
        if restarts == 0 || rows.restart(bytes, 0)? != 0 {
            return None;
        }
        let first = rows.entry(bytes, 0)?;
        (rows.shared <= first.suffix(bytes).len()).then_some(rows)
    }

    /// Where a restart's entry begins.
    #[inline]
    pub fn restart(&self, bytes: &[u8], index: usize) -> Option<usize> {
        let at = u32_at(bytes, self.entries_end + index * 4)? as usize;
        (index < self.restarts && at < self.entries_end).then_some(at)
    }

    /// The end of a restart's run of entries.
    #[inline]
    pub fn run_end(&self, bytes: &[u8], index: usize) -> Option<usize> {
        if index + 1 < self.restarts {
            self.restart(bytes, index + 1)
        } else {
            Some(self.entries_end)
        }
    }

    /// Decodes the entry that begins at `at`.
    #[inline]
    pub fn entry(&self, bytes: &[u8], at: usize) -> Option<Entry> {
        let bytes = bytes.get(..self.entries_end)?;
        let mut next = at;
        let shared = varint::get_len(bytes, &mut next)?;
        let unshared = varint::get_len(bytes, &mut next)?;
        let flags = *bytes.get(next)?;
        next += 1;
        let mut meta = RowMeta {
            version: varint::get_delta(bytes, &mut next, self.base_version)?,
            ..RowMeta::default()
        };
        let value_len = match flags & (FLAG_DELETE | FLAG_LINK) {
            0 => {
                let updated = varint::get_delta(bytes, &mut next, self.base_updated)?;
                meta.updated_ms = updated;
                if flags & FLAG_CREATED != 0 {
                    let delta = varint::get_delta(bytes, &mut next, 0)?;
                    meta.created_ms = updated.wrapping_sub(delta);
                }
                if flags & FLAG_EXPIRES != 0 {
                    meta.expires_ms = varint::get_delta(bytes, &mut next, updated)?;
                }
                varint::get_len(bytes, &mut next)?
            }
            FLAG_LINK => varint::get_len(bytes, &mut next)?,
            FLAG_DELETE => 0,
            _ => return None,
        };
        let value_at = next.checked_add(unshared)?;
        let end = value_at.checked_add(value_len)?;
        (end <= bytes.len()).then_some(Entry {
            shared,
            key_at: next,
            value_at,
            end,
            meta,
            is_delete: flags & FLAG_DELETE != 0,
        })
    }

    /// The first entry at or after (`key`, `version`) in internal order.
    #[inline]
    pub fn lower_bound(&self, bytes: &[u8], key: &[u8], version: u64) -> Option<Bound> {
        let restart = self.restart_before(bytes, key, version)?;
        let mut at = self.restart(bytes, restart)?;
        let mut run_end = self.run_end(bytes, restart)?;
        let mut run = restart;
        // How many bytes the key has in common with the entry before, which is below it.
        let mut matched = 0;
        while at < self.entries_end {
            if at >= run_end {
                run += 1;
                run_end = self.run_end(bytes, run)?;
                matched = 0;
            }
            let entry = self.entry(bytes, at)?;
            let found = |same_key| {
                Some(Bound::At {
                    entry,
                    at,
                    restart: run,
                    same_key,
                })
            };
            if entry.shared < matched {
                // It departs from the entry before, upwards, where that one still matched.
                return found(false);
            }
            if entry.shared == matched {
                let suffix = entry.suffix(bytes);
                let rest = key.get(matched..)?;
                let common = shared_len(suffix, rest);
                match (suffix.get(common), rest.get(common)) {
                    (None, None) if entry.meta.version <= version => return found(true),
                    (Some(a), Some(b)) if a > b => return found(false),
                    (Some(_), None) => return found(false),
                    _ => matched += common,
                }
            }
            // Otherwise it shares more with the entry before than that did with the key: below.
            at = entry.end;
        }
        Some(Bound::End)
    }

    /// The last restart whose entry is before the target, or the first one.
    #[inline]
    fn restart_before(&self, bytes: &[u8], key: &[u8], version: u64) -> Option<usize> {
        if self.restarts == 1 {
            return Some(0);
        }
        let first = self.entry(bytes, 0)?;
        let prefix = first.suffix(bytes).get(..self.shared)?;
        let common = key.len().min(self.shared);
        match key[..common].cmp(&prefix[..common]) {
            std::cmp::Ordering::Less => return Some(0),
            std::cmp::Ordering::Greater => return Some(self.restarts - 1),
            std::cmp::Ordering::Equal if common < self.shared => return Some(0),
            std::cmp::Ordering::Equal => {}
        }
        let head = head_of(key, self.shared);
        let heads_at = self.entries_end + self.restarts * 4;
        let heads = bytes.get(heads_at..heads_at + self.restarts * 8)?;
        let (heads, _) = heads.as_chunks::<8>();
        let low = heads.partition_point(|h| u64::from_be_bytes(*h) < head);
        let high = low + heads[low..].partition_point(|h| u64::from_be_bytes(*h) == head);
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry(bytes, self.restart(bytes, middle)?)?;
            let there = (entry.suffix(bytes), entry.meta.version);
            if crate::row::compare_internal(there, (key, version)).is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low.saturating_sub(1))
    }
}

/// The 8 bytes of a key after the shared ones, as a number that orders like them.
#[inline]
pub(in crate::table) fn head_of(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*word);
    }
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*word))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*word))
}
