//! Linearizability of one key's history, by search.
//!
//! The search of Wing and Gong with the memo of Lowe: it builds an order of the steps one by one. A
//! step may come next if no other step that is left was answered before it was called, and if the
//! key's state then allows its answer. A set of steps done together with the state they led to is
//! never tried twice. If every step with a known outcome found its place, the history is
//! linearizable.
//!
//! A step in doubt has no end: it may come at any time after its call, or never. So that many of
//! them do not blow up the search:
//!
//! * they are tried after all others, and only where they change the state;
//! * one that nobody can have observed is left out from the start: a put whose content was never
//!   seen. Were it in some order, the next step that looks at the state would have to be preceded by
//!   another write, so it could as well not have happened. (Not so if some step only tells *that*
//!   the key exists, or that it has not one certain content: then all are kept, but contents never
//!   seen count as one and the same.)
//! * of those that do the same, the one called first comes first: where a later one may come, it may.
//! * directly after one of them only a step that looks at the state may come.

use std::collections::{HashMap, HashSet};

use super::super::history::{Call, Change, Guard, History, KeyId, NEVER, Outcome};
use ringbolt_wire::message::ReadLevel;

/// Nodes of the search after which it is given up.
const NODES_MAX: u64 = 3_000_000;

/// Stands for every content that no step tells from another.
const UNSEEN: i64 = i64::MIN;

/// What a step does or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It saw this content, or nothing.
    Saw(Option<i64>),
    /// It changed the key; for a counter, to this number where that is known.
    Changed(Guard, Change, Option<i64>),
    /// Its guard did not hold.
    Refused(Guard),
}

/// One step of a key's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When it was called.
    pub invoked: u64,
    /// When it was answered; [`NEVER`] if in doubt.
    pub completed: u64,
    /// What it does.
    pub action: Action,
}

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An order was found.
    Linearizable,
    /// There is none.
    Violated(String),
    /// The search was given up.
    Undecided,
}

impl Step {
    fn in_doubt(&self) -> bool {
        self.completed == NEVER
    }

    /// Whether it sets the state without looking at it.
    fn is_blind(&self) -> bool {
        matches!(
            self.action,
            Action::Changed(Guard::None, Change::Put(_) | Change::Delete, _)
        )
    }

    /// The state after it, if it may come in this one.
    fn apply(&self, state: Option<i64>) -> Option<Option<i64>> {
        match self.action {
            Action::Saw(seen) => (seen == state).then_some(state),
            Action::Refused(guard) => (!holds(guard, state)).then_some(state),
            Action::Changed(guard, _, _) if !holds(guard, state) => None,
            Action::Changed(_, Change::Put(value), _) => Some(Some(value)),
            Action::Changed(_, Change::Delete, _) => Some(None),
            Action::Changed(_, Change::Add(by), number) => {
                let sum = state.unwrap_or(0).wrapping_add(by);
                number
                    .is_none_or(|number| number == sum)
                    .then_some(Some(sum))
            }
        }
    }
}

fn holds(guard: Guard, state: Option<i64>) -> bool {
    match guard {
        Guard::None => true,
        Guard::Absent => state.is_none(),
        Guard::Present => state.is_some(),
        Guard::Is { value, .. } => state == Some(value),
    }
}

