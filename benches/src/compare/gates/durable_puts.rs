//! Gate 2: durable writes of 50 clients, against Redis with `appendfsync always`.
//!
//! Each server is written to once before the rounds that count. In a new folder the first segments of the
//! log are made while they are needed; the tail of that time is told by itself.

use ringbolt_load::options::{Limit, Options, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::redis::Redis;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

/// What the rounds of one side came to.
#[derive(Default)]
struct Side {
    rates: Vec<f64>,
    tails: Vec<f64>,
    cpu: Vec<f64>,
}

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let ringbolt = Ringbolt::start_with_door(context, "512MiB")?;
    let redis = Redis::start(context, true)?;
    let ways = ringbolt.ways()?;
    let put = |load: Options, side: &mut Side| {
        let report = measure(Options {
            workload: Workload::Put,
            connections: 50,
            limit: Limit::Duration(context.round_time(1.5, 30.0)),
            ..load
        })?;
        let server = report
            .server
            .ok_or_else(|| Skip::Failed("the server's CPU time is not known".into()))?;
        side.rates.push(report.all.per_second);
        side.tails.push(report.all.p99_us);
        side.cpu.push(server.cpu_us_per_request);
        Ok::<(), Skip>(())
    };
    let mut ours = [Side::default(), Side::default()];
    let mut theirs = Side::default();
    let mut first = [Side::default(), Side::default()];
    put(ringbolt.load(), &mut first[0])?;
    put(redis.load(), &mut first[1])?;
    for _ in 0..context.rounds {
        for ((_, load), side) in ways.iter().zip(&mut ours) {
            put(load.clone(), side)?;
        }
        put(redis.load(), &mut theirs)?;
    }
    let [first_ours, first_theirs] = first.map(|side| side.tails);
    let begun = Line::ratio(
        "durable PUT p99 in a new folder's first seconds",
        Figure::new("Ringbolt", Unit::Us, first_ours),
        Figure::new("Redis", Unit::Us, first_theirs),
        Bound::Told,
    );
    let lines = ways.iter().zip(ours).flat_map(|((way, _), ours)| {
        let line = |what, unit, ours, theirs: &Vec<f64>, bound| {
            Line::ratio(
                format!("{what}, 50 connections{way}"),
                Figure::new("Ringbolt", unit, ours),
                Figure::new("Redis", unit, theirs.clone()),
                bound,
            )
        };
        let (rate, tail) = (Bound::AtLeast(1.5), Bound::AtMost(0.5));
        [
            line(
                "durable PUT/s",
                Unit::PerSecond,
                ours.rates,
                &theirs.rates,
                rate,
            ),
            line("durable PUT p99", Unit::Us, ours.tails, &theirs.tails, tail),
            line(
                "server CPU per durable PUT",
                Unit::Us,
                ours.cpu,
                &theirs.cpu,
                Bound::Told,
            ),
        ]
    });
    Ok(lines.chain([begun]).collect())
}
