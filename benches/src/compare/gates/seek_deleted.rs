//! Gate 11: a seek that has to pass 100,000 deleted records, against one among live ones.

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::engine::EngineJob;
use crate::engine::{Job, SeekResult};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let (mut fresh, mut deleted, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        let dir = context.temp_dir("engine")?;
        let job = EngineJob {
            dir: dir.path().join("data"),
            records: 0,
            value_bytes: 100,
            memory_bytes: 256 << 20,
            seconds: 0.0,
            depth: 1,
        };
        let (result, _): (SeekResult, _) = job.run(context, Job::Seek)?;
        fresh.push(result.fresh_us);
        deleted.push(result.deleted_us);
        first.push(result.first_deleted_us);
    }
    let fresh = Figure::new("fresh", Unit::Us, fresh);
    Ok(vec![
        Line::ratio(
            "seek after 100 k deletes over fresh",
            Figure::new("Ringbolt after deletes", Unit::Us, deleted),
            fresh.clone(),
            Bound::AtMost(2.0),
        ),
        Line::ratio(
            "the very first such seek",
            Figure::new("Ringbolt after deletes", Unit::Us, first),
            fresh,
            Bound::Told,
        ),
    ])
}
