//! Idle groups sleep: where nothing happens, nothing is ticked, sent or timed.
//!
//! A group that is awake costs each member a tick, and its leader a heartbeat to each follower, twenty
//! times a second. A group that sleeps costs one bit of a *pulse*: the one sign of life that a core
//! sends to another at each tick, for all groups between them that sleep (`src/shard/pulse.rs`).
//!
//! ```text
//!               idle, and all have all                  every voter agreed
//!   ┌───────┐ ────────────────────────▶ ┌─────────────┐ ───────────────────▶ ┌────────┐
//!   │ awake │                           │ awake, asks │                      │ asleep │
//!   └───────┘ ◀──────────────────────── └─────────────┘                      └────────┘
//!       ▲            anything happens                                            │
//!       └────────────────────────────────────────────────────────────────────────┘
//!         anything happens, or pulses of a voter have not named the group for 4 ticks
//! ```
//!
//! 1. A replica is *idle* once for [`Start::sleep_after`](super::Start) ticks nothing was proposed to
//!    it, appended by it, or read from it by its lease or its age. It is *at rest* while its last entry
//!    is committed, applied and durable here, and no change of the members is under way.
//! 2. A leader that is idle, at rest, and known by every other voter to have stored its last entry asks
//!    each of them, at every tick: "term and last index are these; will you sleep?"
//! 3. A follower of that leader in that term, with that last index, idle and at rest, falls asleep and
//!    agrees. Another one says nothing and is asked again. Heartbeats of a leader that still waits for
//!    others are answered without waking.
//! 4. A leader that every voter has agreed with, and that still could ask, falls asleep. One without
//!    other voters needs nobody.
//! 5. Asleep, the `raft` crate is not ticked: no heartbeats, no check of the quorum, no time to stand for
//!    election. The leader's core and each follower's tell each other by pulses that they are there and
//!    that the group sleeps there.
//! 6. A sleeper wakes when something is asked of it, when a message comes (but for those of point 3), or
//!    when it was missing in the pulses of the other side for [`WAKE_TICKS`]: the other is gone, cut
//!    off, started anew, or awake. A leader that wakes sends a heartbeat round at once.
//!
//! Nothing here decides who leads or what is committed; a word about sleep that is lost, late, or out of
//! date costs a wake, by point 6, and no more. What rests on time stays right:
//!
//! - **The lease** is renewed by answered heartbeats only, never by pulses. That of a sleeping leader has
//!   run out 185 ms after its last round; its next read asks the quorum, and the answers renew it.
//! - **A follower's promise** to refuse its vote for one election timeout after a heartbeat: asleep it
//!   refuses as one that has just heard, and on waking it is taken to have waited for as many ticks
//!   as it had no sign of life, heartbeat or pulse. That is never more than since the last heartbeat.
//! - **A dead leader** is missed as soon as by heartbeats, for the ticks without a pulse count.
//! - **The check of the quorum:** on waking, a leader has a whole election timeout to hear from one.
//!   Without a quorum it renews no lease and commits nothing, asleep or awake; and it wakes when the
//!   pulses of one voter stop.

use std::cell::Cell;

use raft::eraftpb::MessageType;
use raft::{ProgressState, StateRole};

use super::{ELECTION_TICKS_MIN, NodeId, Replica, node_of};
use crate::planted::{self, Bug};

/// Ticks without a pulse that names the group after which a sleeper wakes: less than an election
/// timeout, so that waking delays no election.
const WAKE_TICKS: u32 = 4;
const _: () = assert!((WAKE_TICKS as usize) < ELECTION_TICKS_MIN);

/// What is said about sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepWord {
    /// The leader to a voter: will you sleep?
    Ask,
    /// A follower to its leader: I sleep.
    Agree,
    /// A follower to its leader: heartbeats are wanted.
    Wake,
}

/// A word about sleep between two replicas of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SleepNote {
    /// Who says it.
    pub from: u64,
    /// Whom it is for.
    pub to: u64,
    /// The term that both must be in.
    pub term: u64,
    /// The last entry that both must have.
    pub index: u64,
    /// What is said.
    pub word: SleepWord,
}

