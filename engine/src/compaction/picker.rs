//! What to compact next.
//!
//! * **Level sizes are dynamic.** The deepest level may be as large as it is; each level above it
//!   may hold `multiplier` times less, up to the *base level*, the last one worth having: a level
//!   smaller than what level 0 hands down at once costs a rewrite and saves none. Levels above the
//!   base level stay empty, and level 0 is compacted straight into the base level.
//! * **Level 0** is due at so many runs on top of each other or so many bytes. A job takes a table of
//!   the oldest run and everything in level 0 that overlaps it, directly or through others: as flushes
//!   cut their tables at the same keys, that is a column of the key space and not all of it. Each
//!   column is thus emptied when it holds about twice the average: half the space for the same
//!   writing. When the runs are many but small beside the base level, they are merged among
//!   themselves instead.
//! * **Deeper levels** are due by size over target. The table with the least overlap in the next
//!   level for its size goes first; without any overlap it is moved, not rewritten. A table full of
//!   tombstones, or one whose tombstones a reader stumbled over, is due at any size.
//! * **Expired records** of the deepest level, where no compaction may come by for long, are due when
//!   all of a table expires and half of the time that takes is over. As about half goes each time,
//!   no more is rewritten for it than the table had, all in all.
//! * **Whole tables** are dropped unread when all in them is expired and nothing older lies below,
//!   or when a newer range delete covers all of it.

use std::rc::Rc;

use crate::manifest::{LEVELS, TableRecord};
use crate::tree::version::{Run, TableFile, Version};

/// A level is written in about so many tables, as long as they are not too small: what a compaction
/// needs for its output until its inputs can go is small beside the level.
const TABLES_PER_LEVEL: u64 = 32;
/// The least size at which a table is closed, as a part of the largest.
const TABLE_BYTES_LEAST_PART: u64 = 32;

/// What decides the shape of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Size at which a table is closed at most, in bytes.
    pub table_bytes: u64,
    /// Runs of level 0 on top of each other at which it is compacted.
    pub l0_runs: usize,
    /// Bytes in level 0 at which it is compacted.
    pub l0_bytes: u64,
    /// Size of a level over that of the level above.
    pub multiplier: u64,
    /// The least target of a level worth having, in bytes.
    pub base_bytes: u64,
    /// Percentage of tombstones from which a table is compacted at any level size.
    pub tombstone_percent: u64,
    /// Entries below which a table's tombstones do not matter.
    pub tombstone_entries_min: u64,
}

/// Why a job is done; for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Level 0 into the base level.
    L0,
    /// Runs of level 0 among themselves.
    IntraL0,
    /// A level over its target.
    Size,
    /// Tombstones.
    Tombstones,
    /// Records that have expired, in the deepest level.
    Expired,
}

/// A piece of work. Its inputs are marked busy while it exists.
pub(crate) struct Job<T> {
    /// Sorted inputs, each from one run, newest first, with the level they are in.
    pub inputs: Vec<(u8, Vec<Rc<TableFile<T>>>)>,
    /// Where the output goes.
    pub output_level: u8,
    /// The run of the output in level 0; 0 elsewhere.
    pub output_run: u64,
    /// Nothing has to be rewritten: the one input changes its level.
    pub is_move: bool,
    /// Why.
    pub reason: Reason,
}

impl<T> Job<T> {
    fn new(
        inputs: Vec<(u8, Vec<Rc<TableFile<T>>>)>,
        output_level: usize,
        output_run: u64,
        is_move: bool,
        reason: Reason,
    ) -> Self {
        let inputs: Vec<_> = inputs.into_iter().filter(|(_, t)| !t.is_empty()).collect();
        let job = Self {
            inputs,
            output_level: output_level as u8,
            output_run,
            is_move,
            reason,
        };
        job.tables().for_each(|table| table.busy.set(true));
        job
    }

    /// All inputs.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Rc<TableFile<T>>> {
        self.inputs.iter().flat_map(|(_, tables)| tables)
    }

    /// Bytes of all inputs.
    pub(crate) fn bytes(&self) -> u64 {
        self.tables().map(|t| t.record.bytes).sum()
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.tables().for_each(|table| table.busy.set(false));
    }
}

/// How large each level may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets {
    /// The level that level 0 is compacted into.
    pub base: usize,
    /// Bytes by level; 0 above the base level.
    pub bytes: [u64; LEVELS],
}

