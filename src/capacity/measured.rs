//! What the planner takes from measurements: each constant with where it comes from.
//!
//! All were made on a 2-core VM (AMD EPYC, virtio disk): another machine's differ, most of all by its
//! cores. `docs/operations.md`, "Size it", compares the formulas with runs of a real server.

/// CPU of a durable put with 50 connections, in µs: ARCHITECTURE.md, "A core looks for work before it
/// sleeps only where that is rewarded".
pub const PUT_CPU_US: f64 = 8.7;
/// CPU of flushing and compacting, in ns for each byte that tables are written with: gate 9 at commit
/// 3537a68, where one core did 54.4 k puts/s of 1 KiB while it wrote 6.1 times as much to tables; with
/// the puts' own part in the engine. Gates 4, 5 and 12 below are of the same run.
pub const COMPACTION_CPU_NS_PER_BYTE: f64 = 2.9;
/// CPU of a get from memory with 50 connections, in µs: gate 4 of the same.
pub const CACHED_GET_CPU_US: f64 = 5.95;
/// CPU of a get from the disk over the network, in µs: gate 5 of the same, 71.6 k/s by one core.
pub const DISK_GET_CPU_US: f64 = 14.0;
/// Records of 100 B in the log replayed by one core in a second: gate 12 of the same.
pub const REPLAY_RECORDS_PER_S: f64 = 850_000.0;
/// The same in bytes of the log, which bounds larger records.
pub const REPLAY_BYTES_PER_S: f64 = 150e6;
/// A start with nothing to replay, in seconds: 1.0 to 1.6 were seen.
pub const START_S: f64 = 1.5;
/// Puts that wait for one log write on a busy core: half of 50 connections, for two writes are under
/// way at once.
pub const PUTS_PER_GROUP: f64 = 25.0;
/// What a row takes in a data block beside key and value, in bytes: lengths, flags and the differences
/// of version and times, as docs/format-table.md has them.
pub const ROW_BYTES: f64 = 10.0;
/// What an entry of an index block takes beside its key, in bytes: the same, with offset and length.
pub const INDEX_ENTRY_BYTES: f64 = 12.0;
/// What a put takes in a memtable beside key and value, in bytes: the row's header, its place in the
/// tree and in the index. 76 were seen with values of 100 B (104,000 puts), 74 with 1 KiB (74,000).
pub const MEMTABLE_ROW_BYTES: f64 = 75.0;
/// Space that was seen over what the levels explain: peak 1.37 instead of 1.24 (ARCHITECTURE.md, "Level
/// 0 is compacted by columns").
pub const SPACE_SLACK: f64 = 1.1;
/// Resident memory over the setting `memory`, at most as seen: 1.03 at 256 MiB (gate 13), 0.88 to
/// 1.24 at 128 MiB on one core, of which a good part does not grow with it.
pub const RESIDENT_SLACK: f64 = 1.25;
/// How busy cores may be in the long run; the rest is for peaks and for the time after a restart.
pub const CPU_SHARE_MAX: f64 = 0.6;
