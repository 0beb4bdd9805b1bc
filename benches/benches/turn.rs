//! What a core's own code costs per request, without sockets: pipelined reads of cached records, by Ringbolt's
//! protocol and by Redis's, and writes by both up to their acknowledgement, on a disk in memory.
//!
//! `cargo bench -p ringbolt-benches --bench turn -- [ROUNDS] [NAME]`
//!
//! A turn takes up what 50 connections have sent, 16 requests each, and hands back the answers. Told are the
//! fastest round and the median, in nanoseconds of this thread a request. With one round of one
//! name it is short enough for `valgrind --tool=callgrind`, whose counts of instructions do not depend on the
//! machine's mood.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringbolt::cluster::{ClusterView, Identity, NodeId, NodeInfo};
use ringbolt::shard::limits::ShardLimits;
use ringbolt::shard::mail::{Parcel, SessionKey};
use ringbolt::shard::route::PartitionMap;
use ringbolt::shard::{Port, Shard, ShardConfig};
use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::env::sim::{self, SimEnv, SimOptions};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::tree::TreeOptions;
use ringbolt_wire::message::{
    Condition, KEYSPACE_DEFAULT, KEYSPACE_SYSTEM, ReadOptions, Request, Ttl, WriteOp, WriteOptions,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u16 = 128;
const CONNECTIONS: usize = 50;
const DEPTH: usize = 16;
const KEYS: usize = 10_000;
const VALUE: [u8; 100] = [b'v'; 100];
/// Turns of one round of reads, and of writes, which are slower.
const READ_TURNS: usize = 400;
const WRITE_TURNS: usize = 50;

/// Takes what is sent, and gives the buffers back.
#[derive(Default)]
struct Sockets {
    sent: Vec<(u64, Vec<u8>)>,
}

impl Port for Sockets {
    fn send(&mut self, handle: u64, bytes: Vec<u8>) {
        self.sent.push((handle, bytes));
    }
    fn pause(&mut self, _: u64) {}
    fn resume(&mut self, _: u64) {}
    fn finish(&mut self, _: u64) {}
    fn close(&mut self, _: u64) {}
    fn hand_over(&mut self, _: u64, _: u16, _: Vec<u8>) {}
    fn dial(&mut self, _: u64, _: NodeId) {}
    fn post(&mut self, _: u16, _: Parcel) -> Result<(), Parcel> {
        Ok(())
    }
}

struct Core {
    env: SimEnv,
    shard: Shard<SimEnv>,
    sockets: Sockets,
    sessions: Vec<SessionKey>,
    /// Bytes of answers so far.
    answered: usize,
}

impl Core {
    async fn open(env: SimEnv) -> Self {
        let node = NodeInfo {
            id: 1,
            name: "bench".into(),
            address: "127.0.0.1:7400".to_owned(),
            cores: 1,
            zone: String::new(),
            weight: 1,
        };
        let identity = Identity {
            cluster: 1,
            node: 1,
            boot: 1,
            start: 1,
        };
        let placement = vec![vec![1]; usize::from(PARTITIONS)];
        let dir = PathBuf::from("shard");
        let options = EngineOptions {
            tree: TreeOptions {
                memory_bytes: 256 << 20,
                own_keyspace: Some(KEYSPACE_SYSTEM),
                ..TreeOptions::default()
            },
            commits_alone: ringbolt::replica::commits_alone,
            ..EngineOptions::default()
        };
        let (engine, recovered) = Engine::open(env.clone(), &dir, options)
            .await
            .expect("a new folder opens");
        let config = ShardConfig {
            resp: Arc::default(),
            core: 0,
            map: Arc::new(PartitionMap::spread("bench".into(), PARTITIONS, 1)),
            cluster: Arc::new(ClusterView::new(identity, vec![node], placement)),
            limits: ShardLimits::default(),
            dir,
            space_reserve: 1 << 20,
        };
        let shard = Shard::new(env.clone(), engine, config);
        let turning = shard.clone();
        let timer = env.clone();
        let started = std::rc::Rc::new(std::cell::Cell::new(false));
        let until = std::rc::Rc::clone(&started);
        env.spawn(TaskClass::Foreground, async move {
            while !until.get() {
                turning.begin_turn();
                turning.end_turn(&mut Sockets::default());
                timer.sleep(Duration::from_micros(50)).await;
            }
        });
        shard.start(recovered).await.expect("a new shard starts");
        started.set(true);
        Self {
            env,
            shard,
            sockets: Sockets::default(),
            sessions: Vec::new(),
            answered: 0,
        }
    }

    /// Fifty connections, by Redis's protocol or by ours.
    fn connect(&mut self, by_redis: bool) {
        let mut hello = Vec::new();
        let request = Request::Hello {
            version_min: 1,
            version_max: 1,
            core: None,
            agent: b"bench",
        };
        request.encode(0, 0, &mut hello).expect("a hello is short");
        self.sessions.clear();
        for handle in 0..CONNECTIONS as u64 {
            let key = match by_redis {
                true => self.shard.connected_resp(handle),
                false => self.shard.connected(handle),
            };
            let key = key.expect("there is room");
            if !by_redis {
                self.shard.received(key, &hello);
            }
            self.sessions.push(key);
        }
        self.turn(&[]);
    }

    /// One turn: each connection's input is taken up, and what is to be sent has been sent.
    fn turn(&mut self, inputs: &[Vec<u8>]) {
        self.shard.begin_turn();
        for (key, input) in self.sessions.iter().zip(inputs) {
            self.shard.received(*key, input);
        }
        self.shard.end_turn(&mut self.sockets);
        for (handle, bytes) in self.sockets.sent.drain(..) {
            self.answered += bytes.len();
            if let Some(key) = self.sessions.get(handle as usize) {
                self.shard.sent(*key, black_box(bytes));
            }
        }
    }

    /// Turns until so many bytes of answers have come since `before`.
    async fn answer(&mut self, before: usize, bytes: usize) {
        while self.answered - before < bytes {
            self.env.sleep(Duration::from_micros(50)).await;
            self.turn(&[]);
        }
    }
}

/// Keys as `redis-benchmark` makes them: their first eight bytes are alike.
fn key(n: usize) -> Vec<u8> {
    format!("key:{n:012}").into_bytes()
}

fn by_redis(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn by_us(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(7, 0, &mut bytes).expect("it is short");
    bytes
}

fn get_by_us(key: &[u8]) -> Vec<u8> {
    by_us(&Request::Get {
        keyspace: KEYSPACE_DEFAULT,
        read: ReadOptions::default(),
        key,
    })
}

fn put_by_us(key: &[u8]) -> Vec<u8> {
    let op = WriteOp::Put {
        key,
        value: &VALUE,
        ttl: Ttl::Default,
        condition: Condition::None,
    };
    by_us(&Request::Write {
        keyspace: KEYSPACE_DEFAULT,
        options: WriteOptions::default(),
        op,
    })
}

struct Case {
    name: &'static str,
    by_redis: bool,
    writes: bool,
    request: fn(&[u8]) -> Vec<u8>,
}

const CASES: [Case; 4] = [
    Case {
        name: "get",
        by_redis: false,
        writes: false,
        request: get_by_us,
    },
    Case {
        name: "resp-get",
        by_redis: true,
        writes: false,
        request: |key| by_redis(&[b"GET", key]),
    },
    Case {
        name: "put",
        by_redis: false,
        writes: true,
        request: put_by_us,
    },
    Case {
        name: "resp-set",
        by_redis: true,
        writes: true,
        request: |key| by_redis(&[b"SET", key, &VALUE]),
    },
];

/// Nanoseconds a request of each round.
async fn measure(core: &mut Core, case: &Case, rounds: usize) -> Vec<f64> {
    core.connect(case.by_redis);
    let mut random = 1_u64;
    let mut draw = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % KEYS
    };
    // How long an answer is tells when all have come.
    let before = core.answered;
    core.turn(&[(case.request)(&key(0))]);
    core.answer(before, 1).await;
    let answer = core.answered - before;
    let mut times = Vec::with_capacity(rounds);
    let turns = if case.writes { WRITE_TURNS } else { READ_TURNS };
    // The first round shows the sketch of hot keys how much comes, so that it samples as it does in a server.
    for round in 0..=rounds {
        let inputs: Vec<Vec<Vec<u8>>> = (0..turns)
            .map(|_| {
                let input = |_| {
                    (0..DEPTH)
                        .flat_map(|_| (case.request)(&key(draw())))
                        .collect()
                };
                (0..CONNECTIONS).map(input).collect()
            })
            .collect();
        let begun = Instant::now();
        for inputs in &inputs {
            let before = core.answered;
            core.turn(inputs);
            core.answer(before, answer * CONNECTIONS * DEPTH).await;
        }
        let requests = turns * CONNECTIONS * DEPTH;
        let took = begun.elapsed().as_nanos() as f64 / requests as f64;
        if round == 0 {
            core.env.sleep(Duration::from_secs(1)).await;
            core.turn(&[]);
        } else {
            times.push(took);
        }
    }
    for key in std::mem::take(&mut core.sessions) {
        core.shard.closed(key);
    }
    times.sort_unstable_by(f64::total_cmp);
    times
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let rounds = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(20);
    let only = arguments.get(1).cloned();
    sim::run(1, SimOptions::default(), |env| async move {
        let mut core = Core::open(env).await;
        core.connect(true);
        for n in 0..KEYS {
            let before = core.answered;
            let input = by_redis(&[b"SET", &key(n), &VALUE]);
            core.turn(&[input]);
            core.answer(before, 5).await;
        }
        for case in &CASES {
            if only.as_ref().is_some_and(|only| only != case.name) {
                continue;
            }
            let times = measure(&mut core, case, rounds).await;
            let (least, median) = (times[0], times[times.len() / 2]);
            println!(
                "{:<9} {least:>7.1} ns least {median:>7.1} ns median",
                case.name
            );
        }
    });
}
