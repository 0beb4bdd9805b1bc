//! Verified runs against servers that keep their word, and servers that do not.

use ringbolt_load::options::{Limit, Options, Protocol, Workload};
use ringbolt_load::source::verify::ViolationKind;
use ringbolt_load::{Report, ledger, run, verify_ledger};

use crate::fake::{Fake, Lie};
use crate::workloads::options;

fn verified(fake: &Fake, protocol: Protocol) -> Options {
    Options {
        verify: true,
        records: 200,
        deletes: 20,
        ..options(fake, protocol, Workload::Mixed { reads: 50 })
    }
}

fn violations(report: &Report) -> Vec<ViolationKind> {
    let checks = report.checks.as_ref().unwrap();
    let mut kinds: Vec<_> = checks
        .details
        .iter()
        .map(|violation| violation.kind)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn an_honest_server_passes() {
    for protocol in [Protocol::Ringbolt, Protocol::Redis] {
        let fake = Fake::start(Lie::None);
        let report = run(verified(&fake, protocol)).unwrap();
        assert!(report.passed(), "{report:?}");
        let checks = report.checks.unwrap();
        assert!(
            checks.acknowledged > 1000 && checks.read_back > 150,
            "{checks:?}"
        );
        assert_eq!((checks.violations, checks.unread), (0, 0));
        assert_eq!(fake.misrouted(), 0);
    }
}

#[test]
fn every_lie_is_found() {
    use ViolationKind::{Lost, Stale, Wrong};
    for (lie, expected) in [
        (Lie::LoseWrites, Stale),
        (Lie::LoseRecords, Lost),
        (Lie::FlipBits, Wrong),
        (Lie::OtherRecord, Wrong),
        (Lie::KeepDeleted, Stale),
    ] {
        for protocol in [Protocol::Ringbolt, Protocol::Redis] {
            let fake = Fake::start(lie);
            let report = run(verified(&fake, protocol)).unwrap();
            assert!(!report.passed(), "{lie:?}");
            assert!(
                violations(&report).contains(&expected),
                "{lie:?}: {:?}",
                report.checks
            );
        }
    }
}

#[test]
fn records_of_other_runs_are_not_taken_for_lies() {
    let fake = Fake::start(Lie::None);
    assert!(run(verified(&fake, Protocol::Ringbolt)).unwrap().passed());
    assert!(run(verified(&fake, Protocol::Ringbolt)).unwrap().passed());
}

#[test]
fn another_process_can_check_the_ledger() {
    for protocol in [Protocol::Ringbolt, Protocol::Redis] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let fake = Fake::start(Lie::None);
        let with_ledger = || Options {
            ledger: Some(path.clone()),
            limit: Limit::Ops(2000),
            ..verified(&fake, protocol)
        };
        assert!(run(with_ledger()).unwrap().passed());
        let check = |fake: &Fake| {
            let options = Options {
                addr: fake.addr(),
                progress: false,
                ..Options::default()
            };
            verify_ledger(&path, options).unwrap()
        };
        let report = check(&fake);
        assert!(report.passed(), "{report:?}");
        let known = ledger::read(&path).unwrap().entries.len() as u64;
        assert_eq!(report.checks.unwrap().read_back, known);

        // A second run continues the ledger, and it is checked on another server.
        let before = fake.data();
        assert!(run(with_ledger()).unwrap().passed());
        let copy = Fake::with_data(Lie::None, fake.data());
        assert!(check(&copy).passed());

        // A server that went back in time, and one that lost one record.
        copy.set_data(before);
        let report = check(&copy);
        assert!(!report.passed());
        assert!(violations(&report).contains(&ViolationKind::Stale));
        let mut data = fake.data();
        data.pop_first();
        copy.set_data(data);
        let report = check(&copy);
        assert_eq!(violations(&report), [ViolationKind::Lost]);
        assert_eq!(report.checks.unwrap().violations, 1);
    }
}

#[test]
fn a_generator_that_died_at_any_point_has_told_what_it_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let fake = Fake::start(Lie::None);
    let report = run(Options {
        ledger: Some(path.clone()),
        limit: Limit::Ops(1000),
        connections: 1,
        threads: 1,
        ..verified(&fake, Protocol::Ringbolt)
    })
    .unwrap();
    assert!(report.passed());
    // The server is as it was at the end; a ledger without its last acknowledgements makes them
    // doubts, never lies.
    let whole = std::fs::read(&path).unwrap();
    let mut cut = whole.clone();
    let settled = |record: &[u8]| record[16] == 2;
    while cut.len() > 24 && settled(&cut[cut.len() - 24..]) {
        cut.truncate(cut.len() - 24);
        std::fs::write(&path, &cut).unwrap();
        let options = Options {
            addr: fake.addr(),
            connections: 1,
            progress: false,
            ..Options::default()
        };
        assert!(verify_ledger(&path, options).unwrap().passed());
    }
    assert!(cut.len() < whole.len());
}
