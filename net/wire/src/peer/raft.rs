//! A partition's consensus message as an item.
//!
//! ```text
//!  partition u16 | kind u8 | flags u8 | context length u8 | 3 reserved
//!  from | to | term | log term | index | commit | commit term | reject hint
//!  request snapshot | priority | stamp | echo                    (12 × 8 bytes)
//!  count of entries u32
//!  [index u64 | term u64 | time u64 | membership length u32]     if flag 2 is set
//!  context | membership | entries: kind u8, length u32, term u64, index u64, data
//! ```
//!
//! What is checked here is what needs no state: sizes, and that the parts fit the kind. The rest is
//! for the replica, which knows where it stands.

use super::ITEM_HEAD_BYTES;
use super::item::{self, RAFT};
use crate::WireError;
use crate::message::PartitionId;
use crate::read::Reader;

/// Largest context of a message, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 64;
/// Largest membership record of a snapshot, in bytes.
pub const MEMBERSHIP_BYTES_MAX: usize = 4 << 10;

/// Length of a message without its variable parts, in bytes.
const HEAD_BYTES: usize = 8 + 12 * 8 + 4;
/// Length of a snapshot's description without its membership, in bytes.
const SNAPSHOT_BYTES: usize = 28;
/// Length of an entry without its data, in bytes.
const ENTRY_HEAD_BYTES: usize = 21;

const REJECT: u8 = 1;
const SNAPSHOT: u8 = 2;

/// The numbers of the kinds of message that travel, as the `raft` crate has them. The others are
/// a replica's words to itself, or proposals: a client's request is forwarded instead.
pub mod raft_kind {
    /// Entries for a follower.
    pub const APPEND: u8 = 3;
    /// What a follower made of them.
    pub const APPEND_RESPONSE: u8 = 4;
    /// A candidate asks for a vote.
    pub const REQUEST_VOTE: u8 = 5;
    /// The vote.
    pub const REQUEST_VOTE_RESPONSE: u8 = 6;
    /// A snapshot is there to be fetched.
    pub const SNAPSHOT: u8 = 7;
    /// The leader is alive.
    pub const HEARTBEAT: u8 = 8;
    /// So is the follower.
    pub const HEARTBEAT_RESPONSE: u8 = 9;
    /// A follower passes on the wish for another leader.
    pub const TRANSFER_LEADER: u8 = 13;
    /// A follower is told to stand for election at once.
    pub const TIMEOUT_NOW: u8 = 14;
    /// A follower asks for a read index.
    pub const READ_INDEX: u8 = 15;
    /// The read index.
    pub const READ_INDEX_RESPONSE: u8 = 16;
    /// Would a vote be granted?
    pub const REQUEST_PRE_VOTE: u8 = 17;
    /// Whether it would.
    pub const REQUEST_PRE_VOTE_RESPONSE: u8 = 18;
}

/// A consensus message of one partition, without its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RaftMessage<'a> {
    /// One of [`raft_kind`].
    pub kind: u8,
    /// The replica that speaks, never 0.
    pub from: u64,
    /// The replica spoken to, never 0.
    pub to: u64,
    /// The speaker's term.
    pub term: u64,
    /// The term of the entry at `index`.
    pub log_term: u64,
    /// As the kind says; for entries, that of the entry before the first.
    pub index: u64,
    /// The speaker's commit index, or what of it concerns the receiver.
    pub commit: u64,
    /// The term of the entry at `commit`, where the kind needs it.
    pub commit_term: u64,
    /// Whether the request is refused.
    pub reject: bool,
    /// Where the refusing follower's log ends.
    pub reject_hint: u64,
    /// The index from which a follower asks for a snapshot, 0 for none.
    pub request_snapshot: u64,
    /// The candidate's priority.
    pub priority: i64,
    /// When the leader sent this round, by its own clock; only it understands it.
    pub stamp: u64,
    /// The stamp that a response answers, 0 for none.
    pub echo: u64,
    /// What a read index is asked with; at most [`CONTEXT_BYTES_MAX`] bytes.
    pub context: &'a [u8],
    /// The snapshot that is there to be fetched: with [`raft_kind::SNAPSHOT`] and only with it.
    pub snapshot: Option<RaftSnapshot<'a>>,
}

/// A snapshot as announced; its rows travel apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftSnapshot<'a> {
    /// The last entry it contains, never 0.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The partition's time there, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The partition's membership there, as the log has it; at most [`MEMBERSHIP_BYTES_MAX`] bytes.
    pub membership: &'a [u8],
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftEntry<'a> {
    /// What kind, as the `raft` crate numbers them: an ordinary one, or a change of membership.
    pub kind: u8,
    /// Its term.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// What it does.
    pub data: &'a [u8],
}

