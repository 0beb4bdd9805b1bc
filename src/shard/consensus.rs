//! A core's replicas at work: what they ask for is logged, sent and applied.
//!
//! A replica with something to do is put on a list ([`Inner::to_drive`]); at the turn's end each
//! one's work is taken and carried out: its entries and votes go to the log ([`super::logging`]), its
//! messages to the peers, and what became committed is applied.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use ringbolt_engine::entry::{Effect, LogId, PartitionId};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::{decode_payload, decode_payload_trusted};
use ringbolt_wire::peer::{RaftEntries, RaftEntry, RaftMessage};
use ringbolt_wire::slot::core_of;

use super::counters::add;
use super::keyspaces::HOME;
use super::logging::Unlogged;
use super::mail::{Origin, Scope};
use super::signal::Signal;
use super::{Inner, micros};
use crate::cluster::NodeId;
use crate::planted::{self, Bug};
use crate::replica::{
    Membership, Outgoing, Replica, TICK, Work, from_payload, node_of, payload_of,
};

/// Reads that wait for a quorum to say that this replica still leads.
#[derive(Default)]
pub(super) struct Rounds {
    /// The round under way and who waits for it.
    current: Option<(u64, Vec<Signal<bool>>)>,
    /// Who came after it was begun.
    next: Vec<Signal<bool>>,
}

impl<E: Env> Inner<E> {
    /// Has a replica's work taken at the turn's end.
    pub(super) fn to_drive(&self, partition: PartitionId) {
        let flag = &self.driving_flags[usize::from(partition)];
        if !flag.replace(true) {
            self.driving.borrow_mut().push(partition);
        }
    }

    pub(super) fn with_replica<R>(
        &self,
        partition: PartitionId,
        f: impl FnOnce(&mut Replica) -> R,
    ) -> Option<R> {
        let mut replicas = self.replicas.borrow_mut();
        replicas
            .get_mut(usize::from(partition))
            .and_then(Option::as_mut)
            .map(f)
    }

    /// Ticks every replica, if it is time. Returns when the next tick is due.
    pub(super) fn tick_replicas(&self) -> Duration {
        let now = self.clock.get().now;
        if now >= self.next_tick.get() {
            // After a pause there is one tick, not many: a follower's promise is counted in them.
            self.next_tick.set(now + TICK);
            let partitions = self.replicas.borrow().len();
            for partition in 0..partitions as PartitionId {
                if self.with_replica(partition, Replica::tick) == Some(true) {
                    self.to_drive(partition);
                }
            }
            self.tick_drain();
            self.carry_forward();
            self.send_pulses();
        }
        self.next_tick.get()
    }

    /// Carries out all the work there is.
    pub(super) fn drive_replicas(self: &Rc<Self>) {
        self.log_the_rest();
        loop {
            let next = self.driving.borrow_mut().pop();
            let Some(partition) = next else {
                break;
            };
            self.driving_flags[usize::from(partition)].set(false);
            self.drive(partition);
        }
    }

    fn drive(self: &Rc<Self>, partition: PartitionId) {
        let now = self.clock.get().now;
        while !self.halted.get() {
            let is_blocked = self.is_blocked(partition);
            let work = self.with_replica(partition, |replica| {
                let has_work = !is_blocked || replica.has_to_apply();
                has_work.then(|| replica.take_work(now)).flatten()
            });
            let Some(Some(work)) = work else {
                break;
            };
            self.carry_out(partition, work);
        }
        self.send_sleep_notes(partition);
        self.read_old_entries(partition);
        self.acknowledge_spread(partition);
        if partition == HOME {
            self.home_led();
        }
    }

