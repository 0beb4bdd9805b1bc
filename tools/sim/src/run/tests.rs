//! Faults that the harness must count as its own, each of a seed that it once took for the engine's.

use ringbolt_engine::env::FileClass;
use ringbolt_engine::env::sim::{Fault, FaultRule, IoMatch, IoOp};

use super::*;

fn strike_once(run: &Run, fault: Fault, class: FileClass, one_in: u64) {
    run.shared.errors_allowed.set(true);
    let rule = FaultRule::new(fault, one_in).only(class).at_most(1);
    run.world.store().set_faults(vec![rule]);
}

/// Lives on, at most until the crash, and is killed.
fn lives_on(run: &mut Run, operations: u64, crash: &CrashPlan) -> Option<Ended> {
    let ended = run.live(operations, false, crash);
    run.world.kill();
    assert_eq!(run.shared.violation(), None);
    match ended {
        Ok(ended) => Some(ended),
        Err(Stop::Crashed) => None,
        Err(stop) => panic!("{stop}"),
    }
}

/// Seed 8030: the ballast went to the log's last groups, of which nothing behind them told.
#[test]
fn a_write_that_goes_astray_into_the_log_is_damage_to_the_log() {
    let (mut lost, mut elsewhere) = (0, 0);
    for seed in 0..40 {
        let mut run = Run::new(Kind::Crash, seed, None);
        lives_on(&mut run, 300, &CrashPlan::Never);
        strike_once(&run, Fault::MisdirectedWrite, FileClass::Table, 1);
        if lives_on(&mut run, 0, &CrashPlan::Never) == Some(Ended::Refused) {
            continue;
        }
        let strays = run.world.store().strays();
        let into_log = strays.iter().any(|stray| {
            !stray.sectors.is_empty() && stray.path.to_string_lossy().ends_with(".seg")
        });
        assert_eq!(run.shared.log_damaged.get(), into_log, "{strays:?}");
        elsewhere += u32::from(!into_log);
        let tally = run.shared.tally.borrow();
        lost += tally.of("acknowledged entries lost to a damaged log");
    }
    assert!(lost > 0 && elsewhere > 0, "{lost} {elsewhere}");
}

/// Seeds 6113 and 7966: an edit was lost, the engine went on without it, and then healing brought it
/// back.
#[test]
fn a_lost_edit_that_the_engine_went_on_without_does_not_come_back() {
    let mut settled = 0;
    for seed in 0..40 {
        for heals in [false, true] {
            settled += u32::from(goes_on_without_an_edit(seed, heals));
        }
    }
    assert!(settled > 0);
}

/// Whether the engine did, and the edit was settled to be lost.
fn goes_on_without_an_edit(seed: u64, heals: bool) -> bool {
    let mut run = Run::new(Kind::Crash, seed, None);
    lives_on(&mut run, 300, &CrashPlan::Never);
    // The edit's write is the first one; at the second, its seal's, the process dies.
    strike_once(&run, Fault::LostWrite, FileClass::Manifest, 1);
    let seal = IoMatch {
        op: Some(IoOp::Write),
        class: Some(FileClass::Manifest),
        ..IoMatch::default()
    };
    lives_on(&mut run, 1000, &CrashPlan::AtIo(seal, 2));
    let damaged = run.world.store().is_damaged("MANIFEST");
    if !heals {
        run.settle_manifest();
    }
    let settled = damaged && !run.world.store().is_damaged("MANIFEST");
    lives_on(&mut run, 0, &CrashPlan::Never);
    assert_eq!(run.good_life(0), Ok(()), "seed {seed}");
    settled
}
