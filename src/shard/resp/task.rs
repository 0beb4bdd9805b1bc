//! Commands of several steps, each a task: read-modify-write, and `WAIT`.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_wire::list::check_key;
use ringbolt_wire::message::{
    Condition, ErrorCode, KeyspaceId, Meta, NodeStatus, ReadOptions, Request, Response, Token,
    WriteOp, WriteOptions,
};
use ringbolt_wire::partition_of;

use super::super::Inner;
use super::super::gather::Target;
use super::super::mail::Scope;
use super::super::read::decode_reply;
use super::super::reply::Refusal;
use super::super::signal::Signal;
use super::super::trace::Op;
use super::input::Taken;
use super::{Asked, Job, refused};
use crate::cluster::NodeId;
use crate::resp::connection::{Keys, Touches, Want};
use crate::resp::modify::{Change, Modify};
use crate::resp::reply;

/// How often `WAIT` looks how many replicas have stored a write.
const WAIT_LOOK_EVERY: Duration = Duration::from_millis(2);
/// The same once it has waited for this long.
const WAIT_PATIENCE: Duration = Duration::from_millis(100);
const WAIT_LOOK_SELDOM: Duration = Duration::from_millis(20);

/// What a write on condition came to.
enum Step {
    Done,
    /// The record was not as it had been read.
    Changed,
}

impl<E: Env> Inner<E> {
    /// Begins a command that a task executes.
    pub(super) fn begin_job(&self, asked: &Asked, touches: Touches) -> Job {
        let number = self.expect(asked, Want::Ready, touches, 1);
        Job {
            asked: *asked,
            number,
            deadline: self.resp_deadline(),
            trace: self.account.begin(Op::Other),
        }
    }

    pub(super) fn modify(self: &Rc<Self>, asked: &Asked, key: &[u8], modify: Modify) -> Taken {
        let hash = self.hash(asked.keyspace, key);
        let touches = Touches::modify(Keys::One(hash));
        if self.must_wait(asked.key, &touches) {
            return Taken::MustWait;
        }
        if let Err(error) = check_key(key) {
            self.say_error(asked.key, &format!("ERR {error}"));
            return Taken::Yes;
        }
        let partition = partition_of(key, self.config.map.partitions());
        if let Some(text) = self.moved(key, partition) {
            self.say_error(asked.key, &text);
            return Taken::Yes;
        }
        let job = self.begin_job(asked, touches);
        let (this, key) = (Rc::clone(self), Box::<[u8]>::from(key));
        self.env.spawn(TaskClass::Foreground, async move {
            let turn = this.queue_for(hash).await;
            let reply = this.modify_until_done(&job, &key, &modify).await;
            drop(turn);
            this.finish_job(&job, reply.unwrap_or_else(|refusal| refused(&refusal)));
        });
        Taken::Yes
    }

    /// Reads, works out and writes, from the start again as long as somebody else was faster.
    async fn modify_until_done(
        self: &Rc<Self>,
        job: &Job,
        key: &[u8],
        modify: &Modify,
    ) -> Result<Vec<u8>, Refusal> {
        let keyspace = job.asked.keyspace;
        loop {
            let frame = self.get_for(job, keyspace, key).await?;
            let old = match decode_reply(&frame)? {
                Response::Value { meta, value, .. } => Some((meta, value)),
                Response::NotFound { .. } => None,
                other => return Err(refusal_of(&other)),
            };
            let mut out = Vec::new();
            let limit = self.config.limits.value_bytes_max;
            let seen = old.as_ref().map(|(meta, value)| (meta, *value));
            let change = match modify.change(seen, limit, job.asked.version, &mut out) {
                Ok(Some(change)) => change,
                Ok(None) => return Ok(out),
                Err(fault) => {
                    out.clear();
                    reply::error(&mut out, &fault);
                    return Ok(out);
                }
            };
            let meta = old.as_ref().map(|(meta, _)| meta);
            match self.write_changed(job, key, meta, &change).await? {
                Step::Done => return Ok(out),
                Step::Changed if self.env.now() >= job.deadline => {
                    return Err(Refusal::new(
                        ErrorCode::Overloaded,
                        0,
                        "too many others change this key at the same time: try again",
                    ));
                }
                Step::Changed => {}
            }
        }
    }

