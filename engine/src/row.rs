//! Rows: the keys and cells that the memtable and the tables hold.
//!
//! A *row key* is an opaque byte string to tables and memtable, ordered bytewise:
//!
//! ```text
//! | partition u16 BE | keyspace u32 BE | user key ... |
//! ```
//!
//! so that a partition, and a keyspace within it, is one contiguous range. One row has several
//! *cells*, each of another version (the index of the entry that wrote it). The *internal order*
//! is row key ascending, then version descending: the newest cell of a row comes first.

use std::cmp::Ordering;

use crate::entry::{KEY_BYTES_MAX, KeyspaceId, PartitionId};

/// Bytes of partition and keyspace before the user's key.
pub const ROW_PREFIX_BYTES: usize = 6;

/// Largest row key, in bytes.
pub const ROW_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + ROW_PREFIX_BYTES;

/// A reusable buffer for one row key: encoding into it allocates only to grow.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKeyBuf(Vec<u8>);

impl RowKeyBuf {
    /// An empty buffer, which is the lowest bound of all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The row key of a user's key.
    #[must_use]
    pub fn of(partition: PartitionId, keyspace: KeyspaceId, key: &[u8]) -> Self {
        let mut buf = Self(Vec::with_capacity(ROW_PREFIX_BYTES + key.len()));
        buf.set(partition, keyspace, key);
        buf
    }

    /// Replaces the content by the row key of a user's key, and returns it.
    pub fn set(&mut self, partition: PartitionId, keyspace: KeyspaceId, key: &[u8]) -> &[u8] {
        self.0.clear();
        encode_row_key(partition, keyspace, key, &mut self.0);
        &self.0
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl std::ops::Deref for RowKeyBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends a row key to `out`.
pub fn encode_row_key(partition: PartitionId, keyspace: KeyspaceId, key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&partition.to_be_bytes());
    out.extend_from_slice(&keyspace.to_be_bytes());
    out.extend_from_slice(key);
}

/// A row key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKeyParts<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The user's key.
    pub key: &'a [u8],
}

/// Takes a row key apart; `None` if it is shorter than its prefix.
#[must_use]
pub fn split_row_key(row_key: &[u8]) -> Option<RowKeyParts<'_>> {
    let (partition, rest) = row_key.split_first_chunk::<2>()?;
    let (keyspace, key) = rest.split_first_chunk::<4>()?;
    Some(RowKeyParts {
        partition: u16::from_be_bytes(*partition),
        keyspace: u32::from_be_bytes(*keyspace),
        key,
    })
}

/// The partition of a row key; `None` if it is shorter than two bytes.
#[must_use]
pub fn partition_of(row_key: &[u8]) -> Option<PartitionId> {
    row_key
        .first_chunk::<2>()
        .map(|bytes| u16::from_be_bytes(*bytes))
}

/// The row keys of a whole partition, as a half-open range.
#[must_use]
pub fn partition_range(partition: PartitionId) -> (Vec<u8>, Vec<u8>) {
    let from = partition.to_be_bytes().to_vec();
    let to = successor(&from);
    (from, to)
}

/// The row keys of a user's range in a keyspace, as a half-open range: an empty `from` is the
/// keyspace's first key, an empty `to` its end.
#[must_use]
pub fn keyspace_range(
    partition: PartitionId,
    keyspace: KeyspaceId,
    from: &[u8],
    to: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let mut low = Vec::with_capacity(ROW_PREFIX_BYTES + from.len());
    encode_row_key(partition, keyspace, from, &mut low);
    let mut high = Vec::with_capacity(ROW_PREFIX_BYTES + to.len());
    encode_row_key(partition, keyspace, to, &mut high);
    if to.is_empty() {
        high = successor(&high);
    }
    (low, high)
}

/// The lowest byte string above everything that starts with `prefix`. A prefix of nothing but
/// `0xff` has none; then it is a string of `0xff` longer than any row key.
#[must_use]
pub fn successor(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(at) => {
            let mut next = prefix[..=at].to_vec();
            next[at] += 1;
            next
        }
        None => vec![0xff; ROW_KEY_BYTES_MAX + 1],
    }
}

