use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringbolt_wire::message::{
    Ack, ErrorClass, ErrorCode, KEYSPACE_DEFAULT, Keyspace as KeyspaceInfo, KeyspaceOptions,
    Request, Response, Token, Topology, WriteOptions as WireWriteOptions,
};
use tokio::time::{Instant, timeout_at};

use crate::backoff::{ATTEMPTS_MAX, pause, pause_at_least};
use crate::builder::Builder;
use crate::connection::{Broken, Reply, SubmitError};
use crate::error::Error;
use crate::keyspace::Keyspace;
use crate::options::{ReadOptions, WriteOptions};
use crate::routes::{Node, NodeOptions, Route, Routes};
use crate::session::Session;

/// A Ringbolt client. Cheap to clone; all clones share connections and session.
///
/// It is a [`Keyspace`] too, of the keyspace `default`: see there for get, put and the rest.
#[derive(Clone)]
pub struct Client {
    keyspace: Keyspace,
}

/// What all clones of a client share.
pub(crate) struct Inner {
    node: Arc<Node>,
    deadline: Duration,
    pub(crate) session: Session,
    /// Who writes: never 0.
    identity: u64,
    sequence: AtomicU64,
}

impl Deref for Client {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.keyspace
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the server at `address` (`host:port`) with the settings that [`Builder`] begins
    /// with.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect(address: impl Into<String>) -> Result<Client, Error> {
        Client::builder().address(address).connect().await
    }

    /// Settings, to connect with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn open(
        options: NodeOptions,
        deadline: Duration,
        read: ReadOptions,
        write: WriteOptions,
    ) -> Result<Client, Error> {
        let inner = Arc::new(Inner {
            node: Node::open(options).await?,
            deadline,
            session: Session::default(),
            identity: rand::random_range(1..=u64::MAX),
            sequence: AtomicU64::new(0),
        });
        let keyspace = Keyspace::new(inner, KEYSPACE_DEFAULT, "default".into(), read, write);
        Ok(Client { keyspace })
    }

    fn inner(&self) -> &Inner {
        self.keyspace.inner()
    }

    /// The keyspace of this name, looked up now: if it is dropped and created again, look it up
    /// again.
    ///
    /// # Errors
    /// [`Error::Invalid`] with [`ErrorCode::NoSuchKeyspace`] if there is none.
    pub async fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        if name == self.keyspace.name() {
            return Ok(self.keyspace.clone());
        }
        let found = self
            .keyspaces()
            .await?
            .into_iter()
            .find(|found| found.name == name);
        match found {
            Some(found) => Ok(self.keyspace.sibling(found.id, found.name.into())),
            None => Err(Error::invalid(
                ErrorCode::NoSuchKeyspace,
                format!("there is no keyspace {name:?}"),
            )),
        }
    }

    /// Creates a keyspace.
    ///
    /// # Errors
    /// [`Error::Invalid`] with [`ErrorCode::KeyspaceExists`] if there is one of this name, or with
    /// [`ErrorCode::BadRequest`] if the name is not 1–64 bytes of `[A-Za-z0-9_.-]` that begin with
    /// neither `.` nor `-`.
    pub async fn create_keyspace(
        &self,
        name: &str,
        options: KeyspaceOptions,
    ) -> Result<Keyspace, Error> {
        let request = Request::KeyspaceCreate { name, options };
        let reply = self.inner().call(Route::Any, request, None).await?;
        match reply.decode() {
            Ok(Response::Keyspaces(created)) if created.len() == 1 => {
                Ok(self.keyspace.sibling(created[0].id, name.into()))
            }
            other => Err(unexpected(&request, other)),
        }
    }

    /// Drops a keyspace and everything in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with [`ErrorCode::NoSuchKeyspace`] if there is none of this name.
    pub async fn drop_keyspace(&self, name: &str) -> Result<(), Error> {
        let request = Request::KeyspaceDrop { name };
        let reply = self.inner().call(Route::Any, request, None).await?;
        match reply.decode() {
            Ok(Response::Done) => Ok(()),
            other => Err(unexpected(&request, other)),
        }
    }

    /// All keyspaces.
    ///
    /// # Errors
    /// As for any read.
    pub async fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>, Error> {
        let request = Request::KeyspaceList;
        let reply = self.inner().call(Route::Any, request, None).await?;
        match reply.decode() {
            Ok(Response::Keyspaces(keyspaces)) => Ok(keyspaces),
            other => Err(unexpected(&request, other)),
        }
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// As for any read.
    pub async fn ping(&self) -> Result<(), Error> {
        let reply = self.inner().call(Route::Any, Request::Ping, None).await?;
        match reply.decode() {
            Ok(Response::Done) => Ok(()),
            other => Err(unexpected(&Request::Ping, other)),
        }
    }

    /// The server's counters, summed over its cores.
    ///
    /// # Errors
    /// As for any read.
    pub async fn stats(&self) -> Result<Vec<(String, u64)>, Error> {
        let reply = self.inner().call(Route::Any, Request::Stats, None).await?;
        match reply.decode() {
            Ok(Response::Stats(stats)) => Ok(stats),
            other => Err(unexpected(&Request::Stats, other)),
        }
    }

    /// Which core owns each partition, asked now; requests go by it from now on.
    ///
    /// # Errors
    /// As for any read.
    pub async fn topology(&self) -> Result<Topology, Error> {
        let request = Request::Topology;
        let reply = self.inner().call(Route::Any, request, None).await?;
        match reply.decode() {
            Ok(Response::Topology(topology)) => {
                self.inner().node.learn(topology.clone());
                Ok(topology)
            }
            other => Err(unexpected(&request, other)),
        }
    }

    /// What this client has seen, one token for each partition: with them, another client's reads
    /// at level [`Session`](crate::ReadLevel::Session) see at least as much.
    pub fn tokens(&self) -> Vec<Token> {
        self.inner().session.all()
    }

    /// Takes another client's tokens.
    pub fn import_tokens(&self, tokens: impl IntoIterator<Item = Token>) {
        self.inner().session.see_all(tokens);
    }

    /// Forgets what this client has seen: after [`Error::Lost`].
    pub fn forget_tokens(&self) {
        self.inner().session.forget();
    }
}