    async fn get_for(
        self: &Rc<Self>,
        job: &Job,
        keyspace: KeyspaceId,
        key: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let request = Request::Get {
            keyspace,
            read: ReadOptions::default(),
            key,
        };
        self.request_for(job, &request, Scope::Whole).await
    }

    /// Writes a change if the record is still the one that was read.
    async fn write_changed(
        self: &Rc<Self>,
        job: &Job,
        key: &[u8],
        old: Option<&Meta>,
        change: &Change<'_>,
    ) -> Result<Step, Refusal> {
        let condition = match old {
            Some(meta) => Condition::Version(meta.version),
            None => Condition::Absent,
        };
        let op = match change {
            Change::Put { value, ttl } => WriteOp::Put {
                key,
                value,
                ttl: *ttl,
                condition,
            },
            Change::Delete => WriteOp::Delete { key, condition },
            Change::Touch(ttl) => WriteOp::Touch {
                key,
                ttl: *ttl,
                condition,
            },
        };
        let request = Request::Write {
            keyspace: job.asked.keyspace,
            options: WriteOptions::default(),
            op,
        };
        let frame = self.request_for(job, &request, Scope::Whole).await?;
        match decode_reply(&frame)? {
            Response::Written { token, .. } => {
                self.with_connection(job.asked.key, |connection, _| {
                    connection.last_write = Some(token);
                });
                Ok(Step::Done)
            }
            Response::Error(failed) if failed.code == ErrorCode::ConditionFailed => {
                Ok(Step::Changed)
            }
            Response::NotFound { .. } => Ok(Step::Changed),
            other => Err(refusal_of(&other)),
        }
    }

    /// Has a request executed by whoever must; the answer's frame.
    pub(super) async fn request_for(
        self: &Rc<Self>,
        job: &Job,
        request: &Request<'_>,
        scope: Scope,
    ) -> Result<Vec<u8>, Refusal> {
        let mut frame = Vec::new();
        request
            .encode(job.number, 0, &mut frame)
            .map_err(|error| Refusal::new(error.code(), error.detail(), error.to_string()))?;
        let origin = self.origin_of_job(job);
        Ok(self.request(&frame, scope, &origin).await)
    }

    /// Waits until nobody else on this core changes the key in several steps.
    async fn queue_for(self: &Rc<Self>, hash: u64) -> Turn<E> {
        let before = {
            let mut queues = self.resp.queues.borrow_mut();
            match queues.get_mut(&hash) {
                Some(queue) => {
                    let signal = Signal::new();
                    queue.push_back(signal.clone());
                    Some(signal)
                }
                None => {
                    queues.insert(hash, Default::default());
                    None
                }
            }
        };
        if let Some(signal) = before {
            signal.wait().await;
        }
        Turn {
            inner: Rc::clone(self),
            hash,
        }
    }

