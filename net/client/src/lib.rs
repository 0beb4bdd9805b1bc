//! The Ringbolt client: asynchronous on tokio, and blocking.
//!
//! ```no_run
//! use ringbolt_client::{Client, WriteOptions};
//!
//! # async fn example() -> Result<(), ringbolt_client::Error> {
//! let client = Client::connect("10.0.0.1:7400,10.0.0.2:7400").await?;
//!
//! client.put("user:1", "Ada").await?;
//! if let Some(record) = client.get("user:1").await? {
//!     println!("{} at version {}", String::from_utf8_lossy(&record.value), record.meta.version);
//!     // Only if nobody wrote it meanwhile:
//!     let options = WriteOptions::new().if_version(record.meta.version);
//!     client.put_with("user:1", "Ada Lovelace", &options).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone and meant to be shared: requests of all its clones are pipelined
//! over one connection for each core of each node that they need. The requests are methods of
//! [`Keyspace`], which a client is for the keyspace `default`.
//!
//! # Where requests go
//!
//! Any node tells of all the others ([`Client::topology`]). Writes and linearizable reads go to the
//! core that owns the key on the node that leads its partition; reads that any replica may serve
//! ([`ReadLevel::Session`], [`ReadLevel::Stale`]) go to the replica that answers soonest, or are
//! shared among those that do about equally. When a leader changes, the node that was asked says so
//! and the request follows. A node that is dead, or that says nothing for 400 ms
//! ([`Builder::silence`]), is gone round, and looked for in the background after growing, jittered
//! pauses until it is there again.
//!
//! A read of one key that any replica may serve is asked of a second one when it takes longer than
//! 95 % of such reads did lately, for at most 2 % of them. Linearizable reads are not: only the
//! leader can answer them.
//!
//! # What an error means
//!
//! [`Error`] is grouped by what to do. The one that programs forget is [`Error::InDoubt`]: the
//! write may have been done, may be done yet, or never. It is never returned for a read, and no
//! other error is ever returned for a write that may have been done.
//!
//! # Deadlines and retries
//!
//! Every request has a deadline ([`Builder::deadline`], 5 s unless told otherwise), which bounds
//! all it takes: connecting, waiting for room, retrying. Within it, a read is repeated, elsewhere if
//! possible, when it was not answered. A write that was provably not done is sent again too. A write
//! whose outcome is not known is sent again with the same number and marked as a retry, and the
//! servers do it only if it was not done: it is in doubt only if the deadline passes first, if the
//! servers no longer remember, or if its condition did not hold when it came again (the first sending may
//! still arrive, and find that it holds). Creating and dropping keyspaces is not retried. Pauses grow and are
//! jittered.
//!
//! # Reading your own writes
//!
//! Reads are linearizable unless told otherwise. With [`ReadLevel::Session`] a read may be served
//! by any replica that has what this client's session has seen: the highest [`Token`] of each
//! partition. [`Client::export_session`] and [`Client::import_session`] hand a session to another
//! process, [`Client::with_new_session`] begins another one over the same connections. A read that no
//! replica could serve in time is [`Error::Stale`]; [`Error::Lost`] says that what the session had
//! seen was never committed, which only writes acknowledged by the leader alone can lead to;
//! [`Client::forget_tokens`] takes note of it.
//!
//! What an error tells of the data ([`Error::ConditionFailed`], [`Error::CommittedNotAll`], that a value is no
//! number) is part of the session too: the next read of that partition at level session is made linearizable.
//!
//! # Dropping a future
//!
//! gives up waiting, not the request: a write whose future was dropped may still be done.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod batch;
pub mod blocking;
mod builder;
mod call;
mod client;
mod cluster;
mod connection;
mod error;
mod keyspace;
mod lane;
mod latency;
mod node;
mod options;
mod record;
mod routes;
mod scan;
mod session;

pub use batch::Batch;
pub use builder::Builder;
pub use client::Client;
pub use error::{Error, Reason};
pub use keyspace::Keyspace;
pub use options::{ReadOptions, WriteOptions};
pub use record::{BatchWritten, Counter, Record, Row, Stat, Written};
pub use scan::{Page, Rows, Scan};

pub use ringbolt_wire::message::{
    Ack, Condition, ErrorClass, ErrorCode, Keyspace as KeyspaceInfo, KeyspaceOptions, Limits,
    MemberStatus, Meta, NodeId, NodeInfo, NodeStatus, ReadLevel, ReplicaStatus, Replicas, Role,
    Token, Topology, Ttl,
};