/// The steps of one key, in the order of their calls. Reads that promise less than linearizability
/// are left out; a write that only its leader had acknowledged is in doubt.
#[must_use]
pub fn of_key(history: &History, key: KeyId) -> Vec<Step> {
    let mut steps = Vec::new();
    for operation in &history.operations {
        let (invoked, completed) = (operation.invoked, operation.completed);
        let mut push = |completed, action| {
            steps.push(Step {
                invoked,
                completed,
                action,
            });
        };
        match (&operation.call, &operation.outcome) {
            (
                Call::Write {
                    changes,
                    leader_only,
                },
                outcome,
            ) => {
                for (i, &(of, guard, change)) in changes.iter().enumerate() {
                    if of != key {
                        continue;
                    }
                    match outcome {
                        Outcome::Written { numbers, .. } if !leader_only => {
                            push(completed, Action::Changed(guard, change, numbers[i]));
                        }
                        // Of a batch it is not known which guard failed.
                        Outcome::GuardFailed { .. } if changes.len() == 1 => {
                            push(completed, Action::Refused(guard));
                        }
                        Outcome::InDoubt | Outcome::Written { .. } => {
                            push(NEVER, Action::Changed(guard, change, None));
                        }
                        _ => {}
                    }
                }
            }
            (
                Call::Read {
                    keys,
                    level: ReadLevel::Linearizable | ReadLevel::Strict,
                    ..
                },
                Outcome::Seen { cells, .. },
            ) => {
                for (of, cell) in keys.iter().zip(cells) {
                    if *of == key {
                        push(completed, Action::Saw(cell.map(|cell| cell.value)));
                    }
                }
            }
            _ => {}
        }
    }
    steps.sort_by_key(|step| (step.invoked, step.completed));
    steps
}

/// Whether the steps, sorted by their calls, have an order that explains every answer.
#[must_use]
pub fn check(steps: &[Step]) -> Verdict {
    let steps = without_needless(steps);
    Search::new(&steps).run()
}

/// Without the steps that nobody can have observed, and without differences that nobody can.
fn without_needless(steps: &[Step]) -> Vec<Step> {
    let seen: HashSet<i64> = steps
        .iter()
        .filter_map(|step| match step.action {
            Action::Saw(seen) => seen,
            Action::Changed(Guard::Is { value, .. }, _, _)
            | Action::Refused(Guard::Is { value, .. }) => Some(value),
            _ => None,
        })
        .collect();
    let vague = steps.iter().any(|step| match step.action {
        // One in doubt has to find a place only if its content was seen.
        Action::Changed(Guard::Present, Change::Put(value), _) if step.in_doubt() => {
            seen.contains(&value)
        }
        Action::Changed(guard, _, _) => guard == Guard::Present && !step.in_doubt(),
        Action::Refused(guard) => guard != Guard::Present,
        Action::Saw(_) => false,
    });
    // Only among puts is a content somebody's own.
    let counter = steps
        .iter()
        .any(|step| matches!(step.action, Action::Changed(_, Change::Add(_), _)));
    steps
        .iter()
        .filter(|step| match step.action {
            Action::Changed(_, Change::Put(value), _) if step.in_doubt() => {
                vague || counter || seen.contains(&value)
            }
            _ => true,
        })
        .map(|&step| match step.action {
            Action::Changed(guard, Change::Put(value), number)
                if !counter && !seen.contains(&value) =>
            {
                Step {
                    action: Action::Changed(guard, Change::Put(UNSEEN), number),
                    ..step
                }
            }
            _ => step,
        })
        .collect()
}

fn twins(steps: &[Step]) -> Vec<Option<usize>> {
    let mut last = HashMap::new();
    let twin = |(at, step): (usize, &Step)| match step.in_doubt() {
        true => last.insert(step.action, at),
        false => None,
    };
    steps.iter().enumerate().map(twin).collect()
}

/// The steps that were given a place, one bit each.
type Done = Box<[u64]>;

/// One node of the search: what is done, where that led, and what is still to be tried from here.
struct Node {
    /// The step that led here.
    by: usize,
    state: Option<i64>,
    unobserved: bool,
    candidates: Vec<usize>,
    next: usize,
}

