//! The items of a batch.

use super::ITEM_HEAD_BYTES;
use super::raft::{self, RaftEntries, RaftMessage};
use crate::frame::{FrameView, HEADER_BYTES};
use crate::message::PartitionId;
use crate::read::Reader;
use crate::{Kind, WireError};

pub(super) const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const FORWARD_REPLY: u8 = 3;
const SNAPSHOT_CHUNK: u8 = 4;
const SNAPSHOT_ACK: u8 = 5;
const NODE_STATE: u8 = 6;
const MAP: u8 = 7;
const SLEEP: u8 = 8;
const PULSE: u8 = 9;
const CLOCK: u8 = 10;

/// One more than the highest partition that there can be.
const PARTITIONS_END: usize = 1 << 16;

/// What part of a forwarded request is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The whole of it: every key it names is the receiving core's.
    Whole,
    /// The receiving core's share of a request that names more.
    Share,
}

/// A piece of a snapshot's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotChunk<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The replica that sends.
    pub from: u64,
    /// The replica that installs.
    pub to: u64,
    /// The snapshot, by the sender's own number.
    pub snapshot: u64,
    /// Which piece, from 0.
    pub sequence: u32,
    /// Whether it is the last.
    pub last: bool,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// What a receiver says of a [`SnapshotChunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotAck {
    /// The partition.
    pub partition: PartitionId,
    /// The replica that installs.
    pub from: u64,
    /// The replica that sends.
    pub to: u64,
    /// The snapshot, by the sender's own number.
    pub snapshot: u64,
    /// The piece that is answered.
    pub sequence: u32,
    /// What became of it, in the words of the two replicas.
    pub outcome: u8,
}

/// The flags of a node's state.
const DRAINS: u8 = 1;
const IS_FULL: u8 = 2;

/// How a node is, told to the others from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeState {
    /// Whether it gives away what it leads, and wants to lead nothing.
    pub drains: bool,
    /// Whether its disk is nearly full, so that it had better be given nothing more to store.
    pub is_full: bool,
}

/// What one replica of an idle partition says to another about sleep: see [`Sleep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepWord {
    /// The leader: everybody has all there is; will you sleep?
    Ask,
    /// A follower: I sleep.
    Agree,
    /// A follower: heartbeats are wanted again.
    Wake,
}

/// A word between the replicas of a partition that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    /// The partition.
    pub partition: PartitionId,
    /// The replica that says it.
    pub from: u64,
    /// The replica that it is for.
    pub to: u64,
    /// The term that both must be in.
    pub term: u64,
    /// The last entry, committed and applied, that both must have.
    pub index: u64,
    /// What is said.
    pub word: SleepWord,
}

/// The sign of life of one core to another, for all the partitions between them that sleep: a set of
/// partitions, as bits from `first` on, the lowest bit of each byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse<'a> {
    /// The partition of the first bit.
    pub first: PartitionId,
    /// One bit a partition.
    pub bits: &'a [u8],
}

impl<'a> Pulse<'a> {
    /// The partitions named.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<'a> {
        let first = usize::from(self.first);
        self.bits.iter().enumerate().flat_map(move |(at, &byte)| {
            let set = (0..8).filter(move |bit| byte >> bit & 1 == 1);
            // The decoder has seen that it is one.
            set.map(move |bit| (first + at * 8 + bit) as PartitionId)
        })
    }

    fn check(&self) -> Result<(), WireError> {
        if usize::from(self.first) + self.bits.len() * 8 > PARTITIONS_END {
            return Err(WireError::Malformed {
                what: "a pulse names partitions that there cannot be",
            });
        }
        Ok(())
    }
}

/// One item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerItem<'a> {
    /// A partition's consensus message. [`encode_raft`](super::encode_raft) writes one whose
    /// entries are not in wire form yet.
    Raft {
        /// The partition.
        partition: PartitionId,
        /// The message.
        message: RaftMessage<'a>,
        /// Its entries.
        entries: RaftEntries<'a>,
    },
    /// A client's request to execute: answered by [`PeerItem::ForwardReply`] of the same id, or
    /// never. One that meets a replica that does not lead is answered `NotLeader`, never passed on.
    Forward {
        /// The asking core's number for it.
        id: u64,
        /// How long the answer is waited for, in milliseconds.
        deadline_ms: u32,
        /// What part of it.
        reach: Reach,
        /// The client's frame.
        frame: &'a [u8],
    },
    /// The answer to a [`PeerItem::Forward`].
    ForwardReply {
        /// The asking core's number.
        id: u64,
        /// The answer's frame.
        frame: &'a [u8],
    },
    /// A piece of a snapshot.
    SnapshotChunk(SnapshotChunk<'a>),
    /// What a receiver says of one.
    SnapshotAck(SnapshotAck),
    /// How a node is.
    NodeState(NodeState),
    /// A cluster map.
    Map {
        /// Its version.
        version: u64,
        /// The map, validated by whoever takes it.
        bytes: &'a [u8],
    },
    /// A word about sleep.
    Sleep(Sleep),
    /// A core is there, and these partitions sleep there.
    Pulse(Pulse<'a>),
    /// What the node's clock says.
    Clock {
        /// In milliseconds since the Unix epoch.
        wall_ms: u64,
    },
}

/// The items of a batch's frame, in order, those with unknown tags left out. After an error there
/// is nothing more, and the connection is to be closed.
///
/// # Errors
/// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`].
pub fn items<'a>(frame: &FrameView<'a>) -> Result<Items<'a>, WireError> {
    check(frame, Kind::PeerBatch)?;
    Ok(Items {
        rest: Reader::new(frame.body),
    })
}