/// Compares two internal keys: row key ascending, then version descending.
#[inline]
#[must_use]
pub fn compare_internal(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

/// What a live record says of itself beside its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct RowMeta {
    /// The index of the entry that wrote it.
    pub version: u64,
    /// When it was written, by the partition's time, in ms since the Unix epoch.
    pub updated_ms: u64,
    /// When the row came into being; 0 = unknown: whatever the next older live version says, else
    /// `updated_ms` of the oldest.
    pub created_ms: u64,
    /// When it expires, by the partition's time; 0 = never.
    pub expires_ms: u64,
}

impl RowMeta {
    /// Whether it is expired at a partition's time.
    #[inline]
    #[must_use]
    pub fn expired_at(&self, time_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= time_ms
    }
}

/// One version of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// A value.
    Put {
        /// Its version and times.
        meta: RowMeta,
        /// The value, at most [`crate::entry::VALUE_BYTES_MAX`] bytes.
        value: &'a [u8],
    },
    /// A tombstone: the row is absent from this version on.
    Delete {
        /// The index of the entry that wrote it.
        version: u64,
    },
}

impl Cell<'_> {
    /// The version.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        match self {
            Self::Put { meta, .. } => meta.version,
            Self::Delete { version } => *version,
        }
    }

    /// Whether it is a tombstone.
    #[inline]
    #[must_use]
    pub fn is_delete(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }
}

/// A deletion of all rows in `from..to` older than `version`, within one partition. Entries of
/// the very same version are not covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeDelete<'a> {
    /// The first row key covered.
    pub from: &'a [u8],
    /// The first row key above it that is not.
    pub to: &'a [u8],
    /// Every version below this one is covered.
    pub version: u64,
}

/// What a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAt {
    /// The newest version to look at; `u64::MAX` for the newest there is.
    pub version: u64,
    /// The partition's time, which decides what is expired, in ms since the Unix epoch.
    pub time_ms: u64,
}

impl ReadAt {
    /// The newest versions, at a partition's time.
    #[must_use]
    pub fn newest(time_ms: u64) -> Self {
        Self {
            version: u64::MAX,
            time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_split_back_and_sort_by_partition_keyspace_key() {
        let a = RowKeyBuf::of(1, 0xffff_ffff, b"z");
        let b = RowKeyBuf::of(2, 0, b"");
        assert!(a < b);
        let parts = split_row_key(&a).expect("long enough");
        assert_eq!(
            (parts.partition, parts.keyspace, parts.key),
            (1, 0xffff_ffff, &b"z"[..])
        );
        assert_eq!(split_row_key(&a[..5]), None);
        assert_eq!(partition_of(&b), Some(2));
        assert_eq!(partition_of(&b[..1]), None);
    }

    #[test]
    fn ranges_hold_what_they_name_and_nothing_else() {
        let (from, to) = keyspace_range(7, 0xffff_ffff, b"", b"");
        assert_eq!(from, RowKeyBuf::of(7, 0xffff_ffff, b"").into_vec());
        assert_eq!(to, [0, 8]);
        let (from, to) = keyspace_range(7, 1, b"a", b"c");
        assert!(from.as_slice() <= &*RowKeyBuf::of(7, 1, b"a"));
        assert!(&*RowKeyBuf::of(7, 1, b"b\xff") < to.as_slice());
        assert!(&*RowKeyBuf::of(7, 1, b"c") >= to.as_slice());
        let (from, to) = partition_range(0x00ff);
        assert_eq!((from, to), (vec![0, 0xff], vec![1]));
        let (_, to) = partition_range(u16::MAX);
        assert!(to > vec![0xff; ROW_KEY_BYTES_MAX]);
    }

    #[test]
    fn internal_order_puts_the_newest_first() {
        assert_eq!(compare_internal((b"a", 5), (b"a", 9)), Ordering::Greater);
        assert_eq!(compare_internal((b"a", 1), (b"b", 9)), Ordering::Less);
    }
}