/// A replica's sleep.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    /// Ticks of idleness before it.
    after: u32,
    /// Ticks since something was last asked of the replica.
    idle: u32,
    /// A read rested on the lease or the age since the last tick.
    used: Cell<bool>,
    asleep: bool,
    /// Voters that have agreed to sleep since this leader began to ask.
    agreed: Vec<u64>,
    /// Of a sleeper: those whose pulses must name the group, and the ticks since they last did.
    silent: Vec<(u64, u32)>,
    /// What is to be said.
    notes: Vec<SleepNote>,
    /// How often it fell asleep.
    count: u64,
}

impl Sleep {
    /// That of a replica that sleeps after so many idle ticks.
    pub(super) fn after(ticks: u32) -> Self {
        Self {
            after: ticks,
            ..Self::default()
        }
    }

    /// A read rests on the replica's lease or age: what renews them must go on.
    pub(super) fn note_use(&self) {
        self.used.set(true);
    }

    /// Something was asked of the replica.
    pub(super) fn disturb(&mut self) {
        self.idle = 0;
        self.agreed.clear();
    }

    fn is_idle(&self) -> bool {
        self.idle >= self.after && !self.used.get()
    }

    /// One of those was heard of.
    fn heard(&mut self, is_it: impl Fn(u64) -> bool) {
        for (id, silent) in &mut self.silent {
            if is_it(*id) {
                *silent = 0;
            }
        }
    }

    fn longest_silence(&self) -> u32 {
        let silences = self.silent.iter().map(|(_, silent)| *silent);
        silences.max().unwrap_or_default()
    }
}

