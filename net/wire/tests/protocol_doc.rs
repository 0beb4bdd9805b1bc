//! Replays the examples of `docs/protocol.md`: what encodes gives the bytes that the document
//! shows, and those bytes decode to what it says.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::list::{KeysBuf, TokensBuf, WriteOpsBuf};
use ringbolt_wire::message::*;
use ringbolt_wire::peer::{self, *};
use ringbolt_wire::{FRAME_BYTES_MAX, WireError, partition_of, slot};

const TIME_MS: u64 = 1_795_000_000_000;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    std::fs::read_to_string(path).unwrap()
}

/// The bytes of each example of a kind (`request`, `response`, `peer`, `fatal`, `refused`), by name.
fn examples(wanted: &str) -> BTreeMap<String, Vec<u8>> {
    let document = document();
    let mut found = BTreeMap::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(title) = line.strip_prefix("```hex ") else {
            continue;
        };
        let (kind, name) = title.split_once(' ').unwrap();
        let bytes: Vec<u8> = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .flat_map(|line| line.split('#').next().unwrap().split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        if kind == wanted {
            assert!(
                found.insert(name.to_owned(), bytes).is_none(),
                "{name} comes twice"
            );
        }
    }
    assert!(!found.is_empty());
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn token(partition: u16, index: u64) -> Token {
    Token {
        partition,
        term: 1,
        index,
    }
}

#[test]
fn requests_are_as_documented() {
    let mut examples = examples("request");
    let mut check = |name: &str, request_id: u64, deadline_ms: u32, request: Request<'_>| {
        let bytes = examples
            .remove(name)
            .unwrap_or_else(|| panic!("no example of {name}"));
        let mut out = Vec::new();
        request.encode(request_id, deadline_ms, &mut out).unwrap();
        assert_eq!(hex(&out), hex(&bytes), "{name}");
        let view = frame::open(&bytes).unwrap();
        assert_eq!(
            (view.request_id, view.deadline_ms),
            (request_id, deadline_ms)
        );
        assert_eq!(Request::decode(&view), Ok(request), "{name}");
    };
    let level = |level| ReadOptions {
        level,
        ..ReadOptions::default()
    };
    let options = |ack, sequence| WriteOptions {
        ack,
        client: 0x1122_3344_5566_7788,
        sequence,
        retry: false,
    };
    let key = &b"user:1"[..];

    check("ping", 7, 5000, Request::Ping);
    let hello = Request::Hello {
        version_min: 1,
        version_max: 1,
        core: Some(1),
        agent: b"my-client/1",
    };
    check("hello", 1, 0, hello);
    check("topology", 2, 0, Request::Topology);
    check("stats", 3, 0, Request::Stats);
    check("status", 20, 0, Request::Status);
    let prefer = Request::Prefer {
        partition: 84,
        node: 2,
    };
    check("prefer", 21, 0, prefer);
    let drain = Request::Drain {
        node: 2,
        undo: false,
    };
    check("drain", 22, 0, drain);
    let get = Request::Get {
        keyspace: 0,
        read: level(ReadLevel::Linearizable),
        key,
    };
    check("get", 4, 1000, get);
    let tokens: TokensBuf = [token(84, 42)].into_iter().collect();
    let get = Request::Get {
        keyspace: 0,
        read: ReadOptions {
            level: ReadLevel::Session,
            tokens: tokens.as_tokens(),
        },
        key,
    };
    check("get-session", 5, 1000, get);
    let stat = Request::Stat {
        keyspace: 7,
        read: level(ReadLevel::Strict),
        key,
    };
    check("stat", 6, 0, stat);
    let mut keys = KeysBuf::new();
    keys.push(key).unwrap();
    keys.push(b"user:2").unwrap();
    let multi_get = Request::MultiGet {
        keyspace: 0,
        read: level(ReadLevel::Stale { max_age_ms: 10_000 }),
        keys: keys.as_keys(),
    };
    check("multiget", 8, 0, multi_get);
    let scan = Request::Scan(Scan {
        keyspace: 0,
        read: level(ReadLevel::Linearizable),
        prefix: b"user:",
        start: key,
        end: b"",
        reverse: true,
        keys_only: false,
        limit: 100,
        cursor: b"",
    });
    check("scan", 9, 2000, scan);

    let mut write = |name, request_id, options, op| {
        let request = Request::Write {
            keyspace: 0,
            options,
            op,
        };
        check(name, request_id, 0, request);
    };
    let put = WriteOp::Put {
        key,
        value: b"Ada",
        ttl: Ttl::AfterMs(3_600_000),
        condition: Condition::Version(41),
    };
    write("put", 10, options(Ack::Quorum, 5), put);
    let repeat = WriteOptions {
        retry: true,
        ..options(Ack::Quorum, 5)
    };
    write("put-again", 18, repeat, put);
    let delete = WriteOp::Delete {
        key,
        condition: Condition::None,
    };
    write("delete", 11, options(Ack::Quorum, 6), delete);
    let increment = WriteOp::Increment {
        key: b"hits",
        by: -2,
        ttl: Ttl::Keep,
        condition: Condition::None,
    };
    write("increment", 12, options(Ack::Leader, 7), increment);
    let touch = WriteOp::Touch {
        key,
        ttl: Ttl::AtMs(TIME_MS),
        condition: Condition::Present,
    };
    write("touch", 13, options(Ack::Count(2), 8), touch);
    let mut ops = WriteOpsBuf::new();
    ops.push(&WriteOp::Put {
        key: b"{u1}name",
        value: b"Ada",
        ttl: Ttl::Never,
        condition: Condition::Absent,
    })
    .unwrap();
    ops.push(&WriteOp::Increment {
        key: b"{u1}logins",
        by: 1,
        ttl: Ttl::Default,
        condition: Condition::None,
    })
    .unwrap();
    let batch = Request::Batch {
        keyspace: 0,
        options: options(Ack::All, 9),
        ops: ops.as_ops(),
    };
    check("batch", 14, 0, batch);
    let clear = Request::Clear {
        keyspace: 7,
        partition: 9,
    };
    check("clear", 21, 0, clear);
    let create = Request::KeyspaceCreate {
        name: "sessions",
        options: KeyspaceOptions {
            default_ttl_ms: 86_400_000,
        },
    };
    check("keyspace-create", 15, 0, create);
    check(
        "keyspace-drop",
        16,
        0,
        Request::KeyspaceDrop { name: "sessions" },
    );
    check("keyspace-list", 17, 0, Request::KeyspaceList);

    assert!(examples.is_empty(), "not replayed: {:?}", examples.keys());
}

