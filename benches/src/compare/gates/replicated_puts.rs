//! Gate 15: durable writes of 64 clients on three nodes, acknowledged by a quorum, against etcd. All
//! nodes and the load share the CPUs and the disk.

use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::cluster::Cluster;
use crate::compare::peers::etcd::Etcd;
use crate::compare::peers::etcd_load;
use crate::compare::peers::ringbolt::measure;

const CLIENTS: usize = 64;
const RECORDS: u64 = 100_000;
const WARMUP: Duration = Duration::from_millis(500);

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let time = context.round_time(3.0, 60.0);
    let ringbolt = Cluster::start(context)?;
    let etcd = Etcd::start(context)?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut medians = [Vec::new(), Vec::new()];
    let mut tails = [Vec::new(), Vec::new()];
    let mut cpu = [Vec::new(), Vec::new()];
    for _ in 0..context.rounds {
        // CPU is counted over the warm-up too, so it is told per second of the whole, not per put of
        // the measured part.
        let before = ringbolt.cpu_us();
        let report = measure(Options {
            workload: Workload::Put,
            connections: CLIENTS,
            records: RECORDS,
            warmup: WARMUP,
            limit: Limit::Duration(time),
            ..ringbolt.load()
        })?;
        let whole = (time + WARMUP).as_secs_f64();
        let per_put = |used: u64, rate: f64| used as f64 / (rate * whole).max(1.0);
        rates[0].push(report.all.per_second);
        medians[0].push(report.all.p50_us);
        tails[0].push(report.all.p99_us);
        cpu[0].push(per_put(ringbolt.cpu_us() - before, report.all.per_second));

        let before = etcd.cpu_us();
        let puts = etcd_load::puts(etcd.leader_port(), CLIENTS, RECORDS, WARMUP, time)?;
        rates[1].push(puts.per_second);
        medians[1].push(puts.p50_us);
        tails[1].push(puts.p99_us);
        cpu[1].push(per_put(etcd.cpu_us() - before, puts.per_second));
    }
    let [our_rates, their_rates] = rates;
    let [our_medians, their_medians] = medians;
    let [our_tails, their_tails] = tails;
    let [our_cpu, their_cpu] = cpu;
    let line = |what: &str, unit, ours, theirs, bound| {
        let ours = Figure::new("Ringbolt", unit, ours);
        Line::ratio(what, ours, Figure::new("etcd", unit, theirs), bound)
    };
    Ok(vec![
        line(
            "quorum-durable PUT/s, 64 clients",
            Unit::PerSecond,
            our_rates,
            their_rates,
            Bound::AtLeast(10.0),
        ),
        line(
            "quorum-durable PUT p99, 64 clients",
            Unit::Us,
            our_tails,
            their_tails,
            Bound::AtMost(0.3),
        ),
        line(
            "the same, p50",
            Unit::Us,
            our_medians,
            their_medians,
            Bound::Told,
        ),
        line(
            "CPU of all three nodes per such PUT",
            Unit::Us,
            our_cpu,
            their_cpu,
            Bound::Told,
        ),
    ])
}