struct Search<'a> {
    steps: &'a [Step],
    /// For each step in doubt, the one before it that does the same: it has to come first.
    twins: Vec<Option<usize>>,
    done: Done,
    /// Every step before it is done.
    first: usize,
    left: usize,
    visited: HashSet<(Done, Option<i64>, bool)>,
    /// The most steps with a known outcome that found a place, and the order that did it.
    best: (usize, Vec<usize>),
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step]) -> Self {
        Self {
            steps,
            twins: twins(steps),
            done: vec![0; steps.len().div_ceil(64)].into_boxed_slice(),
            first: 0,
            left: steps.iter().filter(|step| !step.in_doubt()).count(),
            visited: HashSet::new(),
            best: (usize::MAX, Vec::new()),
        }
    }

    fn is_done(&self, step: usize) -> bool {
        self.done[step / 64] >> (step % 64) & 1 == 1
    }

    fn flip(&mut self, step: usize) {
        self.done[step / 64] ^= 1 << (step % 64);
        if !self.steps[step].in_doubt() {
            match self.is_done(step) {
                true => self.left -= 1,
                false => self.left += 1,
            }
        }
        self.first = self.first.min(step);
        while self.first < self.steps.len() && self.is_done(self.first) {
            self.first += 1;
        }
    }

    /// The steps that may come next by time, those in doubt last.
    fn candidates(&self) -> Vec<usize> {
        let mut ends = NEVER;
        let (mut sure, mut doubtful) = (Vec::new(), Vec::new());
        for (at, step) in self.steps.iter().enumerate().skip(self.first) {
            if step.invoked > ends {
                break;
            }
            if self.is_done(at) {
                continue;
            }
            ends = ends.min(step.completed);
            match step.in_doubt() {
                true if self.twins[at].is_none_or(|twin| self.is_done(twin)) => doubtful.push(at),
                true => {}
                false => sure.push(at),
            }
        }
        // An end found late rules out nobody that was called before it, but one called after it.
        sure.retain(|&at| self.steps[at].invoked <= ends);
        doubtful.retain(|&at| self.steps[at].invoked <= ends);
        sure.append(&mut doubtful);
        sure
    }

    fn run(mut self) -> Verdict {
        if self.left == 0 {
            return Verdict::Linearizable;
        }
        let mut path = vec![Node {
            by: usize::MAX,
            state: None,
            unobserved: false,
            candidates: self.candidates(),
            next: 0,
        }];
        let mut nodes = 0_u64;
        while let Some(node) = path.last_mut() {
            let Some(&at) = node.candidates.get(node.next) else {
                if let Some(node) = path.pop()
                    && node.by != usize::MAX
                {
                    self.flip(node.by);
                }
                continue;
            };
            node.next += 1;
            let step = &self.steps[at];
            if node.unobserved && step.is_blind() {
                continue;
            }
            let Some(state) = step.apply(node.state) else {
                continue;
            };
            if step.in_doubt() && state == node.state {
                continue;
            }
            let unobserved = step.in_doubt();
            self.flip(at);
            if self.left == 0 {
                return Verdict::Linearizable;
            }
            if !self.visited.insert((self.done.clone(), state, unobserved)) {
                self.flip(at);
                continue;
            }
            nodes += 1;
            if nodes > NODES_MAX {
                return Verdict::Undecided;
            }
            if self.left < self.best.0 {
                let order = path.iter().skip(1).map(|node| node.by).chain([at]);
                self.best = (self.left, order.collect());
            }
            let candidates = self.candidates();
            path.push(Node {
                by: at,
                state,
                unobserved,
                candidates,
                next: 0,
            });
        }
        Verdict::Violated(self.explain())
    }

    /// The longest order found, and the steps that fit nowhere behind it.
    fn explain(&self) -> String {
        let order = &self.best.1;
        let mut state = None;
        for &at in order {
            state = self.steps[at].apply(state).unwrap_or(state);
        }
        let tail: Vec<&Step> = order
            .iter()
            .rev()
            .take(4)
            .rev()
            .map(|&at| &self.steps[at])
            .collect();
        let done: HashSet<usize> = order.iter().copied().collect();
        let rest: Vec<&Step> = (0..self.steps.len())
            .filter(|at| !done.contains(at) && !self.steps[*at].in_doubt())
            .take(4)
            .map(|at| &self.steps[at])
            .collect();
        format!(
            "not linearizable: of {} steps {} find a place at most, the last {tail:?}, leading to \
             {state:?}; then none of {rest:?} can follow",
            self.steps.len(),
            order.len(),
        )
    }
}

#[cfg(test)]
mod tests;