    pub(super) fn wait(self: &Rc<Self>, asked: &Asked, replicas: i64, timeout_ms: u64) -> Taken {
        if self.must_wait(asked.key, &Touches::ALL) {
            return Taken::MustWait;
        }
        let last = self.with_connection(asked.key, |connection, _| connection.last_write);
        let Some(last) = last.flatten() else {
            // Nothing was written, so that every replica has all of it.
            let others = self.config.cluster.holders(0).len().saturating_sub(1);
            self.say(asked.key, |out| reply::integer(out, others as i64));
            return Taken::Yes;
        };
        let job = self.begin_job(asked, Touches::ALL);
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let stored = this.wait_until(&job, last, replicas, timeout_ms).await;
            let mut bytes = Vec::new();
            match stored {
                Ok(stored) => reply::integer(&mut bytes, stored),
                Err(refusal) => bytes = refused(&refusal),
            }
            this.finish_job(&job, bytes);
        });
        Taken::Yes
    }

    /// How many replicas beside the leader have stored a write: at least `wanted`, or as many as have
    /// when the time is up. A time of 0 is up when the client has gone.
    async fn wait_until(
        self: &Rc<Self>,
        job: &Job,
        write: Token,
        wanted: i64,
        timeout_ms: u64,
    ) -> Result<i64, Refusal> {
        let began = self.env.now();
        let until = (timeout_ms > 0).then(|| began + Duration::from_millis(timeout_ms));
        loop {
            let stored = self.stored_elsewhere(job, write).await?;
            let now = self.env.now();
            let gone = self.sessions.borrow_mut().get(job.asked.key).is_none();
            if stored >= wanted || gone || until.is_some_and(|until| now >= until) {
                return Ok(stored);
            }
            let mut pause = WAIT_LOOK_EVERY;
            if now > began + WAIT_PATIENCE {
                pause = WAIT_LOOK_SELDOM;
            }
            self.env.sleep(pause).await;
        }
    }

    /// Asks the leader of a write's partition how many others have stored it.
    async fn stored_elsewhere(self: &Rc<Self>, job: &Job, write: Token) -> Result<i64, Refusal> {
        let leader = self.config.cluster.leader(write.partition);
        let core = self.core_on(leader, write.partition).unwrap_or_default();
        let mut frame = Vec::new();
        Request::Status
            .encode(job.number, 0, &mut frame)
            .map_err(|error| Refusal::new(error.code(), error.detail(), error.to_string()))?;
        let mut origin = self.origin_of_job(job);
        origin.deadline = self.env.now() + self.config.limits.deadline_default;
        let target = Target { node: leader, core };
        let replies = self
            .ask(&[(target, &frame[..])], Scope::Share, &origin)
            .await;
        for reply in &replies {
            match decode_reply(reply)? {
                Response::Status(status) => {
                    let mut replicas = status.replicas.iter();
                    let replica = replicas.find(|replica| replica.partition == write.partition);
                    let led_by = replica.map_or(0, |replica| replica.leader);
                    let cluster = &self.config.cluster;
                    cluster.note_leader_elsewhere(write.partition, led_by);
                    return Ok(stored_by_others(&status, leader, write));
                }
                // A leader that cannot be asked has not said that anybody has it.
                Response::Error(failed) if failed.code != ErrorCode::ShardFailed => {}
                other => return Err(refusal_of(&other)),
            }
        }
        Ok(0)
    }
}

fn stored_by_others(status: &NodeStatus, leader: NodeId, write: Token) -> i64 {
    let mut replicas = status.replicas.iter();
    let replica = replicas.find(|replica| replica.partition == write.partition);
    let members = replica.map_or(&[][..], |replica| &replica.members);
    let stored = members
        .iter()
        .filter(|member| member.node() != leader && member.stored >= write.index);
    stored.count() as i64
}

/// Somebody's turn to change a key; the next one's begins when it is dropped.
struct Turn<E: Env> {
    inner: Rc<Inner<E>>,
    hash: u64,
}

impl<E: Env> Drop for Turn<E> {
    fn drop(&mut self) {
        let mut queues = self.inner.resp.queues.borrow_mut();
        let next = queues
            .get_mut(&self.hash)
            .and_then(|queue| queue.pop_front());
        match next {
            Some(signal) => signal.set(()),
            None => {
                queues.remove(&self.hash);
            }
        }
    }
}

/// An answer that is none to what was asked.
pub(super) fn refusal_of(response: &Response<'_>) -> Refusal {
    match response {
        Response::Error(failed) => Refusal::from(failed),
        _ => Refusal::new(ErrorCode::ShardFailed, 0, "a core answered out of turn"),
    }
}
