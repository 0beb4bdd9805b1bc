//! A reactor over one io_uring for sockets and positioned file I/O.
//!
//! It knows nothing of frames or of storage. One thread owns one [`Ring`]; the thread's loop is:
//!
//! 1. [`Ring::submit`] (or [`Ring::wait`] when there is nothing to do) hands the queued requests to
//!    the kernel and collects the completions that are there;
//! 2. [`Ring::next_event`] yields what they mean, one [`Event`] at a time, until it returns `None`;
//! 3. the caller answers by queueing sends, closes and file requests; back to 1.
//!
//! No callbacks, no tasks, no locks: a connection is a slot in a table, and everything that can
//! happen to it is an event. Received bytes lie in buffers that the kernel picked from a pool of
//! this ring's ([`RecvBytes`]); dropping them gives the buffer back.
//!
//! Vocabulary: a *connection* is a slot with a generation ([`ConnId`]), so that a late completion
//! can never reach a later user of the slot. An operation is *armed* while the kernel holds it. A
//! ring is *parked* while its thread sleeps in the kernel and needs a [`RingWaker`] to notice
//! anything that is not a completion.
//!
//! What the code holds to, because io_uring punishes the opposite: the ring is created on the
//! thread that uses it; a slot and its descriptor are freed only after the last completion of every
//! operation on it; one send at a time per socket; a multishot receive that ran out of buffers is
//! re-armed once, after the buffers went back; and a descriptor is shut down and its operations
//! cancelled before it is closed, since `close` alone sends no FIN while a receive is armed.

mod accept;
mod buffers;
mod config;
mod conn;
mod connect;
mod event;
mod file;
mod ring;
mod socket;
mod stats;
mod token;
mod waker;

pub use buffers::RecvBytes;
pub use config::{Mode, RingConfig, RingError};
pub use event::{Event, SendError};
pub use file::{FileBuf, FileOp, FileOutcome};
pub use ring::Ring;
pub use stats::RingStats;
pub use token::{ConnId, ListenerId};
pub use waker::RingWaker;