    /// A new leader of the home partition finishes what the one before has left of keyspaces.
    fn home_led(self: &Rc<Self>) {
        let serves = self.with_replica(HOME, |replica| replica.serves() && !replica.is_alone());
        let serves = serves == Some(true);
        if self.leads_home.replace(serves) || !serves {
            return;
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            if let Err(refusal) = this.load_keyspaces().await {
                // The next leader tries again; what is known by now serves.
                tracing::warn!(core = this.config.core, "keyspaces: {}", refusal.message);
            }
        });
    }

    fn carry_out(self: &Rc<Self>, partition: PartitionId, work: Work) {
        for outgoing in work.messages {
            self.send_raft(partition, outgoing);
        }
        if work.role_changed {
            self.role_changed(partition);
        }
        if let Some(append) = &work.append
            && self.with_replica(partition, |replica| replica.leads()) == Some(true)
        {
            add(
                &self.counters.proposals_total,
                append.end() + 1 - append.start(),
            );
            add(&self.counters.proposal_batches_total, 1);
        }
        let mut later = work.messages_later;
        if planted::is(Bug::FollowerAnswersTooEarly) {
            for outgoing in std::mem::take(&mut later) {
                self.send_raft(partition, outgoing);
            }
        }
        let rest = Unlogged {
            partition,
            number: work.number,
            vote: work.vote,
            append: work.append,
            membership: None,
            messages: later,
            committed: Vec::new(),
        };
        if let Some(snapshot) = work.snapshot {
            return self.install(partition, snapshot, rest);
        }
        self.log_in_order(rest);
        self.apply_committed(partition, work.committed);
        for (round, _) in work.reads {
            self.round_answered(partition, round);
        }
    }

    /// Installs a snapshot; what else the work had is logged behind it. Raft gives neither entries
    /// nor anything to apply together with one.
    fn install(
        self: &Rc<Self>,
        partition: PartitionId,
        snapshot: (LogId, Membership),
        rest: Unlogged,
    ) {
        self.install_snapshot(partition, snapshot, move |this| {
            if let Some(rest) = this.log_work(rest) {
                this.unlogged.borrow_mut().push_back(rest);
            }
        });
    }

    /// Applies what is committed, up to a change of the group's members: that one, and what follows it,
    /// once the log remembers what it changed ([`Inner::save_change`]).
    pub(super) fn apply_committed(
        self: &Rc<Self>,
        partition: PartitionId,
        mut committed: Vec<Entry>,
    ) {
        if committed.is_empty() || self.with_replica(partition, |_| ()).is_none() {
            return;
        }
        for at in 0..committed.len() {
            let entry = &committed[at];
            let id = LogId {
                term: entry.term,
                index: entry.index,
            };
            let payload = payload_of(partition, entry);
            let Some((head, effects)) = decode_payload_trusted(partition, id, &payload) else {
                return self.stop(&format!(
                    "partition {partition}: entry {} is damaged",
                    id.index
                ));
            };
            let mut changes = effects;
            let change = changes.find_map(|effect| match effect {
                Effect::Membership { change } => Some(change),
                _ => None,
            });
            if let Some(change) = change {
                let is_saved = |replica: &mut Replica| replica.membership().index >= id.index;
                if self.with_replica(partition, is_saved) == Some(false) {
                    let change = change.to_vec();
                    drop(payload);
                    let rest = committed.split_off(at);
                    return self.save_change(partition, id, &change, rest);
                }
                self.with_replica(partition, |replica| replica.change_applied(change));
            }
            let skipped = planted::is(Bug::EffectsSkipped)
                && id.index.is_multiple_of(16)
                && self.with_replica(partition, |replica| replica.leads()) == Some(false);
            if !skipped {
                self.engine.apply(&head, effects);
            }
            let leads = self.with_replica(partition, |replica| {
                replica.applied(&head);
                replica.serves()
            });
            let mut changes = effects;
            if leads != Some(true)
                && changes.any(|effect| matches!(effect, Effect::DeleteRange { .. }))
            {
                self.learn_soon();
            }
            if partition == HOME {
                self.map_applied(effects);
                if leads != Some(true) {
                    self.keyspaces_applied(effects);
                }
            }
            self.finish_writes(partition, id);
        }
        self.with_replica(partition, Replica::applied_all);
    }

    /// Takes in a committed change of the group's members, and has the log remember them. Only then is the
    /// entry applied, with the rest: what tables hold is not applied again after a crash, so what it did to
    /// the members must be known by then.
    fn save_change(
        self: &Rc<Self>,
        partition: PartitionId,
        id: LogId,
        change: &[u8],
        rest: Vec<Entry>,
    ) {
        let changed = self.with_replica(partition, |replica| {
            replica.applied_all();
            replica.change_members(id, change)
        });
        match changed {
            Some(Ok(membership)) => {
                let rest = self.log_work(Unlogged {
                    partition,
                    number: 0,
                    vote: None,
                    append: None,
                    membership: Some(membership),
                    messages: Vec::new(),
                    committed: rest,
                });
                self.unlogged.borrow_mut().extend(rest);
            }
            Some(Err(error)) => self.stop(&error.to_string()),
            None => {}
        }
    }

    /// The replica leads now, or does not any more, or follows another.
    fn role_changed(&self, partition: PartitionId) {
        let role = self.with_replica(partition, |replica| (replica.leads(), replica.leader()));
        let (leads, leader) = role.unwrap_or_default();
        let leader = if leader == 0 { 0 } else { node_of(leader) };
        self.config.cluster.set_leader(partition, leader);
        if leads {
            add(&self.counters.leaderships_total, 1);
        } else {
            let rounds = self.rounds.borrow_mut().remove(&partition);
            for signal in rounds.into_iter().flat_map(Rounds::into_signals) {
                signal.set(false);
            }
        }
    }

    /// Whether reads that were made before this call are known to have seen the newest committed
    /// state of the partition: by the lease, or by a round that a quorum answers.
    pub(super) async fn prove(&self, partition: PartitionId, by_quorum: bool) -> bool {
        let now = self.env.now();
        let known = self.with_replica(partition, |replica| {
            if !replica.serves() {
                return Some(false);
            }
            let proven = replica.is_alone() || !by_quorum && replica.has_lease(now);
            proven.then_some(true)
        });
        match known {
            None => return false,
            Some(Some(known)) => return known,
            Some(None) => {}
        }
        let answered = Signal::new();
        {
            let mut all = self.rounds.borrow_mut();
            let rounds = all.entry(partition).or_default();
            rounds.next.push(answered.clone());
        }
        self.begin_round(partition);
        answered.wait().await
    }

    /// Begins a round for those who wait, unless one is under way.
    fn begin_round(&self, partition: PartitionId) {
        let mut all = self.rounds.borrow_mut();
        let Some(rounds) = all.get_mut(&partition) else {
            return;
        };
        if rounds.current.is_some() || rounds.next.is_empty() {
            return;
        }
        let round = self.with_replica(partition, |replica| {
            replica.serves().then(|| replica.read_round())
        });
        let waiting = std::mem::take(&mut rounds.next);
        match round {
            Some(Some(round)) => rounds.current = Some((round, waiting)),
            _ => waiting.into_iter().for_each(|signal| signal.set(false)),
        }
        self.to_drive(partition);
    }

    fn round_answered(&self, partition: PartitionId, round: u64) {
        let answered = {
            let mut all = self.rounds.borrow_mut();
            let Some(rounds) = all.get_mut(&partition) else {
                return;
            };
            match &rounds.current {
                Some((current, _)) if *current <= round => rounds.current.take(),
                _ => return,
            }
        };
        for signal in answered.into_iter().flat_map(|(_, waiting)| waiting) {
            signal.set(true);
        }
        self.begin_round(partition);
    }

    /// Sends a message to the core of the peer's node that holds the partition. What cannot be sent
    /// is dropped: raft sends it again, or something newer.
    pub(super) fn send_raft(self: &Rc<Self>, partition: PartitionId, outgoing: Outgoing) {
        if outgoing.message.msg_type == MessageType::MsgSnapshot {
            return self.send_snapshot(partition, outgoing);
        }
        let message = &outgoing.message;
        let node = node_of(message.to);
        let Some(core) = self.core_on(node, partition) else {
            return;
        };
        let sent = self.peer_send_raft(
            node,
            core,
            partition,
            &RaftMessage {
                kind: message.msg_type as u8,
                from: message.from,
                to: message.to,
                term: message.term,
                log_term: message.log_term,
                index: message.index,
                commit: message.commit,
                commit_term: message.commit_term,
                reject: message.reject,
                reject_hint: message.reject_hint,
                request_snapshot: message.request_snapshot,
                priority: message.priority,
                stamp: self.shown_stamp(outgoing.stamp),
                echo: micros(outgoing.echo),
                context: &message.context,
                snapshot: None,
            },
            payloads(partition, &message.entries)
                .iter()
                .map(|(entry, payload)| RaftEntry {
                    kind: entry.entry_type as u8,
                    term: entry.term,
                    index: entry.index,
                    data: payload,
                }),
        );
        let carries_entries = message.msg_type == MessageType::MsgAppend;
        if !sent && carries_entries {
            let to = message.to;
            self.with_replica(partition, |replica| replica.unreachable(to));
        }
    }

    /// A peer's message for one of this core's replicas.
    pub(super) fn raft_received(
        &self,
        from: NodeId,
        partition: PartitionId,
        message: &RaftMessage<'_>,
        entries: RaftEntries<'_>,
    ) {
        if partition >= self.config.map.partitions() {
            add(&self.counters.bad_frames_total, 1);
            return;
        }
        if let Some(offered) = &message.snapshot {
            if node_of(message.from) == from {
                self.snapshot_offered(partition, message, offered);
            }
            return;
        }
        let kind = kind_of(message.kind);
        let (Some(kind), true) = (kind, node_of(message.from) == from) else {
            add(&self.counters.bad_frames_total, 1);
            return;
        };
        let mut raft = Message {
            msg_type: kind,
            from: message.from,
            to: message.to,
            term: message.term,
            log_term: message.log_term,
            index: message.index,
            commit: message.commit,
            commit_term: message.commit_term,
            reject: message.reject,
            reject_hint: message.reject_hint,
            request_snapshot: message.request_snapshot,
            priority: message.priority,
            context: Bytes::copy_from_slice(message.context),
            ..Message::default()
        };
        let flushed = self.engine.tree().flushed(partition).id;
        let spares = || self.engine.log().spares_for_others(partition, flushed);
        if !entries.is_empty() && (self.is_blocked(partition) || spares()) {
            // The leader sends them again.
            return;
        }
        let mut taken = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let id = LogId {
                term: entry.term,
                index: entry.index,
            };
            // What is taken is logged, sent on and applied without another look.
            if decode_payload(partition, id, entry.data).is_none() {
                add(&self.counters.bad_frames_total, 1);
                return;
            }
            taken.push(from_payload(partition, id, entry.data.to_vec()));
        }
        raft.set_entries(taken.into());
        if kind == MessageType::MsgAppendResponse && !message.reject {
            let now_us = self.clock.get().us;
            let mut acks = self.acks.borrow_mut();
            acks.peer_stored(partition, from, message.index, now_us);
        }
        let stamp = Duration::from_micros(message.stamp);
        let echo = self.own_stamp(message.echo);
        self.with_replica(partition, |replica| replica.step(raft, stamp, echo));
        self.to_drive(partition);
    }

    /// A moment as peers see it: see [`Inner::own_stamp`].
    pub(super) fn shown_stamp(&self, moment: Duration) -> u64 {
        micros(moment).wrapping_add(self.clock_offset)
    }

    /// The moment of this process that a peer's echo names; zero if it names none. What is sent is
    /// shifted by a number drawn at each start: a clock that begins anew with the machine must never
    /// take an echo of its former life for one of its own.
    pub(super) fn own_stamp(&self, echo: u64) -> Duration {
        let moment = Duration::from_micros(echo.wrapping_sub(self.clock_offset));
        let known = self.began..=self.clock.get().now;
        if known.contains(&moment) {
            moment
        } else {
            Duration::ZERO
        }
    }

    /// The core of a node that holds a partition.
    pub(super) fn core_on(&self, node: NodeId, partition: PartitionId) -> Option<u16> {
        let cores = self.config.cluster.node(node)?.cores;
        Some(core_of(partition, self.config.map.partitions(), cores))
    }

    /// Whether this core is to serve a request on a partition that is its own: if not, the request is
    /// sent on to the node that leads, or refused.
    pub(super) fn serves_here(
        &self,
        partition: PartitionId,
        by_leader: bool,
        origin: &Origin,
        scope: Scope,
        bytes: &[u8],
    ) -> bool {
        let leader = {
            let replicas = self.replicas.borrow();
            match replicas.get(usize::from(partition)) {
                Some(Some(replica)) if !by_leader || replica.serves() => return true,
                Some(Some(replica)) if !replica.leads() => node_of(replica.leader()),
                Some(Some(_)) => 0,
                _ if !self.config.cluster.holds(partition) && !origin.forwarded => {
                    drop(replicas);
                    self.forward_elsewhere(partition, *origin, scope, bytes);
                    return false;
                }
                _ => self.config.cluster.leader(partition),
            }
        };
        match self.core_on(leader, partition) {
            Some(core) if leader != self.config.cluster.here() && !origin.forwarded => {
                self.forward(leader, core, *origin, scope, bytes);
            }
            _ => self.refuse(origin, &self.led_elsewhere(partition)),
        }
        false
    }
}

impl Rounds {
    fn into_signals(self) -> impl Iterator<Item = Signal<bool>> {
        let current = self.current.into_iter().flat_map(|(_, waiting)| waiting);
        current.chain(self.next)
    }
}

/// Entries with the payloads that stand for them.
fn payloads(partition: PartitionId, entries: &[Entry]) -> Vec<(&Entry, Cow<'_, [u8]>)> {
    entries
        .iter()
        .map(|entry| (entry, payload_of(partition, entry)))
        .collect()
}

/// The `raft` crate's kind of a message that peers may send.
fn kind_of(kind: u8) -> Option<MessageType> {
    [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTimeoutNow,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ]
    .into_iter()
    .find(|known| *known as u8 == kind)
}
