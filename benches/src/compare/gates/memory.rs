//! Gate 13: the process's resident memory under a load that fills every buffer, over `--memory`.

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::ringbolt::{Ringbolt, measure};

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let (memory, budget) = context.pick(("256MiB", 256u64 << 20), ("512MiB", 512 << 20));
    let ringbolt = Ringbolt::start(context, memory)?;
    let report = measure(Options {
        workload: Workload::Mixed { reads: 50 },
        preload: Preload::Always,
        records: context.pick(400_000, 10_000_000),
        value_bytes: 1024..=1024,
        connections: 256,
        depth: 8,
        limit: Limit::Duration(context.round_time(4.0, 600.0)),
        ..ringbolt.load()
    })?;
    let server = report
        .server
        .ok_or_else(|| Skip::Failed("the server's memory is not known".into()))?;
    Ok(vec![Line::ratio(
        "resident memory over --memory",
        Figure::new("Ringbolt", Unit::Bytes, vec![server.rss_bytes_max as f64]),
        Figure::new("budget", Unit::Bytes, vec![budget as f64]),
        Bound::AtMost(1.1),
    )])
}