/// The targets for a version.
pub(crate) fn targets<T>(version: &Version<T>, shape: &Shape) -> Targets {
    let largest = version.levels.iter().map(|l| l.bytes).max().unwrap_or(0);
    let mut bytes = [0; LEVELS];
    let mut base = LEVELS - 1;
    let mut target = largest;
    bytes[base] = target.max(shape.base_bytes);
    while base > 1 && target / shape.multiplier >= shape.base_bytes.max(1) {
        target /= shape.multiplier;
        base -= 1;
        bytes[base] = target;
    }
    // A level above, left over from a larger tree, must be emptied before anything goes past it.
    let first_used = version.levels.iter().position(|l| l.bytes > 0);
    let base = base.min(first_used.map_or(base, |at| at + 1));
    Targets { base, bytes }
}

/// Bytes that level 0 may have.
pub(crate) fn l0_target<T>(version: &Version<T>, shape: &Shape) -> u64 {
    let largest = version.levels.iter().map(|l| l.bytes).max().unwrap_or(0);
    crate::tree::l0_target(largest, shape.l0_bytes)
}

/// Size at which a table is closed in a place that holds `bytes` in all.
pub(crate) fn table_bytes(shape: &Shape, bytes: u64, tables: u64) -> u64 {
    let least = shape.table_bytes / TABLE_BYTES_LEAST_PART;
    (bytes / tables).clamp(least, shape.table_bytes.max(least))
}

/// The same for a level below level 0.
pub(crate) fn level_table_bytes(targets: &Targets, shape: &Shape, level: usize) -> u64 {
    table_bytes(shape, targets.bytes[level], TABLES_PER_LEVEL)
}

/// Runs of level 0 that lie on top of each other, where they are most: each is a probe of a read.
fn l0_depth<T>(version: &Version<T>) -> usize {
    let tables = version.l0.iter().flat_map(|run| &run.tables);
    let over = |table: &Rc<TableFile<T>>| {
        let runs = version.l0.iter();
        runs.filter(|run| !run.overlapping_table(&table.record).is_empty())
            .count()
    };
    tables.map(over).max().unwrap_or(0)
}

/// How due level 0 is: from 1 on, it is.
pub(crate) fn l0_score<T>(version: &Version<T>, shape: &Shape) -> f64 {
    let runs = l0_depth(version) as f64 / shape.l0_runs.max(1) as f64;
    let bytes = version.l0_bytes() as f64 / l0_target(version, shape) as f64;
    runs.max(bytes)
}

/// How due level 1 to 5 is: over 1, it is. The deepest level never is.
pub(crate) fn level_score<T>(version: &Version<T>, targets: &Targets, level: usize) -> f64 {
    let bytes = version.level(level).bytes;
    if level + 1 >= LEVELS || bytes == 0 {
        return 0.0;
    }
    match targets.bytes[level] {
        // Left over above the base level: drained slowly, it is in nobody's way but takes a probe
        // of each read.
        0 => 1.5,
        target => bytes as f64 / target as f64,
    }
}

/// A job for level 0, if one is due and possible.
pub(crate) fn pick_l0<T>(version: &Version<T>, shape: &Shape) -> Option<Job<T>> {
    let targets = targets(version, shape);
    let score = l0_score(version, shape);
    let wanted = !l0_with_tombstones(version, shape).is_empty();
    if score < 1.0 && !wanted {
        return None;
    }
    let base_bytes = version.level(targets.base).bytes;
    let small =
        version.l0_bytes() < l0_target(version, shape) / 2 && version.l0_bytes() < base_bytes / 2;
    if small && score >= 1.0 && !wanted {
        return pick_intra_l0(version, shape);
    }
    // A base level far over its target makes this costlier than to empty that first.
    let base_score = level_score(version, &targets, targets.base);
    let blocked = base_score > 2.0 * score.max(1.0) && targets.base + 1 < LEVELS;
    let seeds = match score >= 1.0 {
        true => version.l0.last().map(|run| run.tables.clone()),
        false => Some(l0_with_tombstones(version, shape)),
    };
    let seeds = seeds.unwrap_or_default();
    if !blocked && let Some(job) = pick_l0_column(version, &targets, &seeds) {
        return Some(job);
    }
    // What it needs is in use: meanwhile keep the runs from piling up.
    if l0_depth(version) >= 2 * shape.l0_runs {
        return pick_intra_l0(version, shape);
    }
    None
}