/// The items of a batch: see [`items`].
pub struct Items<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<PeerItem<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.rest().is_empty() {
            match read(&mut self.rest) {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(error) => {
                    self.rest = Reader::new(&[]);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// One item; `None` for one whose tag is not known.
fn read<'a>(rest: &mut Reader<'a>) -> Result<Option<PeerItem<'a>>, WireError> {
    let tag = rest.u8()?;
    let length = rest.u32()?;
    let mut body = Reader::new(rest.bytes(length as usize)?);
    let item = match tag {
        RAFT => {
            let (partition, message, entries) = raft::read(&mut body)?;
            PeerItem::Raft {
                partition,
                message,
                entries,
            }
        }
        FORWARD => PeerItem::Forward {
            id: body.u64()?,
            deadline_ms: body.u32()?,
            reach: match body.u8()? {
                0 => Reach::Whole,
                1 => Reach::Share,
                _ => {
                    return Err(WireError::Malformed {
                        what: "a forwarded request asks for a part that does not exist",
                    });
                }
            },
            frame: rest_as_frame(&mut body)?,
        },
        FORWARD_REPLY => PeerItem::ForwardReply {
            id: body.u64()?,
            frame: rest_as_frame(&mut body)?,
        },
        SNAPSHOT_CHUNK => PeerItem::SnapshotChunk(SnapshotChunk {
            partition: body.u16()?,
            from: body.u64()?,
            to: body.u64()?,
            snapshot: body.u64()?,
            sequence: body.u32()?,
            last: match body.u8()? {
                0 => false,
                1 => true,
                _ => {
                    return Err(WireError::Malformed {
                        what: "whether a piece is the last is neither 0 nor 1",
                    });
                }
            },
            bytes: the_rest(&mut body)?,
        }),
        SNAPSHOT_ACK => PeerItem::SnapshotAck(SnapshotAck {
            partition: body.u16()?,
            from: body.u64()?,
            to: body.u64()?,
            snapshot: body.u64()?,
            sequence: body.u32()?,
            outcome: body.u8()?,
        }),
        NODE_STATE => PeerItem::NodeState(match body.u8()? {
            flags @ 0..=3 => NodeState {
                drains: flags & DRAINS != 0,
                is_full: flags & IS_FULL != 0,
            },
            _ => {
                return Err(WireError::Malformed {
                    what: "a node's state has unknown flags",
                });
            }
        }),
        MAP => PeerItem::Map {
            version: body.u64()?,
            bytes: the_rest(&mut body)?,
        },
        SLEEP => PeerItem::Sleep(Sleep {
            partition: body.u16()?,
            from: body.u64()?,
            to: body.u64()?,
            term: body.u64()?,
            index: body.u64()?,
            word: match body.u8()? {
                0 => SleepWord::Ask,
                1 => SleepWord::Agree,
                2 => SleepWord::Wake,
                _ => {
                    return Err(WireError::Malformed {
                        what: "a word about sleep is none of ask, agree and wake",
                    });
                }
            },
        }),
        PULSE => {
            let pulse = Pulse {
                first: body.u16()?,
                bits: the_rest(&mut body)?,
            };
            pulse.check()?;
            PeerItem::Pulse(pulse)
        }
        CLOCK => PeerItem::Clock {
            wall_ms: body.u64()?,
        },
        _ => return Ok(None),
    };
    body.end()?;
    Ok(Some(item))
}

fn the_rest<'a>(body: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    body.bytes(body.rest().len())
}

/// What is left as a frame inside an item. Its own checks come when it is opened.
fn rest_as_frame<'a>(body: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let frame = the_rest(body)?;
    check_frame(frame)?;
    Ok(frame)
}

fn check_frame(frame: &[u8]) -> Result<(), WireError> {
    if frame.len() < HEADER_BYTES {
        return Err(WireError::Malformed {
            what: "a forwarded frame is shorter than its header",
        });
    }
    Ok(())
}

