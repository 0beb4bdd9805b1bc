//! Gate 16: the latency of a lone client's durable write on three nodes that share one disk and the
//! CPUs, against the same on one node.

use ringbolt_load::options::{Limit, Options, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::cluster::Cluster;
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let time = context.round_time(2.0, 30.0);
    let three = Cluster::start(context)?;
    let one = Ringbolt::start(context, "512MiB")?;
    let put = |load: Options| {
        measure(Options {
            workload: Workload::Put,
            connections: 1,
            limit: Limit::Duration(time),
            ..load
        })
        .map(|report| report.all.p50_us)
    };
    let (mut quorum, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        quorum.push(put(three.load())?);
        alone.push(put(one.load())?);
    }
    Ok(vec![Line::ratio(
        "quorum-durable PUT p50 over one node's, 1 connection",
        Figure::new("three nodes", Unit::Us, quorum),
        Figure::new("one node", Unit::Us, alone),
        Bound::AtMost(3.0),
    )])
}
