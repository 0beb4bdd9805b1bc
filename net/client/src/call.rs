//! One call: attempts, on one node after the other, until the outcome is known or time is up.
//!
//! An attempt ends in one of these ways, and each says what comes next:
//!
//! - An answer: done.
//! - A refusal that waiting may mend: again after a pause, at most [`ATTEMPTS_MAX`] times.
//! - Not the leader: to the one that is named, at once; if none is, on to the next node.
//! - Not there yet, or not any more: on to the next node.
//! - Not sent, or a read without an answer: on to the next node.
//! - A write without an answer: its outcome is not known. It goes on to the next node too, marked
//!   as a retry, so that the servers do it only if it was not done. From here on only an answer
//!   that settles the matter is passed on; when time is up the write is in doubt.
//!
//! When every node has failed, a pause, and the round begins again. A request that only the leader
//! can serve and that had to be sent to another node is given [`FORWARD_PATIENCE`]: that node may
//! be passing it on to a leader that is no more.
//!
//! Reads of one key that any replica can serve are *hedged*: asked of a second replica when the
//! first takes longer than 95 % of such reads do, within a budget of 2 % (`latency.rs`). Linearizable
//! reads are not: only the leader can answer them, and a second question would reach the same leader
//! by a longer way, at the very moment when it is slow. Writes never are.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringbolt_wire::message::{
    Ack, ErrorClass, ErrorCode, NodeId, ReadLevel, Request, Response,
    WriteOptions as WireWriteOptions,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff::{ATTEMPTS_MAX, pause_at_least, pause_between_rounds};
use crate::cluster::Cluster;
use crate::connection::{ConnectError, Connection, Reply, SubmitError};
use crate::error::Error;
use crate::lane::Patience;
use crate::routes::{Pick, Route, Routes};

/// How long a node that does not lead may take over what only the leader can serve.
const FORWARD_PATIENCE: Duration = Duration::from_millis(500);

/// How long after its first sending a write may be sent again: servers forget after twice that time.
const REPEAT_WITHIN: Duration = Duration::from_secs(30);

/// Makes calls; what all clones of a client share.
pub(crate) struct Caller {
    pub(crate) cluster: Arc<Cluster>,
    deadline: Duration,
    /// Who writes: never 0.
    identity: u64,
    sequence: AtomicU64,
}

/// How an attempt ended.
enum Outcome {
    Done(Reply),
    /// The server answered that it did nothing, or that it does not know.
    Error {
        error: Error,
        code: ErrorCode,
        retry_after: Duration,
        /// Who leads instead; 0 if nobody was named.
        leader: NodeId,
    },
    /// Nothing was sent.
    NotSent(Error),
    /// Something was sent, and no answer came.
    Unknown(Arc<str>),
    /// The same would happen again.
    Final(Error),
}

/// What a call knows so far.
#[derive(Default)]
struct Progress {
    /// Nodes that have failed in this round.
    failed: Vec<NodeId>,
    /// The longest time that one of them asked for.
    told: Duration,
    /// Rounds that have ended.
    rounds: u32,
    /// Times that a node asked for time and got it.
    waits: u32,
    /// Why the outcome of an earlier attempt is not known.
    in_doubt: Option<Arc<str>>,
    /// A replica was not fresh enough: only the leader will do.
    needs_leader: bool,
}