#[test]
fn responses_are_as_documented() {
    let mut examples = examples("response");
    let mut check = |name: &str, request_id: u64, response: Response<'_>| {
        let bytes = examples
            .remove(name)
            .unwrap_or_else(|| panic!("no example of {name}"));
        let mut out = Vec::new();
        response.encode(request_id, &mut out);
        assert_eq!(hex(&out), hex(&bytes), "{name}");
        let view = frame::open(&bytes).unwrap();
        assert_eq!((view.request_id, view.deadline_ms), (request_id, 0));
        assert_eq!(Response::decode(&view), Ok(response), "{name}");
    };
    let node = |id, name: &str, address: &str, zone: &str| NodeInfo {
        id,
        name: name.to_owned(),
        address: address.to_owned(),
        cores: 2,
        zone: zone.to_owned(),
    };
    let topology = Topology {
        cluster: 0x0102_0304_0506_0708,
        version: 9,
        here: 2,
        nodes: vec![
            node(1, "a", "10.0.0.1:7400", "east"),
            node(2, "b", "10.0.0.2:7400", "west"),
        ],
        replicas: vec![
            Replicas {
                leader: 1,
                nodes: vec![1, 2],
            },
            Replicas {
                leader: 0,
                nodes: vec![2],
            },
        ],
    };
    let meta = Meta {
        version: 42,
        updated_ms: TIME_MS,
        created_ms: 0,
        expires_ms: TIME_MS + 3_600_000,
    };
    let overloaded = ErrorReply {
        code: ErrorCode::Overloaded,
        retry_after_ms: 20,
        detail: 0,
        message: "too many requests in flight; try again in 20 ms",
    };

    check("error", 10, Response::Error(overloaded));
    let not_leader = ErrorReply {
        code: ErrorCode::NotLeader,
        retry_after_ms: 0,
        detail: 2,
        message: "node 2 leads partition 84",
    };
    check("not-leader", 10, Response::Error(not_leader));
    let welcome = Response::Welcome {
        version: 1,
        core: 1,
        server: "ringbolt 0.1.0",
        limits: Limits {
            key_bytes_max: 65_536,
            value_bytes_max: 1 << 20,
            frame_bytes_max: (1 << 20) + 131_072,
            inflight_requests_max: 1024,
            scan_rows_max: 10_000,
        },
        topology: Topology::alone("node-1", 2, 2),
    };
    check("welcome", 1, welcome);
    check("done", 7, Response::Done);
    check("topology", 2, Response::Topology(topology));
    let stats = vec![("gets".to_owned(), 1000), ("puts".to_owned(), 70)];
    check("stats", 3, Response::Stats(stats));
    let member = |node: u64, generation, stored, alive| MemberStatus {
        replica: node << 32 | generation,
        stored,
        alive,
        votes: alive,
    };
    let status = NodeStatus {
        here: 1,
        wall_ms: 1_700_000_000_000,
        replicas: vec![ReplicaStatus {
            partition: 84,
            role: Role::Leader,
            leader: 1,
            term: 7,
            last: 42,
            commit: 42,
            applied: 41,
            elections: 2,
            members: vec![member(1, 1, 42, true), member(2, 2, 40, false)],
        }],
    };
    check("status", 20, Response::Status(status));
    let token_84 = token(84, 42);
    check("not-found", 5, Response::NotFound { token: token_84 });
    let value = Response::Value {
        token: token_84,
        meta,
        value: b"Ada",
    };
    check("value", 4, value);
    let stat = Response::Stat {
        token: token_84,
        meta: Meta {
            created_ms: TIME_MS - 5000,
            expires_ms: 0,
            ..meta
        },
        value_bytes: 3,
    };
    check("stat", 6, stat);
    let values = Response::Values {
        tokens: vec![token_84, token(52, 7)],
        values: vec![Some((meta, b"Ada")), None],
    };
    check("values", 8, values);
    let rows = Response::Rows {
        tokens: vec![token_84],
        rows: vec![(b"user:1", meta, b"Ada")],
        cursor: b"\xc0\x01\x02\x03",
    };
    check("rows", 9, rows);
    let written = Response::Written {
        token: token(84, 43),
        existed: Some(true),
    };
    check("written", 10, written);
    let counter = Response::Counter {
        token: token(39, 9),
        value: -2,
    };
    check("counter", 12, counter);
    let batch = Response::BatchWritten {
        token: token(35, 100),
        counters: vec![None, Some(1)],
    };
    check("batch-written", 14, batch);
    let keyspace = |id, name: &str, default_ttl_ms| Keyspace {
        id,
        name: name.to_owned(),
        options: KeyspaceOptions { default_ttl_ms },
    };
    let keyspaces = vec![
        keyspace(0, "default", 0),
        keyspace(1, "sessions", 86_400_000),
    ];
    check("keyspaces", 17, Response::Keyspaces(keyspaces));

    assert!(examples.is_empty(), "not replayed: {:?}", examples.keys());
}

