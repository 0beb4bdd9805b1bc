//! The Ringbolt client: asynchronous on tokio, and blocking.
//!
//! ```no_run
//! use ringbolt_client::{Client, WriteOptions};
//!
//! # async fn example() -> Result<(), ringbolt_client::Error> {
//! let client = Client::connect("127.0.0.1:7400").await?;
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
//! over one connection for each core of the server, and each request goes to the core that owns its
//! key. The requests are methods of [`Keyspace`], which a client is for the keyspace `default`.
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
//! all it takes: connecting, waiting for room, retrying. Within it, a read is repeated when its
//! connection breaks; a write only when it was provably not done: no connection could be made, the
//! connection broke before the request was handed to it, or the server refused it and said when to
//! try again. Pauses grow and are jittered.
//!
//! # Reading your own writes
//!
//! Reads are linearizable unless told otherwise. With [`ReadLevel::Session`] a read may be served
//! by any replica that has what this client has seen: the client keeps the [`Token`]s for that, and
//! [`Client::tokens`] and [`Client::import_tokens`] hand them to another process.
//!
//! # Dropping a future
//!
//! gives up waiting, not the request: a write whose future was dropped may still be done.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod batch;
pub mod blocking;
mod builder;
mod client;
mod connection;
mod error;
mod keyspace;
mod lane;
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
    Ack, Condition, ErrorClass, ErrorCode, Keyspace as KeyspaceInfo, KeyspaceOptions, Limits, Meta,
    ReadLevel, Token, Topology, Ttl,
};
