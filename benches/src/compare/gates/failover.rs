//! Gate 17: the node that leads a partition is killed while 1,000 writes a second come to that
//! partition: how long no write is acknowledged. The same when it is asked to stop.
//!
//! All keys share a `{tag}`, so that other partitions' leaders, which go on, do not hide the gap. A
//! round is one kill; the node is started again and the cluster is whole before the next.

use std::thread;
use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::cluster::Cluster;

/// What every key begins with.
const PREFIX: &str = "{gap}:";
/// Requests a second.
const RATE: f64 = 1000.0;
/// From the start of the load to the kill, and from there to its end.
const BEFORE: Duration = Duration::from_millis(1000);
const AFTER: Duration = Duration::from_millis(3500);

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let kills = context.pick(5, 100);
    let stops = context.pick(3, 20);
    let mut cluster = Cluster::start(context)?;
    let mut gaps = gaps(&mut cluster, kills, Cluster::kill)?;
    gaps.sort_unstable_by(f64::total_cmp);
    let at = (gaps.len() * 99).div_ceil(100).saturating_sub(1);
    let percentile = gaps.get(at).copied().unwrap_or_default();
    let most = gaps.last().copied().unwrap_or_default();
    let orderly = self::gaps(&mut cluster, stops, Cluster::stop)?;
    let orderly = orderly.into_iter().fold(0.0, f64::max);
    let line = |what: String, value, bound| {
        let figure = Figure::new("Ringbolt", Unit::Ms, vec![value]);
        Line::plain(what, figure, bound)
    };
    Ok(vec![
        line(
            format!("longest gap in acknowledged writes, p99 of {kills} kills, ms"),
            percentile,
            Bound::AtMost(1000.0),
        ),
        line(
            "the longest of all, ms".to_owned(),
            most,
            Bound::AtMost(3000.0),
        ),
        line(
            format!("the longest of {stops} stops by SIGTERM, ms"),
            orderly,
            Bound::Told,
        ),
    ])
}

/// The longest gap of each of `rounds` in which the leader is ended.
fn gaps(
    cluster: &mut Cluster,
    rounds: usize,
    end: impl Fn(&mut Cluster, usize),
) -> Result<Vec<f64>, Skip> {
    let mut gaps = Vec::new();
    for _ in 0..rounds {
        let leader = cluster.leader_of(PREFIX.as_bytes())?;
        let options = Options {
            workload: Workload::Put,
            connections: 16,
            depth: 64,
            records: 10_000,
            key_prefix: PREFIX.into(),
            preload: Preload::Never,
            rate: Some(RATE),
            warmup: Duration::ZERO,
            limit: Limit::Duration(BEFORE + AFTER),
            ..cluster.load()
        };
        let load = thread::spawn(move || ringbolt_load::run(options));
        thread::sleep(BEFORE);
        end(cluster, leader);
        let report = load
            .join()
            .map_err(|_| Skip::Failed("the load panicked".into()))?
            .map_err(|error| Skip::Failed(format!("load: {error}")))?;
        gaps.push(report.write_gap_ms_max);
        cluster.restart(leader)?;
    }
    Ok(gaps)
}
