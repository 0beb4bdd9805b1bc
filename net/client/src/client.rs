use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_wire::message::{
    ErrorCode, KEYSPACE_DEFAULT, Keyspace as KeyspaceInfo, KeyspaceOptions, NodeId, NodeStatus,
    PartitionId, Request, Response, Token, Topology,
};

use crate::builder::Builder;
use crate::call::{Caller, unexpected};
use crate::cluster::{Cluster, ClusterOptions};
use crate::error::Error;
use crate::keyspace::Keyspace;
use crate::options::{ReadOptions, WriteOptions};
use crate::routes::{Place, Route};
use crate::session::Session;

/// A client of a Ringbolt cluster, or of a node alone. Cheap to clone; all clones share connections
/// and session.
///
/// It is a [`Keyspace`] too, of the keyspace `default`: see there for get, put and the rest.
#[derive(Clone)]
pub struct Client {
    keyspace: Keyspace,
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
    /// Connects to the cluster, or the node alone, of which some nodes are reached at `addresses`
    /// (`host:port`, or several of them with commas between), with the settings that [`Builder`]
    /// begins with. One node that answers is enough: it tells of the others.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect(addresses: impl AsRef<str>) -> Result<Client, Error> {
        Client::builder().addresses(addresses).connect().await
    }

    /// Settings, to connect with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn open(
        options: ClusterOptions,
        deadline: Duration,
        read: ReadOptions,
        write: WriteOptions,
    ) -> Result<Client, Error> {
        let cluster = Cluster::open(options).await?;
        let caller = Arc::new(Caller::new(cluster, deadline));
        let session = Arc::new(Session::default());
        let keyspace = Keyspace::new(
            caller,
            session,
            KEYSPACE_DEFAULT,
            "default".into(),
            read,
            write,
        );
        Ok(Client { keyspace })
    }

    fn caller(&self) -> &Caller {
        self.keyspace.caller()
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
        let reply = self.caller().call(Route::Any, request, None).await?;
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
        let reply = self.caller().call(Route::Any, request, None).await?;
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
        let reply = self.caller().call(Route::Any, request, None).await?;
        match reply.decode() {
            Ok(Response::Keyspaces(keyspaces)) => Ok(keyspaces),
            other => Err(unexpected(&request, other)),
        }
    }

    /// Asks a server whether it is there.
    ///
    /// # Errors
    /// As for any read.
    pub async fn ping(&self) -> Result<(), Error> {
        self.done(Route::Any, Request::Ping).await
    }

    /// A server's counters, summed over its cores.
    ///
    /// # Errors
    /// As for any read.
    pub async fn stats(&self) -> Result<Vec<(String, u64)>, Error> {
        self.stats_by(Route::Any).await
    }

    /// The counters of one node, as [`Client::stats`]. Which node answers is not said: ask for those of a node
    /// that has just answered [`Client::status`].
    ///
    /// # Errors
    /// As for any read.
    pub async fn stats_of(&self, node: NodeId) -> Result<Vec<(String, u64)>, Error> {
        let route = Route::Together(Place { node, core: 0 }, 0);
        self.stats_by(route).await
    }

    async fn stats_by(&self, route: Route<'_>) -> Result<Vec<(String, u64)>, Error> {
        let reply = self.caller().call(route, Request::Stats, None).await?;
        match reply.decode() {
            Ok(Response::Stats(stats)) => Ok(stats),
            other => Err(unexpected(&Request::Stats, other)),
        }
    }

    /// The replicas of a node as it sees them itself, asked now.
    ///
    /// # Errors
    /// As for any read; [`Error::Unreachable`] if the node does not answer.
    pub async fn status(&self, node: NodeId) -> Result<NodeStatus, Error> {
        let route = Route::Together(Place { node, core: 0 }, 0);
        let reply = self.caller().call(route, Request::Status, None).await?;
        match reply.decode() {
            // Another node stands in for one that does not answer.
            Ok(Response::Status(status)) if status.here != node => Err(Error::Unreachable {
                addresses: format!("node {node}").into(),
                what: "it does not answer".into(),
            }),
            Ok(Response::Status(status)) => Ok(status),
            other => Err(unexpected(&Request::Status, other)),
        }
    }

    /// Makes a node the one that leads a partition whenever it can. Who leads hands over within a
    /// second or so; [`Client::status`] shows it.
    ///
    /// # Errors
    /// As for any read; [`Error::Invalid`] if the node does not hold the partition.
    pub async fn prefer(&self, partition: PartitionId, node: NodeId) -> Result<(), Error> {
        let request = Request::Prefer { partition, node };
        self.done(Route::Any, request).await
    }

    /// Makes a node give away what it leads and take nothing more until it is undone or restarted.
    /// Done at once; [`Client::status`] shows how far it is.
    ///
    /// # Errors
    /// As for any read; [`Error::Invalid`] if another node answers in its place.
    pub async fn drain(&self, node: NodeId, undo: bool) -> Result<(), Error> {
        let route = Route::Together(Place { node, core: 0 }, 0);
        self.done(route, Request::Drain { node, undo }).await
    }

    async fn done(&self, route: Route<'_>, request: Request<'_>) -> Result<(), Error> {
        let reply = self.caller().call(route, request, None).await?;
        match reply.decode() {
            Ok(Response::Done) => Ok(()),
            other => Err(unexpected(&request, other)),
        }
    }

    /// The cluster's nodes and where partitions live, asked now; requests go by it from now on.
    ///
    /// # Errors
    /// As for any read.
    pub async fn topology(&self) -> Result<Topology, Error> {
        let request = Request::Topology;
        let reply = self.caller().call(Route::Any, request, None).await?;
        match reply.decode() {
            Ok(Response::Topology(topology)) => {
                // Another cluster's is told, and not gone by.
                let _ = self.caller().cluster.learn(topology.clone(), "");
                Ok(topology)
            }
            other => Err(unexpected(&request, other)),
        }
    }

    /// The same client with a session of its own: it shares the connections, and has seen nothing
    /// yet. For a program that serves many users, whose sessions have nothing to do with each other.
    pub fn with_new_session(&self) -> Client {
        Client {
            keyspace: self.keyspace.with_session(Arc::new(Session::default())),
        }
    }

    /// What this client's session has seen, one token for each partition: with them, another
    /// client's reads at level [`Session`](crate::ReadLevel::Session) see at least as much. But for
    /// what only an error has told of ([`Error::ConditionFailed`] and the like), which has no token:
    /// [`Client::export_session`] hands that on too.
    pub fn tokens(&self) -> Vec<Token> {
        self.keyspace.session().all()
    }

    /// Takes another session's tokens.
    pub fn import_tokens(&self, tokens: impl IntoIterator<Item = Token>) {
        self.keyspace.session().see_all(tokens);
    }

    /// The session as bytes, to be stored or handed to another process, which takes it by
    /// [`Client::import_session`]: 9 bytes, 18 for each partition that was touched, and 18 more for
    /// each of which an error has told something that no read has covered yet.
    pub fn export_session(&self) -> Vec<u8> {
        let cluster = self.caller().routes().topology().cluster;
        self.keyspace.session().export(cluster)
    }

    /// Takes over what an exported session has seen, beside what this one has.
    ///
    /// # Errors
    /// [`Error::Invalid`] with [`ErrorCode::BadRequest`] if these are not the bytes of a session,
    /// or are of another cluster's; nothing is taken then.
    pub fn import_session(&self, exported: &[u8]) -> Result<(), Error> {
        let routes = self.caller().routes();
        let topology = routes.topology();
        self.keyspace
            .session()
            .import(exported, topology.cluster, topology.partitions())
    }

    /// Takes note of [`Error::Lost`]: forgets what this session has seen of the partition that it was told
    /// of. Until then each read there at level [`Session`](crate::ReadLevel::Session) says so again. The
    /// next one afterwards is linearizable, so that it misses nothing that was read there and stands.
    ///
    /// What was seen of other partitions is kept. Only where one request read several, as a scan without a
    /// prefix does, it is not told which of them lost something: then all of those are treated so.
    pub fn forget_tokens(&self) {
        self.keyspace.session().forget_lost();
    }
}
