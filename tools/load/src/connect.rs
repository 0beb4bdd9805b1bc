//! Connections: opened and shaken hands with in blocking fashion, by a thread of their own while a
//! phase runs, so that a server that comes back slowly does not hold up the other connections.
//!
//! Of a cluster, each connection has a home: a core of a node that leads some partitions, of whose
//! keys it makes requests. Where its home cannot be reached it goes to the next node, which passes
//! requests on; nodes that failed a moment ago come last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{
    ErrorCode, KeyspaceId, KeyspaceOptions, Limits, NodeInfo, Request, Response, Topology,
};

use crate::LoadError;
use crate::options::{Options, Protocol};
use crate::protocol::{Codec, RedisCodec, RingboltCodec};

/// Pause between two attempts to reach a lost server.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 16 << 10;
/// How long a node of several has to answer a connection, at most.
const CONNECT_FOR: Duration = Duration::from_millis(500);
/// How long a node that could not be reached is tried only after the others.
const AVOID_FOR: Duration = Duration::from_secs(1);

/// What Ringbolt answers in its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub limits: Limits,
    pub topology: Topology,
}

/// Everything that the connections of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// At least one.
    pub nodes: Vec<Node>,
    /// Where partitions are led. Ringbolt only.
    pub places: Vec<Home>,
    /// By partition: its place. Ringbolt only.
    pub owners: Arc<[u16]>,
    pub protocol: Protocol,
    pub timeout: Duration,
    pub codec: Codec,
    /// Ringbolt only.
    pub limits: Option<Limits>,
}

/// A node and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its number in the cluster.
    pub id: u32,
    addr: SocketAddr,
    text: String,
}

/// Where a connection belongs: a node, by its place in the list, and a core, if that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Home {
    pub node: usize,
    pub core: Option<u16>,
}