impl Inner {
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.node.routes()
    }

    /// Identity for one write. A retry carries the same.
    pub(crate) fn write_options(&self, ack: Ack) -> WireWriteOptions {
        WireWriteOptions {
            ack,
            client: self.identity,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            retry: false,
        }
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

    pub(crate) fn deadline(&self, within: Option<Duration>) -> Instant {
        // A deadline beyond what the clock can say is a day.
        let now = Instant::now();
        now.checked_add(within.unwrap_or(self.deadline))
            .unwrap_or(now + Duration::from_secs(24 * 60 * 60))
    }

    pub(crate) async fn call_by(
        &self,
        route: Route<'_>,
        request: Request<'_>,
        deadline: Instant,
    ) -> Result<Reply, Error> {
        let mut failures = 0;
        loop {
            let (error, pause_ms) = match self.attempt(route, &request, deadline).await? {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Again { error, pause_ms } => (error, pause_ms),
            };
            failures += 1;
            let next = Instant::now()
                + match pause_ms {
                    Some(pause_ms) => pause_at_least(pause_ms, failures),
                    None => pause(failures),
                };
            if failures == ATTEMPTS_MAX || next >= deadline {
                return Err(error);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// One attempt: an error is final.
    async fn attempt(
        &self,
        route: Route<'_>,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Attempt, Error> {
        let (lane, connection) = loop {
            let routes = self.node.routes();
            let lane = routes.lane(route).clone();
            let connection = lane.connection(&self.node, deadline).await?;
            // Connecting may have shown that partitions live elsewhere now.
            if Arc::ptr_eq(&routes, &self.node.routes()) {
                break (lane, connection);
            }
        };
        check(&connection, request)?;
        let frames_read = connection.frames_read();
        let reply = match timeout_at(deadline, connection.submit(request, deadline)).await {
            // Nothing was queued.
            Err(_) => return Err(Error::DeadlineExceeded),
            Ok(Err(SubmitError::Invalid(error))) => return Err(error),
            Ok(Err(SubmitError::Broken(broken))) => return self.broken(request, broken),
            Ok(Ok(reply)) => reply,
        };
        let reply = match timeout_at(deadline, reply).await {
            Ok(Ok(Ok(reply))) => reply,
            Ok(Ok(Err(broken))) => return self.broken(request, broken),
            // The connection's tasks were ended with their runtime.
            Ok(Err(_)) => {
                return self.broken(
                    request,
                    Broken {
                        sent: true,
                        protocol: false,
                        reason: "the client's runtime was shut down".into(),
                    },
                );
            }
            Err(_) => {
                // Nothing at all has come since: the next request had better try another
                // connection.
                if connection.frames_read() == frames_read {
                    connection.fail("the server did not answer by the deadline");
                }
                return Err(if is_write(request) {
                    Error::InDoubt("no answer came by the deadline".into())
                } else {
                    Error::DeadlineExceeded
                });
            }
        };
        let error = match reply.decode() {
            Ok(Response::Error(error)) => error,
            Ok(_) => {
                lane.worked();
                return Ok(Attempt::Done(reply));
            }
            Err(wrong) => return Err(unexpected(request, Err(wrong))),
        };
        let again = match error.code {
            ErrorCode::Overloaded | ErrorCode::Unavailable => true,
            ErrorCode::NoSpace | ErrorCode::NotLeader => error.retry_after_ms > 0,
            _ => false,
        };
        let pause_ms = Some(error.retry_after_ms);
        let in_doubt = error.code.class() == ErrorClass::FindOut;
        let error = if in_doubt && !is_write(request) {
            Error::Protocol(format!("a read was answered {:?}", error.code).into())
        } else {
            Error::from_reply(&error)
        };
        if again {
            return Ok(Attempt::Again { error, pause_ms });
        }
        Err(error)
    }

    /// What to do about a connection that broke under a request.
    fn broken(&self, request: &Request<'_>, broken: Broken) -> Result<Attempt, Error> {
        if is_write(request) && broken.sent {
            return Err(Error::InDoubt(broken.reason));
        }
        if broken.protocol {
            return Err(Error::Protocol(broken.reason));
        }
        Ok(Attempt::Again {
            error: self.node.unreachable(broken.reason),
            pause_ms: None,
        })
    }
}

enum Attempt {
    Done(Reply),
    /// Nothing was done, and trying again may help; if there is no time for that, this is the error.
    Again {
        error: Error,
        pause_ms: Option<u32>,
    },
}

fn is_write(request: &Request<'_>) -> bool {
    match request {
        Request::Write { .. }
        | Request::Batch { .. }
        | Request::KeyspaceCreate { .. }
        | Request::KeyspaceDrop { .. } => true,
        Request::Hello { .. }
        | Request::Ping
        | Request::Topology
        | Request::Stats
        | Request::Get { .. }
        | Request::Stat { .. }
        | Request::MultiGet { .. }
        | Request::Scan(_)
        | Request::KeyspaceList => false,
    }
}

/// Holds a request against the server's limits.
fn check(connection: &crate::connection::Connection, request: &Request<'_>) -> Result<(), Error> {
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
