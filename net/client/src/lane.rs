//! A lane: the place of one connection to one core of one node. It connects when it is first
//! needed, once for all who need it, and again, after a growing and jittered pause, when its
//! connection has broken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backoff;
use crate::cluster::Cluster;
use crate::connection::{ConnectError, Connection};
use crate::node::Node;

enum State {
    Down,
    /// A task is at it.
    Connecting,
    Up(Arc<Connection>),
}

struct Inner {
    state: State,
    /// Why the last attempt failed, if it did.
    error: Option<ConnectError>,
    /// Attempts that failed in a row.
    failures: u32,
    /// Attempts that have ended.
    attempts: u64,
    /// No attempt before this.
    not_before: Instant,
}

/// The place of one connection.
pub(crate) struct Lane {
    core: u16,
    inner: Mutex<Inner>,
    changed: Notify,
    /// The connection has not answered a request yet.
    unproven: AtomicBool,
}

/// How long to try for a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) until: Instant,
    /// Whether to give up when the first attempt fails, because there are other nodes to ask.
    pub(crate) once: bool,
}

impl Lane {
    pub(crate) fn new(core: u16) -> Arc<Lane> {
        Arc::new(Lane {
            core,
            inner: Mutex::new(Inner {
                state: State::Down,
                error: None,
                failures: 0,
                attempts: 0,
                not_before: Instant::now(),
            }),
            changed: Notify::new(),
            unproven: AtomicBool::new(true),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that was made elsewhere.
    pub(crate) fn adopt(&self, connection: Arc<Connection>) {
        let mut inner = self.lock();
        inner.state = State::Up(connection);
        inner.failures = 0;
        drop(inner);
        self.changed.notify_waiters();
    }

    /// The connection that is there. Otherwise an attempt to make one is under way when this
    /// returns.
    pub(crate) fn connection_now(
        self: &Arc<Lane>,
        cluster: &Arc<Cluster>,
        node: &Arc<Node>,
    ) -> Option<Arc<Connection>> {
        let mut inner = self.lock();
        if let State::Up(connection) = &inner.state {
            if !connection.is_broken() {
                return Some(connection.clone());
            }
            inner.state = State::Down;
            // A server that takes connections only to break them is not to be hurried.
            if inner.failures > 0 {
                inner.not_before = Instant::now() + backoff::pause(inner.failures);
            }
            inner.failures += 1;
        }
        if let State::Down = inner.state {
            let attempt = connect(
                self.clone(),
                node.clone(),
                Arc::downgrade(cluster),
                inner.not_before,
            );
            inner.state = State::Connecting;
            tokio::spawn(attempt);
        }
        None
    }

    /// The lane's connection, made if need be. `Ok(None)` if time ran out before anything was
    /// known.
    pub(crate) async fn connection(
        self: &Arc<Lane>,
        cluster: &Arc<Cluster>,
        node: &Arc<Node>,
        patience: Patience,
    ) -> Result<Option<Arc<Connection>>, ConnectError> {
        let first_attempt = self.lock().attempts;
        loop {
            // Made before the state is looked at, so that no change is missed.
            let changed = self.changed.notified();
            {
                let inner = self.lock();
                if inner.attempts > first_attempt
                    && let Some(error) = &inner.error
                    && (patience.once || matches!(error, ConnectError::Fatal(_)))
                {
                    return Err(error.clone());
                }
            }
            if let Some(connection) = self.connection_now(cluster, node) {
                return Ok(Some(connection));
            }
            if timeout_at(patience.until, changed).await.is_err() {
                return match self.lock().error.clone() {
                    Some(error) => Err(error),
                    None => Ok(None),
                };
            }
        }
    }

    /// The connection has answered: should it break, that is the first failure again.
    pub(crate) fn worked(&self) {
        if self.unproven.load(Ordering::Relaxed) {
            self.unproven.store(false, Ordering::Relaxed);
            self.lock().failures = 0;
        }
    }
}

/// Makes one attempt, not before `start`. It is a task of its own, so that it does not end with the
/// request that began it; it does end with the client.
async fn connect(lane: Arc<Lane>, node: Arc<Node>, cluster: Weak<Cluster>, start: Instant) {
    tokio::time::sleep_until(start).await;
    let outcome = match cluster.upgrade() {
        None => return,
        Some(cluster) => {
            let connecting = cluster.connect(&node, Some(lane.core));
            match timeout(cluster.options().connect_timeout, connecting).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectError::Unreachable(
                    "no answer within the connect timeout".into(),
                )),
            }
        }
    };
    {
        let mut inner = lane.lock();
        inner.attempts += 1;
        match outcome {
            Ok(connection) => {
                node.worked();
                inner.state = State::Up(connection);
                inner.error = None;
                lane.unproven.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                node.failed();
                inner.failures += 1;
                inner.not_before = Instant::now() + backoff::pause(inner.failures);
                inner.error = Some(error);
                inner.state = State::Down;
            }
        }
    }
    lane.changed.notify_waiters();
}
