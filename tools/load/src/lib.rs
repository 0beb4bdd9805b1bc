//! The Ringbolt load generator.
//!
//! One thread (or a few) drives all connections through one epoll loop each: no task, no
//! allocation and no lock per request, so that one core of load saturates one core of server.
//!
//! The parts, from the outside in:
//! - [`Options`] say what to do, [`run`] does it, [`Report`] says what came of it.
//! - `driver`: the phases (connect, preload, measure, read back) and the threads.
//! - `worker`: one thread's event loop, closed or open.
//! - `source`: what to ask next, and what to make of the answer: [`source::mix`] for the
//!   workloads, [`source::load`] for the preload, [`source::verify`] for runs that check.
//! - [`protocol`]: Ringbolt and Redis, behind one shape.
//! - [`ledger`]: what was acknowledged, on disk, so that another process can check it after a
//!   crash: [`verify_ledger`].
//! - [`stats`], [`report`]: histograms, intervals, text, JSON, HdrHistogram percentiles, HTML.
//!
//! The same client drives Ringbolt and Redis, so that comparisons compare servers.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod connect;
mod driver;
pub mod keys;
pub mod ledger;
mod open_loop;
pub mod options;
pub mod procfs;
mod progress;
pub mod protocol;
pub mod report;
pub mod source;
pub mod stats;
pub mod value;
mod worker;

use std::path::PathBuf;

pub use driver::{run, verify_ledger};
pub use options::Options;
pub use report::Report;

/// Why a run did not end with a report, by what the caller must do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option is out of range or does not go with another.
    #[error("{0}")]
    Usage(String),
    /// The server cannot be reached, or refuses.
    #[error("{addr}: {what}")]
    Unreachable {
        /// Where.
        addr: String,
        /// What happened, and what may help.
        what: String,
    },
    /// A local file or facility fails.
    #[error("{what}: {error}")]
    Io {
        /// What was attempted.
        what: String,
        /// What came back.
        error: std::io::Error,
    },
    /// The ledger is damaged or of another version.
    #[error("{}: {what}", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The server sends what the protocol does not allow.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl LoadError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}