/// Entries in wire form, already checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RaftEntries<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> RaftEntries<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries, in order.
    pub fn iter(&self) -> RaftEntriesIter<'a> {
        RaftEntriesIter(Reader::new(self.bytes))
    }

    fn read(body: &mut Reader<'a>, count: u32) -> Result<Self, WireError> {
        body.check_count(count as usize, ENTRY_HEAD_BYTES)?;
        let bytes = body.rest();
        for _ in 0..count {
            read_entry(body)?;
        }
        let length = bytes.len() - body.rest().len();
        Ok(RaftEntries {
            count,
            bytes: &bytes[..length],
        })
    }
}

impl<'a> IntoIterator for RaftEntries<'a> {
    type Item = RaftEntry<'a>;
    type IntoIter = RaftEntriesIter<'a>;

    fn into_iter(self) -> RaftEntriesIter<'a> {
        self.iter()
    }
}

/// The entries of a [`RaftEntries`], in order.
pub struct RaftEntriesIter<'a>(Reader<'a>);

impl<'a> Iterator for RaftEntriesIter<'a> {
    type Item = RaftEntry<'a>;

    fn next(&mut self) -> Option<RaftEntry<'a>> {
        // It was checked when the item was decoded: the only error is the end.
        read_entry(&mut self.0).ok()
    }
}

fn read_entry<'a>(body: &mut Reader<'a>) -> Result<RaftEntry<'a>, WireError> {
    let kind = body.u8()?;
    let length = body.u32()?;
    Ok(RaftEntry {
        kind,
        term: body.u64()?,
        index: body.u64()?,
        data: body.bytes(length as usize)?,
    })
}

/// The length of a message as an item, in bytes, its tag and length included; `data_bytes` is the
/// sum of its `entries` entries' data.
pub fn encoded_raft_bytes(message: &RaftMessage<'_>, entries: usize, data_bytes: usize) -> usize {
    let snapshot = message
        .snapshot
        .map_or(0, |snapshot| SNAPSHOT_BYTES + snapshot.membership.len());
    ITEM_HEAD_BYTES
        + HEAD_BYTES
        + snapshot
        + message.context.len()
        + entries * ENTRY_HEAD_BYTES
        + data_bytes
}

/// Appends a message to a batch, with entries from wherever they are.
///
/// # Errors
/// [`WireError::Malformed`] or [`WireError::OverLimit`] for what decoding would refuse; `out` is
/// then as it was before.
pub fn encode_raft<'e>(
    out: &mut Vec<u8>,
    partition: PartitionId,
    message: &RaftMessage<'_>,
    entries: impl IntoIterator<Item = RaftEntry<'e>>,
) -> Result<(), WireError> {
    item::append(out, RAFT, |out| write(out, partition, message, entries))
}

