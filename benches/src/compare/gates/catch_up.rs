//! Gate 18: what clients notice while a node that lost its data gets all of it from the others.
//!
//! Two of three nodes serve a fixed rate of writes and reads; then the third is started with an empty
//! folder, and the rate goes on until it votes everywhere and is behind nowhere. It is stopped in order
//! beforehand, so that no election falls into what is measured. All nodes and the load share the CPUs
//! and the disk, so this tells as much of that as of the pace of the copying.

use std::time::{Duration, Instant};

use ringbolt_load::options::{Limit, Options, Preload, Workload};
use ringbolt_load::source::OpKind;

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::cluster::{Cluster, NODES};
use crate::compare::peers::ringbolt::measure;

const RATE: f64 = 2_000.0;
const VALUE_BYTES: u32 = 1024;
/// One look at the latencies, and how many there may be until the node is whole.
const WINDOW: Duration = Duration::from_secs(2);
const WINDOWS_MAX: usize = 300;
/// From the stop until the rest has settled.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let records = context.pick(200_000, 2_000_000);
    let mut cluster = Cluster::start(context)?;
    let load = Options {
        connections: 16,
        depth: 64,
        records,
        value_bytes: VALUE_BYTES..=VALUE_BYTES,
        preload: Preload::Never,
        ..cluster.load()
    };
    measure(Options {
        preload: Preload::Only,
        ..load.clone()
    })?;
    let [mut idle, mut meanwhile] = [Tails::default(), Tails::default()];
    let mut rates = Vec::new();
    for _ in 0..context.rounds {
        cluster.stop(NODES - 1);
        std::thread::sleep(SETTLE);
        for _ in 0..2 {
            idle.look(&load)?;
        }
        cluster.replace(NODES - 1)?;
        let begun = Instant::now();
        let mut windows = 0;
        while !cluster.is_whole()? {
            if windows == WINDOWS_MAX {
                return Err(Skip::Failed("the node is not whole again".into()));
            }
            meanwhile.look(&load)?;
            windows += 1;
        }
        rates.push((records * u64::from(VALUE_BYTES)) as f64 / begun.elapsed().as_secs_f64());
    }
    let line = |what: &str, meanwhile, idle| {
        Line::ratio(
            what,
            Figure::new("Ringbolt catching up", Unit::Us, vec![middle(meanwhile)]),
            Figure::new("without", Unit::Us, vec![middle(idle)]),
            Bound::AtMost(2.0),
        )
    };
    Ok(vec![
        line(
            "PUT p99 at 1,000/s while a node gets all data",
            meanwhile.puts,
            idle.puts,
        ),
        line("GET p99 at 1,000/s, likewise", meanwhile.gets, idle.gets),
        Line::plain(
            "bytes of data a second that the node got",
            Figure::new("Ringbolt", Unit::Bytes, rates),
            Bound::Told,
        ),
    ])
}

/// 99th percentiles, one of each window.
#[derive(Default)]
struct Tails {
    puts: Vec<f64>,
    gets: Vec<f64>,
}

impl Tails {
    fn look(&mut self, load: &Options) -> Result<(), Skip> {
        let report = measure(Options {
            workload: Workload::Mixed { reads: 50 },
            rate: Some(RATE),
            warmup: Duration::from_millis(200),
            limit: Limit::Duration(WINDOW),
            ..load.clone()
        })?;
        for kind in &report.kinds {
            match kind.kind == OpKind::Read.name() {
                true => self.gets.push(kind.p99_us),
                false => self.puts.push(kind.p99_us),
            }
        }
        Ok(())
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
