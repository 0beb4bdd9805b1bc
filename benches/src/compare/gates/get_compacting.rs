//! Gate 10: the tail of reads at a fixed rate, with the server idle besides and while steady
//! overwrites keep it flushing and compacting. Latency counts from when each read was due.
//!
//! One thread makes both reads and overwrites: two would be in each other's way on the load's CPU,
//! where one keeps the other waiting for a whole slice of the kernel's scheduler.

use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Preload, Workload};
use ringbolt_load::source::OpKind;

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::ringbolt::{Ringbolt, measure};

const GETS_PER_SECOND: f64 = 4_000.0;
/// Overwrites that keep compaction busy while they leave the core room to breathe.
const PUTS_PER_SECOND: f64 = 4_000.0;

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let time = context.round_time(2.0, 60.0);
    let ringbolt = Ringbolt::start(context, context.pick("128MiB", "512MiB"))?;
    let base = Options {
        workload: Workload::Get,
        records: context.pick(150_000, 10_000_000),
        value_bytes: 1024..=1024,
        connections: 32,
        depth: 64,
        limit: Limit::Duration(time),
        preload: Preload::Never,
        ..ringbolt.load()
    };
    measure(Options {
        preload: Preload::Only,
        ..base.clone()
    })?;
    let gets = Options {
        rate: Some(GETS_PER_SECOND),
        ..base.clone()
    };
    let (mut compacting, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        std::thread::sleep(context.round_time(1.0, 30.0));
        idle.push(measure(gets.clone())?.all.p99_us);
        compacting.push(beside_puts(&base, time)?);
    }
    Ok(vec![Line::ratio(
        "GET p99 at 4,000/s, compacting over idle",
        Figure::new("Ringbolt compacting", Unit::Us, compacting),
        Figure::new("idle", Unit::Us, idle),
        Bound::AtMost(1.5),
    )])
}

fn beside_puts(base: &Options, time: Duration) -> Result<f64, Skip> {
    let report = measure(Options {
        workload: Workload::Mixed {
            reads: (100.0 * GETS_PER_SECOND / (GETS_PER_SECOND + PUTS_PER_SECOND)) as u8,
        },
        rate: Some(GETS_PER_SECOND + PUTS_PER_SECOND),
        warmup: Duration::from_millis(800),
        limit: Limit::Duration(time),
        ..base.clone()
    })?;
    let reads = report
        .kinds
        .iter()
        .find(|kind| kind.kind == OpKind::Read.name());
    reads
        .map(|reads| reads.p99_us)
        .ok_or_else(|| Skip::Failed("the mixed load made no reads".into()))
}
