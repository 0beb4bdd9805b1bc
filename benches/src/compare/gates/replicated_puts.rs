//! Gate 15: durable writes of 64 clients on three nodes, acknowledged by a quorum, against etcd. All
//! nodes and the load share the CPUs and the disk.
//!
//! Each client has a connection of its own. As many that share a few connections, as those of one
//! application do by both stores' client libraries, are told as well: on this side a connection to
//! each node, as many on the other.

use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::cluster::{Cluster, NODES};
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
    let mut own = Form::new(CLIENTS, 1);
    let mut shared = Form::new(NODES, CLIENTS / NODES);
    for _ in 0..context.rounds {
        for form in [&mut own, &mut shared] {
            form.round(&ringbolt, &etcd, time)?;
        }
    }
    let (rate, tail) = (Bound::AtLeast(10.0), Bound::AtMost(0.3));
    let mut lines = own.lines("64 clients", rate, tail);
    lines.extend(shared.lines("63 clients on 3 connections", Bound::Told, Bound::Told));
    Ok(lines)
}

/// How the clients reach the stores, and what came of it: Ringbolt's, then etcd's, one a round.
struct Form {
    connections: usize,
    clients_each: usize,
    rates: [Vec<f64>; 2],
    medians: [Vec<f64>; 2],
    tails: [Vec<f64>; 2],
    cpu: [Vec<f64>; 2],
}

impl Form {
    fn new(connections: usize, clients_each: usize) -> Self {
        Self {
            connections,
            clients_each,
            rates: Default::default(),
            medians: Default::default(),
            tails: Default::default(),
            cpu: Default::default(),
        }
    }

    fn round(&mut self, ringbolt: &Cluster, etcd: &Etcd, time: Duration) -> Result<(), Skip> {
        // CPU is counted over the warm-up too, so it is told per second of the whole, not per put of
        // the measured part.
        let whole = (time + WARMUP).as_secs_f64();
        let per_put = |used: u64, rate: f64| used as f64 / (rate * whole).max(1.0);
        let before = ringbolt.cpu_us();
        let report = measure(Options {
            workload: Workload::Put,
            connections: self.connections,
            depth: self.clients_each,
            records: RECORDS,
            warmup: WARMUP,
            limit: Limit::Duration(time),
            ..ringbolt.load()
        })?;
        let all = &report.all;
        self.rates[0].push(all.per_second);
        self.medians[0].push(all.p50_us);
        self.tails[0].push(all.p99_us);
        self.cpu[0].push(per_put(ringbolt.cpu_us() - before, all.per_second));

        let before = etcd.cpu_us();
        let puts = etcd_load::puts(
            etcd.leader_port(),
            self.connections,
            self.clients_each,
            RECORDS,
            WARMUP,
            time,
        )?;
        self.rates[1].push(puts.per_second);
        self.medians[1].push(puts.p50_us);
        self.tails[1].push(puts.p99_us);
        self.cpu[1].push(per_put(etcd.cpu_us() - before, puts.per_second));
        Ok(())
    }

    fn lines(self, who: &str, rate: Bound, tail: Bound) -> Vec<Line> {
        let line = |what: String, unit, [ours, theirs]: [Vec<f64>; 2], bound| {
            let ours = Figure::new("Ringbolt", unit, ours);
            Line::ratio(what, ours, Figure::new("etcd", unit, theirs), bound)
        };
        vec![
            line(
                format!("quorum-durable PUT/s, {who}"),
                Unit::PerSecond,
                self.rates,
                rate,
            ),
            line(
                format!("quorum-durable PUT p99, {who}"),
                Unit::Us,
                self.tails,
                tail,
            ),
            line(
                "the same, p50".to_owned(),
                Unit::Us,
                self.medians,
                Bound::Told,
            ),
            line(
                "CPU of all three nodes per such PUT".to_owned(),
                Unit::Us,
                self.cpu,
                Bound::Told,
            ),
        ]
    }
}