#[test]
fn nodes_talk_as_documented() {
    let mut examples = examples("peer");
    let mut take = |name: &str| {
        examples
            .remove(name)
            .unwrap_or_else(|| panic!("no example of {name}"))
    };
    let replica = |node: u64, generation: u64| node << 32 | generation;
    let (leader, follower) = (replica(2, 1), replica(3, 4));

    let bytes = take("hello");
    let hello = PeerHello {
        version: PEER_VERSION,
        cluster: 0x1122_3344_5566_7788,
        from_node: 2,
        from_core: 1,
        boot: 12,
        start: 0xabcd,
        to_node: 3,
        to_core: 0,
    };
    let mut out = Vec::new();
    hello.encode(1, &mut out).unwrap();
    assert_eq!(hex(&out), hex(&bytes));
    let view = frame::open(&bytes).unwrap();
    assert_eq!(PeerHello::decode(&view), Ok(hello));

    let bytes = take("welcome");
    let welcome = PeerWelcome {
        boot: 9,
        start: 0xef01,
        cores: 2,
        batch_bytes_max: peer::BATCH_BYTES_MAX,
    };
    let mut out = Vec::new();
    welcome.encode(1, &mut out);
    assert_eq!(hex(&out), hex(&bytes));
    let view = frame::open(&bytes).unwrap();
    assert_eq!(PeerWelcome::decode(&view), Ok(welcome));

    let claim = Claim {
        name: "c",
        folder: "5f",
    };
    for (name, claim) in [("introduce", None), ("introduce-again", Some(claim))] {
        let bytes = take(name);
        let mut out = Vec::new();
        peer::encode_introduce(1, claim, &mut out).unwrap();
        assert_eq!(hex(&out), hex(&bytes));
        let view = frame::open(&bytes).unwrap();
        assert_eq!(peer::decode_introduce(&view), Ok((PEER_VERSION, claim)));
    }

    let bytes = take("introduced");
    let mut out = Vec::new();
    peer::encode_introduced(1, &[1, 2, 3], &mut out).unwrap();
    assert_eq!(hex(&out), hex(&bytes));
    let view = frame::open(&bytes).unwrap();
    assert_eq!(peer::decode_introduced(&view), Ok(&[1, 2, 3][..]));

    // Items, and what follows them that this version does not know.
    let mut check = |name: &str, items: &[PeerItem<'_>], unknown: &[u8]| {
        let bytes = take(name);
        let mut out = Vec::new();
        let start = peer::begin_batch(&mut out);
        for item in items {
            item.encode(&mut out).unwrap();
        }
        out.extend_from_slice(unknown);
        peer::finish_batch(&mut out, start).unwrap();
        assert_eq!(hex(&out), hex(&bytes), "{name}");
        let view = frame::open(&bytes).unwrap();
        let found: Result<Vec<PeerItem<'_>>, WireError> = peer::items(&view).unwrap().collect();
        assert_eq!(found.unwrap(), items, "{name}");
    };
    let message = RaftMessage {
        from: leader,
        to: follower,
        term: 7,
        ..RaftMessage::default()
    };
    let append = RaftMessage {
        kind: raft_kind::APPEND,
        log_term: 6,
        index: 41,
        commit: 40,
        ..message
    };
    let entry = RaftEntry {
        kind: 0,
        term: 7,
        index: 42,
        data: b"abc",
    };
    let mut batch = Vec::new();
    let start = peer::begin_batch(&mut batch);
    peer::encode_raft(&mut batch, 39, &append, [entry]).unwrap();
    peer::finish_batch(&mut batch, start).unwrap();
    let view = frame::open(&batch).unwrap();
    let item = peer::items(&view).unwrap().next().unwrap().unwrap();
    let PeerItem::Raft { entries, .. } = item else {
        panic!("{item:?}");
    };
    assert!(entries.iter().eq([entry]));
    check("append", &[item], &[]);
    let snapshot = PeerItem::Raft {
        partition: 39,
        message: RaftMessage {
            kind: raft_kind::SNAPSHOT,
            snapshot: Some(RaftSnapshot {
                index: 41,
                term: 6,
                time_ms: TIME_MS,
                membership: b"who votes",
            }),
            ..message
        },
        entries: RaftEntries::default(),
    };
    check("snapshot", &[snapshot], &[]);

    let mut ping = Vec::new();
    Request::Ping.encode(7, 5000, &mut ping).unwrap();
    let forward = PeerItem::Forward {
        id: 5,
        deadline_ms: 4950,
        reach: Reach::Whole,
        frame: &ping,
    };
    check("forward", &[forward], &[200, 2, 0, 0, 0, 1, 2]);
    let mut done = Vec::new();
    Response::Done.encode(7, &mut done);
    let reply = PeerItem::ForwardReply {
        id: 5,
        frame: &done,
    };
    check("forward-reply", &[reply], &[]);
    let chunk = PeerItem::SnapshotChunk(SnapshotChunk {
        partition: 39,
        from: leader,
        to: follower,
        snapshot: 8,
        sequence: 1,
        last: true,
        bytes: b"rows",
    });
    let ack = PeerItem::SnapshotAck(SnapshotAck {
        partition: 39,
        from: follower,
        to: leader,
        snapshot: 8,
        sequence: 1,
        outcome: 2,
    });
    check("snapshot-chunk", &[chunk, ack], &[]);
    let state = PeerItem::NodeState(NodeState {
        drains: true,
        is_full: false,
    });
    let map = PeerItem::Map {
        version: 3,
        bytes: b"map",
    };
    check("node-state", &[state, map], &[]);
    let sleep = PeerItem::Sleep(Sleep {
        partition: 39,
        from: leader,
        to: follower,
        term: 7,
        index: 41,
        word: SleepWord::Ask,
    });
    let pulse = PeerItem::Pulse(Pulse {
        first: 32,
        bits: &[0b1000_0001, 1],
    });
    check("sleep", &[sleep, pulse], &[]);
    let clock = PeerItem::Clock {
        wall_ms: 1_700_000_000_000,
    };
    check("clock", &[clock], &[]);

    assert!(examples.is_empty(), "not replayed: {:?}", examples.keys());
}