impl PeerItem<'_> {
    /// The length of the item on the wire, in bytes, its tag and length included.
    pub fn encoded_bytes(&self) -> usize {
        ITEM_HEAD_BYTES
            + match self {
                PeerItem::Raft {
                    message, entries, ..
                } => {
                    let data = entries.iter().map(|entry| entry.data.len()).sum();
                    return raft::encoded_raft_bytes(message, entries.len(), data);
                }
                PeerItem::Forward { frame, .. } => 13 + frame.len(),
                PeerItem::ForwardReply { frame, .. } => 8 + frame.len(),
                PeerItem::SnapshotChunk(chunk) => 31 + chunk.bytes.len(),
                PeerItem::SnapshotAck(_) => 31,
                PeerItem::NodeState(_) => 1,
                PeerItem::Map { bytes, .. } => 8 + bytes.len(),
                PeerItem::Sleep(_) => 35,
                PeerItem::Pulse(pulse) => 2 + pulse.bits.len(),
                PeerItem::Clock { .. } => 8,
            }
    }

    /// Appends the item to a batch.
    ///
    /// # Errors
    /// [`WireError::Malformed`] or [`WireError::OverLimit`] for what decoding would refuse; `out`
    /// is then as it was before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            PeerItem::Raft {
                partition,
                message,
                entries,
            } => raft::encode_raft(out, *partition, message, *entries),
            PeerItem::Forward {
                id,
                deadline_ms,
                reach,
                frame,
            } => append(out, FORWARD, |out| {
                check_frame(frame)?;
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&deadline_ms.to_le_bytes());
                out.push(u8::from(*reach == Reach::Share));
                out.extend_from_slice(frame);
                Ok(())
            }),
            PeerItem::ForwardReply { id, frame } => append(out, FORWARD_REPLY, |out| {
                check_frame(frame)?;
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(frame);
                Ok(())
            }),
            PeerItem::SnapshotChunk(chunk) => append(out, SNAPSHOT_CHUNK, |out| {
                out.extend_from_slice(&chunk.partition.to_le_bytes());
                out.extend_from_slice(&chunk.from.to_le_bytes());
                out.extend_from_slice(&chunk.to.to_le_bytes());
                out.extend_from_slice(&chunk.snapshot.to_le_bytes());
                out.extend_from_slice(&chunk.sequence.to_le_bytes());
                out.push(u8::from(chunk.last));
                out.extend_from_slice(chunk.bytes);
                Ok(())
            }),
            PeerItem::SnapshotAck(ack) => append(out, SNAPSHOT_ACK, |out| {
                out.extend_from_slice(&ack.partition.to_le_bytes());
                out.extend_from_slice(&ack.from.to_le_bytes());
                out.extend_from_slice(&ack.to.to_le_bytes());
                out.extend_from_slice(&ack.snapshot.to_le_bytes());
                out.extend_from_slice(&ack.sequence.to_le_bytes());
                out.push(ack.outcome);
                Ok(())
            }),
            PeerItem::NodeState(state) => append(out, NODE_STATE, |out| {
                let drains = if state.drains { DRAINS } else { 0 };
                out.push(drains | if state.is_full { IS_FULL } else { 0 });
                Ok(())
            }),
            PeerItem::Map { version, bytes } => append(out, MAP, |out| {
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(bytes);
                Ok(())
            }),
            PeerItem::Sleep(sleep) => append(out, SLEEP, |out| {
                out.extend_from_slice(&sleep.partition.to_le_bytes());
                out.extend_from_slice(&sleep.from.to_le_bytes());
                out.extend_from_slice(&sleep.to.to_le_bytes());
                out.extend_from_slice(&sleep.term.to_le_bytes());
                out.extend_from_slice(&sleep.index.to_le_bytes());
                out.push(sleep.word as u8);
                Ok(())
            }),
            PeerItem::Clock { wall_ms } => append(out, CLOCK, |out| {
                out.extend_from_slice(&wall_ms.to_le_bytes());
                Ok(())
            }),
            PeerItem::Pulse(pulse) => append(out, PULSE, |out| {
                pulse.check()?;
                out.extend_from_slice(&pulse.first.to_le_bytes());
                out.extend_from_slice(pulse.bits);
                Ok(())
            }),
        }
    }
}

/// Appends the answer to a forwarded request, its frame encoded in place by `encode`.
///
/// # Errors
/// [`WireError::Malformed`] if that gave no frame, [`WireError::OverLimit`] over 4 GiB; `out` is
/// then as it was before.
pub fn encode_forward_reply(
    out: &mut Vec<u8>,
    id: u64,
    encode: impl FnOnce(&mut Vec<u8>),
) -> Result<(), WireError> {
    append(out, FORWARD_REPLY, |out| {
        out.extend_from_slice(&id.to_le_bytes());
        let start = out.len();
        encode(out);
        check_frame(&out[start..])
    })
}

/// Appends one item whose body `write` appends; nothing if that fails.
pub(super) fn append(
    out: &mut Vec<u8>,
    tag: u8,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    let written = write(out).and_then(|()| {
        let length = out.len() - start - ITEM_HEAD_BYTES;
        u32::try_from(length).map_err(|_| WireError::OverLimit {
            what: "an item",
            length: length as u64,
            limit: u64::from(u32::MAX),
        })
    });
    match written {
        Ok(length) => {
            out[start + 1..start + ITEM_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Whether a frame is of this kind, without flags.
pub(super) fn check(frame: &FrameView<'_>, kind: Kind) -> Result<(), WireError> {
    if frame.flags != 0 {
        return Err(WireError::UnknownFlags { flags: frame.flags });
    }
    if frame.kind != kind as u8 {
        return Err(WireError::UnknownKind { kind: frame.kind });
    }
    Ok(())
}
