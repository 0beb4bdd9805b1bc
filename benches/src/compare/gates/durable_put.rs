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
    let ringbolt = Ringbolt::start_with_door(context, "512MiB")?;
    let redis = Redis::start(context, true)?;
    let ways = ringbolt.ways()?;
    let put = |load: Options| {
        measure(Options {
            workload: Workload::Put,
            connections: 1,
            limit: Limit::Duration(time),
            ..load
        })
        .map(|report| report.all.p50_us)
    };
    let mut ours = [Vec::new(), Vec::new()];
    let (mut theirs, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        for ((_, load), values) in ways.iter().zip(&mut ours) {
            values.push(put(load.clone())?);
        }
        theirs.push(put(redis.load())?);
        let write = disk::durable_writes(context, time)?;
        floor.push(write.p50_us + disk::round_trip_us(context, time / 4)?);
    }
    let theirs = Figure::new("Redis", Unit::Us, theirs);
    let floor = Figure::new("fio + loopback", Unit::Us, floor);
    let lines = ways.iter().zip(ours).flat_map(|((way, _), values)| {
        let ours = Figure::new("Ringbolt", Unit::Us, values);
        [
            Line::ratio(
                format!("durable PUT p50, 1 connection{way}"),
                ours.clone(),
                theirs.clone(),
                Bound::AtMost(0.6),
            ),
            Line::ratio(
                format!("the same over disk write + round trip{way}"),
                ours,
                floor.clone(),
                Bound::AtMost(1.15),
            ),
        ]
    });
    Ok(lines.collect())
}
