//! Bugs planted on purpose, to prove that the crash and model simulations find such bugs.
//!
//! Without the cargo feature `planted-bugs` every switch is the constant `false` and the compiler
//! removes what it guards. With it, [`plant`] turns one bug on for the current thread;
//! `ringbolt-sim bugs` then runs seeds until one fails.

/// Declares `Bug`, `plant` and `is`, in a crate that has the feature `planted-bugs`.
#[macro_export]
macro_rules! planted_bugs {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A bug that can be planted. Each stands for a class of real ones.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($(#[doc = $doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }

        #[cfg(feature = "planted-bugs")]
        thread_local! {
            static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
        }

        /// Turns one bug on for this thread, or all off.
        #[cfg(feature = "planted-bugs")]
        pub fn plant(bug: Option<Bug>) {
            PLANTED.set(bug);
        }

        /// Whether this bug is planted.
        #[cfg(feature = "planted-bugs")]
        pub fn is(bug: Bug) -> bool {
            PLANTED.get() == Some(bug)
        }

        /// Whether this bug is planted: never, in this build.
        #[cfg(not(feature = "planted-bugs"))]
        #[inline(always)]
        pub const fn is(bug: Bug) -> bool {
            let _ = bug;
            false
        }
    };
}

planted_bugs! {
    /// A table is put into the manifest without having been synced.
    TableNotSynced,
    /// The log believes records whose checksum is wrong.
    LogChecksumIgnored,
    /// Compaction drops tombstones although deeper levels hold older versions.
    TombstoneLost,
    /// Recovery does not compare a group's epoch with its segment's, and so replays what a recycled
    /// segment held before.
    EpochIgnored,
    /// Records are handed out as durable when their own write is done, though an earlier one is not.
    DurableOutOfOrder,
    /// A manifest edit is believed before it is synced.
    ManifestNotSynced,
    /// `get` does not look at range deletes.
    RangeDeleteIgnored,
    /// A segment is recycled as soon as the log has moved on, flushed or not.
    RecycledTooEarly,
    /// Recovery goes on reading past a bad group as if it had not been there.
    TornTailAccepted,
    /// A record lives through the millisecond at which it expires.
    ExpiryOffByOne,
    /// A block is believed wherever it is found: its checksum covers no position.
    BlockPositionIgnored,
    /// Blocks are believed without looking at their checksum.
    BlockChecksumIgnored,
    /// A flush records as flushed what was applied while it was running, too.
    FlushedTooMuch,
    /// A snapshot's versions are dropped by compaction while a cursor reads them.
    SnapshotIgnored,
    /// A memtable is closed without what became of the writes in it.
    ResultsNotPutDown,
}
