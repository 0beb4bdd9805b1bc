//! Catching up a replica that is further behind than the log's memory: the leader streams the
//! partition as it stands, the follower stages it, and installs it in one step.
//!
//! ```text
//!   leader                                        follower
//!   raft asks for a snapshot: export a view
//!   Raft message "snapshot", without rows  ──────▶ keep it; begin to stage
//!                                          ◀────── ack 0: begin
//!   chunk 1 (rows behind the start)        ──────▶ verify, stage
//!                                          ◀────── ack 1: taken
//!   …                                              …
//!   the last chunk                         ──────▶ stage, sync
//!                                          ◀────── ack n: taken
//!   tell raft that it arrived                      hand the kept message to raft, which asks for
//!                                                  the installation; install; answer the leader
//! ```
//!
//! One chunk is under way at a time, so a slow follower holds up nobody, and all that a core sends keeps to
//! a rate, so that requests find it free. What is lost is sent again after a while, a few times, and what
//! was taken already is acknowledged again. If the follower is not heard of for longer, both sides keep what they
//! have for a minute, and go on from there when raft asks again. A core sends and receives a few at a time;
//! what is beyond that is refused, and raft asks again. Meanwhile, and until the follower has caught up, the
//! log is held from the copy's beginning on: else what a long copy lacks would be gone by its end, and the
//! next one's too.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use raft::eraftpb::Message;
use ringbolt_engine::entry::{LogId, PartitionId};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::error::EngineError;
use ringbolt_engine::log::Hold;
use ringbolt_engine::snapshot::{Export, SnapshotId, Stage, Staged};
use ringbolt_wire::peer::{PeerItem, RaftMessage, RaftSnapshot, SnapshotAck, SnapshotChunk};

use super::Inner;
use super::counters::add;
use super::keyspaces::HOME;
use super::signal::Signal;
use crate::planted::{self, Bug};
use crate::replica::{Membership, Outgoing, Replica, node_of, snapshot_of};

/// Snapshots that a core sends, and that it receives, at a time.
const AT_A_TIME: usize = 2;
/// How long an answer is waited for before a chunk is sent again, and how often it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const TRIES: usize = 5;
/// How long a view may be held: it keeps what was superseded since on the disk. A copy that stands still ends
/// long before, so this bounds the largest partition only: 1.3 TiB at 16 MiB a second.
const VIEW_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a follower may take to go on from the log once its copy is there: as long, what was written since
/// the copy was begun is kept for it.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a receiver waits for the next chunk before it gives its files back, and how long a sender keeps
/// what it broke off: either side alone has no use for it.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a follower says of a chunk.
const BEGIN: u8 = 1;
const TAKEN: u8 = 2;
const REFUSED: u8 = 3;

/// A snapshot on its way to a follower.
pub(super) struct Sending {
    partition: PartitionId,
    to: u64,
    number: u64,
    /// Whoever waits for the answer to this chunk.
    waiting: Option<(u32, Signal<u8>)>,
}

/// What a snapshot is of.
struct Content<E: Env> {
    /// The snapshot's number.
    number: u64,
    /// The rows.
    view: Export<E>,
    /// What was logged since then, which the follower needs next.
    log: Rc<Hold<E>>,
    /// The partition's members at the same moment.
    membership: Vec<u8>,
    /// The chunk that was acknowledged last, and its last key.
    sent: u32,
    after: Vec<u8>,
}

/// A snapshot whose follower was not heard of for a while.
pub(super) struct BrokenOff<E: Env> {
    to: u64,
    /// The term of the leader that sent it.
    term: u64,
    at: Duration,
    content: Content<E>,
}

/// A snapshot being received.
pub(super) struct Receiving<E: Env> {
    from: u64,
    number: u64,
    /// Raft's message, kept until the rows are there.
    message: Message,
    /// `None` while a task works on it.
    stage: Option<Stage<E>>,
    /// Chunks taken.
    taken: u32,
    heard: Duration,
}

