//! Metrics of the request path and the ring.

use super::{Kind, MICROS, Metric, Read, counter as sum, gauge, highest};
use crate::shard::counters::Counters;
use crate::shard::trace::{Op, Outcome, Wait};

/// The metrics of the shard's counters: microseconds become seconds, and what [`super`] has by labels
/// gets another name.
pub(super) fn counter_name(name: &'static str) -> (&'static str, f64) {
    match name {
        "requests_total" => ("requests_received_total", 1.0),
        "throttled_us_total" => ("throttled_seconds_total", 1e-6),
        name => (name, 1.0),
    }
}

/// The row of one of the shard's counters, whose doc is the help.
pub(super) fn counter(
    (name, doc, read): &(&'static str, &'static str, fn(&Counters) -> u64),
) -> Metric {
    let (name, scale) = counter_name(name);
    Metric {
        name,
        help: doc.trim().trim_end_matches('.'),
        kind: match name.ends_with("_total") {
            true => Kind::Counter,
            false => Kind::Gauge,
        },
        labels: &[],
        read: Read::Counter(*read, scale),
    }
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "requests_total",
        help: "Requests of clients answered, by operation and outcome",
        kind: Kind::Counter,
        labels: &["op", "outcome"],
        read: Read::Each(|core| {
            let ops = Op::ALL.iter().zip(&core.shard.account.counts);
            ops.flat_map(|(op, counts)| {
                let outcomes = Outcome::ALL.iter().zip(counts);
                outcomes.map(|(outcome, count)| {
                    let labels = vec![op.name().to_owned(), outcome.name().to_owned()];
                    (labels, *count as f64)
                })
            })
            .collect()
        }),
    },
    Metric {
        name: "request_seconds",
        help: "From a request's arrival to its answer, by operation",
        kind: Kind::Histogram,
        labels: &["op"],
        read: Read::Powers(
            |core| {
                let ops = Op::ALL.iter().zip(&core.shard.account.times);
                ops.map(|(op, times)| (vec![op.name().to_owned()], times.into()))
                    .collect()
            },
            MICROS,
        ),
    },
    Metric {
        name: "request_wait_seconds",
        help: "What requests waited for: those that waited for it at all, by stage",
        kind: Kind::Histogram,
        labels: &["stage"],
        read: Read::Powers(
            |core| {
                let waits = Wait::ALL.iter().zip(&core.shard.account.waits);
                waits
                    .map(|(wait, times)| (vec![wait.name().to_owned()], times.into()))
                    .collect()
            },
            MICROS,
        ),
    },
    Metric {
        name: "hot_key_share",
        help: "The part of its core's requests, from 0 to 1, that the hottest key takes for sure",
        kind: Kind::Gauge,
        labels: &[],
        read: Read::Max(|core| {
            let keys = core.shard.hot.keys.iter();
            keys.map(|key| key.share - key.error).fold(0.0, f64::max)
        }),
    },
    Metric {
        name: "hot_key_requests_per_second",
        help: "Requests a second for the hottest key of all cores, by samples",
        kind: Kind::Gauge,
        labels: &[],
        read: Read::Max(|core| {
            let keys = core.shard.hot.keys.iter();
            keys.map(|key| key.per_second).fold(0.0, f64::max)
        }),
    },
    sum(
        "slow_requests_total",
        "Requests that took at least the setting admin.slow_threshold",
        |core| core.shard.account.slow_total as f64,
    ),
    sum(
        "core_stalls_total",
        "Times that a core did not look at its sockets for 8 ms or longer",
        |core| core.shard.account.stalls as f64,
    ),
    sum("core_stalled_seconds_total", "How long", |core| {
        core.shard.account.stalled_us as f64 * 1e-6
    }),
    gauge(
        "inflight_bytes",
        "Bytes of requests that are not answered yet",
        |core| core.shard.inflight_bytes as f64,
    ),
    gauge(
        "requests_deferred",
        "Requests that wait until their partition has applied an entry",
        |core| core.shard.deferred as f64,
    ),
    gauge(
        "acknowledgements_held",
        "Acknowledgements held back by write throttling now",
        |core| core.shard.held as f64,
    ),
    gauge(
        "forwards_waiting",
        "Requests that other nodes have been asked and have not answered",
        |core| core.shard.forwards as f64,
    ),
    highest(
        "throttle_seconds_per_byte",
        "How long writers must hold back for each byte now, on the core that holds back most",
        |core| core.shard.throttle_us_per_kib * 1e-6 / 1024.0,
    ),
    gauge(
        "cores_failed",
        "Cores that have stopped, or whose background work has",
        |core| f64::from(u8::from(core.shard.failure.is_some())),
    ),
    gauge(
        "cores_refusing_puts",
        "Cores that refuse puts for want of free space",
        |core| f64::from(u8::from(core.shard.space_low)),
    ),
    sum(
        "ring_syscalls_total",
        "System calls into the hot ring",
        |core| core.ring.syscalls as f64,
    ),
    sum(
        "ring_completions_total",
        "Completions collected from the hot ring",
        |core| core.ring.completions as f64,
    ),
    sum(
        "ring_overflows_total",
        "Times the hot ring's completion queue was found overflowing: it is too small",
        |core| core.ring.overflows as f64,
    ),
    sum(
        "ring_buffers_exhausted_total",
        "Receives that stopped because no buffer was free",
        |core| core.ring.enobufs as f64,
    ),
    sum(
        "ring_short_sends_total",
        "Sends that the kernel cut short",
        |core| core.ring.short_sends as f64,
    ),
    sum(
        "ring_accept_pauses_total",
        "Times accepting paused because descriptors or memory had run out",
        |core| core.ring.accept_pauses as f64,
    ),
    sum(
        "ring_file_requests_total",
        "File requests finished by the hot ring",
        |core| core.ring.file_requests as f64,
    ),
    sum(
        "mailbox_wakes_total",
        "Times a core was woken by another thread's mail",
        |core| core.ring.wakes as f64,
    ),
];
