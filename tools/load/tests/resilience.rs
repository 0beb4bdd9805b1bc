//! Servers that refuse, cut connections, fall silent or die.

use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Protocol, Workload};
use ringbolt_load::{run, verify_ledger};

use crate::fake::{Fake, Lie};
use crate::workloads::options;

#[test]
fn overload_is_counted_and_retried() {
    for protocol in [Protocol::Ringbolt, Protocol::Redis] {
        let fake = Fake::start(Lie::Overload);
        let report = run(Options {
            verify: true,
            limit: Limit::Ops(300),
            ..options(&fake, protocol, Workload::Mixed { reads: 50 })
        })
        .unwrap();
        assert!(report.passed(), "{report:?}");
        let code = match protocol {
            Protocol::Ringbolt => "Overloaded",
            Protocol::Redis => "LOADING",
        };
        assert!(report.errors[code] >= 100, "{:?}", report.errors);
        assert!(report.retries > 0);
        assert_eq!(report.all.requests, 300);
    }
}

#[test]
fn lost_connections_are_opened_again_and_leave_doubt() {
    for protocol in [Protocol::Ringbolt, Protocol::Redis] {
        let fake = Fake::start(Lie::CutConnections);
        let report = run(Options {
            verify: true,
            timeout: Duration::from_secs(1),
            ..options(&fake, protocol, Workload::Mixed { reads: 50 })
        })
        .unwrap();
        assert!(report.passed(), "{report:?}");
        assert!(report.errors["ConnectionLost"] > 5, "{:?}", report.errors);
        assert!(report.checks.unwrap().in_doubt > 0);
    }
}

#[test]
fn a_silent_server_is_given_up_after_the_timeout() {
    let fake = Fake::start(Lie::Swallow);
    let report = run(Options {
        verify: true,
        timeout: Duration::from_millis(400),
        limit: Limit::Ops(1000),
        ..options(&fake, Protocol::Ringbolt, Workload::Mixed { reads: 50 })
    })
    .unwrap();
    assert!(report.errors["TimedOut"] > 0, "{:?}", report.errors);
    assert_eq!(report.checks.unwrap().violations, 0);
}

#[test]
fn a_dead_server_interrupts_the_run_and_the_ledger_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let fake = Fake::start(Lie::None);
    let options = Options {
        ledger: Some(path.clone()),
        limit: Limit::Duration(Duration::from_secs(600)),
        reconnect_for: Duration::from_millis(100),
        ..options(&fake, Protocol::Ringbolt, Workload::Put)
    };
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(options).unwrap());
        while fake.data().len() < 500 {
            std::thread::sleep(Duration::from_millis(1));
        }
        fake.stop();
        running.join().unwrap()
    });
    assert!(!report.passed());
    assert!(report.interrupted.is_some());
    assert!(report.checks.unwrap().unread > 0);

    let restarted = Fake::with_data(Lie::None, fake.data());
    let check = Options {
        addr: restarted.addr(),
        progress: false,
        ..Options::default()
    };
    let report = verify_ledger(&path, check).unwrap();
    assert!(report.passed(), "{report:?}");
}

/// A verified run on two nodes, to which `disturb` does something once 500 records are there.
fn on_a_cluster(disturb: impl FnOnce(&Fake, &Fake)) -> ringbolt_load::Report {
    let (one, two) = Fake::cluster();
    let options = Options {
        addr: format!("{},{}", one.addr(), two.addr()),
        verify: true,
        connections: 8,
        limit: Limit::Ops(20_000),
        ..options(&one, Protocol::Ringbolt, Workload::Mixed { reads: 50 })
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(options).unwrap());
        while one.data().len() < 500 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Each has had its own half until now, on the right core.
        assert_eq!((one.misrouted(), two.misrouted()), (0, 0));
        assert!(one.requests() > 100 && two.requests() > 100);
        disturb(&one, &two);
        running.join().unwrap()
    })
}

#[test]
fn a_dead_node_is_left_for_the_next() {
    let report = on_a_cluster(|one, _| one.stop());
    assert!(report.passed(), "{report:?}");
    assert!(report.errors["ConnectionLost"] > 0, "{:?}", report.errors);
}

#[test]
fn connections_move_to_the_leader() {
    let report = on_a_cluster(|_, two| two.lead());
    assert!(report.passed(), "{report:?}");
    assert!(report.errors["NotLeader"] > 0, "{:?}", report.errors);
    // The connections to the other node, four in all.
    assert!(
        (1..=4).contains(&report.errors["Moved"]),
        "{:?}",
        report.errors
    );
    // No more than it took until they moved.
    assert!(report.errors["NotLeader"] < 2000, "{:?}", report.errors);
}

#[test]
fn a_dead_address_is_passed_over() {
    let (one, two) = Fake::cluster();
    let addr = format!("{},{}", one.addr(), two.addr());
    one.stop();
    let report = run(Options {
        addr,
        verify: true,
        ..options(&two, Protocol::Ringbolt, Workload::Put)
    })
    .unwrap();
    assert!(report.passed(), "{report:?}");
}
