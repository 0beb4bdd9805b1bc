//! A small server for both protocols: a map behind a lock, one thread a connection, and a list of
//! lies to tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ringbolt_wire::codec::{encode_error, encode_not_found, encode_value, encode_written};
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{
    ErrorCode, ErrorReply, Keyspace, Limits, Meta, NodeId, NodeInfo, Replicas, Request, Response,
    Token, Topology, WriteOp,
};

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Acknowledges every 50th write without doing it.
    LoseWrites,
    /// Forgets every 50th record that is written after acknowledging it.
    LoseRecords,
    /// Flips a bit in every 50th value read.
    FlipBits,
    /// Returns another record's value for every 50th read.
    OtherRecord,
    /// Acknowledges deletes without doing them.
    KeepDeleted,
    /// Refuses every third request for a millisecond.
    Overload,
    /// Cuts the connection after every 200th write: half of these were done.
    CutConnections,
    /// Never answers every 100th request.
    Swallow,
}

pub struct Fake {
    pub addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    lie: Lie,
    data: Data,
    node: NodeId,
    /// What it tells of the cluster, if it is one of several nodes.
    cluster: Option<Arc<Mutex<Topology>>>,
    /// Who leads everything, whatever the topology says; 0 for whoever it says.
    leader: Arc<AtomicU32>,
    count: AtomicU64,
    /// Only counted where connections are cut.
    writes: AtomicU64,
    stopped: AtomicBool,
    /// Requests that came to a core which does not own their key.
    misrouted: AtomicU64,
    /// The writes that came, by client and sequence.
    numbered: Mutex<BTreeSet<(u64, u64)>>,
    /// First sendings under a number that another write had.
    renumbered: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

type Data = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// What to do with a request.
enum Fate {
    Answer,
    Overloaded,
    NotLeader,
    Cut,
    Swallow,
}

pub const CORES: u16 = 2;
const PARTITIONS: u16 = 8;

impl Fake {
    pub fn start(lie: Lie) -> Self {
        Self::with_data(lie, BTreeMap::new())
    }

    /// Nodes 1 and 2 of a cluster: each leads half of the partitions and, as if it passed requests
    /// on, serves all, until somebody else leads everything.
    pub fn cluster() -> (Self, Self) {
        let cluster: Arc<Mutex<Topology>> = Arc::new(Mutex::new(Topology {
            cluster: 5,
            nodes: Vec::new(),
            replicas: (0..PARTITIONS)
                .map(|partition| Replicas {
                    leader: u32::from(partition) % 2 + 1,
                    nodes: vec![1, 2],
                })
                .collect(),
            ..Topology::alone("", 1, 1)
        }));
        let (data, leader) = (Data::default(), Arc::default());
        let start = |node| {
            let fake = Self::start_node(Lie::None, &data, node, Some(&cluster), &leader);
            cluster.lock().unwrap().nodes.push(NodeInfo {
                id: node,
                name: String::new(),
                address: fake.addr(),
                cores: CORES,
                zone: String::new(),
            });
            fake
        };
        (start(1), start(2))
    }

    /// From now on this node leads everything, and the others say so.
    pub fn lead(&self) {
        self.state.leader.store(self.state.node, Ordering::SeqCst);
    }

    pub fn requests(&self) -> u64 {
        self.state.count.load(Ordering::SeqCst)
    }

    pub fn with_data(lie: Lie, data: BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Self::start_node(lie, &Arc::new(Mutex::new(data)), 1, None, &Arc::default())
    }

    fn start_node(
        lie: Lie,
        data: &Data,
        node: NodeId,
        cluster: Option<&Arc<Mutex<Topology>>>,
        leader: &Arc<AtomicU32>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            lie,
            data: data.clone(),
            node,
            cluster: cluster.cloned(),
            leader: leader.clone(),
            count: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            misrouted: AtomicU64::new(0),
            numbered: Mutex::default(),
            renumbered: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                shared
                    .open
                    .lock()
                    .unwrap()
                    .push(stream.try_clone().unwrap());
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { addr, state }
    }

    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    pub fn data(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.state.data.lock().unwrap().clone()
    }

    pub fn set_data(&self, data: BTreeMap<Vec<u8>, Vec<u8>>) {
        *self.state.data.lock().unwrap() = data;
    }

    pub fn renumbered(&self) -> u64 {
        self.state.renumbered.load(Ordering::Relaxed)
    }

    pub fn misrouted(&self) -> u64 {
        self.state.misrouted.load(Ordering::Relaxed)
    }