/// Tables of level 0 whose tombstones should go.
fn l0_with_tombstones<T>(version: &Version<T>, shape: &Shape) -> Vec<Rc<TableFile<T>>> {
    let tables = version.l0.iter().flat_map(|run| &run.tables);
    tables
        .filter(|t| t.wanted.get() || is_dense(t, shape))
        .cloned()
        .collect()
}

fn is_dense<T>(table: &TableFile<T>, shape: &Shape) -> bool {
    let r = &table.record;
    r.entries >= shape.tombstone_entries_min
        && r.tombstones * 100 >= r.entries * shape.tombstone_percent.max(1)
}

/// Bounds of a growing range of row keys.
struct Bounds {
    from: Vec<u8>,
    to: Vec<u8>,
    to_included: bool,
}

impl Bounds {
    fn of<T>(table: &TableFile<T>) -> Self {
        Self {
            from: table.record.smallest.clone(),
            to: table.record.largest.clone(),
            to_included: !table.record.largest_excluded,
        }
    }

    /// Takes in a table; whether that made it grow.
    fn add<T>(&mut self, table: &TableFile<T>) -> bool {
        let r = &table.record;
        let mut grew = false;
        if r.smallest < self.from {
            self.from.clone_from(&r.smallest);
            grew = true;
        }
        let included = !r.largest_excluded;
        if (&r.largest, included) > (&self.to, self.to_included) {
            self.to.clone_from(&r.largest);
            self.to_included = included;
            grew = true;
        }
        grew
    }

    fn of_run<'r, T>(&self, run: &'r Run<T>) -> &'r [Rc<TableFile<T>>] {
        &run.tables[run.overlapping(&self.from, &self.to, self.to_included)]
    }
}

/// The cheapest column of level 0, of those around `seeds`, that can be compacted into the base level.
fn pick_l0_column<T>(
    version: &Version<T>,
    targets: &Targets,
    seeds: &[Rc<TableFile<T>>],
) -> Option<Job<T>> {
    let base = version.level(targets.base);
    let mut best: Option<(f64, Bounds)> = None;
    let mut covered_to: Option<Bounds> = None;
    for seed in seeds {
        // Already within the column of the seed before it.
        if let Some(c) = &covered_to
            && seed.record.smallest >= c.from
            && (&seed.record.largest, !seed.record.largest_excluded) <= (&c.to, c.to_included)
        {
            continue;
        }
        let mut bounds = Bounds::of(seed);
        loop {
            let mut grew = false;
            for run in &version.l0 {
                for table in bounds.of_run(run).to_vec() {
                    grew |= bounds.add(&table);
                }
            }
            if !grew {
                break;
            }
        }
        let l0_bytes: u64 = version
            .l0
            .iter()
            .flat_map(|run| bounds.of_run(run))
            .map(|t| t.record.bytes)
            .sum();
        let below = bounds.of_run(base);
        let is_busy = version
            .l0
            .iter()
            .flat_map(|run| bounds.of_run(run))
            .chain(below)
            .any(|t| t.busy.get());
        if !is_busy {
            let below_bytes: u64 = below.iter().map(|t| t.record.bytes).sum();
            let cost = below_bytes as f64 / l0_bytes.max(1) as f64;
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((
                    cost,
                    Bounds {
                        from: bounds.from.clone(),
                        to: bounds.to.clone(),
                        to_included: bounds.to_included,
                    },
                ));
            }
        }
        covered_to = Some(bounds);
    }
    let (_, bounds) = best?;
    let mut inputs: Vec<_> = version
        .l0
        .iter()
        .map(|run| (0, bounds.of_run(run).to_vec()))
        .filter(|(_, tables)| !tables.is_empty())
        .collect();
    let below = bounds.of_run(base).to_vec();
    let is_move = below.is_empty() && inputs.len() == 1 && inputs[0].1.len() == 1;
    inputs.push((targets.base as u8, below));
    Some(Job::new(inputs, targets.base, 0, is_move, Reason::L0))
}

/// At least this many runs are merged within level 0 at once, or it is not worth it.
const INTRA_L0_RUNS_MIN: usize = 3;

