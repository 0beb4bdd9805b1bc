//! Gate 14: what a request costs when the node has two shards on two cores, over one on one. The
//! load shares the second core, so throughput means nothing here; CPU time does.
//!
//! Under a load that asks as fast as it can, one shard has many requests in each turn of its loop
//! and two shards, which leave the load less of the second core, have few: most of the difference
//! is that. So the cost is told for an equal rate a shard as well, which both take with ease.

use ringbolt_load::options::{Arrivals, Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::ringbolt::{Ringbolt, measure};

/// Connections to each shard.
const CONNECTIONS: usize = 25;
/// Requests per second to each shard, as of independent users.
const RATE: f64 = 25_000.0;

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    if context.server_cpu == context.load_cpu {
        return Err(Skip::Failed("it takes two CPUs".into()));
    }
    let one = Ringbolt::start(context, "512MiB")?;
    let both = format!("{},{}", context.server_cpu, context.load_cpu);
    let two = Ringbolt::start_on(context, &both, 2, "512MiB")?;
    let load = |server: &Ringbolt| Options {
        workload: Workload::Get,
        preload: Preload::Never,
        limit: Limit::Duration(context.round_time(2.0, 20.0)),
        ..server.load()
    };
    for server in [&one, &two] {
        measure(Options {
            preload: Preload::Only,
            ..load(server)
        })?;
    }
    let mut at_most = [Vec::new(), Vec::new()];
    let mut at_rate = [Vec::new(), Vec::new()];
    for _ in 0..context.rounds {
        for (side, (server, shards)) in [(&two, 2), (&one, 1)].into_iter().enumerate() {
            at_most[side].push(cpu_us(Options {
                connections: 2 * CONNECTIONS,
                ..load(server)
            })?);
            at_rate[side].push(cpu_us(Options {
                connections: shards * CONNECTIONS,
                rate: Some(shards as f64 * RATE),
                arrivals: Arrivals::Poisson,
                ..load(server)
            })?);
        }
    }
    let line = |name, [two, one]: [Vec<f64>; 2]| {
        Line::ratio(
            name,
            Figure::new("Ringbolt two shards", Unit::Us, two),
            Figure::new("one shard", Unit::Us, one),
            Bound::AtMost(1.1),
        )
    };
    Ok(vec![
        line("server CPU per GET, two shards over one", at_most),
        line("the same at 25,000 GET/s a shard", at_rate),
    ])
}

fn cpu_us(load: Options) -> Result<f64, Skip> {
    measure(load)?
        .server
        .map(|usage| usage.cpu_us_per_request)
        .ok_or_else(|| Skip::Failed("the server's CPU time is not known".into()))
}
