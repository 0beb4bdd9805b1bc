use super::*;

#[test]
fn what_is_slow_leaves_a_record_whose_waits_add_up() {
    let account = Account::new(10_000);
    account.begin_turn(1_000_000, 5);
    let mut trace = account.begin(Op::Put);
    let fast = account.begin(Op::Get);
    account.answered(&fast, Outcome::NotFound, 30);
    account.end_turn(1_000_100, 1, 5);
    account.begin_turn(1_012_000, 5);
    trace.mark(Wait::Log, 1_012_000);
    assert!(account.is_slow(&trace, 1_012_000));
    account.note(Note::of_key(3, 0, b"k"));
    account.answered(&trace, Outcome::Ok, 40);
    account.end_turn(1_012_300, 2, 905);
    let view = account.view(true);
    assert_eq!(view.counts[Op::Put as usize][Outcome::Ok as usize], 1);
    assert_eq!(view.counts[Op::Get as usize][Outcome::NotFound as usize], 1);
    let [slow] = &view.slow[..] else {
        panic!("{:?}", view.slow);
    };
    assert_eq!((slow.total_us, slow.background_us), (12_300, 900));
    assert_eq!(slow.waits.iter().sum::<u32>(), slow.total_us);
    assert_eq!(slow.waits[Wait::Log as usize], 12_000);
    assert_eq!(slow.key, Some((0, b"k".to_vec())));
    assert_eq!(account.view(false).slow, []);
    assert_eq!((view.stalls, view.stalled_us), (1, 12_000));
}

#[test]
fn what_a_stalled_core_finds_may_have_waited_all_along() {
    let account = Account::new(10_000);
    account.begin_turn(1_000_000, 5);
    account.begin_turn(1_050_000, 0);
    let trace = account.begin(Op::Get);
    account.answered(&trace, Outcome::Ok, 30);
    account.end_turn(1_050_010, 0, 0);
    let slow = &account.view(true).slow[0];
    assert_eq!((slow.total_us, slow.waits[0]), (50_010, 50_000));
    account.begin_turn(1_050_100, 0);
    assert_eq!(account.begin(Op::Get).so_far_us(1_050_100), 0);
}

#[test]
fn what_one_turn_takes_up_and_answers_took_as_long_as_the_turn() {
    let account = Account::new(10_000);
    account.begin_turn(1_000_000, 0);
    for _ in 0..3 {
        account.answered(&account.begin(Op::Get), Outcome::Ok, 30);
    }
    assert!(account.has_answered());
    account.end_turn(1_000_040, 0, 0);
    assert!(!account.has_answered());
    let view = account.view(true);
    let get = &view.times[Op::Get as usize];
    assert_eq!((get.counts().sum::<u64>(), get.sum_us()), (3, 120));
    assert_eq!((view.slow_total, view.slow.len()), (0, 0));
    account.begin_turn(1_000_100, 0);
    account.answered(&account.begin(Op::Get), Outcome::Ok, 30);
    account.answered(&account.begin(Op::Get), Outcome::Ok, 30);
    account.end_turn(1_020_100, 0, 0);
    let view = account.view(true);
    assert_eq!((view.slow_total, view.slow.len()), (2, 1));
    assert_eq!(view.slow[0].waits[Wait::Core as usize], 20_000);
}

#[test]
fn a_turn_leaves_no_more_than_a_few_and_counts_all() {
    let account = Account::new(0);
    for turn in 1..=100 {
        account.begin_turn(turn, 0);
        for _ in 0..20 {
            let mut trace = account.begin(Op::Get);
            trace.mark(Wait::Disk, turn + 1);
            account.answered(&trace, Outcome::Ok, 0);
        }
        account.end_turn(turn + 1, 0, 0);
    }
    let view = account.view(true);
    assert_eq!((view.slow_total, view.slow.len()), (2000, SLOW_MAX));
    assert_eq!(
        view.slow[SLOW_MAX - 1].number,
        100 * u64::from(SLOW_PER_TURN)
    );
}
