//! The Redis protocol: what clients of Redis say and expect, without any I/O.
//!
//! This is the second door of the same house: [`crate::shard`] takes a connection's bytes to
//! [`parse`] and [`command`], executes what comes out of that as the requests that it knows
//! already, and has the answers put into Redis's words by [`render`]. Nothing here stores, decides
//! or replicates anything.
//!
//! # How commands are executed
//!
//! - A command on one key is one request: `GET` is a get, `SET` a put, `INCR` an increment, `EXPIRE`
//!   a touch. Conditions (`NX`, `XX`, `KEEPTTL`, `DEL`'s count) are decided by the partition's leader
//!   against what is pending, as for every client. Read by a core that leads the key's partition,
//!   from memory, `GET` costs neither a task nor an allocation, and `SET` no more than any put.
//! - Other **read-modify-write** commands (`APPEND`, `SETRANGE`, `GETSET`, `SET … GET`, `GETDEL`,
//!   `GETEX`, `INCRBYFLOAT`, `PERSIST`, `EXPIRE` with a condition) read the record, work out what it
//!   becomes ([`modify`]), and write that on condition that the record still has the version that was
//!   read, or is still absent. If it has not, they begin again, until their deadline: atomic, and never
//!   applied twice. Those of one core on one key queue up, so that they do not make each other
//!   begin again.
//! - A command on **many keys** (`MSET`, `DEL`, `EXISTS`, `MGET`) is one request for each partition or
//!   key, all under way at once. `MSET` of keys of one partition (of one `{tag}`) is one batch, all or
//!   nothing. Over several partitions each one is, not all together: after an error some may be
//!   set and others not.
//! - **The order of one connection** is kept: replies leave in the order of the commands
//!   ([`connection`]), and a command waits until earlier ones of the connection that touch the
//!   same key are answered, unless the key's leader is sure to do them in order (`SET` after `SET`).
//! - `SCAN`'s cursor is a number of 53 bits that names a position which the node remembers, in a
//!   table of bounded size ([`cursor`]): positions are keys, and no number holds a key.
//!
//! # Durability
//!
//! A write is answered when it is durable on a majority of its partition's replicas. Nothing is
//! answered from a state that could be lost: what `WAIT` adds is how many replicas more have it.

pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod connection;
pub(crate) mod cursor;
mod decimal;
pub(crate) mod glob;
pub(crate) mod info;
pub(crate) mod introspect;
pub(crate) mod modify;
pub(crate) mod number;
pub(crate) mod parse;
pub(crate) mod render;
pub(crate) mod reply;
mod settings;
mod syntax;
pub(crate) mod table;

pub use settings::{ClusterMode, Options};
