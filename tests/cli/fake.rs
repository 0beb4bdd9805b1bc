//! A server that gives prepared answers: what a real one says only on its worst days.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{
    ErrorCode, ErrorReply, Keyspace, KeyspaceOptions, Limits, MemberStatus, Meta, NodeStatus,
    ReplicaStatus, Request, Response, Role, Token, Topology, WriteOp,
};

pub const TOKEN: Token = Token {
    partition: 0,
    term: 1,
    index: 7,
};
const META: Meta = Meta {
    version: 7,
    updated_ms: 1_700_000_000_123,
    created_ms: 1_600_000_000_000,
    expires_ms: 0,
};

/// Starts it; it serves until the test process ends.
///
/// The key decides the answer: `missing` is not there, `taken` fails conditions, `doubt`, `full` and
/// `words` are errors; any other has the value `value of KEY`.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    addr
}

fn serve(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        match frame::peek(&bytes, ringbolt_wire::FRAME_BYTES_MAX).unwrap() {
            Peek::Frame { len } => {
                let view = frame::open(&bytes[..len]).unwrap();
                let mut out = Vec::new();
                let request = Request::decode(&view).unwrap();
                answer(&request, |response| {
                    response.encode(view.request_id, &mut out)
                });
                if stream.write_all(&out).is_err() {
                    return;
                }
                bytes.drain(..len);
            }
            _ => match stream.read(&mut chunk) {
                Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
                Ok(0) | Err(_) => return,
            },
        }
    }
}

fn answer(request: &Request<'_>, mut reply: impl FnMut(Response<'_>)) {
    let error = |code, retry_after_ms, detail, message| {
        Response::Error(ErrorReply {
            code,
            retry_after_ms,
            detail,
            message,
        })
    };
    match request {
        Request::Hello { .. } => reply(welcome()),
        Request::Get {
            key: b"missing", ..
        }
        | Request::Stat {
            key: b"missing", ..
        } => {
            reply(Response::NotFound { token: TOKEN });
        }
        Request::Get { key, .. } => reply(Response::Value {
            token: TOKEN,
            meta: META,
            value: &value_of(key),
        }),
        Request::Stat { .. } => reply(Response::Stat {
            token: TOKEN,
            meta: META,
            value_bytes: 5,
        }),
        Request::MultiGet { keys, .. } => {
            let values: Vec<_> = keys.iter().map(value_of).collect();
            let values = keys
                .iter()
                .zip(&values)
                .map(|(key, value)| (key != b"missing").then_some((META, &value[..])))
                .collect();
            reply(Response::Values {
                tokens: vec![TOKEN],
                values,
            });
        }
        Request::Write { op, .. } => match (op.key(), op) {
            (b"taken", _) => reply(error(ErrorCode::ConditionFailed, 0, 7, "it exists")),
            (b"doubt", _) => reply(error(ErrorCode::InDoubt, 0, 0, "the shard stopped")),
            (b"full", _) => reply(error(ErrorCode::NoSpace, 0, 0, "the disk is full")),
            (b"words", _) => reply(error(ErrorCode::NotANumber, 0, 0, "it is no number")),
            (b"missing", WriteOp::Touch { .. }) => reply(Response::NotFound { token: TOKEN }),
            (_, WriteOp::Increment { by, .. }) => reply(Response::Counter {
                token: TOKEN,
                value: 40 + by,
            }),
            _ => reply(Response::Written {
                token: TOKEN,
                existed: None,
            }),
        },
        Request::Clear { .. } => reply(Response::Written {
            token: TOKEN,
            existed: None,
        }),
        Request::Batch { ops, .. } => {
            let counters = ops.iter().map(|op| match op {
                WriteOp::Increment { by, .. } => Some(40 + by),
                _ => None,
            });
            reply(Response::BatchWritten {
                token: TOKEN,
                counters: counters.collect(),
            });
        }
        Request::Scan(scan) => {
            let keys: [&[u8]; 3] = [b"a", b"b\xff", b"c"];
            let big = vec![b'x'; 1 << 20];
            let value = match (scan.keys_only, scan.prefix) {
                (true, _) => b"",
                (false, b"big") => &big[..],
                (false, _) => b"1\t2",
            };
            let limit = if scan.limit == 0 {
                3
            } else {
                scan.limit as usize
            };
            let rows = keys.iter().take(limit).map(|key| (*key, META, value));
            reply(Response::Rows {
                tokens: vec![TOKEN],
                rows: rows.collect(),
                cursor: b"",
            });
        }
        Request::Status => {
            let member = |node: u64, stored, alive| MemberStatus {
                replica: node << 32 | 1,
                stored,
                alive,
                votes: true,
            };
            reply(Response::Status(NodeStatus {
                here: 1,
                wall_ms: 1_700_000_000_000,
                replicas: vec![ReplicaStatus {
                    partition: 0,
                    role: Role::Leader,
                    leader: 1,
                    term: 4,
                    last: 12,
                    commit: 12,
                    applied: 11,
                    elections: 2,
                    members: vec![member(1, 12, true), member(2, 9, false)],
                }],
            }));
        }
        Request::Stats => reply(Response::Stats(vec![
            ("connections".into(), 1),
            ("requests_total".into(), 12),
        ])),
        Request::KeyspaceCreate { name, options } => {
            reply(Response::Keyspaces(vec![Keyspace {
                id: 3,
                name: (*name).to_string(),
                options: *options,
            }]));
        }
        Request::KeyspaceList => reply(Response::Keyspaces(vec![
            Keyspace {
                id: 0,
                name: "default".into(),
                options: KeyspaceOptions::default(),
            },
            Keyspace {
                id: 3,
                name: "sessions".into(),
                options: KeyspaceOptions {
                    default_ttl_ms: 5000,
                },
            },
        ])),
        Request::Topology => reply(Response::Topology(topology())),
        Request::Prefer { .. }
        | Request::Drain { .. }
        | Request::Ping
        | Request::KeyspaceDrop { .. } => reply(Response::Done),
    }
}

fn value_of(key: &[u8]) -> Vec<u8> {
    match key {
        b"bytes" => b"\xff\x00".to_vec(),
        key => [b"value of ", key].concat(),
    }
}

fn topology() -> Topology {
    Topology::alone("fake", 1, 1)
}

fn welcome() -> Response<'static> {
    Response::Welcome {
        version: ringbolt_wire::VERSION.into(),
        core: 0,
        server: "fake",
        limits: Limits {
            key_bytes_max: ringbolt_wire::KEY_BYTES_MAX,
            value_bytes_max: ringbolt_wire::VALUE_BYTES_MAX,
            frame_bytes_max: ringbolt_wire::FRAME_BYTES_MAX,
            inflight_requests_max: 100,
            scan_rows_max: 100,
        },
        topology: topology(),
    }
}
