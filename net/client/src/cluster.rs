//! The cluster as its clients know it: how to reach it, and what it said of itself last.
//!
//! A topology comes with every handshake, and is asked for, from any node, when a request shows
//! that the one at hand is out of date. Of two of the same cluster the higher version counts; who
//! leads is taken from whoever spoke last, for that changes without the version, and a wrong leader
//! says who is the right one. Asking is one task's work, so that a hundred requests that fail
//! together ask once, and it pauses between two questions.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use ringbolt_wire::message::{NodeInfo, Request, Response, Topology};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backoff;
use crate::connection::{ConnectError, Connection, ConnectionOptions, Welcome};
use crate::error::Error;
use crate::lane::Patience;
use crate::latency::Hedges;
use crate::node::Node;
use crate::routes::Routes;

/// How long one address has to itself before the next is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Pauses between questions for the topology: as after this many failures, at least.
const REFRESH_PAUSE: u32 = 3;

/// What a [`Cluster`] is made with.
#[derive(Debug, Clone)]
pub(crate) struct ClusterOptions {
    pub(crate) addresses: Vec<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) lanes_per_core: usize,
    pub(crate) connection: ConnectionOptions,
}

/// A cluster, or a node alone.
pub(crate) struct Cluster {
    options: ClusterOptions,
    routes: RwLock<Arc<Routes>>,
    pub(crate) hedges: Hedges,
    out_of_date: Arc<Notify>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Lets the refreshing task end.
        self.out_of_date.notify_one();
    }
}

impl Cluster {
    /// Connects once, to whichever core of whichever node answers first.
    pub(crate) async fn open(options: ClusterOptions) -> Result<Arc<Cluster>, Error> {
        let unreachable = |what| unreachable(&options.addresses, what);
        let first = race(&options.addresses, &options.connection);
        let (address, connection, welcome) = match timeout(options.connect_timeout, first).await {
            Ok(Ok(first)) => first,
            Ok(Err(ConnectError::Unreachable(what))) => return Err(unreachable(what)),
            Ok(Err(ConnectError::Fatal(error))) => return Err(error),
            Err(_) => return Err(unreachable("no answer within the connect timeout".into())),
        };
        let core = welcome.core;
        let routes = new_routes(&options, welcome.topology, &address, None);
        let out_of_date = Arc::new(Notify::new());
        let cluster = Arc::new(Cluster {
            options,
            routes: RwLock::new(Arc::new(routes)),
            hedges: Hedges::default(),
            out_of_date: out_of_date.clone(),
        });
        cluster.adopt(core, Arc::new(connection));
        tokio::spawn(refresh(Arc::downgrade(&cluster), out_of_date));
        Ok(cluster)
    }

    pub(crate) fn options(&self) -> &ClusterOptions {
        &self.options
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether there is only one node.
    pub(crate) fn is_alone(&self) -> bool {
        self.routes().nodes().len() == 1
    }

    /// How long a node may say nothing.
    pub(crate) fn silence(&self) -> Duration {
        self.options.connection.silence
    }

    /// How long to wait for a connection to one node of several: that of one that died is waited for in
    /// vain, and another node has to be reached within the rest of the time.
    pub(crate) fn connecting(&self) -> Duration {
        self.silence() / 2
    }

    pub(crate) fn unreachable(&self, what: Arc<str>) -> Error {
        let routes = self.routes();
        let nodes = routes.nodes().iter();
        let mut addresses: Vec<String> = nodes.flat_map(|node| node.addresses.clone()).collect();
        addresses.dedup();
        unreachable(&addresses, what)
    }

    /// A request showed that partitions live, or are led, elsewhere. A node that is alone tells
    /// what there is to know when it is connected to.
    pub(crate) fn is_out_of_date(&self) {
        if !self.is_alone() {
            self.out_of_date.notify_one();
        }
    }

    /// Connects to a node by the first of its addresses that answers.
    pub(crate) async fn connect(
        &self,
        node: &Node,
        core: Option<u16>,
    ) -> Result<Arc<Connection>, ConnectError> {
        let (address, connection, welcome) =
            race_for(&node.addresses, core, &self.options.connection).await?;
        let connection = Arc::new(connection);
        let here = welcome.topology.here;
        if self.learn(welcome.topology, &address)? {
            // It is the first of the new lanes' connections.
            self.adopt(welcome.core, connection.clone());
        }
        if here != node.id {
            return Err(ConnectError::Unreachable(
                format!("node {here} answers where node {} was looked for", node.id).into(),
            ));
        }
        Ok(connection)
    }

    /// Gives a connection that was just made to the lane of its core.
    fn adopt(&self, core: u16, connection: Arc<Connection>) {
        let routes = self.routes();
        if let Some(node) = routes.node(routes.topology().here) {
            node.lane(Some(core)).adopt(connection);
        }
    }

    /// Takes a topology that was told at `address`, if it is news; whether it was. Nodes that are
    /// no more live on in the requests that hold them, and end with them.
    pub(crate) fn learn(&self, topology: Topology, address: &str) -> Result<bool, ConnectError> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let known = routes.topology();
        if known.cluster != 0 && topology.cluster != 0 && known.cluster != topology.cluster {
            return Err(ConnectError::Fatal(Error::Protocol(
                format!("another cluster answers at {address}").into(),
            )));
        }
        if routes.is_as(&topology) {
            routes.hear_leaders(&topology);
            return Ok(false);
        }
        if known.cluster == topology.cluster && topology.version < known.version {
            return Ok(false);
        }
        let new = new_routes(&self.options, topology, address, Some(&routes));
        *routes = Arc::new(new);
        Ok(true)
    }