impl Replica {
    /// Whether it sleeps.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.sleep.asleep
    }

    /// How often it fell asleep, since it was started.
    #[must_use]
    pub fn sleeps(&self) -> u64 {
        self.sleep.count
    }

    /// The replicas whose cores must be told, at each tick, that this one sleeps.
    pub fn pulses_to(&self) -> impl Iterator<Item = u64> + '_ {
        let told = self.sleep.silent.iter().map(|(id, _)| *id);
        told.filter(|_| self.sleep.asleep)
    }

    /// A pulse of another node named this group.
    pub fn pulse_of(&mut self, node: NodeId) {
        self.sleep.heard(|id| node_of(id) == node);
    }

    /// What is to be said about sleep.
    pub fn take_notes(&mut self) -> Vec<SleepNote> {
        std::mem::take(&mut self.sleep.notes)
    }

    /// Heartbeats are wanted here: a sleeper wakes, and its leader with it.
    pub fn rouse(&mut self) {
        if self.sleep.asleep {
            self.wake();
            if !self.leads() {
                self.say(self.leader(), SleepWord::Wake);
            }
        }
    }

    /// Takes what another replica says about sleep.
    pub fn note_received(&mut self, note: &SleepNote) {
        let is_of_now = note.to == self.id()
            && note.term == self.term()
            && self.membership.conf.voters.contains(&note.from);
        if !is_of_now {
            return;
        }
        self.flush_batch();
        let is_same = note.index == self.last_index();
        match note.word {
            SleepWord::Ask if note.from == self.leader() && !self.leads() => {
                if is_same && self.is_at_rest() && (self.sleep.asleep || self.sleep.is_idle()) {
                    self.fall_asleep(vec![note.from]);
                    self.say(note.from, SleepWord::Agree);
                }
            }
            SleepWord::Agree if is_same && self.could_sleep() => {
                if !self.sleep.agreed.contains(&note.from) {
                    self.sleep.agreed.push(note.from);
                }
                self.sleep_if_agreed();
            }
            SleepWord::Wake if self.leads() => {
                self.wake();
                self.sleep.disturb();
            }
            SleepWord::Ask | SleepWord::Agree | SleepWord::Wake => {}
        }
    }

    /// One tick of a sleeper. Whether it sleeps on.
    pub(super) fn sleeps_on(&mut self) -> bool {
        for (_, silent) in &mut self.sleep.silent {
            *silent = silent.saturating_add(u32::from(!planted::is(Bug::SleeperMissesNobody)));
        }
        if self.sleep.longest_silence() >= WAKE_TICKS {
            self.wake();
        }
        self.sleep.asleep
    }

    /// At the end of a tick of one that is awake: asks the others to sleep, if it is time.
    pub(super) fn consider_sleep(&mut self) {
        if self.sleep.used.take() {
            self.sleep.disturb();
        }
        self.sleep.idle = self.sleep.idle.saturating_add(1);
        if !self.could_sleep() {
            self.sleep.agreed.clear();
            return;
        }
        for other in self.others() {
            if !self.sleep.agreed.contains(&other) {
                self.say(other, SleepWord::Ask);
            }
        }
        self.sleep_if_agreed();
    }

    /// A sleeper has something to do.
    pub(super) fn wake(&mut self) {
        if !self.sleep.asleep {
            return;
        }
        self.sleep.asleep = false;
        self.sleep.disturb();
        if self.leads() {
            self.raft.raft.election_elapsed = 0;
            self.raft.ping();
        } else {
            self.raft.raft.election_elapsed = match planted::is(Bug::WokenForgetsPromise) {
                true => ELECTION_TICKS_MIN,
                false => self.sleep.longest_silence() as usize,
            };
        }
    }

    /// Before a peer's message is stepped: whether it wakes or disturbs this replica.
    pub(super) fn disturbed_by(&mut self, kind: MessageType, from: u64, term: u64, bare: bool) {
        let of_this_term = term == self.term();
        let goes_on = match kind {
            MessageType::MsgHeartbeat => of_this_term && from == self.leader(),
            MessageType::MsgHeartbeatResponse => of_this_term,
            _ => false,
        };
        if goes_on {
            self.sleep.heard(|id| id == from);
            return;
        }
        self.wake();
        let is_answer = kind == MessageType::MsgAppendResponse;
        let is_empty = kind == MessageType::MsgAppend && bare;
        if !is_answer && !is_empty {
            self.sleep.disturb();
        }
    }

    fn fall_asleep(&mut self, others: Vec<u64>) {
        if !self.sleep.asleep {
            self.sleep.asleep = true;
            self.sleep.count += 1;
        }
        self.sleep.silent = others.into_iter().map(|id| (id, 0)).collect();
    }

    fn sleep_if_agreed(&mut self) {
        let others = self.others();
        if !others.iter().all(|id| self.sleep.agreed.contains(id)) {
            return;
        }
        for id in &others {
            // They have just spoken.
            if let Some(progress) = self.raft.raft.mut_prs().get_mut(*id) {
                progress.recent_active = true;
            }
        }
        self.fall_asleep(others);
    }

    fn say(&mut self, to: u64, word: SleepWord) {
        let note = SleepNote {
            from: self.id(),
            to,
            term: self.term(),
            index: self.last_index(),
            word,
        };
        self.sleep.notes.push(note);
    }

    /// The other voters.
    fn others(&self) -> Vec<u64> {
        let voters = self.membership.conf.voters.iter().copied();
        voters.filter(|id| *id != self.id()).collect()
    }

    /// Whether this replica leads a group in which nobody has anything to do.
    fn could_sleep(&self) -> bool {
        let raft = &self.raft.raft;
        let last = raft.raft_log.last_index();
        let has_all = |id: &u64| {
            raft.prs().get(*id).is_some_and(|progress| {
                progress.matched == last && progress.state != ProgressState::Snapshot
            })
        };
        // One that waits for the preferred leader to be there is awake to see it come.
        let hands_over = self
            .preferred
            .is_some_and(|id| id != self.id() && self.membership.conf.voters.contains(&id));
        !self.sleep.asleep
            && self.sleep.is_idle()
            && self.serves()
            && self.is_at_rest()
            && !hands_over
            && raft.pending_read_count() == 0
            && !raft.has_pending_conf()
            && self.others().iter().all(has_all)
    }

    /// Whether all that this replica knows of is committed, applied and durable here, and the members
    /// stay as they are.
    fn is_at_rest(&self) -> bool {
        let (raft, conf) = (&self.raft.raft, &self.membership.conf);
        let last = raft.raft_log.last_index();
        matches!(raft.state, StateRole::Leader | StateRole::Follower)
            && self.batch.is_empty()
            && !self.is_installing()
            && !self.is_restoring()
            // What it promised before it was restarted is over.
            && self.ticks > ELECTION_TICKS_MIN as u32
            && raft.raft_log.committed == last
            && raft.raft_log.persisted == last
            && self.applied.index == last
            && conf.voters.contains(&raft.id)
            && conf.learners.is_empty()
            && conf.voters_outgoing.is_empty()
    }
}
