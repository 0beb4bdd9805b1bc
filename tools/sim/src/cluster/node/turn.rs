//! One turn of a core, as the real loop does it.

use super::super::clock::{MICRO, MILLI, Nanos};
use super::port::{Out, Outbox, take_in};
use super::{Ending, NEVER, Node, State};

/// How long a core sleeps at most.
const HEARTBEAT: Nanos = 5 * MILLI;

/// Parcels that a mailbox holds at most.
const MAILBOX: usize = 64;

/// Tasks polled in one turn, at most.
const POLLS_MAX: u64 = 24;

/// What a turn came to.
pub struct Turned {
    /// What it wants.
    pub out: Vec<Out>,
    /// When that goes out.
    pub at: Nanos,
    /// When the next turn is wanted.
    pub next: Nanos,
    /// The partitions that it leads, with the term.
    pub leads: Vec<(u16, u64)>,
}

impl Node {
    /// One turn of a core. `None` if it was interrupted and goes on later.
    ///
    /// # Errors
    /// Why the process must end: it could not open, or its shard failed.
    pub fn turn(&mut self, number: u16, now: Nanos) -> Result<Turned, Ending> {
        let room: Vec<usize> = self
            .cores
            .iter()
            .map(|core| MAILBOX.saturating_sub(core.inbox.len()))
            .collect();
        let stall = self.rng.one_in(self.setup.stall_one_in) && !self.calm;
        let stall_until = now + self.rng.between(MILLI, 3_000 * MILLI);
        let cost = self.rng.between(MICRO, 8 * MICRO);
        let heartbeat = self.rng.between(HEARTBEAT / 2, HEARTBEAT);
        let clock = self.clock;
        let core = &mut self.cores[usize::from(number)];
        core.core.advance_to(clock.local(now));
        let shard = core.progress.shard.borrow().clone();
        if let Some(shard) = &shard
            && !std::mem::take(&mut core.begun)
        {
            shard.begin_turn();
            let told = std::mem::take(&mut core.stall_until);
            if stall || told > now {
                self.stalls += 1;
                core.begun = true;
                core.busy_until = if told > now { told } else { stall_until };
                core.wake_at = core.busy_until;
                return Ok(Turned {
                    out: Vec::new(),
                    at: now,
                    next: core.wake_at,
                    leads: Vec::new(),
                });
            }
        }
        let mut out = Vec::new();
        let mut due = None;
        if let Some(shard) = &shard {
            while let Some(arrival) = core.inbox.pop_front() {
                take_in(shard, &mut core.sessions, arrival, &mut out);
            }
        }
        core.core.run_tasks(POLLS_MAX);
        if let Some(shard) = &shard {
            let mut port = Outbox { out, room: &room };
            due = shard.end_turn(&mut port);
            out = port.out;
            for wish in &out {
                if let Out::Finish(end) | Out::Close(end) | Out::HandOver(end, _, _) = wish {
                    core.sessions.remove(end);
                }
            }
            if let Some(error) = shard.failure() {
                let why = format!("the shard of core {number} failed: {error}");
                return Err(Ending::Failed(why));
            }
        }
        if let Some(ending) = core.progress.failed.take() {
            return Err(ending);
        }
        core.core.advance_to(core.core.now_ns() + cost);
        let at = clock.global(core.core.now_ns()).max(now);
        core.core.advance_to(clock.local(at));
        core.busy_until = at;
        let task = core
            .core
            .next_ns()
            .map_or(NEVER, |local| clock.global(local));
        let due = due.map_or(NEVER, |due| clock.global(due.as_nanos() as u64));
        core.wake_at = task.min(due).min(at + heartbeat).max(at);
        let mut leads = Vec::new();
        if let Some(shard) = &shard {
            shard.each_replica(|state| {
                if state.leads {
                    leads.push((state.partition, state.term));
                }
                if state.asleep && core.asleep.insert(state.partition) {
                    self.sleeps += 1;
                }
                if !state.asleep && core.asleep.remove(&state.partition) {
                    self.wakes += 1;
                }
            });
        }
        let turned = Turned {
            out,
            at,
            next: core.wake_at,
            leads,
        };
        if self.state == State::Booting && self.cores.iter().all(|core| core.progress.ready.get()) {
            self.state = State::Up;
        }
        Ok(turned)
    }
}
