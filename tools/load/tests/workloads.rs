//! Every workload over both protocols.

use std::time::Duration;

use ringbolt_load::options::{Arrivals, Distribution, Limit, Options, Preload, Protocol, Workload};
use ringbolt_load::{LoadError, run};

use crate::fake::{Fake, Lie};

pub fn options(fake: &Fake, protocol: Protocol, workload: Workload) -> Options {
    Options {
        addr: fake.addr(),
        protocol,
        workload,
        connections: 6,
        depth: 4,
        threads: 2,
        records: 1000,
        value_bytes: 60..=120,
        limit: Limit::Ops(5000),
        warmup: Duration::ZERO,
        seed: 11,
        progress: false,
        ..Options::default()
    }
}

const WORKLOADS: [Workload; 10] = [
    Workload::Put,
    Workload::Get,
    Workload::Mixed { reads: 70 },
    Workload::Scan,
    Workload::YcsbA,
    Workload::YcsbB,
    Workload::YcsbC,
    Workload::YcsbD,
    Workload::YcsbE,
    Workload::YcsbF,
];

#[test]
fn every_workload_runs_and_requests_go_straight_to_their_core() {
    for workload in WORKLOADS {
        let fake = Fake::start(Lie::None);
        let report = run(options(&fake, Protocol::Ringbolt, workload)).unwrap();
        assert!(report.passed(), "{workload}: {report:?}");
        assert_eq!(report.all.requests, 5000, "{workload}");
        assert!(report.errors.is_empty(), "{workload}: {:?}", report.errors);
        assert_eq!(fake.misrouted(), 0, "{workload}");
        if workload.reads() {
            assert!(fake.data().len() >= 1000, "{workload}");
        }
        if workload != Workload::YcsbD {
            assert_eq!(report.absent, 0, "{workload}");
        }
        assert_eq!(workload.scans(), report.rows > 0, "{workload}");
        assert!(
            fake.data()
                .values()
                .all(|value| (60..=120).contains(&value.len()))
        );
    }
}

#[test]
fn every_workload_but_scans_runs_on_redis() {
    for workload in WORKLOADS {
        let fake = Fake::start(Lie::None);
        let result = run(options(&fake, Protocol::Redis, workload));
        if workload.scans() {
            assert!(matches!(result, Err(LoadError::Usage(_))), "{workload}");
            continue;
        }
        let report = result.unwrap();
        assert!(report.passed(), "{workload}: {report:?}");
        assert_eq!(report.all.requests, 5000, "{workload}");
        assert!(report.errors.is_empty(), "{workload}: {:?}", report.errors);
    }
}

#[test]
fn each_distribution_and_an_open_loop() {
    for distribution in [
        Distribution::Uniform,
        Distribution::Zipfian,
        Distribution::Latest,
    ] {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let fake = Fake::start(Lie::None);
            let report = run(Options {
                distribution: Some(distribution),
                rate: Some(20_000.0),
                arrivals,
                limit: Limit::Ops(2000),
                ..options(&fake, Protocol::Ringbolt, Workload::Get)
            })
            .unwrap();
            assert!(report.passed());
            assert_eq!(report.all.requests, 2000);
        }
    }
}

#[test]
fn a_run_limited_by_time_ends() {
    let fake = Fake::start(Lie::None);
    let report = run(Options {
        limit: Limit::Duration(Duration::from_millis(300)),
        warmup: Duration::from_millis(50),
        server_pid: Some(std::process::id()),
        ..options(&fake, Protocol::Ringbolt, Workload::Mixed { reads: 50 })
    })
    .unwrap();
    assert!(report.passed());
    assert_eq!(report.seconds, 0.3);
    assert!(report.server.unwrap().rss_bytes > 0);
    assert_eq!(report.kinds.len(), 2);
}

#[test]
fn a_preload_alone_writes_every_record_once() {
    let fake = Fake::start(Lie::Overload);
    let report = run(Options {
        preload: Preload::Only,
        key_prefix: "p".into(),
        ..options(&fake, Protocol::Ringbolt, Workload::Get)
    })
    .unwrap();
    assert!(report.passed());
    assert_eq!(report.preload.unwrap().records, 1000);
    assert_eq!(fake.data().len(), 1000);
    assert!(
        fake.data()
            .keys()
            .all(|key| key.len() == 17 && key[0] == b'p')
    );
}

/// A server takes a write under a number that it knows for one that was done.
#[test]
fn runs_of_one_seed_number_their_writes_apart() {
    let fake = Fake::start(Lie::None);
    for _ in 0..2 {
        let report = run(Options {
            preload: Preload::Always,
            ..options(&fake, Protocol::Ringbolt, Workload::Put)
        });
        assert!(report.unwrap().passed());
    }
    assert_eq!(fake.renumbered(), 0);
}

#[test]
fn values_larger_than_any_buffer_arrive_whole() {
    for protocol in [Protocol::Ringbolt, Protocol::Redis] {
        let fake = Fake::start(Lie::None);
        let report = run(Options {
            records: 20,
            value_bytes: 300_000..=500_000,
            limit: Limit::Ops(200),
            verify: true,
            ..options(&fake, protocol, Workload::Mixed { reads: 50 })
        })
        .unwrap();
        assert!(report.passed(), "{report:?}");
        assert_eq!(report.all.requests, 200);
    }
}

#[test]
fn what_cannot_be_is_refused_before_it_begins() {
    let fake = Fake::start(Lie::None);
    let good = || options(&fake, Protocol::Ringbolt, Workload::Put);
    let bad = [
        Options {
            connections: 0,
            ..good()
        },
        Options {
            depth: 300,
            ..good()
        },
        Options {
            threads: 7,
            ..good()
        },
        Options {
            value_bytes: 0..=600_000,
            ..good()
        },
        Options {
            verify: true,
            value_bytes: 8..=8,
            ..good()
        },
        Options {
            verify: true,
            workload: Workload::YcsbA,
            ..good()
        },
        Options {
            rate: Some(0.0),
            ..good()
        },
    ];
    for options in bad {
        assert!(matches!(run(options), Err(LoadError::Usage(_))));
    }
    let nobody = Options {
        addr: "127.0.0.1:1".into(),
        ..good()
    };
    assert!(matches!(run(nobody), Err(LoadError::Unreachable { .. })));
}
