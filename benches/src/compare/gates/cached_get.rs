//! Gate 4: the server's CPU time for a read from memory. Throughput says little here: on two cores
//! the load is the slower side.

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::redis::Redis;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let ringbolt = Ringbolt::start_with_door(context, "512MiB")?;
    let redis = Redis::start(context, false)?;
    let ways = ringbolt.ways()?;
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
    let cpu = |load: Options, connections, depth| {
        let report = get(load, connections, depth, Preload::Never)?;
        let server = report
            .server
            .ok_or_else(|| Skip::Failed("the server's CPU time is not known".into()))?;
        Ok::<f64, Skip>(server.cpu_us_per_request)
    };
    // Of each case: each way of ours, then Redis.
    let mut figures = vec![([Vec::new(), Vec::new()], Vec::new()); cases.len()];
    for _ in 0..context.rounds {
        for (&(_, connections, depth, _), (ours, theirs)) in cases.iter().zip(&mut figures) {
            for ((_, load), values) in ways.iter().zip(ours) {
                values.push(cpu(load.clone(), connections, depth)?);
            }
            theirs.push(cpu(redis.load(), connections, depth)?);
        }
    }
    let lines = cases
        .iter()
        .zip(figures)
        .flat_map(|(case, (ours, theirs))| {
            let (name, _, _, bound) = *case;
            let theirs = Figure::new("Redis", Unit::Us, theirs);
            ways.iter().zip(ours).map(move |((way, _), ours)| {
                Line::ratio(
                    format!("server CPU per cached GET, {name}{way}"),
                    Figure::new("Ringbolt", Unit::Us, ours),
                    theirs.clone(),
                    Bound::AtMost(bound),
                )
            })
        });
    Ok(lines.collect())
}
