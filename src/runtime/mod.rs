//! The real world under the engine and the shard: one pinned thread a core, with a glommio executor
//! for the tasks and a hot ring for everything that waits on the kernel.
//!
//! [`launch`] starts the cores. Each runs this loop:
//!
//! 1. submit to the hot ring and collect what completed;
//! 2. hand socket events to the [`Handler`], file completions and due timers to the tasks waiting;
//! 3. run the tasks that became runnable;
//! 4. let the handler end its turn (propose, batch replies);
//! 5. queue the file requests that tasks made; go to 1, or sleep.
//!
//! Decisions, and what they rest on:
//!
//! * *Table and manifest files go through the hot ring too*, not through glommio's `DmaFile`.
//!   glommio hands its requests to the kernel only when its executor has nothing to run or the
//!   preempt timer fires, and collecting them costs a pass over its three rings; with a second
//!   place to wait in, each turn would pay for both. With all of it in one ring there is one queue,
//!   one system call a turn, and one place to sleep. Measured side by side on a busy 2-core VM,
//!   random 4 KiB direct reads: 48–61 µs of CPU each against glommio's 67–74 µs one at a time, and
//!   5.5–6.0 µs against 7.2–7.3 µs with 32 in flight. glommio is left with what it is good at: the
//!   tasks, and the shares of the background queues.
//! * *The core always sleeps in its own ring.* Nothing is ever in flight with glommio, so glommio
//!   never parks: an idle wake costs one system call instead of seven and a membarrier.
//! * *Runnable tasks are counted* ([`RealEnv`] wraps each task's waker). A turn without runnable
//!   tasks never enters glommio's scheduler, and the core can tell whether it may sleep.
//! * *Foreground and log tasks share the loop's own task queue*, so they run in each turn, first
//!   come first served; flush, level-0 compaction and background have queues of their own, with
//!   shares, and give way after 0.5 ms, or as soon as the ring has something and 50 µs are over.

mod clock;
mod core;
mod disk;
mod driver;
mod env;
mod launch;
pub mod probe;
mod requests;
pub mod signals;
mod spin;
mod tasks;
mod timers;

pub use self::core::{CoreOptions, CoreStats};
pub use disk::{ReadBytes, RealDisk, RealFile};
pub use driver::{CoreError, Handler, Turn};
pub use env::RealEnv;
pub use launch::{Cores, LaunchError, LaunchOptions, launch};
pub use probe::Durability;

#[cfg(test)]
mod tests;