impl Caller {
    pub(crate) fn new(cluster: Arc<Cluster>, deadline: Duration) -> Caller {
        Caller {
            cluster,
            deadline,
            identity: rand::random_range(1..=u64::MAX),
            sequence: AtomicU64::new(0),
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.cluster.routes()
    }

    /// Identity for one write. A retry carries the same.
    pub(crate) fn write_options(&self, ack: Ack) -> WireWriteOptions {
        WireWriteOptions {
            ack,
            client: self.identity,
            sequence: self.next_sequence(),
            retry: false,
        }
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn deadline(&self, within: Option<Duration>) -> Instant {
        // A deadline beyond what the clock can say is a day.
        let now = Instant::now();
        now.checked_add(within.unwrap_or(self.deadline))
            .unwrap_or(now + Duration::from_secs(24 * 60 * 60))
    }

    /// Sends a request and waits for its reply, which is never an error reply; `within` replaces
    /// the client's deadline.
    pub(crate) async fn call(
        &self,
        route: Route<'_>,
        request: Request<'_>,
        within: Option<Duration>,
    ) -> Result<Reply, Error> {
        self.call_by(route, request, self.deadline(within)).await
    }

    pub(crate) async fn call_by(
        &self,
        route: Route<'_>,
        mut request: Request<'_>,
        deadline: Instant,
    ) -> Result<Reply, Error> {
        let mut progress = Progress::default();
        let begun = Instant::now();
        loop {
            let anywhere = progress.anywhere(&request);
            let pick = self.pick(route, anywhere, &progress.failed);
            let (node, leads) = (pick.node.id, pick.leads);
            let outcome = self
                .attempt(pick, route, &request, anywhere, deadline)
                .await;
            // A pause after which the same node is asked again.
            let mut wait = None;
            let last = match outcome {
                Outcome::Done(reply) => return Ok(reply),
                Outcome::Final(error) => return Err(progress.settle(error)),
                Outcome::Error {
                    error,
                    code,
                    retry_after,
                    leader,
                } => {
                    let elsewhere = !self.cluster.is_alone();
                    match code {
                        ErrorCode::NotLeader => {
                            self.cluster.is_out_of_date();
                            self.routes().hear_leader(route, leader);
                            progress.failed(node, retry_after);
                        }
                        ErrorCode::Unavailable if elsewhere => {
                            self.cluster.is_out_of_date();
                            progress.failed(node, retry_after);
                        }
                        ErrorCode::Overloaded if elsewhere && anywhere => {
                            progress.failed(node, retry_after);
                        }
                        ErrorCode::Stale if anywhere && leads == Some(false) => {
                            progress.needs_leader = true;
                        }
                        ErrorCode::Overloaded | ErrorCode::Unavailable => wait = Some(retry_after),
                        ErrorCode::NoSpace if !retry_after.is_zero() => wait = Some(retry_after),
                        // A node that does not lead only says that it does not know. The leader is
                        // asked once what came of the write, and again where it says when it will
                        // know.
                        ErrorCode::InDoubt if retryable(&request) && leads == Some(false) => {
                            progress.in_doubt(why(&error));
                            progress.failed(node, retry_after);
                        }
                        ErrorCode::InDoubt
                            if retryable(&request)
                                && (progress.in_doubt.is_none() || !retry_after.is_zero()) =>
                        {
                            progress.in_doubt(why(&error));
                            wait = Some(retry_after);
                        }
                        _ => return Err(progress.settle(error)),
                    }
                    error
                }
                Outcome::NotSent(error) => {
                    self.cluster.is_out_of_date();
                    progress.failed(node, Duration::ZERO);
                    error
                }
                Outcome::Unknown(reason) => {
                    self.cluster.is_out_of_date();
                    progress.failed(node, Duration::ZERO);
                    if is_write(&request) {
                        if !retryable(&request) {
                            return Err(Error::InDoubt(reason));
                        }
                        progress.in_doubt(&*reason);
                        Error::InDoubt(reason)
                    } else if Instant::now() >= deadline {
                        Error::DeadlineExceeded
                    } else {
                        self.cluster.unreachable(reason)
                    }
                }
            };
            if let Some(options) = write_options_of(&mut request) {
                if progress.in_doubt.is_some() {
                    options.retry = true;
                } else if options.sequence != 0 {
                    // It was surely not done. Under its old number, beyond which others of this client may
                    // have been done and forgotten meanwhile, the server would have to doubt that.
                    options.sequence = self.next_sequence();
                }
            }
            let mut next = Instant::now();
            if let Some(told) = wait {
                progress.waits += 1;
                if progress.waits == ATTEMPTS_MAX {
                    return Err(progress.settle(last));
                }
                next += pause_at_least(told, progress.waits);
            } else {
                let anywhere = progress.anywhere(&request);
                let round = self.routes().pick(route, anywhere, &progress.failed);
                if round.again {
                    next += progress.end_round();
                }
            }
            let too_late = progress.in_doubt.is_some() && next >= begun + REPEAT_WITHIN;
            if next >= deadline || too_late {
                return Err(progress.settle(last));
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Chooses where to send a request, and has suspect nodes looked for that it would rather go to.
    fn pick(&self, route: Route<'_>, anywhere: bool, failed: &[NodeId]) -> Pick {
        let routes = self.routes();
        for node in routes.nodes() {
            if node.is_suspect() && node.is_due() {
                // An attempt is all that is wanted here.
                let _ = node.lane(Some(0)).connection_now(&self.cluster, node);
            }
        }
        routes.pick(route, anywhere, failed)
    }

    /// One attempt, of which a hedged read makes two.
    async fn attempt(
        &self,
        pick: Pick,
        route: Route<'_>,
        request: &Request<'_>,
        anywhere: bool,
        deadline: Instant,
    ) -> Outcome {
        let alone = self.cluster.is_alone();
        let now = Instant::now();
        let until = match (pick.leads, anywhere) {
            (Some(false), false) if !alone => deadline.min(now + FORWARD_PATIENCE),
            // Should it not be fresh enough in time, the leader is asked.
            (Some(false), true) if !alone => now + deadline.saturating_duration_since(now) / 2,
            _ => deadline,
        };
        if alone || !anywhere || !matches!(request, Request::Get { .. } | Request::Stat { .. }) {
            return self.send(&pick, request, until).await;
        }
        let after = self.cluster.hedges.begin();
        let outcome = self.hedged(&pick, route, request, until, after).await;
        if matches!(outcome, Outcome::Done(_)) {
            self.cluster.hedges.record(now.elapsed());
        }
        outcome
    }

    async fn hedged(
        &self,
        first: &Pick,
        route: Route<'_>,
        request: &Request<'_>,
        until: Instant,
        after: Option<Duration>,
    ) -> Outcome {
        let mut one = pin!(self.send(first, request, until));
        let Some(after) = after else {
            return one.await;
        };
        tokio::select! {
            outcome = &mut one => return outcome,
            () = sleep_until(Instant::now() + after) => {}
        }
        let second = self.routes().pick(route, true, &[first.node.id]);
        if second.again || second.node.is_suspect() || !self.cluster.hedges.spend() {
            return one.await;
        }
        let mut two = pin!(self.send(&second, request, until));
        // The first answer counts; a failure only if the other fails too.
        tokio::select! {
            outcome = &mut one => match outcome {
                Outcome::Done(_) => outcome,
                _ => two.await,
            },
            outcome = &mut two => match outcome {
                Outcome::Done(_) => outcome,
                _ => one.await,
            },
        }
    }

    /// Sends a request to one node and waits for its answer.
    async fn send(&self, pick: &Pick, request: &Request<'_>, until: Instant) -> Outcome {
        let cluster = &self.cluster;
        let alone = cluster.is_alone();
        let patience = Patience {
            until: match alone {
                true => until,
                false => until.min(Instant::now() + cluster.connecting()),
            },
            once: !alone,
        };
        let connecting = pick.lane.connection(cluster, &pick.node, patience);
        let connection = match connecting.await {
            Ok(Some(connection)) => connection,
            Ok(None) if alone => return Outcome::NotSent(Error::DeadlineExceeded),
            Ok(None) => {
                pick.node.failed();
                let reason = "no connection was made in time".into();
                return Outcome::NotSent(cluster.unreachable(reason));
            }
            Err(ConnectError::Unreachable(reason)) => {
                return Outcome::NotSent(cluster.unreachable(reason));
            }
            Err(ConnectError::Fatal(error)) => return Outcome::Final(error),
        };
        if let Err(error) = check(&connection, request) {
            return Outcome::Final(error);
        }
        let started = Instant::now();
        let heard = connection.bytes_read();
        let reply = match timeout_at(until, connection.submit(request, until)).await {
            // Nothing was queued.
            Err(_) => return Outcome::NotSent(Error::DeadlineExceeded),
            Ok(Err(SubmitError::Invalid(error))) => return Outcome::Final(error),
            Ok(Err(SubmitError::Broken(broken))) if broken.protocol => {
                return Outcome::Final(Error::Protocol(broken.reason));
            }
            Ok(Err(SubmitError::Broken(broken))) => {
                pick.node.failed();
                return Outcome::NotSent(cluster.unreachable(broken.reason));
            }
            Ok(Ok(reply)) => reply,
        };
        let reply = match timeout_at(until, reply).await {
            Ok(Ok(Ok(reply))) => reply,
            Ok(Ok(Err(broken))) if broken.protocol && !is_write(request) => {
                return Outcome::Final(Error::Protocol(broken.reason));
            }
            Ok(Ok(Err(broken))) => {
                pick.node.failed();
                return match broken.sent {
                    true => Outcome::Unknown(broken.reason),
                    false => Outcome::NotSent(cluster.unreachable(broken.reason)),
                };
            }
            // The connection's tasks were ended with their runtime.
            Ok(Err(_)) => return Outcome::Unknown("the client's runtime was shut down".into()),
            Err(_) => {
                // Nothing at all has come since: the next request had better try another
                // connection.
                if connection.bytes_read() == heard {
                    pick.node.failed();
                    connection.fail("the server did not answer by the deadline");
                }
                return Outcome::Unknown("no answer came by the deadline".into());
            }
        };
        let error = match reply.decode() {
            Ok(Response::Error(error)) => error,
            Ok(_) => {
                pick.lane.worked();
                pick.node.worked();
                if matches!(request, Request::Get { .. } | Request::Stat { .. }) {
                    pick.node.latency.record(started.elapsed());
                }
                return Outcome::Done(reply);
            }
            Err(wrong) => return Outcome::Final(unexpected(request, Err(wrong))),
        };
        if error.code.class() == ErrorClass::FindOut && !is_write(request) {
            return Outcome::Final(Error::Protocol(
                format!("a read was answered {:?}", error.code).into(),
            ));
        }
        Outcome::Error {
            code: error.code,
            retry_after: Duration::from_millis(error.retry_after_ms.into()),
            leader: match error.code {
                ErrorCode::NotLeader => NodeId::try_from(error.detail).unwrap_or(0),
                _ => 0,
            },
            error: Error::from_reply(&error),
        }
    }
}

impl Progress {
    fn failed(&mut self, node: NodeId, told: Duration) {
        self.failed.push(node);
        self.told = self.told.max(told);
    }

    fn in_doubt(&mut self, reason: impl Into<Arc<str>>) {
        self.in_doubt.get_or_insert(reason.into());
    }

    /// Whether any replica can serve the request.
    fn anywhere(&self, request: &Request<'_>) -> bool {
        is_for_any_replica(request) && !self.needs_leader
    }

    /// Begins a new round: how long to pause before.
    fn end_round(&mut self) -> Duration {
        self.rounds += 1;
        self.failed.clear();
        let told = std::mem::take(&mut self.told);
        pause_between_rounds(self.rounds).max(pause_at_least(told, 1))
    }

    /// The error to end with. Once an attempt's outcome is not known, only what the write did says what
    /// came of it. A refusal of a retry says nothing of the attempt before, and a condition that did not
    /// hold only that it was not done by then: it may be on its way still, and find that the condition
    /// holds.
    fn settle(&self, error: Error) -> Error {
        let Some(reason) = &self.in_doubt else {
            return error;
        };
        match &error {
            Error::CommittedNotAll | Error::InDoubt(_) => error,
            Error::Invalid(invalid) if invalid.code != ErrorCode::NoSuchKeyspace => error,
            _ => Error::InDoubt(reason.clone()),
        }
    }
}

/// Why a server does not know what came of a write.
fn why(error: &Error) -> Arc<str> {
    match error {
        Error::InDoubt(why) => why.clone(),
        other => other.to_string().into(),
    }
}

fn is_write(request: &Request<'_>) -> bool {
    match request {
        Request::Write { .. }
        | Request::Clear { .. }
        | Request::Batch { .. }
        | Request::KeyspaceCreate { .. }
        | Request::KeyspaceDrop { .. } => true,
        Request::Hello { .. }
        | Request::Ping
        | Request::Topology
        | Request::Stats
        | Request::Status
        | Request::Prefer { .. }
        | Request::Drain { .. }
        | Request::Get { .. }
        | Request::Stat { .. }
        | Request::MultiGet { .. }
        | Request::Scan(_)
        | Request::KeyspaceList => false,
    }
}

/// Whether a write can be sent again when its outcome is not known: it has an identity.
fn retryable(request: &Request<'_>) -> bool {
    match request {
        Request::Write { options, .. } | Request::Batch { options, .. } => {
            options.client != 0 && options.sequence != 0
        }
        _ => false,
    }
}

fn write_options_of<'a>(request: &'a mut Request<'_>) -> Option<&'a mut WireWriteOptions> {
    match request {
        Request::Write { options, .. } | Request::Batch { options, .. } => Some(options),
        _ => None,
    }
}

/// Whether any replica can serve it.
fn is_for_any_replica(request: &Request<'_>) -> bool {
    let read = match request {
        Request::Get { read, .. } | Request::Stat { read, .. } | Request::MultiGet { read, .. } => {
            read
        }
        Request::Scan(scan) => &scan.read,
        _ => return false,
    };
    matches!(read.level, ReadLevel::Session | ReadLevel::Stale { .. })
}

/// Holds a request against the server's limits.
fn check(connection: &Connection, request: &Request<'_>) -> Result<(), Error> {
    use ringbolt_wire::message::WriteOp;

    let check_op = |op: &WriteOp<'_>| match op {
        WriteOp::Put { key, value, .. } => connection.check(key, value),
        op => connection.check(op.key(), b""),
    };
    match request {
        Request::Get { key, .. } | Request::Stat { key, .. } => connection.check(key, b""),
        Request::MultiGet { keys, .. } => {
            keys.iter().try_for_each(|key| connection.check(key, b""))
        }
        Request::Write { op, .. } => check_op(op),
        Request::Batch { ops, .. } => ops.iter().try_for_each(|op| check_op(&op)),
        _ => Ok(()),
    }
}

/// What is made of a reply that does not belong to its request.
pub(crate) fn unexpected(
    request: &Request<'_>,
    reply: Result<Response<'_>, ringbolt_wire::WireError>,
) -> Error {
    let what = match reply {
        Ok(reply) => format!("{:?} was answered with {:?}", request.kind(), reply.kind()),
        Err(error) => format!("{:?} was answered with a {error}", request.kind()),
    };
    if is_write(request) {
        Error::InDoubt(what.into())
    } else {
        Error::Protocol(what.into())
    }
}
