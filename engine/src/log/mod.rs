//! The write-ahead log of a shard, which is also the replication log of all its replicas: an entry
//! is written once.
//!
//! - **Record**: an entry, a hard state, a truncation or a snapshot of one partition.
//! - **Group**: the records of one write, padded to whole sectors. A group is whatever was appended
//!   while the writes before it were under way: no timer. Up to four are in flight; they are handed
//!   out as durable in order, without holes.
//! - **Segment**: a file of groups behind a header with a checkpoint of every replica. Files are
//!   filled with zeros once and then recycled; each use has a higher epoch, and nothing of another
//!   epoch is ever believed.
//!
//! The bytes are in [`mod@format`], the order of things in memory in `state`, opening in `recovery`
//! and `scan`, files in `slots`.

mod carry;
mod chain;
pub mod format;
mod handle;
mod hold;
mod options;
mod places;
mod pool;
mod read;
mod reader;
mod recovery;
mod replicas;
mod scan;
mod slots;
mod state;
mod stats;
#[cfg(test)]
mod tests;

pub use carry::Carried;
pub use format::record::{decode_payload, decode_payload_trusted, encode_payload};
pub use format::{Effects, HardState, RecordView};
pub use handle::{DurableGroup, Log, RecordRef};
pub use hold::{HELD_SEGMENTS_MAX, Hold};
pub use options::{AppendError, LogOptions};
pub use read::ReadError;
pub use recovery::{RecoveredEntry, RecoveredReplica, Recovery, ReplayGroup, ReplayedEntry};
pub use stats::{GroupSizes, LogStats, WRITE_TIME_BUCKETS, WriteTimes};