impl Target {
    /// Finds the server, or one node of a cluster, and asks it what must be known before the
    /// connections are opened.
    pub fn find(options: &Options) -> Result<Self, LoadError> {
        let mut target = Self {
            nodes: Vec::new(),
            places: Vec::new(),
            owners: Arc::new([]),
            protocol: options.protocol,
            timeout: options.timeout,
            codec: Codec::Redis(RedisCodec),
            limits: None,
        };
        let mut last = LoadError::Usage("--addr: no address is given".into());
        let addresses = options.addr.split(',').map(str::trim);
        for address in addresses.filter(|address| !address.is_empty()) {
            let found = resolve(0, address).and_then(|node| {
                let (stream, welcome) = target.connect(&node, None, options.timeout)?;
                target.nodes = vec![node];
                Ok((stream, welcome))
            });
            match found {
                Ok((stream, welcome)) => {
                    target.learn(options, stream, welcome)?;
                    return Ok(target);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes what the first node said of itself and of the others.
    fn learn(
        &mut self,
        options: &Options,
        mut stream: TcpStream,
        welcome: Option<Welcome>,
    ) -> Result<(), LoadError> {
        let target = self;
        let unreachable = |what: String| LoadError::Unreachable {
            addr: options.addr.clone(),
            what,
        };
        if let Some(Welcome { limits, topology }) = welcome {
            let keyspace = find_keyspace(&mut stream, &limits, &options.keyspace)
                .map_err(|what| unreachable(format!("keyspace {:?}: {what}", options.keyspace)))?;
            let frame_bytes_max = limits.frame_bytes_max.max(frame::HEADER_BYTES as u32);
            target.codec = Codec::Ringbolt(RingboltCodec {
                keyspace,
                ack: options.ack,
                deadline_ms: u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX),
                frame_bytes_max,
                client: 0,
                sequence: 0,
            });
            let limit = limits.inflight_requests_max as usize;
            if options.depth > limit {
                return Err(LoadError::Usage(format!(
                    "--depth: this server lets a connection have at most {limit} unanswered requests"
                )));
            }
            if *options.value_bytes.end() > limits.value_bytes_max {
                return Err(LoadError::Usage(format!(
                    "--value-size: this server takes values of at most {} bytes",
                    limits.value_bytes_max
                )));
            }
            target.limits = Some(limits);
            target.place(&topology)?;
        }
        Ok(())
    }

    /// Finds the nodes of a cluster, and where its partitions are led.
    fn place(&mut self, topology: &Topology) -> Result<(), LoadError> {
        let first = self.nodes[0].text.clone();
        let node = |node: &NodeInfo| match node.address.as_str() {
            "" => resolve(node.id, &first),
            address => resolve(node.id, address),
        };
        self.nodes = topology.nodes.iter().map(node).collect::<Result<_, _>>()?;
        let home = |partition: u16| {
            let replicas = &topology.replicas[usize::from(partition)];
            let leader = topology.leader(partition).unwrap_or(replicas.nodes[0]);
            Home {
                node: self
                    .nodes
                    .iter()
                    .position(|node| node.id == leader)
                    .unwrap_or(0),
                core: topology.core_of(leader, partition),
            }
        };
        let homes: Vec<Home> = (0..topology.partitions()).map(home).collect();
        self.places = homes.clone();
        self.places.sort_unstable();
        self.places.dedup();
        self.owners = homes
            .iter()
            .map(|home| self.places.binary_search(home).unwrap_or(0) as u16)
            .collect();
        Ok(())
    }

    /// Where the connection of this number, of so many, belongs; and the place whose keys it makes
    /// requests of, if there are connections for every place.
    pub fn home(&self, number: usize, connections: usize) -> (Home, Option<u16>) {
        if !self.places.is_empty() && connections >= self.places.len() {
            let place = number % self.places.len();
            return (self.places[place], Some(place as u16));
        }
        let home = Home {
            node: number % self.nodes.len(),
            core: None,
        };
        (home, None)
    }

    /// Opens a connection to its home, or else to the next node that can be reached.
    pub fn open(&self, home: Home, reach: &mut Reach) -> Result<TcpStream, LoadError> {
        let count = self.nodes.len();
        let mut order: Vec<usize> = (0..count).map(|step| (home.node + step) % count).collect();
        order.sort_by_key(|&node| reach.failed_lately(node));
        let within = match count {
            1 => self.timeout,
            _ => self.timeout.min(CONNECT_FOR),
        };
        let mut last = None;
        for node in order {
            let core = home.core.filter(|_| node == home.node);
            match self.connect(&self.nodes[node], core, within) {
                Ok((stream, _)) => {
                    reach.worked(node);
                    stream
                        .set_read_timeout(Some(self.timeout))
                        .map_err(LoadError::io("setting a socket's timeout"))?;
                    return Ok(stream);
                }
                Err(error) => {
                    reach.failed(node);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| LoadError::Usage("there is no node".into())))
    }

    /// Opens a connection, to `core` if one is given, and shakes hands. Ringbolt's welcome comes
    /// back: limits, topology.
    fn connect(
        &self,
        node: &Node,
        core: Option<u16>,
        within: Duration,
    ) -> Result<(TcpStream, Option<Welcome>), LoadError> {
        let unreachable = |what: String| LoadError::Unreachable {
            addr: node.text.clone(),
            what,
        };
        let io = |error: std::io::Error| {
            let hint = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "; is the server running?",
                _ => "",
            };
            unreachable(format!("{error}{hint}"))
        };
        let mut stream = TcpStream::connect_timeout(&node.addr, within).map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(within)).map_err(io)?;
        stream.set_write_timeout(Some(self.timeout)).map_err(io)?;
        let mut welcome = None;
        if self.protocol == Protocol::Ringbolt {
            let hello = Request::Hello {
                version_min: u16::from(ringbolt_wire::VERSION),
                version_max: u16::from(ringbolt_wire::VERSION),
                core,
                agent: concat!("ringbolt-bench/", env!("CARGO_PKG_VERSION")).as_bytes(),
            };
            let reply = exchange(
                &mut stream,
                &hello,
                ringbolt_wire::FRAME_BYTES_MAX,
                |reply| match reply {
                    Response::Welcome {
                        limits, topology, ..
                    } => Ok(Welcome { limits, topology }),
                    other => Err(unexpected(&other)),
                },
            )
            .map_err(|what| unreachable(format!("the handshake failed: {what}")))?;
            welcome = Some(reply);
        }
        Ok((stream, welcome))
    }
}

/// Which nodes could not be reached, and when.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    failed: Vec<(usize, Instant)>,
}

impl Reach {
    fn failed_lately(&self, node: usize) -> bool {
        let lately =
            |&(failed, when): &(usize, Instant)| failed == node && when.elapsed() < AVOID_FOR;
        self.failed.iter().any(lately)
    }

    fn failed(&mut self, node: usize) {
        self.worked(node);
        self.failed.push((node, Instant::now()));
    }

