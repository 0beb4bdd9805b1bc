//! A shard's counters: plain cells, read when somebody asks.

use std::cell::Cell;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters of one shard's request path. Totals since start unless the doc says "now".
        #[derive(Debug, Default, Clone)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: Cell<u64>,)*
        }

        impl Counters {
            /// Every counter: its name, what it counts, and how it is read.
            pub const TABLE: &'static [(&'static str, &'static str, fn(&Self) -> u64)] = &[
                $((
                    stringify!($name),
                    concat!($($doc),*),
                    |counters: &Self| counters.$name.get(),
                ),)*
            ];

            /// Every counter with its name.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections open now.
    connections,
    /// Connections accepted.
    connections_total,
    /// Connections cut off because they did not read, speak or finish a frame in time.
    connections_cut_total,
    /// Connections refused because there were too many.
    connections_refused_total,
    /// Requests received.
    requests_total,
    /// Requests whose partition is another core's.
    requests_forwarded_total,
    /// Requests answered with an error.
    errors_total,
    /// Requests refused because a limit was reached.
    overloaded_total,
    /// Frames that broke the protocol.
    bad_frames_total,
    /// Single-key reads.
    gets_total,
    /// Reads that had to wait for the disk.
    reads_from_disk_total,
    /// Writes and batches acknowledged.
    writes_total,
    /// How often a replica here became its partition's leader.
    leaderships_total,
    /// Entries that leaders here have proposed.
    proposals_total,
    /// Proposals that they came in: each is all entries of a partition in one turn.
    proposal_batches_total,
    /// Replicas here that sleep now, because nothing is asked of their partitions.
    replicas_asleep,
    /// How often a replica here fell asleep.
    sleeps_total,
    /// How often entries that stayed uncommitted were logged again, so that the log could go on.
    carried_forward_total,
    /// Entries read from the log again for followers that were behind.
    old_entries_total,
    /// How often it was handed over because this core was to lead nothing.
    leaderships_given_total,
    /// Snapshots that other nodes took from here.
    snapshots_sent_total,
    /// Bytes of them.
    snapshot_sent_bytes_total,
    /// Snapshots installed here.
    snapshots_installed_total,
    /// Scan pages.
    scan_pages_total,
    /// Time that acknowledgements were held back by write throttling.
    throttled_us_total,
    /// Links to other nodes open now.
    peer_links,
    /// Links that could not be made, or broke.
    peer_links_failed_total,
    /// Items for other nodes, or of them, that were dropped.
    peer_items_dropped_total,
    /// Bytes received from other nodes.
    peer_received_bytes_total,
    /// Bytes sent to other nodes.
    peer_sent_bytes_total,
    /// Requests that other nodes were asked.
    forwards_total,
    /// Bytes received from clients.
    received_bytes_total,
    /// Bytes sent to clients.
    sent_bytes_total,
}

/// Adds to a counter.
pub(crate) fn add(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get().wrapping_add(by));
}