#[test]
fn bad_frames_end_the_connection_as_documented() {
    let codes = [
        ("crc", ErrorCode::BadRequest),
        ("http", ErrorCode::Unsupported),
        ("too-short", ErrorCode::BadRequest),
        ("version", ErrorCode::Unsupported),
    ];
    let examples = examples("fatal");
    assert!(examples.keys().eq(codes.iter().map(|(name, _)| name)));
    for (name, code) in codes {
        let bytes = &examples[name];
        let error = match frame::peek(bytes, FRAME_BYTES_MAX) {
            Ok(Peek::Frame { len }) => frame::open(&bytes[..len]).unwrap_err(),
            Ok(other) => panic!("{name}: {other:?}"),
            Err(error) => error,
        };
        assert!(error.is_fatal(), "{name}");
        assert_eq!(error.code(), code, "{name}");
    }
}

#[test]
fn bad_bodies_are_refused_as_documented() {
    let codes = [
        ("empty-key", ErrorCode::BadRequest),
        ("left-over", ErrorCode::BadRequest),
        ("unknown-kind", ErrorCode::Unsupported),
    ];
    let examples = examples("refused");
    assert!(examples.keys().eq(codes.iter().map(|(name, _)| name)));
    for (name, code) in codes {
        let view = frame::open(&examples[name]).unwrap();
        let error: WireError = Request::decode(&view).unwrap_err();
        assert!(!error.is_fatal(), "{name}");
        assert_eq!(error.code(), code, "{name}");
    }
}

#[test]
fn slots_are_as_documented() {
    let document = document();
    let (_, table) = document.split_once("| key | tag | slot |").unwrap();
    let mut rows = 0;
    for row in table.lines().skip(2).take_while(|row| !row.is_empty()) {
        let cells: Vec<&str> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let key = cells[1].as_bytes();
        assert_eq!(slot(key).to_string(), cells[3], "{row}");
        assert_eq!(partition_of(key, 128).to_string(), cells[4], "{row}");
        rows += 1;
    }
    assert!(rows >= 5);
}

#[test]
fn error_codes_are_as_documented() {
    let document = document();
    for &code in ErrorCode::ALL {
        let row = format!("| {:#06x} | {code:?} | ", code as u16);
        assert!(document.contains(&row), "{row}");
    }
}
