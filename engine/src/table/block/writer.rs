//! Writes a block of rows, entry by entry.

use super::{
    FLAG_CREATED, FLAG_DELETE, FLAG_EXPIRES, FLAG_LINK, INDEX_RESTART_INTERVAL, RESTART_BYTES,
    RESTART_INTERVAL, ROWS_TAIL_BYTES,
};
use crate::row::RowMeta;
use crate::table::varint;

/// What an entry holds beside its key.
#[derive(Debug, Clone, Copy)]
pub(in crate::table) enum Content<'a> {
    /// A record.
    Put(RowMeta, &'a [u8]),
    /// A tombstone of this version.
    Delete(u64),
    /// An index's pointer, for internal keys up to this version of the key.
    Link(u64, &'a [u8]),
}

/// Most bytes an entry takes beside its key and value.
const ENTRY_OVERHEAD_MAX: usize = 48;

/// A block being written. Keys come in internal order; the caller sees to it.
pub(in crate::table) struct BlockWriter {
    restart_interval: usize,
    bytes: Vec<u8>,
    last_key: Vec<u8>,
    first_len: usize,
    restarts: Vec<u32>,
    restart_keys: Vec<usize>,
    entries: usize,
    base_version: u64,
    base_updated: u64,
}

impl BlockWriter {
    /// Of data.
    pub fn data() -> Self {
        Self::new(RESTART_INTERVAL)
    }

    /// Of links: an index block or the top block.
    pub fn index() -> Self {
        Self::new(INDEX_RESTART_INTERVAL)
    }

    fn new(restart_interval: usize) -> Self {
        Self {
            restart_interval,
            bytes: Vec::new(),
            last_key: Vec::new(),
            first_len: 0,
            restarts: Vec::new(),
            restart_keys: Vec::new(),
            entries: 0,
            base_version: 0,
            base_updated: 0,
        }
    }

    /// Whether nothing was added since the last [`BlockWriter::finish`].
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The raw size it would have now.
    pub fn raw_bytes(&self) -> usize {
        self.bytes.len() + self.restarts.len() * RESTART_BYTES + ROWS_TAIL_BYTES
    }

    /// At most the raw size it would have with another entry.
    pub fn raw_bytes_with(&self, key: &[u8], value_len: usize) -> usize {
        let (shared, restart) = match self.entries.is_multiple_of(self.restart_interval) {
            true => (0, RESTART_BYTES),
            false => (shared_len(&self.last_key, key), 0),
        };
        self.raw_bytes() + ENTRY_OVERHEAD_MAX + restart + key.len() - shared + value_len
    }

    /// Adds an entry.
    pub fn add(&mut self, key: &[u8], content: Content<'_>) {
        let (version, updated) = match &content {
            Content::Put(meta, _) => (meta.version, meta.updated_ms),
            Content::Delete(version) | Content::Link(version, _) => (*version, self.base_updated),
        };
        if self.entries == 0 {
            self.base_version = version;
            self.base_updated = updated;
        }
        let is_restart = self.entries.is_multiple_of(self.restart_interval);
        let shared = if is_restart {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            shared_len(&self.last_key, key)
        };
        let out = &mut self.bytes;
        varint::put(shared as u64, out);
        varint::put((key.len() - shared) as u64, out);
        let value: &[u8] = match content {
            Content::Put(meta, value) => {
                let created = if meta.created_ms == 0 {
                    0
                } else {
                    FLAG_CREATED
                };
                let expires = if meta.expires_ms == 0 {
                    0
                } else {
                    FLAG_EXPIRES
                };
                out.push(created | expires);
                varint::put_delta(version, self.base_version, out);
                varint::put_delta(updated, self.base_updated, out);
                if created != 0 {
                    varint::put_delta(updated, meta.created_ms, out);
                }
                if expires != 0 {
                    varint::put_delta(meta.expires_ms, updated, out);
                }
                varint::put(value.len() as u64, out);
                value
            }
            Content::Delete(_) => {
                out.push(FLAG_DELETE);
                varint::put_delta(version, self.base_version, out);
                &[]
            }
            Content::Link(_, value) => {
                out.push(FLAG_LINK);
                varint::put_delta(version, self.base_version, out);
                varint::put(value.len() as u64, out);
                value
            }
        };
        if is_restart {
            self.restart_keys.push(out.len());
        }
        out.extend_from_slice(&key[shared..]);
        out.extend_from_slice(value);
        if self.entries == 0 {
            self.first_len = key.len();
        }
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.entries += 1;
    }

    /// The block's raw bytes; the next entry begins another block once they have been [cleared].
    ///
    /// [cleared]: BlockWriter::clear
    pub fn finish(&mut self) -> &[u8] {
        let first_key = self.restart_keys.first().map_or(0, |at| *at);
        let first = &self.bytes[first_key..first_key + self.first_len];
        let shared = shared_len(first, &self.last_key);
        let heads: Vec<u64> = self
            .restart_keys
            .iter()
            .zip(&self.restarts)
            .map(|(key_at, entry_at)| {
                let mut at = *entry_at as usize;
                let _shared = varint::get(&self.bytes, &mut at);
                let len = varint::get_len(&self.bytes, &mut at).unwrap_or(0);
                super::rows::head_of(&self.bytes[*key_at..*key_at + len], shared)
            })
            .collect();
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        for head in heads {
            self.bytes.extend_from_slice(&head.to_be_bytes());
        }
        self.bytes
            .extend_from_slice(&self.base_version.to_le_bytes());
        self.bytes
            .extend_from_slice(&self.base_updated.to_le_bytes());
        self.bytes.extend_from_slice(&(shared as u32).to_le_bytes());
        let count = self.restarts.len() as u32;
        self.bytes.extend_from_slice(&count.to_le_bytes());
        &self.bytes
    }

    /// The block's raw bytes, for the last time.
    pub fn into_raw(mut self) -> Vec<u8> {
        self.finish();
        self.bytes
    }

    /// Begins another block, keeping the buffers unless they are far larger than a block.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
        self.last_key.clear();
        self.restarts.clear();
        self.restart_keys.clear();
        self.entries = 0;
        self.base_version = 0;
        self.base_updated = 0;
    }
}

/// How many leading bytes two keys share.
#[inline]
pub(in crate::table) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    let (a_words, b_words) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in a_words.zip(b_words) {
        if x != y {
            break;
        }
        at += 8;
    }
    let rest = a[at..].iter().zip(&b[at..]);
    at + rest.take_while(|(x, y)| x == y).count()
}
