use super::*;

const DONE: Guard = Guard::None;

fn step(invoked: u64, completed: u64, action: Action) -> Step {
    Step {
        invoked,
        completed,
        action,
    }
}

fn put(invoked: u64, completed: u64, value: i64) -> Step {
    step(
        invoked,
        completed,
        Action::Changed(DONE, Change::Put(value), None),
    )
}

fn saw(invoked: u64, completed: u64, value: Option<i64>) -> Step {
    step(invoked, completed, Action::Saw(value))
}

fn add(invoked: u64, completed: u64, by: i64, number: Option<i64>) -> Step {
    step(
        invoked,
        completed,
        Action::Changed(DONE, Change::Add(by), number),
    )
}

fn verdict(mut steps: Vec<Step>) -> bool {
    steps.sort_by_key(|step| (step.invoked, step.completed));
    match check(&steps) {
        Verdict::Linearizable => true,
        Verdict::Violated(_) => false,
        Verdict::Undecided => panic!("undecided"),
    }
}

#[test]
fn one_after_the_other() {
    assert!(verdict(vec![
        saw(0, 1, None),
        put(2, 3, 1),
        saw(4, 5, Some(1))
    ]));
    assert!(
        !verdict(vec![put(2, 3, 1), saw(4, 5, None)]),
        "a lost write"
    );
    assert!(!verdict(vec![saw(4, 5, Some(1))]), "a value nobody wrote");
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    for seen in [None, Some(1)] {
        assert!(verdict(vec![put(0, 10, 1), saw(5, 6, seen)]));
    }
    assert!(
        !verdict(vec![put(0, 10, 1), saw(2, 3, Some(1)), saw(4, 5, None)]),
        "what was seen once stays"
    );
}

#[test]
fn a_stale_read_is_found() {
    let steps = vec![put(0, 1, 1), put(2, 3, 2), saw(4, 5, Some(1))];
    assert!(!verdict(steps));
}

#[test]
fn a_write_in_doubt_may_come_late_or_never_but_once() {
    let doubt = put(0, NEVER, 7);
    let after = |seen: Vec<Step>| {
        let mut steps = vec![doubt, put(1, 2, 1)];
        steps.extend(seen);
        verdict(steps)
    };
    assert!(after(vec![saw(3, 4, Some(1))]));
    assert!(after(vec![
        saw(3, 4, Some(1)),
        saw(5, 6, Some(7)),
        saw(7, 8, Some(7))
    ]));
    assert!(!after(vec![
        saw(3, 4, Some(7)),
        put(5, 6, 2),
        saw(7, 8, Some(2)),
        saw(9, 10, Some(7))
    ]));
    assert!(
        !verdict(vec![saw(0, 1, Some(7)), put(2, NEVER, 7)]),
        "not before it was called"
    );
}

#[test]
fn increments_count_once() {
    assert!(verdict(vec![
        add(0, 1, 5, Some(5)),
        add(2, NEVER, 3, None),
        add(4, 5, 1, Some(9)),
        saw(6, 7, Some(9)),
    ]));
    assert!(!verdict(vec![
        add(0, 1, 5, Some(5)),
        add(2, NEVER, 3, None),
        add(4, 5, 1, Some(12)),
    ]));
    assert!(
        !verdict(vec![add(0, 1, 5, Some(5)), saw(2, 3, Some(10))]),
        "applied twice"
    );
}

#[test]
fn guards_are_part_of_it() {
    let put_if =
        |from, to, guard, value| step(from, to, Action::Changed(guard, Change::Put(value), None));
    let is = |value| Guard::Is { value, version: 1 };
    let refused = |from, to, guard| step(from, to, Action::Refused(guard));
    assert!(verdict(vec![
        put_if(0, 1, Guard::Absent, 1),
        put_if(2, 3, is(1), 2),
        refused(4, 5, is(1)),
        refused(6, 7, Guard::Absent),
        put_if(8, 9, Guard::Present, 3),
        saw(10, 11, Some(3)),
    ]));
    assert!(
        !verdict(vec![
            put(0, 1, 1),
            put_if(2, 5, is(1), 2),
            put_if(3, 4, is(1), 3)
        ]),
        "both won"
    );
    assert!(!verdict(vec![put(0, 1, 1), refused(2, 3, Guard::Present)]));
}

#[test]
fn existence_alone_may_rest_on_a_write_never_seen() {
    let steps = vec![
        put(0, NEVER, 9),
        step(1, 2, Action::Refused(Guard::Absent)),
        put(3, 4, 1),
        saw(5, 6, Some(1)),
    ];
    assert!(verdict(steps));
}

/// As a checker that had left the first put out thought it impossible.
#[test]
fn a_guard_in_doubt_may_rest_on_a_write_never_seen() {
    let guarded = step(
        2,
        NEVER,
        Action::Changed(Guard::Present, Change::Put(2), None),
    );
    let seen = || saw(5, 6, Some(2));
    assert!(verdict(vec![put(0, NEVER, 1), guarded, seen()]));
    assert!(!verdict(vec![guarded, seen()]));
}

#[test]
fn a_refusal_may_rest_on_a_write_never_seen() {
    let is = Guard::Is {
        value: 1,
        version: 1,
    };
    let refused = step(4, 5, Action::Refused(is));
    assert!(verdict(vec![put(0, 1, 1), put(2, NEVER, 9), refused]));
    assert!(!verdict(vec![put(0, 1, 1), refused]));
}

