//! Gate 3: the tail of cached reads by 10 clients while 50 others write durably.

use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::redis::Redis;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

/// The writers begin this much before the readers are measured, and end after them.
const MARGIN: Duration = Duration::from_millis(500);

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let time = context.round_time(1.5, 30.0);
    let ringbolt = Ringbolt::start_with_door(context, "512MiB")?;
    let redis = Redis::start(context, true)?;
    let ways = ringbolt.ways()?;
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], Vec::new());
    for load in [ringbolt.load(), redis.load()] {
        measure(Options {
            workload: Workload::Get,
            preload: Preload::Only,
            ..load
        })?;
    }
    for _ in 0..context.rounds {
        for ((_, load), values) in ways.iter().zip(&mut ours) {
            values.push(p99_us(load.clone(), time)?);
        }
        theirs.push(p99_us(redis.load(), time)?);
    }
    let lines = ways.iter().zip(ours).map(|((way, _), ours)| {
        Line::ratio(
            format!("GET p99 while 50 connections PUT{way}"),
            Figure::new("Ringbolt", Unit::Us, ours),
            Figure::new("Redis", Unit::Us, theirs.clone()),
            Bound::AtMost(0.3),
        )
    });
    Ok(lines.collect())
}

fn p99_us(load: Options, time: Duration) -> Result<f64, Skip> {
    let puts = Options {
        workload: Workload::Put,
        connections: 50,
        warmup: Duration::ZERO,
        limit: Limit::Duration(time + 2 * MARGIN),
        ..load.clone()
    };
    let gets = Options {
        workload: Workload::Get,
        preload: Preload::Never,
        connections: 10,
        warmup: MARGIN,
        limit: Limit::Duration(time),
        ..load
    };
    std::thread::scope(|scope| {
        let writers = scope.spawn(|| measure(puts));
        let report = measure(gets);
        let wrote = writers
            .join()
            .map_err(|_| Skip::Failed("the writers' thread panicked".into()))?;
        wrote.and(report)
    })
    .map(|report| report.all.p99_us)
}