impl<E: Env> Inner<E> {
    /// Streams the partition to a follower, as raft asked by this message.
    pub(super) fn send_snapshot(self: &Rc<Self>, partition: PartitionId, outgoing: Outgoing) {
        let to = outgoing.message.to;
        let refused = {
            let sending = self.sending.borrow();
            let is_it = |one: &Sending| one.partition == partition && one.to == to;
            sending.len() >= AT_A_TIME || sending.iter().any(is_it)
        };
        if refused {
            self.with_replica(partition, |replica| replica.snapshot_sent(to, false));
            return;
        }
        let broken_off = self.take_broken_off(partition, &outgoing.message);
        let number = match &broken_off {
            Some(content) => content.number,
            None => self.env.random(),
        };
        self.sending.borrow_mut().push(Sending {
            partition,
            to,
            number,
            waiting: None,
        });
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Background, async move {
            let content = broken_off.or_else(|| this.content(partition, number));
            let log = content.as_ref().map(|content| Rc::clone(&content.log));
            let arrived = match content {
                Some(content) => this.stream(partition, content, outgoing.message).await,
                None => false,
            };
            this.sending.borrow_mut().retain(|one| one.number != number);
            if arrived {
                add(&this.counters.snapshots_sent_total, 1);
            }
            this.with_replica(partition, |replica| replica.snapshot_sent(to, arrived));
            this.to_drive(partition);
            if arrived {
                this.until_it_follows(partition, to).await;
            }
            drop(log);
        });
    }

    /// Waits until a follower has nearly everything, or this replica does not lead any more.
    async fn until_it_follows(&self, partition: PartitionId, to: u64) {
        let until = self.env.now() + FOLLOWS_WITHIN;
        let is_behind = |replica: &mut Replica| replica.is_behind(to);
        while self.with_replica(partition, is_behind) == Some(true) && self.env.now() < until {
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    /// The partition as it stands. `None` if it cannot be sent now.
    fn content(&self, partition: PartitionId, number: u64) -> Option<Content<E>> {
        // The view and the membership are those of one moment: nothing is applied in between.
        let log = Rc::new(self.engine.log().hold());
        let tree = self.engine.tree();
        let view = tree.export(partition, self.env.now() + VIEW_MAX);
        let index = view.of().id.index;
        let membership = self.with_replica(partition, |replica| {
            let membership = replica.membership();
            // A change that the log remembers and the tree has not applied yet: raft asks again.
            (membership.index <= index).then(|| membership.encode())
        });
        Some(Content {
            number,
            view,
            log,
            membership: membership??,
            sent: 0,
            after: Vec::new(),
        })
    }

    /// Lets go of what was broken off too long ago, or in another term: it keeps superseded rows on the disk.
    pub(super) fn sweep_broken_off(&self) {
        let now = self.clock.get().now;
        let term_of = |one: &BrokenOff<E>| {
            let partition = one.content.view.of().partition;
            self.with_replica(partition, |replica| replica.term())
        };
        self.broken_off.borrow_mut().retain(|one| {
            now.saturating_sub(one.at) < SILENCE_MAX && term_of(one) == Some(one.term)
        });
    }

    /// What this leader has broken off sending to a follower a little while ago.
    fn take_broken_off(&self, partition: PartitionId, asked: &Message) -> Option<Content<E>> {
        self.sweep_broken_off();
        let mut broken_off = self.broken_off.borrow_mut();
        let is_it = |one: &BrokenOff<E>| {
            (one.content.view.of().partition, one.to, one.term) == (partition, asked.to, asked.term)
        };
        let at = broken_off.iter().position(is_it)?;
        Some(broken_off.swap_remove(at).content)
    }

    /// Whether it arrived. What the follower was sent and has not refused goes on where it was, if raft asks
    /// again soon.
    async fn stream(
        &self,
        partition: PartitionId,
        mut content: Content<E>,
        message: Message,
    ) -> bool {
        let (from, to) = (message.from, message.to);
        let node = node_of(to);
        let Some(core) = self.core_on(node, partition) else {
            return false;
        };
        let mut of = content.view.of();
        if planted::is(Bug::SnapshotOfAnotherMoment) {
            self.env.sleep(Duration::from_millis(300)).await;
            let now = self.with_replica(partition, |replica| replica.applied_id());
            of.id = now.unwrap_or(of.id);
        }
        let number = content.number;
        let offer = || {
            let message = RaftMessage {
                kind: message.msg_type as u8,
                from,
                to,
                term: message.term,
                context: &number.to_le_bytes(),
                snapshot: Some(RaftSnapshot {
                    index: of.id.index,
                    term: of.id.term,
                    time_ms: of.time_ms,
                    membership: &content.membership,
                }),
                ..RaftMessage::default()
            };
            self.peer_send_raft(node, core, partition, &message, [])
        };
        let answer = match self.ask_follower(number, 0, offer).await {
            Some(BEGIN) => self.stream_rows(&mut content, (from, to), core).await,
            answer => answer,
        };
        if answer.is_none() && content.sent > 0 {
            let mut broken_off = self.broken_off.borrow_mut();
            if broken_off.len() < AT_A_TIME {
                broken_off.push(BrokenOff {
                    to,
                    term: message.term,
                    at: self.env.now(),
                    content,
                });
            }
        }
        answer == Some(TAKEN)
    }

    /// Sends chunk after chunk; the follower's answer to the last one that was sent, `None` if it has not
    /// answered.
    async fn stream_rows(
        &self,
        content: &mut Content<E>,
        (from, to): (u64, u64),
        core: u16,
    ) -> Option<u8> {
        let partition = content.view.of().partition;
        loop {
            let chunk = match content.view.chunk(&content.after).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::warn!(core = self.config.core, partition, %error, "a snapshot ends early");
                    if matches!(error, EngineError::Corrupt { .. }) {
                        self.config.cluster.note_damage(&error.to_string());
                    }
                    return Some(REFUSED);
                }
            };
            self.keep_to_rate(chunk.bytes.len()).await;
            let sequence = content.sent + 1;
            let item = PeerItem::SnapshotChunk(SnapshotChunk {
                partition,
                from,
                to,
                snapshot: content.number,
                sequence,
                last: chunk.is_last,
                bytes: &chunk.bytes,
            });
            let send = || self.peer_send(node_of(to), core, &item);
            let answer = self.ask_follower(content.number, sequence, send).await;
            if answer != Some(TAKEN) {
                return answer;
            }
            add(
                &self.counters.snapshot_sent_bytes_total,
                chunk.bytes.len() as u64,
            );
            if chunk.is_last {
                return answer;
            }
            content.sent = sequence;
            content.after = chunk.last_key;
        }
    }

    /// Waits until so many bytes may be sent. All snapshots of a core share its rate; what was not used
    /// is not saved up, so that rows come evenly.
    async fn keep_to_rate(&self, bytes: usize) {
        let now = self.env.now();
        let at = self.copy_at.get().max(now);
        let seconds = bytes as f64 / self.config.limits.copy_bytes_per_s as f64;
        self.copy_at.set(at + Duration::from_secs_f64(seconds));
        if at > now {
            self.env.sleep(at - now).await;
        }
    }

    /// Sends something until it is answered; the answer.
    async fn ask_follower(
        &self,
        number: u64,
        sequence: u32,
        send: impl Fn() -> bool,
    ) -> Option<u8> {
        for _ in 0..TRIES {
            let answered = Signal::new();
            {
                let mut sending = self.sending.borrow_mut();
                let one = sending.iter_mut().find(|one| one.number == number)?;
                one.waiting = Some((sequence, answered.clone()));
            }
            // What could not be sent is sent again like what was lost.
            let _sent = send();
            let timeout = self.env.sleep(ANSWER_WITHIN);
            match select(pin!(answered.wait()), pin!(timeout)).await {
                Either::Left((outcome, _)) => return Some(outcome),
                Either::Right(_) => {}
            }
        }
        None
    }

    /// A follower has answered.
    pub(super) fn snapshot_answered(&self, ack: &SnapshotAck) {
        let mut sending = self.sending.borrow_mut();
        let one = sending
            .iter_mut()
            .find(|one| one.number == ack.snapshot && one.to == ack.from);
        if let Some(one) = one
            && one
                .waiting
                .as_ref()
                .is_some_and(|(sequence, _)| *sequence == ack.sequence || ack.outcome == REFUSED)
            && let Some((_, signal)) = one.waiting.take()
        {
            signal.set(ack.outcome);
        }
    }

    /// A leader offers a snapshot. Its message is given to raft once the rows are there.
    pub(super) fn snapshot_offered(
        &self,
        partition: PartitionId,
        message: &RaftMessage<'_>,
        offered: &RaftSnapshot<'_>,
    ) {
        let Ok(number) = message.context.try_into().map(u64::from_le_bytes) else {
            return;
        };
        let answer = |outcome| self.answer_snapshot(partition, message.from, number, 0, outcome);
        let membership = Membership::decode(offered.membership);
        let Some(membership) = membership.filter(|membership| !membership.is_blank()) else {
            return answer(REFUSED);
        };
        let id = LogId {
            term: offered.term,
            index: offered.index,
        };
        let mut raft = Message {
            from: message.from,
            to: message.to,
            term: message.term,
            ..Message::default()
        };
        raft.set_msg_type(raft::eraftpb::MessageType::MsgSnapshot);
        raft.set_snapshot(snapshot_of(id, &membership));
        let is_mine = self.with_replica(partition, |replica| {
            replica.id() == message.to && replica.term() <= message.term && !replica.is_installing()
        });
        if is_mine != Some(true) {
            return answer(REFUSED);
        }
        if self.applied(partition).index >= id.index {
            // It is there, but the leader was not told: raft tells it what is.
            self.with_replica(partition, |replica| {
                replica.step(raft, Duration::ZERO, Duration::ZERO);
            });
            self.to_drive(partition);
            return answer(REFUSED);
        }
        self.sweep_receiving();
        let mut receiving = self.receiving.borrow_mut();
        if let Some(known) = receiving.get(&partition) {
            if known.number == number {
                return answer(BEGIN);
            }
            if known.stage.is_none() {
                return answer(REFUSED);
            }
            receiving.remove(&partition);
        }
        if receiving.len() >= AT_A_TIME {
            return answer(REFUSED);
        }
        let of = SnapshotId {
            partition,
            id,
            time_ms: offered.time_ms,
        };
        receiving.insert(
            partition,
            Receiving {
                from: message.from,
                number,
                message: raft,
                stage: Some(self.engine.tree().stage(of)),
                taken: 0,
                heard: self.clock.get().now,
            },
        );
        answer(BEGIN);
    }

    /// Gives the files of copies back whose next chunk has not come for long.
    pub(super) fn sweep_receiving(&self) {
        let now = self.clock.get().now;
        let is_alive = |one: &Receiving<E>| now.saturating_sub(one.heard) < SILENCE_MAX;
        let mut receiving = self.receiving.borrow_mut();
        receiving.retain(|_, one| one.stage.is_none() || is_alive(one));
    }

    /// Rows of a snapshot have come.
    pub(super) fn snapshot_chunk(self: &Rc<Self>, chunk: &SnapshotChunk<'_>) {
        let partition = chunk.partition;
        let answer = |outcome| {
            self.answer_snapshot(
                partition,
                chunk.from,
                chunk.snapshot,
                chunk.sequence,
                outcome,
            );
        };
        let stage = {
            let mut receiving = self.receiving.borrow_mut();
            let known = receiving
                .get_mut(&partition)
                .filter(|one| one.number == chunk.snapshot && one.from == chunk.from);
            let Some(one) = known else {
                drop(receiving);
                return answer(REFUSED);
            };
            one.heard = self.clock.get().now;
            if chunk.sequence <= one.taken {
                drop(receiving);
                return answer(TAKEN);
            }
            match one.stage.take() {
                Some(stage) if chunk.sequence == one.taken + 1 => stage,
                // The rows before it are gone, with an earlier start of this node or by age.
                Some(stage) => {
                    one.stage = Some(stage);
                    drop(receiving);
                    return answer(REFUSED);
                }
                // A task is at work on this very chunk, and will answer.
                None => return,
            }
        };
        let this = Rc::clone(self);
        let (bytes, last) = (chunk.bytes.to_vec(), chunk.last);
        let (from, number, sequence) = (chunk.from, chunk.snapshot, chunk.sequence);
        self.env.spawn(TaskClass::Background, async move {
            let taken = this.take_chunk(partition, stage, &bytes, last).await;
            let outcome = if taken { TAKEN } else { REFUSED };
            if !taken {
                this.receiving.borrow_mut().remove(&partition);
            }
            this.answer_snapshot(partition, from, number, sequence, outcome);
        });
    }

    async fn take_chunk(
        self: &Rc<Self>,
        partition: PartitionId,
        mut stage: Stage<E>,
        bytes: &[u8],
        last: bool,
    ) -> bool {
        if let Err(error) = stage.accept(bytes).await {
            tracing::warn!(core = self.config.core, partition, %error, "a snapshot is given up");
            return false;
        }
        if last {
            return match stage.finish().await {
                Ok(staged) => self.snapshot_staged(partition, staged),
                Err(error) => {
                    tracing::warn!(core = self.config.core, partition, %error, "a snapshot is given up");
                    false
                }
            };
        }
        let mut receiving = self.receiving.borrow_mut();
        match receiving.get_mut(&partition) {
            Some(one) => {
                one.stage = Some(stage);
                one.taken += 1;
                true
            }
            None => false,
        }
    }

    /// The rows are there: raft decides whether they are wanted still, if it can at once.
    fn snapshot_staged(self: &Rc<Self>, partition: PartitionId, staged: Staged<E>) -> bool {
        let Some(one) = self.receiving.borrow_mut().remove(&partition) else {
            return false;
        };
        // Raft would take it and ask for the rows later, when they are gone.
        let takes_work = self.with_replica(partition, |replica| replica.takes_work());
        if takes_work != Some(true) || self.is_blocked(partition) {
            return false;
        }
        self.staged.borrow_mut().insert(partition, staged);
        self.with_replica(partition, |replica| {
            replica.step(one.message, Duration::ZERO, Duration::ZERO);
        });
        self.to_drive(partition);
        self.drive_replicas();
        // What raft did not take by now, it does not want.
        self.staged.borrow_mut().remove(&partition);
        true
    }

    /// Installs what was staged, as raft asks. `done` runs once it is in force.
    pub(super) fn install_snapshot(
        self: &Rc<Self>,
        partition: PartitionId,
        (id, membership): (LogId, Membership),
        done: impl FnOnce(&Rc<Self>) + 'static,
    ) {
        let staged = self.staged.borrow_mut().remove(&partition);
        let Some(staged) = staged.filter(|staged| staged.of().id == id) else {
            return self.stop(&format!(
                "partition {partition}: a snapshot without its rows"
            ));
        };
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Log, async move {
            let time_ms = staged.of().time_ms;
            let installed = this.engine.install(staged, &membership.encode()).await;
            if this.with_replica(partition, |_| ()).is_none() {
                // The shard is closing: the next start finds out what there is.
                return;
            }
            if let Err(error) = installed {
                // Half of it is in the log, or nothing: the next start finds out which.
                return this.stop(&format!("partition {partition}: a snapshot: {error}"));
            }
            let terms = match this.load_terms(partition).await {
                Ok(terms) => terms,
                Err(error) => return this.stop(&format!("partition {partition}: {error}")),
            };
            add(&this.counters.snapshots_installed_total, 1);
            this.in_doubt_upto(partition, id);
            this.with_replica(partition, |replica| {
                replica.installed(id, time_ms, membership);
                replica.set_terms(terms);
            });
            done(&this);
            this.to_drive(partition);
            if partition == HOME
                && let Err(refusal) = this.load_home().await
            {
                // What the rows say is then known at the next start.
                tracing::warn!(core = this.config.core, "{}", refusal.message);
            }
        });
    }

    fn answer_snapshot(
        &self,
        partition: PartitionId,
        to: u64,
        snapshot: u64,
        sequence: u32,
        outcome: u8,
    ) {
        let from = self.with_replica(partition, |replica| replica.id());
        let core = self.core_on(node_of(to), partition);
        if let (Some(from), Some(core)) = (from, core) {
            let ack = PeerItem::SnapshotAck(SnapshotAck {
                partition,
                from,
                to,
                snapshot,
                sequence,
                outcome,
            });
            // One that is lost is asked for again.
            let _sent = self.peer_send(node_of(to), core, &ack);
        }
    }
}