    fn worked(&mut self, node: usize) {
        self.failed.retain(|&(failed, _)| failed != node);
    }
}

fn resolve(id: u32, address: &str) -> Result<Node, LoadError> {
    let unreachable = |what: String| LoadError::Unreachable {
        addr: address.to_owned(),
        what,
    };
    let addr = address
        .to_socket_addrs()
        .map_err(|error| unreachable(format!("cannot be resolved: {error}")))?
        .next()
        .ok_or_else(|| unreachable("resolves to no address".into()))?;
    Ok(Node {
        id,
        addr,
        text: address.to_owned(),
    })
}

fn unexpected(reply: &Response<'_>) -> String {
    match reply {
        Response::Error(error) => format!("{:?}: {}", error.code, error.message),
        other => format!("an unexpected reply: {:?}", other.kind()),
    }
}

/// Sends one request on a blocking stream and understands the one reply.
fn exchange<T>(
    stream: &mut TcpStream,
    request: &Request<'_>,
    frame_bytes_max: u32,
    understand: impl FnOnce(Response<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let text = |error: ringbolt_wire::WireError| error.to_string();
    let mut out = Vec::new();
    request.encode(1, 0, &mut out).map_err(text)?;
    stream.write_all(&out).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; READ_BYTES];
    let len = loop {
        match frame::peek(&bytes, frame_bytes_max).map_err(text)? {
            Peek::Frame { len } => break len,
            Peek::Oversized { len, .. } => return Err(format!("a reply of {len} bytes")),
            Peek::Incomplete { .. } => {}
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err("no answer in time; is this the right port and protocol?".into());
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let view = frame::open(&bytes[..len]).map_err(text)?;
    understand(Response::decode(&view).map_err(text)?)
}

/// The number of the keyspace of this name, which is created if it is not there.
fn find_keyspace(
    stream: &mut TcpStream,
    limits: &Limits,
    name: &str,
) -> Result<KeyspaceId, String> {
    if name == "default" {
        return Ok(ringbolt_wire::message::KEYSPACE_DEFAULT);
    }
    let list = |stream: &mut TcpStream| {
        exchange(
            stream,
            &Request::KeyspaceList,
            limits.frame_bytes_max,
            |reply| match reply {
                Response::Keyspaces(all) => Ok(all.into_iter().find(|k| k.name == name)),
                other => Err(unexpected(&other)),
            },
        )
    };
    if let Some(found) = list(stream)? {
        return Ok(found.id);
    }
    let create = Request::KeyspaceCreate {
        name,
        options: KeyspaceOptions::default(),
    };
    exchange(
        stream,
        &create,
        limits.frame_bytes_max,
        |reply| match reply {
            Response::Keyspaces(_) => Ok(()),
            // Somebody else was faster.
            Response::Error(error) if error.code == ErrorCode::KeyspaceExists => Ok(()),
            other => Err(unexpected(&other)),
        },
    )?;
    list(stream)?
        .map(|found| found.id)
        .ok_or_else(|| "it was created but is not listed".into())
}

/// A connection to be opened again.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub conn: usize,
    pub home: Home,
    /// When to give up.
    pub until: Instant,
}

/// A thread that opens connections. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Connector {
    wanted: mpsc::Sender<Wanted>,
    opened: mpsc::Receiver<(usize, Result<TcpStream, LoadError>)>,
}

impl Connector {
    pub fn start(target: Target, waker: mio::Waker) -> Result<Self, LoadError> {
        let (wanted, requests) = mpsc::channel::<Wanted>();
        let (results, opened) = mpsc::channel();
        std::thread::Builder::new()
            .name("bench-connect".into())
            .spawn(move || {
                let mut reach = Reach::default();
                for Wanted { conn, home, until } in requests {
                    let result = loop {
                        match target.open(home, &mut reach) {
                            Ok(stream) => break Ok(stream),
                            Err(error) if Instant::now() >= until => break Err(error),
                            Err(_) => std::thread::sleep(RETRY_EVERY),
                        }
                    };
                    if results.send((conn, result)).is_err() || waker.wake().is_err() {
                        return;
                    }
                }
            })
            .map_err(LoadError::io("starting the thread that reconnects"))?;
        Ok(Self { wanted, opened })
    }

    pub fn ask(&self, wanted: Wanted) {
        // The thread ends only when this end is dropped; a lost request times out.
        let _ = self.wanted.send(wanted);
    }

    pub fn opened(&self) -> Option<(usize, Result<TcpStream, LoadError>)> {
        self.opened.try_recv().ok()
    }
}