#[test]
fn deletes_in_doubt_explain_absence() {
    let delete = step(2, NEVER, Action::Changed(DONE, Change::Delete, None));
    assert!(verdict(vec![
        put(0, 1, 1),
        delete,
        saw(3, 4, Some(1)),
        saw(5, 6, None)
    ]));
    assert!(!verdict(vec![
        put(0, 1, 1),
        delete,
        saw(3, 4, None),
        put(5, 6, 2),
        saw(7, 8, None)
    ]));
}

/// A random order of steps, spread over overlapping intervals around it, is linearizable by
/// construction; the same with one read changed to a value overwritten long before is not.
#[test]
fn made_histories_are_judged_right() {
    for seed in 0..200 {
        let mut rng = ringbolt_engine::env::sim::Rng::new(seed);
        let (mut steps, mut state, mut value) = (Vec::new(), None, 0);
        let mut states = vec![None];
        for n in 1..=120_u64 {
            let at = n * 100;
            let (from, to) = (at - rng.below(400).min(at), at + 1 + rng.below(400));
            match rng.below(4) {
                0 => {
                    value += 1;
                    state = Some(value);
                    steps.push(put(from, to, value));
                }
                1 if rng.one_in(2) => {
                    value += 1;
                    // In doubt; half of them happened.
                    if rng.one_in(2) {
                        state = Some(value);
                    }
                    steps.push(put(from, NEVER, value));
                }
                _ => steps.push(saw(from, to, state)),
            }
            states.push(state);
        }
        assert!(verdict(steps.clone()), "seed {seed}");
        let old = states.iter().flatten().next().copied();
        let newest = states.last().copied().flatten();
        if old != newest && newest.is_some() {
            steps.push(saw(200 * 100, 201 * 100, old));
            let doubtful = steps.iter().any(|step| {
                step.completed == NEVER && matches!(step.action, Action::Changed(_, Change::Put(v), _) if Some(v) == old)
            });
            if !doubtful {
                assert!(!verdict(steps), "seed {seed}");
            }
        }
    }
}

/// By trying every order of every choice of the steps in doubt.
fn naive(steps: &[Step], left: &mut Vec<usize>, state: Option<i64>) -> bool {
    if left.iter().all(|&at| steps[at].in_doubt()) {
        return true;
    }
    let ends = left.iter().map(|&at| steps[at].completed).min();
    for n in 0..left.len() {
        let at = left[n];
        if ends.is_some_and(|ends| steps[at].invoked > ends) {
            continue;
        }
        if let Some(state) = steps[at].apply(state) {
            left.remove(n);
            let found = naive(steps, left, state);
            left.insert(n, at);
            if found {
                return true;
            }
        }
    }
    false
}

fn any_step(rng: &mut ringbolt_engine::env::sim::Rng, invoked: u64, counter: bool) -> Step {
    let some = |rng: &mut ringbolt_engine::env::sim::Rng| 1 + rng.below(3) as i64;
    let is = Guard::Is {
        value: some(rng),
        version: 1,
    };
    let guard = [Guard::None, Guard::Absent, Guard::Present, is][rng.index(4)];
    let change = match rng.below(3) {
        0 => Change::Delete,
        1 if counter => Change::Add(some(rng)),
        _ => Change::Put(some(rng)),
    };
    let in_doubt = rng.one_in(2);
    let action = match rng.below(8) {
        _ if in_doubt => Action::Changed(guard, change, None),
        0..=2 => Action::Saw(rng.one_in(2).then(|| some(rng))),
        3 | 4 if guard != Guard::None => Action::Refused(guard),
        _ => Action::Changed(guard, change, None),
    };
    let completed = match in_doubt {
        true => NEVER,
        false => invoked + 1 + rng.below(30),
    };
    step(invoked, completed, action)
}

/// What the search leaves out changes no verdict.
#[test]
fn judges_as_if_it_tried_everything() {
    let mut rng = ringbolt_engine::env::sim::Rng::new(1);
    let mut found = [0_u32; 2];
    for round in 0..20_000 {
        let counter = rng.one_in(4);
        let mut steps: Vec<Step> = (0..7)
            .map(|n| any_step(&mut rng, n * 10, counter))
            .collect();
        steps.sort_by_key(|step| (step.invoked, step.completed));
        let mut left = (0..steps.len()).collect();
        let possible = naive(&steps, &mut left, None);
        found[usize::from(possible)] += 1;
        assert_eq!(
            verdict(steps.clone()),
            possible,
            "round {round}: {steps:#?}"
        );
    }
    assert!(found.iter().all(|&count| count > 2_000), "{found:?}");
}

/// Forty conditional writes in doubt, which nobody saw, in either direction.
#[test]
fn many_in_doubt_that_do_the_same_are_quick() {
    let mut steps = vec![put(0, 1, 1)];
    for n in 0..40 {
        let at = 2 + n * 10;
        let guard = [Guard::Absent, Guard::Present][n as usize % 2];
        let write = Action::Changed(guard, Change::Put(100 + n as i64), None);
        steps.push(step(at, NEVER, write));
        steps.push(step(at, NEVER, Action::Changed(DONE, Change::Delete, None)));
        steps.push(step(at + 1, at + 2, Action::Refused(guard)));
    }
    assert!(verdict(steps.clone()));
    steps.push(saw(1_000, 1_001, Some(1)));
    assert!(!verdict(steps), "written over before");
}
