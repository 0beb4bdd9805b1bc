//! Gate 14: what a request costs when the node has two shards on two cores, over one on one. The
//! load shares the second core, so throughput means nothing here; CPU time does.

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    if context.server_cpu == context.load_cpu {
        return Err(Skip::Failed("it takes two CPUs".into()));
    }
    let one = Ringbolt::start(context, "512MiB")?;
    let both = format!("{},{}", context.server_cpu, context.load_cpu);
    let two = Ringbolt::start_on(context, &both, 2, "512MiB")?;
    let load = |server: &Ringbolt, preload| Options {
        workload: Workload::Get,
        preload,
        connections: 50,
        limit: Limit::Duration(context.round_time(2.0, 20.0)),
        ..server.load()
    };
    for server in [&one, &two] {
        measure(load(server, Preload::Only))?;
    }
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..context.rounds {
        for (server, values) in [&two, &one].into_iter().zip(&mut figures) {
            let report = measure(load(server, Preload::Never))?;
            let usage = report
                .server
                .ok_or_else(|| Skip::Failed("the server's CPU time is not known".into()))?;
            values.push(usage.cpu_us_per_request);
        }
    }
    let [ours, theirs] = figures;
    Ok(vec![Line::ratio(
        "server CPU per GET, two shards over one",
        Figure::new("Ringbolt two shards", Unit::Us, ours),
        Figure::new("one shard", Unit::Us, theirs),
        Bound::AtMost(1.1),
    )])
}
