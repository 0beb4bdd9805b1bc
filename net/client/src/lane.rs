//! A lane: the place of one connection to one core. It connects when it is first needed, once for
//! all who need it, and again, after a growing and jittered pause, when its connection has broken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backoff;
use crate::connection::{ConnectError, Connection};
use crate::error::Error;
use crate::routes::Node;

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

    /// The lane's connection, made if need be, tried for until the deadline.
    pub(crate) async fn connection(
        self: &Arc<Lane>,
        node: &Arc<Node>,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Error> {
        let mut first_attempt = None;
        loop {
            // Made before the state is looked at, so that no change is missed.
            let changed = self.changed.notified();
            {
                let mut inner = self.lock();
                let first_attempt = *first_attempt.get_or_insert(inner.attempts);
                if let State::Up(connection) = &inner.state {
                    if !connection.is_broken() {
                        return Ok(connection.clone());
                    }
                    inner.state = State::Down;
                    // A server that takes connections only to break them is not to be hurried.
                    if inner.failures > 0 {
                        inner.not_before = Instant::now() + backoff::pause(inner.failures);
                    }
                    inner.failures += 1;
                }
                if let State::Down = inner.state {
                    if let Some(ConnectError::Fatal(error)) = &inner.error
                        && inner.attempts > first_attempt
                    {
                        return Err(error.clone());
                    }
                    let attempt = connect(self.clone(), Arc::downgrade(node), inner.not_before);
                    inner.state = State::Connecting;
                    tokio::spawn(attempt);
                }
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Err(match self.lock().error.clone() {
                    Some(ConnectError::Unreachable(what)) => node.unreachable(what),
                    Some(ConnectError::Fatal(error)) => error,
                    None => Error::DeadlineExceeded,
                });
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
async fn connect(lane: Arc<Lane>, node: Weak<Node>, start: Instant) {
    tokio::time::sleep_until(start).await;
    let outcome = match node.upgrade() {
        None => return,
        Some(node) => match timeout(node.connect_timeout(), node.connect(Some(lane.core))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::Unreachable(
                "no answer within the connect timeout".into(),
            )),
        },
    };
    {
        let mut inner = lane.lock();
        inner.attempts += 1;
        match outcome {
            Ok(connection) => {
                inner.state = State::Up(connection);
                inner.error = None;
                lane.unproven.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                inner.failures += 1;
                inner.not_before = Instant::now() + backoff::pause(inner.failures);
                inner.error = Some(error);
                inner.state = State::Down;
            }
        }
    }
    lane.changed.notify_waiters();
}
