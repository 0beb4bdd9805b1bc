//! Connections: opened and shaken hands with in blocking fashion, by a thread of their own while a
//! phase runs, so that a server that comes back slowly does not hold up the other connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{
    ErrorCode, KeyspaceId, KeyspaceOptions, Limits, Request, Response, Topology,
};

use crate::LoadError;
use crate::options::{Options, Protocol};
use crate::protocol::{Codec, RedisCodec, RingboltCodec};

/// Pause between two attempts to reach a lost server.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 16 << 10;

/// What Ringbolt answers in its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub core: u16,
    pub limits: Limits,
    pub topology: Topology,
}

/// Everything that the connections of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub addr: SocketAddr,
    pub addr_text: String,
    pub protocol: Protocol,
    pub timeout: Duration,
    pub codec: Codec,
    /// Ringbolt only.
    pub topology: Option<Topology>,
    /// Ringbolt only.
    pub limits: Option<Limits>,
}

impl Target {
    /// Finds the server and asks it what must be known before the connections are opened.
    pub fn find(options: &Options) -> Result<Self, LoadError> {
        let unreachable = |what: String| LoadError::Unreachable {
            addr: options.addr.clone(),
            what,
        };
        let addr = options
            .addr
            .to_socket_addrs()
            .map_err(|error| unreachable(format!("cannot be resolved: {error}")))?
            .next()
            .ok_or_else(|| unreachable("resolves to no address".into()))?;
        let mut target = Self {
            addr,
            addr_text: options.addr.clone(),
            protocol: options.protocol,
            timeout: options.timeout,
            codec: Codec::Redis(RedisCodec),
            topology: None,
            limits: None,
        };
        let (mut stream, welcome) = target.connect(None)?;
        if let Some(Welcome {
            limits, topology, ..
        }) = welcome
        {
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
            target.topology = Some(topology);
            target.limits = Some(limits);
        }
        Ok(target)
    }

    /// Opens a connection, to `core` if one is given, and shakes hands. Ringbolt's welcome comes
    /// back: core, limits, topology.
    pub fn connect(&self, core: Option<u16>) -> Result<(TcpStream, Option<Welcome>), LoadError> {
        let unreachable = |what: String| LoadError::Unreachable {
            addr: self.addr_text.clone(),
            what,
        };
        let io = |error: std::io::Error| {
            let hint = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "; is the server running?",
                _ => "",
            };
            unreachable(format!("{error}{hint}"))
        };
        let mut stream = TcpStream::connect_timeout(&self.addr, self.timeout).map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(self.timeout)).map_err(io)?;
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
                        core,
                        limits,
                        topology,
                        ..
                    } => Ok(Welcome {
                        core,
                        limits,
                        topology,
                    }),
                    other => Err(unexpected(&other)),
                },
            )
            .map_err(|what| unreachable(format!("the handshake failed: {what}")))?;
            welcome = Some(reply);
        }
        Ok((stream, welcome))
    }
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
    pub core: Option<u16>,
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
                for Wanted { conn, core, until } in requests {
                    let result = loop {
                        match target.connect(core) {
                            Ok((stream, _)) => break Ok(stream),
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