/// The neighbouring runs of level 0 that are cheapest to make one of, for each run less.
fn pick_intra_l0<T>(version: &Version<T>, shape: &Shape) -> Option<Job<T>> {
    let runs = &version.l0;
    let is_free = |run: &Rc<Run<T>>| run.tables.iter().all(|t| !t.busy.get());
    let mut best: Option<(f64, usize, usize)> = None;
    let least = INTRA_L0_RUNS_MIN.min(shape.l0_runs.max(2));
    for start in 0..runs.len() {
        let mut bytes = 0;
        for (len, run) in runs[start..].iter().enumerate() {
            if !is_free(run) {
                break;
            }
            bytes += run.bytes;
            let len = len + 1;
            if len < least {
                continue;
            }
            let cost = bytes as f64 / (len - 1) as f64;
            if best.is_none_or(|(best, ..)| cost < best) {
                best = Some((cost, start, len));
            }
        }
    }
    let (_, start, len) = best?;
    let window = &runs[start..start + len];
    let inputs = window.iter().map(|run| (0, run.tables.clone())).collect();
    Some(Job::new(
        inputs,
        0,
        window[0].number,
        false,
        Reason::IntraL0,
    ))
}

/// A job for levels 1 to 5, if one is due and possible.
pub(crate) fn pick_deep<T>(version: &Version<T>, shape: &Shape) -> Option<Job<T>> {
    let targets = targets(version, shape);
    let l0 = l0_score(version, shape);
    let mut due: Vec<(f64, usize)> = (1..LEVELS - 1)
        .map(|level| (level_score(version, &targets, level), level))
        .filter(|(score, _)| *score > 1.0)
        .collect();
    due.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (score, level) in due {
        // Level 0 needs the base level for itself, unless that is the tighter place.
        let in_the_way = level == targets.base || level + 1 == targets.base;
        if in_the_way && l0 >= 1.0 && l0 >= score {
            continue;
        }
        if let Some(job) = pick_from_level(version, level, Reason::Size, |_| true) {
            return Some(job);
        }
    }
    for level in 1..LEVELS - 1 {
        let wanted = |t: &TableFile<T>| {
            t.record.tombstones + t.record.range_deletes > 0
                && (t.wanted.get() || is_dense(t, shape))
        };
        if let Some(job) = pick_from_level(version, level, Reason::Tombstones, wanted) {
            return Some(job);
        }
    }
    None
}

/// A job that rids the deepest level of a table's expired records. `time_ms` tells the time of the
/// partitions that a table lies in.
pub(crate) fn pick_expired<T>(
    version: &Version<T>,
    time_ms: impl Fn(&TableRecord) -> Option<u64>,
) -> Option<Job<T>> {
    let deepest = LEVELS - 1;
    let is_due = |r: &TableRecord| {
        // Only where every record expires is the latest expiry known.
        r.expiry_max_ms > r.expiry_min_ms
            && time_ms(r).is_some_and(|now| now >= r.expiry_min_ms.midpoint(r.expiry_max_ms))
    };
    let tables = &version.level(deepest).tables;
    let table = tables.iter().find(|t| !t.busy.get() && is_due(&t.record))?;
    let inputs = vec![(deepest as u8, vec![Rc::clone(table)])];
    Some(Job::new(inputs, deepest, 0, false, Reason::Expired))
}

fn pick_from_level<T>(
    version: &Version<T>,
    level: usize,
    reason: Reason,
    wanted: impl Fn(&TableFile<T>) -> bool,
) -> Option<Job<T>> {
    let run = version.level(level);
    let next = version.level(level + 1);
    let mut best: Option<(f64, &Rc<TableFile<T>>)> = None;
    for table in &run.tables {
        if table.busy.get() || !wanted(table) {
            continue;
        }
        let below = &next.tables[next.overlapping_table(&table.record)];
        if below.iter().any(|t| t.busy.get()) {
            continue;
        }
        let below_bytes: u64 = below.iter().map(|t| t.record.bytes).sum();
        // Tombstones free more than their own room further down.
        let r = &table.record;
        let weight = 1.0 + 2.0 * r.tombstones as f64 / r.entries.max(1) as f64;
        let cost = below_bytes as f64 / (r.bytes.max(1) as f64 * weight);
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, table));
        }
    }
    let (_, table) = best?;
    let below = next.tables[next.overlapping_table(&table.record)].to_vec();
    // A move that takes tombstones to the deepest level would leave them there for good.
    let has_deletes = table.record.tombstones + table.record.range_deletes > 0;
    let to_deepest = level + 2 == LEVELS;
    let is_move = below.is_empty() && !(has_deletes && to_deepest);
    let inputs = vec![
        (level as u8, vec![Rc::clone(table)]),
        (level as u8 + 1, below),
    ];
    Some(Job::new(inputs, level + 1, 0, is_move, reason))
}
