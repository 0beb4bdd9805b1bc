//! Gate 12: how fast the log is replayed after a kill.

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::engine::EngineJob;
use crate::engine::{Job, ReplayResult, WriteResult};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let mut rates = Vec::new();
    for _ in 0..context.rounds {
        let dir = context.temp_dir("engine")?;
        let job = EngineJob {
            dir: dir.path().join("data"),
            records: context.pick(800_000, 3_000_000),
            value_bytes: 100,
            // Nothing is flushed before the kill: all of it is replayed.
            memory_bytes: 4 << 30,
            seconds: 0.0,
            depth: 1,
        };
        let log = dir.path().join("log");
        let _: WriteResult = job.run_and_kill(context, Job::Die, &log)?;
        let (opened, _): (ReplayResult, _) = job.run(context, Job::Reopen)?;
        rates.push(opened.replayed as f64 / opened.seconds.max(1e-9) / 1e6);
    }
    Ok(vec![Line::plain(
        "log records replayed, M/s",
        Figure::new("Ringbolt", Unit::Times, rates),
        Bound::AtLeast(0.5),
    )])
}
