//! Gate 2: durable writes of 50 clients, against Redis with `appendfsync always`.

use ringbolt_load::options::{Limit, Options, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::redis::Redis;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let ringbolt = Ringbolt::start(context, "512MiB")?;
    let redis = Redis::start(context, true)?;
    let put = |load: Options| {
        measure(Options {
            workload: Workload::Put,
            connections: 50,
            limit: Limit::Duration(context.round_time(1.5, 30.0)),
            ..load
        })
    };
    let mut rates = [Vec::new(), Vec::new()];
    let mut tails = [Vec::new(), Vec::new()];
    for _ in 0..context.rounds {
        for (side, load) in [ringbolt.load(), redis.load()].into_iter().enumerate() {
            let report = put(load)?;
            rates[side].push(report.all.per_second);
            tails[side].push(report.all.p99_us);
        }
    }
    let [our_rates, their_rates] = rates;
    let [our_tails, their_tails] = tails;
    Ok(vec![
        Line::ratio(
            "durable PUT/s, 50 connections",
            Figure::new("Ringbolt", Unit::PerSecond, our_rates),
            Figure::new("Redis", Unit::PerSecond, their_rates),
            Bound::AtLeast(1.5),
        ),
        Line::ratio(
            "durable PUT p99, 50 connections",
            Figure::new("Ringbolt", Unit::Us, our_tails),
            Figure::new("Redis", Unit::Us, their_tails),
            Bound::AtMost(0.5),
        ),
    ])
}