    /// Asks the nodes for the topology, one after the other, and then the addresses that the client
    /// was given; whether one answered.
    async fn ask(self: &Arc<Cluster>) -> bool {
        let routes = self.routes();
        let mut nodes: Vec<&Arc<Node>> = routes.nodes().iter().collect();
        let first = rand::random_range(0..nodes.len());
        nodes.rotate_left(first);
        nodes.sort_by_key(|node| node.is_suspect());
        for node in nodes {
            let until = Instant::now() + self.silence();
            let patience = Patience { until, once: true };
            let lane = node.lane(None);
            let Ok(Some(connection)) = lane.connection(self, node, patience).await else {
                continue;
            };
            let Ok(reply) = connection.submit(&Request::Topology, until).await else {
                continue;
            };
            if let Ok(Ok(Ok(reply))) = timeout_at(until, reply).await
                && let Ok(Response::Topology(topology)) = reply.decode()
                && self.learn(topology, "").is_ok()
            {
                return true;
            }
        }
        let seeds = race(&self.options.addresses, &self.options.connection);
        match timeout(self.options.connect_timeout, seeds).await {
            Ok(Ok((address, _, welcome))) => self.learn(welcome.topology, &address).is_ok(),
            _ => false,
        }
    }
}

/// The task that asks for the topology when it is out of date. It ends with the client.
async fn refresh(cluster: Weak<Cluster>, out_of_date: Arc<Notify>) {
    let mut failures = 0;
    loop {
        out_of_date.notified().await;
        let answered = match cluster.upgrade() {
            Some(cluster) => cluster.ask().await,
            None => return,
        };
        failures = if answered { 0 } else { failures + 1 };
        tokio::time::sleep(backoff::pause(failures + REFRESH_PAUSE)).await;
    }
}

fn unreachable(addresses: &[String], what: Arc<str>) -> Error {
    Error::Unreachable {
        addresses: addresses.join(", ").into(),
        what,
    }
}

/// Routes by a topology that was told at `address`.
fn new_routes(
    options: &ClusterOptions,
    topology: Topology,
    address: &str,
    before: Option<&Routes>,
) -> Routes {
    let here = topology.here;
    let alone = topology.nodes.len() == 1;
    Routes::new(topology, before, |info: &NodeInfo| {
        let mut addresses = Vec::new();
        let mut add = |address: &str| {
            if !address.is_empty() && !addresses.iter().any(|known| known == address) {
                addresses.push(address.to_owned());
            }
        };
        add(&info.address);
        if info.id == here {
            add(address);
        }
        if alone {
            options.addresses.iter().for_each(|address| add(address));
        }
        Node::new(info.id, addresses, info.cores, options.lanes_per_core)
    })
}

type First = (String, Connection, Welcome);

/// Connects to any core by whichever address answers first.
async fn race(addresses: &[String], options: &ConnectionOptions) -> Result<First, ConnectError> {
    race_for(addresses, None, options).await
}

/// Connects by whichever address answers first: each is tried when the one before has failed, or
/// has not answered for a while.
async fn race_for(
    addresses: &[String],
    core: Option<u16>,
    options: &ConnectionOptions,
) -> Result<First, ConnectError> {
    let mut last = ConnectError::Unreachable("no address is known".into());
    let mut trying = JoinSet::new();
    let mut addresses = addresses.iter();
    loop {
        let more = match addresses.next() {
            Some(address) => {
                let (address, options) = (address.clone(), options.clone());
                trying.spawn(async move {
                    let (connection, welcome) = Connection::open(&address, core, &options).await?;
                    Ok((address, connection, welcome))
                });
                true
            }
            None => false,
        };
        let ended = if more && addresses.len() > 0 {
            match timeout(NEXT_ADDRESS_AFTER, trying.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        } else {
            trying.join_next().await
        };
        match ended {
            Some(Ok(Ok(first))) => return Ok(first),
            Some(Ok(Err(error))) => last = error,
            // Cancelled with the runtime.
            Some(Err(_)) => {}
            None if addresses.len() == 0 => return Err(last),
            None => {}
        }
    }
}