fn write<'e>(
    out: &mut Vec<u8>,
    partition: PartitionId,
    message: &RaftMessage<'_>,
    entries: impl IntoIterator<Item = RaftEntry<'e>>,
) -> Result<(), WireError> {
    check_lengths(message)?;
    let mut head = [0; HEAD_BYTES];
    head[..2].copy_from_slice(&partition.to_le_bytes());
    head[2] = message.kind;
    head[3] = if message.reject { REJECT } else { 0 }
        | if message.snapshot.is_some() {
            SNAPSHOT
        } else {
            0
        };
    head[4] = message.context.len() as u8;
    let words = [
        message.from,
        message.to,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
        message.priority as u64,
        message.stamp,
        message.echo,
    ];
    for (place, word) in head[8..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let count_at = out.len() + HEAD_BYTES - 4;
    out.extend_from_slice(&head);
    if let Some(snapshot) = &message.snapshot {
        out.extend_from_slice(&snapshot.index.to_le_bytes());
        out.extend_from_slice(&snapshot.term.to_le_bytes());
        out.extend_from_slice(&snapshot.time_ms.to_le_bytes());
        out.extend_from_slice(&(snapshot.membership.len() as u32).to_le_bytes());
    }
    out.extend_from_slice(message.context);
    if let Some(snapshot) = &message.snapshot {
        out.extend_from_slice(snapshot.membership);
    }
    let mut order = Order::new(message);
    for entry in entries {
        order.next(&entry)?;
        let length = u32::try_from(entry.data.len()).map_err(|_| WireError::OverLimit {
            what: "an entry",
            length: entry.data.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        let mut head = [0; ENTRY_HEAD_BYTES];
        head[0] = entry.kind;
        head[1..5].copy_from_slice(&length.to_le_bytes());
        head[5..13].copy_from_slice(&entry.term.to_le_bytes());
        head[13..].copy_from_slice(&entry.index.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(entry.data);
    }
    check(message, order.count)?;
    out[count_at..count_at + 4].copy_from_slice(&order.count.to_le_bytes());
    Ok(())
}

pub(super) fn read<'a>(
    body: &mut Reader<'a>,
) -> Result<(PartitionId, RaftMessage<'a>, RaftEntries<'a>), WireError> {
    let partition = body.u16()?;
    let kind = body.u8()?;
    let flags = body.u8()?;
    let context_length = usize::from(body.u8()?);
    body.reserved::<3>()?;
    if flags & !(REJECT | SNAPSHOT) != 0 {
        return Err(WireError::Malformed {
            what: "a consensus message has flags that are not known",
        });
    }
    let mut message = RaftMessage {
        kind,
        from: body.u64()?,
        to: body.u64()?,
        term: body.u64()?,
        log_term: body.u64()?,
        index: body.u64()?,
        commit: body.u64()?,
        commit_term: body.u64()?,
        reject: flags & REJECT != 0,
        reject_hint: body.u64()?,
        request_snapshot: body.u64()?,
        priority: body.i64()?,
        stamp: body.u64()?,
        echo: body.u64()?,
        context: &[],
        snapshot: None,
    };
    let count = body.u32()?;
    let snapshot = if flags & SNAPSHOT != 0 {
        Some((body.u64()?, body.u64()?, body.u64()?, body.u32()?))
    } else {
        None
    };
    message.context = body.bytes(context_length)?;
    if let Some((index, term, time_ms, length)) = snapshot {
        message.snapshot = Some(RaftSnapshot {
            index,
            term,
            time_ms,
            membership: body.bytes(length as usize)?,
        });
    }
    check_lengths(&message)?;
    let entries = RaftEntries::read(body, count)?;
    let mut order = Order::new(&message);
    for entry in entries {
        order.next(&entry)?;
    }
    check(&message, count)?;
    Ok((partition, message, entries))
}

fn check_lengths(message: &RaftMessage<'_>) -> Result<(), WireError> {
    let membership = message.snapshot.map_or(0, |s| s.membership.len());
    for (what, length, limit) in [
        ("a context", message.context.len(), CONTEXT_BYTES_MAX),
        ("a membership record", membership, MEMBERSHIP_BYTES_MAX),
    ] {
        if length > limit {
            return Err(WireError::OverLimit {
                what,
                length: length as u64,
                limit: limit as u64,
            });
        }
    }
    Ok(())
}

/// Whether the parts fit the kind.
fn check(message: &RaftMessage<'_>, entries: u32) -> Result<(), WireError> {
    let malformed = |what| Err(WireError::Malformed { what });
    if !matches!(message.kind, 3..=9 | 13..=18) {
        return malformed("this kind of consensus message does not travel");
    }
    if message.from == 0 || message.to == 0 || message.from == message.to {
        return malformed("a consensus message names no two replicas");
    }
    // A read index carries what it is asked with in an entry.
    let entries_allowed = matches!(
        message.kind,
        raft_kind::APPEND | raft_kind::READ_INDEX | raft_kind::READ_INDEX_RESPONSE
    );
    if entries > 0 && !entries_allowed {
        return malformed("a consensus message has entries that its kind does not carry");
    }
    if message.snapshot.is_some() != (message.kind == raft_kind::SNAPSHOT)
        || message.snapshot.is_some_and(|snapshot| snapshot.index == 0)
    {
        return malformed("a snapshot is announced without its index, or with another message");
    }
    Ok(())
}

/// Checks that the entries of an append follow each other without a hole, in terms that never go
/// back nor beyond the leader's.
struct Order {
    append: bool,
    index: u64,
    term: u64,
    term_max: u64,
    count: u32,
}

impl Order {
    fn new(message: &RaftMessage<'_>) -> Self {
        Order {
            append: message.kind == raft_kind::APPEND,
            index: message.index,
            term: message.log_term,
            term_max: message.term,
            count: 0,
        }
    }

    fn next(&mut self, entry: &RaftEntry<'_>) -> Result<(), WireError> {
        let follows = self.index.checked_add(1) == Some(entry.index)
            && (self.term..=self.term_max).contains(&entry.term);
        if self.append && !follows {
            return Err(WireError::Malformed {
                what: "entries do not follow each other",
            });
        }
        self.index = entry.index;
        self.term = entry.term;
        self.count += 1;
        Ok(())
    }
}
