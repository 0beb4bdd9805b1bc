//! Gate 4: the server's CPU time for a read from memory. Throughput says little here: on two cores
//! the load is the slower side.

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::redis::Redis;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let ringbolt = Ringbolt::start(context, "512MiB")?;
    let redis = Redis::start(context, false)?;
    let get = |load: Options, connections, depth, preload| {
        measure(Options {
            workload: Workload::Get,
            preload,
            connections,
            depth,
            limit: Limit::Duration(context.round_time(1.0, 20.0)),
            ..load
        })
    };
    for load in [ringbolt.load(), redis.load()] {
        get(load, 50, 16, Preload::Only)?;
    }
    let cases = [
        ("50 connections", 50, 1, 0.95),
        ("256 connections", 256, 1, 0.95),
        ("50 connections, pipeline 16", 50, 16, 0.85),
    ];
    let mut figures = vec![[Vec::new(), Vec::new()]; cases.len()];
    for _ in 0..context.rounds {
        for ((_, connections, depth, _), sides) in cases.iter().zip(&mut figures) {
            for (load, values) in [ringbolt.load(), redis.load()].into_iter().zip(sides) {
                let report = get(load, *connections, *depth, Preload::Never)?;
                let server = report
                    .server
                    .ok_or_else(|| Skip::Failed("the server's CPU time is not known".into()))?;
                values.push(server.cpu_us_per_request);
            }
        }
    }
    Ok(cases
        .iter()
        .zip(figures)
        .map(|((name, _, _, bound), [ours, theirs])| {
            Line::ratio(
                format!("server CPU per cached GET, {name}"),
                Figure::new("Ringbolt", Unit::Us, ours),
                Figure::new("Redis", Unit::Us, theirs),
                Bound::AtMost(*bound),
            )
        })
        .collect())
}