    /// As if the process had died: no connection, no listener.
    pub fn stop(&self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut input = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        let mut core = None;
        let mut redis = None;
        loop {
            let n = match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            input.extend_from_slice(&chunk[..n]);
            if input.len() < 4 {
                continue;
            }
            // A frame's third byte is 0 as long as it is short, which a handshake is.
            let redis = *redis.get_or_insert(input[2] != 0);
            let mut out = Vec::new();
            let mut used = 0;
            let mut alive = true;
            while alive {
                let rest = &input[used..];
                let (took, goes_on) = if redis {
                    self.redis(rest, &mut out)
                } else {
                    self.ringbolt(rest, &mut core, &mut out)
                };
                if took == 0 {
                    break;
                }
                used += took;
                alive = goes_on;
            }
            input.drain(..used);
            if stream.write_all(&out).is_err() || !alive {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    fn welcome(&self, core: u16) -> Response<'static> {
        Response::Welcome {
            version: 1,
            core,
            server: "fake",
            limits: Limits {
                key_bytes_max: 64 << 10,
                value_bytes_max: 512 << 10,
                frame_bytes_max: 1 << 20,
                inflight_requests_max: 256,
                scan_rows_max: 1000,
            },
            topology: match &self.cluster {
                Some(cluster) => Topology {
                    here: self.node,
                    ..cluster.lock().unwrap().clone()
                },
                None => Topology::alone("fake", CORES, PARTITIONS),
            },
        }
    }

    fn fate(&self) -> (Fate, u64) {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let leader = self.leader.load(Ordering::SeqCst);
        let fate = match self.lie {
            _ if leader != 0 && leader != self.node => Fate::NotLeader,
            Lie::Overload if number.is_multiple_of(3) => Fate::Overloaded,
            Lie::Swallow if number.is_multiple_of(100) => Fate::Swallow,
            _ => Fate::Answer,
        };
        (fate, number)
    }

    fn get(&self, key: &[u8], number: u64) -> Option<Vec<u8>> {
        let data = self.data.lock().unwrap();
        let mut value = data.get(key).cloned()?;
        if number.is_multiple_of(50) {
            match self.lie {
                Lie::FlipBits => value[30] ^= 4,
                Lie::OtherRecord => {
                    value = data.values().next().cloned()?;
                }
                _ => {}
            }
        }
        Some(value)
    }

    /// Writes; says whether to answer.
    fn write(&self, key: &[u8], value: Option<&[u8]>, number: u64) -> Fate {
        let mut data = self.data.lock().unwrap();
        if self.lie == Lie::CutConnections {
            let write = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
            if write.is_multiple_of(200) {
                if write.is_multiple_of(400) {
                    store(&mut data, key, value);
                }
                return Fate::Cut;
            }
        }
        if self.lie == Lie::LoseWrites && number.is_multiple_of(50)
            || self.lie == Lie::KeepDeleted && value.is_none()
        {
            return Fate::Answer;
        }
        store(&mut data, key, value);
        if self.lie == Lie::LoseRecords && number.is_multiple_of(50) {
            data.remove(key);
        }
        Fate::Answer
    }

    fn redis(&self, bytes: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let Some((took, args)) = parse_array(bytes) else {
            return (0, true);
        };
        let (fate, number) = self.fate();
        match fate {
            Fate::Answer => {}
            Fate::Overloaded | Fate::NotLeader => {
                out.extend_from_slice(b"-LOADING not now\r\n");
                return (took, true);
            }
            // Replies are in order: everything behind it is swallowed too.
            Fate::Swallow | Fate::Cut => {
                std::thread::park();
                return (took, false);
            }
        }
        match args[0] {
            b"GET" => match self.get(args[1], number) {
                Some(value) => {
                    write!(out, "${}\r\n", value.len()).unwrap();
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
                None => out.extend_from_slice(b"$-1\r\n"),
            },
            b"SET" | b"DEL" => {
                let value = args.get(2).copied();
                if matches!(self.write(args[1], value, number), Fate::Cut) {
                    return (took, false);
                }
                out.extend_from_slice(if value.is_some() {
                    b"+OK\r\n"
                } else {
                    b":1\r\n"
                });
            }
            other => panic!("{other:?}"),
        }
        (took, true)
    }

    fn ringbolt(&self, bytes: &[u8], core: &mut Option<u16>, out: &mut Vec<u8>) -> (usize, bool) {
        let Peek::Frame { len } = frame::peek(bytes, 1 << 20).unwrap() else {
            return (0, true);
        };
        let view = frame::open(&bytes[..len]).unwrap();
        let id = view.request_id;
        let request = Request::decode(&view).unwrap();
        if let Request::Hello { core: wanted, .. } = request {
            *core = wanted;
            self.welcome(wanted.unwrap_or(0)).encode(id, out);
            return (len, true);
        }
        if let Request::KeyspaceList = request {
            let keyspace = Keyspace {
                id: 7,
                name: "bench".into(),
                options: Default::default(),
            };
            Response::Keyspaces(vec![keyspace]).encode(id, out);
            return (len, true);
        }
        let (fate, number) = self.fate();
        match fate {
            Fate::Answer => {}
            Fate::Overloaded => {
                let error = ErrorReply {
                    code: ErrorCode::Overloaded,
                    retry_after_ms: 1,
                    detail: 0,
                    message: "not now",
                };
                encode_error(out, id, &error);
                return (len, true);
            }
            Fate::NotLeader => {
                let error = ErrorReply {
                    code: ErrorCode::NotLeader,
                    retry_after_ms: 0,
                    detail: self.leader.load(Ordering::SeqCst).into(),
                    message: "not here",
                };
                encode_error(out, id, &error);
                return (len, true);
            }
            Fate::Swallow => return (len, true),
            Fate::Cut => return (len, false),
        }
        let token = Token {
            partition: 0,
            term: 1,
            index: number,
        };
        let check_core = |key: &[u8]| {
            let partition = ringbolt_wire::partition_of(key, PARTITIONS);
            let owner = ringbolt_wire::slot::core_of(partition, PARTITIONS, CORES);
            let elsewhere = self.cluster.as_ref().is_some_and(|cluster| {
                let leader = cluster.lock().unwrap().leader(partition);
                core.is_some() && leader != Some(self.node)
            });
            if elsewhere || core.is_some_and(|core| core != owner) {
                self.misrouted.fetch_add(1, Ordering::Relaxed);
            }
        };
        match request {
            Request::Get { key, .. } => {
                check_core(key);
                match self.get(key, number) {
                    Some(value) => encode_value(out, id, token, &Meta::default(), &value),
                    None => encode_not_found(out, id, token),
                }
            }
            Request::Write { op, options, .. } => {
                let numbers = (options.client, options.sequence);
                if !self.numbered.lock().unwrap().insert(numbers) && !options.retry {
                    self.renumbered.fetch_add(1, Ordering::Relaxed);
                }
                let (key, value) = match op {
                    WriteOp::Put { key, value, .. } => (key, Some(value)),
                    WriteOp::Delete { key, .. } => (key, None),
                    other => panic!("{other:?}"),
                };
                check_core(key);
                if matches!(self.write(key, value, number), Fate::Cut) {
                    return (len, false);
                }
                encode_written(out, id, token, None);
            }
            Request::Scan(scan) => {
                let data = self.data.lock().unwrap();
                let rows: Vec<_> = data
                    .range(scan.start.to_vec()..)
                    .filter(|(key, _)| key.starts_with(scan.prefix))
                    .take(scan.limit as usize)
                    .map(|(key, value)| (&key[..], Meta::default(), &value[..]))
                    .collect();
                Response::Rows {
                    tokens: Vec::new(),
                    rows,
                    cursor: b"",
                }
                .encode(id, out);
            }
            other => panic!("{other:?}"),
        }
        (len, true)
    }
}

fn store(data: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => {
            data.insert(key.to_vec(), value.to_vec());
        }
        None => {
            data.remove(key);
        }
    }
}

/// One array of bulk strings, and its length.
fn parse_array(bytes: &[u8]) -> Option<(usize, Vec<&[u8]>)> {
    let mut at = 0;
    let mut number = |kind: u8| {
        let end = bytes[at..].iter().position(|&b| b == b'\n')? + at;
        assert_eq!(bytes[at], kind);
        let n: usize = std::str::from_utf8(&bytes[at + 1..end - 1])
            .unwrap()
            .parse()
            .unwrap();
        at = end + 1;
        let start = at;
        if kind == b'$' {
            at += n + 2;
            if at > bytes.len() {
                return None;
            }
        }
        Some((start, n))
    };
    let (_, count) = number(b'*')?;
    let mut args = Vec::new();
    for _ in 0..count {
        let (start, n) = number(b'$').filter(|&(start, n)| start + n + 2 <= bytes.len())?;
        args.push((start, n));
    }
    Some((
        at,
        args.into_iter().map(|(s, n)| &bytes[s..s + n]).collect(),
    ))
}
