//! Gate 1: the latency of a lone client's durable write, against Redis with `appendfsync always`
//! and against what the disk and the loopback take by themselves.

use ringbolt_load::options::{Limit, Options, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::disk;
use crate::compare::peers::redis::Redis;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let time = context.round_time(1.0, 10.0);
    let ringbolt = Ringbolt::start(context, "512MiB")?;
    let redis = Redis::start(context, true)?;
    let put = |load: Options| {
        measure(Options {
            workload: Workload::Put,
            connections: 1,
            limit: Limit::Duration(time),
            ..load
        })
        .map(|report| report.all.p50_us)
    };
    let (mut ours, mut theirs, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        ours.push(put(ringbolt.load())?);
        theirs.push(put(redis.load())?);
        let write = disk::durable_writes(context, time)?;
        floor.push(write.p50_us + disk::round_trip_us(context, time / 4)?);
    }
    let ours = Figure::new("Ringbolt", Unit::Us, ours);
    Ok(vec![
        Line::ratio(
            "durable PUT p50, 1 connection",
            ours.clone(),
            Figure::new("Redis", Unit::Us, theirs),
            Bound::AtMost(0.6),
        ),
        Line::ratio(
            "the same over disk write + round trip",
            ours,
            Figure::new("fio + loopback", Unit::Us, floor),
            Bound::AtMost(1.15),
        ),
    ])
}
