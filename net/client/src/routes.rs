//! The server as its clients know it: its addresses, which core owns which partition, and a lane
//! for each core.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ringbolt_wire::message::Topology;
use ringbolt_wire::partition_of;
use ringbolt_wire::slot::partition_of_prefix;

use crate::connection::{ConnectError, Connection, ConnectionOptions};
use crate::error::Error;
use crate::lane::Lane;

/// Most lanes of a client, whatever a topology says.
const LANES_MAX: usize = 4096;

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route<'a> {
    /// To the core that owns this key.
    Key(&'a [u8]),
    /// To the core that owns all keys with this prefix, if one does; else to any.
    Prefix(&'a [u8]),
    /// To this core.
    Core(u16),
    /// To any core.
    Any,
}

/// A topology and the lanes that belong to it.
pub(crate) struct Routes {
    topology: Topology,
    lanes: Vec<Arc<Lane>>,
    lanes_per_core: usize,
    next: AtomicUsize,
}

impl Routes {
    fn new(topology: Topology, lanes_per_core: usize) -> Routes {
        let cores = usize::from(topology.cores_here());
        let lanes_per_core = lanes_per_core.clamp(1, (LANES_MAX / cores).max(1));
        let lanes = (0..cores * lanes_per_core)
            .map(|lane| Lane::new((lane / lanes_per_core) as u16))
            .collect();
        Routes {
            topology,
            lanes,
            lanes_per_core,
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn partition(&self, key: &[u8]) -> u16 {
        partition_of(key, self.topology.partitions())
    }

    /// The partition of all keys with this prefix, if there is one.
    pub(crate) fn partition_of_prefix(&self, prefix: &[u8]) -> Option<u16> {
        partition_of_prefix(prefix, self.topology.partitions())
    }

    pub(crate) fn core(&self, key: &[u8]) -> u16 {
        self.core_of_partition(self.partition(key))
    }

    fn core_of_partition(&self, partition: u16) -> u16 {
        self.topology
            .core_of(self.topology.here, partition)
            .unwrap_or(0)
    }

    /// The lane to send by; with several for a core, each in turn.
    pub(crate) fn lane(&self, route: Route<'_>) -> &Arc<Lane> {
        let core = match route {
            Route::Key(key) => Some(self.core(key)),
            Route::Prefix(prefix) => self
                .partition_of_prefix(prefix)
                .map(|partition| self.core_of_partition(partition)),
            Route::Core(core) => Some(core),
            Route::Any => None,
        };
        let turn = if core.is_some() && self.lanes_per_core == 1 {
            0
        } else {
            self.next.fetch_add(1, Ordering::Relaxed)
        };
        let at = match core {
            Some(core) => usize::from(core) * self.lanes_per_core + turn % self.lanes_per_core,
            None => turn,
        };
        &self.lanes[at % self.lanes.len()]
    }
}

/// What a [`Node`] is made with.
#[derive(Debug, Clone)]
pub(crate) struct NodeOptions {
    pub(crate) addresses: Vec<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) lanes_per_core: usize,
    pub(crate) connection: ConnectionOptions,
}

/// One server, reachable at any of its addresses.
pub(crate) struct Node {
    options: NodeOptions,
    routes: RwLock<Arc<Routes>>,
}

impl Node {
    /// Connects once, to whichever core and by the first address that answers.
    pub(crate) async fn open(options: NodeOptions) -> Result<Arc<Node>, Error> {
        // No server tells of none: the first handshake is news.
        let unknown = Topology {
            here: 0,
            ..Topology::alone("", 1, 1)
        };
        let node = Arc::new(Node {
            routes: RwLock::new(Arc::new(Routes::new(unknown, options.lanes_per_core))),
            options,
        });
        match tokio::time::timeout(node.connect_timeout(), node.connect(None)).await {
            Ok(Ok(_)) => Ok(node),
            Ok(Err(ConnectError::Unreachable(what))) => Err(node.unreachable(what)),
            Ok(Err(ConnectError::Fatal(error))) => Err(error),
            Err(_) => Err(node.unreachable("no answer within the connect timeout".into())),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.options.connect_timeout
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn unreachable(&self, what: Arc<str>) -> Error {
        Error::Unreachable {
            addresses: self.options.addresses.join(", ").into(),
            what,
        }
    }

    /// Connects by the first address that answers.
    pub(crate) async fn connect(&self, core: Option<u16>) -> Result<Arc<Connection>, ConnectError> {
        let mut last = ConnectError::Unreachable("no address was given".into());
        for address in &self.options.addresses {
            match Connection::open(address, core, &self.options.connection).await {
                Ok((connection, welcome)) => {
                    let connection = Arc::new(connection);
                    if self.learn(welcome.topology) {
                        // It is the first of the new lanes' connections.
                        let lane = Route::Core(welcome.core);
                        self.routes().lane(lane).adopt(connection.clone());
                    }
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes a topology if it is news; whether it was. Lanes of the one before live on in the
    /// requests that hold them, and end with them.
    pub(crate) fn learn(&self, topology: Topology) -> bool {
        if *self.routes().topology() == topology {
            return false;
        }
        let routes = Arc::new(Routes::new(topology, self.options.lanes_per_core));
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        true
    }
}
