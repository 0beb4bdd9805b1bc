use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::{self, FrameView, HEADER_BYTES, Peek};
use crate::list::{KeysBuf, TokensBuf, WriteOpsBuf};
use crate::message::*;
use crate::{FRAME_BYTES_MAX, Kind, SKIP_BYTES_MAX, WireError};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn whole(bytes: &[u8]) -> FrameView<'_> {
    assert_eq!(
        frame::peek(bytes, FRAME_BYTES_MAX),
        Ok(Peek::Frame { len: bytes.len() })
    );
    frame::open(bytes).unwrap()
}

/// Wraps a body in a valid frame.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = frame::begin(&mut out, kind, 9, 0);
    out.extend_from_slice(body);
    frame::finish(&mut out, start).unwrap();
    out
}

// ---- Frames ----

#[test]
fn a_ping_is_these_bytes() {
    let mut out = Vec::new();
    Request::Ping.encode(7, 5000, &mut out).unwrap();
    assert_eq!(
        hex(&out),
        "1800000020acfa2301020000881300000700000000000000"
    );
    let view = whole(&out);
    assert_eq!((view.request_id, view.deadline_ms), (7, 5000));
    assert_eq!(Request::decode(&view), Ok(Request::Ping));
}

#[test]
fn what_a_get_asks_for_is_guessed_from_its_bytes() {
    let mut tokens = TokensBuf::new();
    tokens.push(Token {
        partition: 1,
        term: 2,
        index: 3,
    });
    for tokens in [Tokens::default(), tokens.as_tokens()] {
        let level = ReadLevel::Session;
        let request = Request::Get {
            keyspace: 70_000,
            read: ReadOptions { level, tokens },
            key: b"a key",
        };
        let mut out = Vec::new();
        request.encode(7, 0, &mut out).unwrap();
        assert_eq!(Request::guess_get(&out), Some((70_000, &b"a key"[..])));
        for short in 0..out.len() {
            // What is cut off is never verified, nor read beyond its end.
            let guess = Request::guess_get(&out[..short]);
            assert!(guess.is_none_or(|(_, key)| key.len() == 5), "{short}");
        }
    }
    let ping = framed(Kind::Ping as u8, &[0; 40]);
    assert_eq!(Request::guess_get(&ping), None);
    let longer_than_it_is = framed(Kind::Get as u8, &[&[0; 12][..], &[255; 4], b"key"].concat());
    assert_eq!(Request::guess_get(&longer_than_it_is), None);
}

#[test]
fn peek_asks_for_what_is_missing() {
    let frame = framed(Kind::Ping as u8, b"12345");
    for have in 0..4 {
        assert_eq!(
            frame::peek(&frame[..have], 100),
            Ok(Peek::Incomplete { need: HEADER_BYTES })
        );
    }
    for have in 4..29 {
        assert_eq!(
            frame::peek(&frame[..have], 100),
            Ok(Peek::Incomplete { need: 29 })
        );
    }
    let two = [frame.clone(), frame].concat();
    assert_eq!(frame::peek(&two, 100), Ok(Peek::Frame { len: 29 }));
}

#[test]
fn peek_believes_no_length_beyond_the_limit() {
    let mut frame = framed(Kind::Ping as u8, &[0; 100]);
    assert_eq!(
        frame::peek(&frame[..10], 100),
        Ok(Peek::Incomplete { need: HEADER_BYTES })
    );
    assert_eq!(
        frame::peek(&frame[..24], 100),
        Ok(Peek::Oversized {
            len: 124,
            request_id: 9
        })
    );
    frame[..4].copy_from_slice(&(SKIP_BYTES_MAX + 1).to_le_bytes());
    assert_eq!(
        frame::peek(&frame[..4], 100),
        Err(WireError::TooLong {
            length: SKIP_BYTES_MAX + 1,
            limit: 100
        })
    );
    frame[..4].copy_from_slice(&23u32.to_le_bytes());
    assert_eq!(
        frame::peek(&frame, 100),
        Err(WireError::TooShort { length: 23 })
    );
    frame[8] = 2;
    assert_eq!(
        frame::peek(&frame, 100),
        Err(WireError::Version { found: 2 })
    );
}

#[test]
fn open_finds_every_flipped_bit() {
    let mut frame = framed(Kind::Get as u8, b"some body");
    for bit in 0..frame.len() * 8 {
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(frame::open(&frame).unwrap_err().is_fatal(), "bit {bit}");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(frame::open(&frame).is_ok());
    assert!(frame::open(&frame[..frame.len() - 1]).is_err());
    assert!(frame::open(&frame[..10]).is_err());
}

// ---- Bodies that must be refused, with the connection going on ----

fn refused_request(kind: Kind, body: &[u8]) -> WireError {
    let frame = framed(kind as u8, body);
    let error = Request::decode(&whole(&frame)).unwrap_err();
    assert!(!error.is_fatal());
    error
}

#[test]
fn unknown_kinds_and_flags_are_unsupported() {
    for kind in [0x00, 0x08, 0x7f, 0x80, 0x91, 0xff] {
        let frame = framed(kind, b"");
        assert_eq!(
            Request::decode(&whole(&frame)).unwrap_err().code(),
            ErrorCode::Unsupported
        );
    }
    let view = FrameView {
        kind: Kind::Ping as u8,
        flags: 1,
        request_id: 0,
        deadline_ms: 0,
        body: b"",
    };
    assert_eq!(
        Request::decode(&view),
        Err(WireError::UnknownFlags { flags: 1 })
    );
}

#[test]
fn a_key_over_the_limit_is_too_large() {
    let mut body = vec![0; 12];
    body.extend_from_slice(&65_537u32.to_le_bytes());
    body.extend_from_slice(&vec![b'k'; 65_537]);
    assert_eq!(
        refused_request(Kind::Get, &body).code(),
        ErrorCode::TooLarge
    );
    let mut out = b"before".to_vec();
    let request = Request::Get {
        keyspace: 0,
        read: ReadOptions::default(),
        key: &body[16..],
    };
    assert!(request.encode(1, 0, &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn every_body_cut_short_or_too_long_is_malformed() {
    for message in requests() {
        let Ok(body) = message.0 else { continue };
        for length in 0..body.len() {
            refused_request(message.1, &body[..length]);
        }
        let longer = [&body[..], b"\0"].concat();
        refused_request(message.1, &longer);
    }
}

/// A body of each kind of request.
fn requests() -> Vec<(Result<Vec<u8>, WireError>, Kind)> {
    let tokens: TokensBuf = [Token {
        partition: 1,
        term: 2,
        index: 3,
    }]
    .into_iter()
    .collect();
    let read = ReadOptions {
        level: ReadLevel::Session,
        tokens: tokens.as_tokens(),
    };
    let mut keys = KeysBuf::new();
    keys.push(b"a").unwrap();
    keys.push(b"bc").unwrap();
    let put = WriteOp::Put {
        key: b"key",
        value: b"value",
        ttl: Ttl::AfterMs(5),
        condition: Condition::Version(6),
    };
    let mut ops = WriteOpsBuf::new();
    ops.push(&put).unwrap();
    ops.push(&WriteOp::Delete {
        key: b"other",
        condition: Condition::Present,
    })
    .unwrap();
    let options = WriteOptions::default();
    let keyspace = 1;
    [
        Request::Hello {
            version_min: 1,
            version_max: 1,
            core: None,
            agent: b"test",
        },
        Request::Get {
            keyspace,
            read,
            key: b"key",
        },
        Request::MultiGet {
            keyspace,
            read,
            keys: keys.as_keys(),
        },
        Request::Write {
            keyspace,
            options,
            op: put,
        },
        Request::Batch {
            keyspace,
            options,
            ops: ops.as_ops(),
        },
        Request::Scan(Scan {
            keyspace,
            read,
            prefix: b"p",
            start: b"st",
            end: b"end",
            reverse: true,
            keys_only: true,
            limit: 3,
            cursor: b"cursor",
        }),
        Request::KeyspaceCreate {
            name: "users",
            options: KeyspaceOptions { default_ttl_ms: 1 },
        },
        Request::KeyspaceDrop { name: "users" },
        Request::KeyspaceList,
    ]
    .iter()
    .map(|request| {
        let mut out = Vec::new();
        let encoded = request.encode(0, 0, &mut out);
        (
            encoded.map(|()| out.split_off(HEADER_BYTES)),
            request.kind(),
        )
    })
    .collect()
}

#[test]
fn reserved_bytes_must_be_zero() {
    let mut body = vec![0; 12];
    body.extend_from_slice(&1u32.to_le_bytes());
    body.push(b'k');
    body[5] = 1;
    assert_eq!(
        refused_request(Kind::Get, &body).code(),
        ErrorCode::BadRequest
    );
    body[5] = 0;
    assert!(Request::decode(&whole(&framed(Kind::Get as u8, &body))).is_ok());
}

#[test]
fn a_repeat_has_an_identity() {
    let mut body = Vec::new();
    for (client, sequence, sound) in [(1, 1, true), (0, 1, false), (1, 0, false)] {
        let request = Request::Write {
            keyspace: 0,
            options: WriteOptions {
                client,
                sequence,
                retry: true,
                ..WriteOptions::default()
            },
            op: WriteOp::Delete {
                key: b"k",
                condition: Condition::None,
            },
        };
        let mut out = Vec::new();
        assert_eq!(request.encode(1, 0, &mut out).is_ok(), sound);
        if sound {
            body = out.split_off(HEADER_BYTES);
        }
    }
    // Another value of the byte, and an identity taken away.
    for (at, byte) in [(6, 2), (8, 0), (16, 0)] {
        let mut body = body.clone();
        body[at] = byte;
        refused_request(Kind::Write, &body);
    }
}

#[test]
fn a_topology_that_contradicts_itself_is_refused() {
    let sound = Topology {
        nodes: [1, 3]
            .map(|id| NodeInfo {
                id,
                ..Topology::alone("n", 2, 1).nodes[0].clone()
            })
            .to_vec(),
        replicas: vec![
            Replicas {
                leader: 3,
                nodes: vec![1, 3],
            };
            4
        ],
        ..Topology::alone("n", 2, 1)
    };
    let decodes = |change: &dyn Fn(&mut Topology)| {
        let mut topology = sound.clone();
        change(&mut topology);
        let mut out = Vec::new();
        Response::Topology(topology.clone()).encode(1, &mut out);
        match Response::decode(&whole(&out)) {
            Ok(Response::Topology(decoded)) => {
                assert_eq!(decoded, topology);
                true
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(!error.is_fatal());
                false
            }
        }
    };
    assert!(decodes(&|_| {}));
    assert!(decodes(&|topology| topology.replicas[1].leader = 0));
    for change in [
        &|topology: &mut Topology| topology.here = 2,
        &|topology: &mut Topology| topology.nodes.clear(),
        &|topology: &mut Topology| topology.nodes.swap(0, 1),
        &|topology: &mut Topology| topology.nodes[0].id = 0,
        &|topology: &mut Topology| topology.nodes[1].id = 1,
        &|topology: &mut Topology| topology.nodes[1].cores = 0,
        &|topology: &mut Topology| topology.replicas.truncate(3),
        &|topology: &mut Topology| topology.replicas.clear(),
        &|topology: &mut Topology| topology.replicas[0].leader = 2,
        &|topology: &mut Topology| topology.replicas[0].nodes.push(4),
        &|topology: &mut Topology| topology.replicas[0].nodes.clear(),
    ] as [&dyn Fn(&mut Topology); 11]
    {
        assert!(!decodes(change));
    }
}

#[test]
fn keyspace_names() {
    for name in ["a", "users", "A.b_c-9", "_", &"x".repeat(64)] {
        assert!(keyspace_name_ok(name), "{name}");
    }
    for name in ["", ".a", "-a", "a b", "ü", "a/b", &"x".repeat(65)] {
        assert!(!keyspace_name_ok(name), "{name}");
    }
}

#[test]
fn error_codes_not_known_keep_their_class() {
    for &code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_u16(code as u16), code);
        assert_eq!(
            ErrorCode::from_u16(code as u16 | 0xF0).class(),
            code.class()
        );
    }
    assert_eq!(ErrorCode::from_u16(0), ErrorCode::InDoubt);
    assert_eq!(ErrorCode::from_u16(0xffff), ErrorCode::InDoubt);
}

#[test]
fn tokens_have_a_text_form() {
    let token = Token {
        partition: 84,
        term: 1,
        index: u64::MAX,
    };
    assert_eq!(token.to_string(), "84:1:18446744073709551615");
    assert_eq!(token.to_string().parse(), Ok(token));
    for text in ["", "1", "1:2", "1:2:3:4", "a:2:3", "1:2:-3", "65536:1:1"] {
        assert!(text.parse::<Token>().is_err(), "{text}");
    }
}

#[test]
fn builders_can_be_abandoned() {
    let mut out = b"before".to_vec();
    let mut rows = RowsBuilder::begin(&mut out, 1);
    rows.push(&mut out, b"key", &Meta::default(), b"value");
    assert_eq!(rows.count(), 1);
    assert_eq!(
        rows.frame_bytes(&out),
        HEADER_BYTES + 12 + RowsBuilder::row_bytes(b"key", b"value")
    );
    rows.abandon(&mut out);
    let mut values = ValuesBuilder::begin(&mut out, 1);
    values.push_absent(&mut out);
    assert_eq!(values.count(), 1);
    assert_eq!(values.frame_bytes(&out), HEADER_BYTES + 8 + 36);
    values.abandon(&mut out);
    assert_eq!(out, b"before");
}

#[test]
fn long_texts_are_cut_between_characters() {
    let mut out = Vec::new();
    let message = "é".repeat(600) + "x";
    encode_error(
        &mut out,
        1,
        &ErrorReply {
            code: ErrorCode::Corrupt,
            retry_after_ms: 0,
            detail: 0,
            message: &message,
        },
    );
    let view = whole(&out);
    let Ok(Response::Error(error)) = Response::decode(&view) else {
        panic!("no error");
    };
    assert_eq!(error.message, &message[..1024]);
}

// ---- Anything at all ----

/// Bytes that decoding reserved for lists, a bound from below of what it allocated.
fn reserved_bytes(response: &Response<'_>) -> usize {
    fn room<T>(list: &Vec<T>) -> usize {
        list.capacity() * size_of::<T>()
    }
    let topology_bytes = |topology: &Topology| {
        let texts =
            |node: &NodeInfo| node.name.capacity() + node.address.capacity() + node.zone.capacity();
        let nodes = topology.nodes.iter().map(texts).sum::<usize>();
        let replicas = topology.replicas.iter();
        room(&topology.nodes)
            + nodes
            + room(&topology.replicas)
            + replicas
                .map(|replicas| room(&replicas.nodes))
                .sum::<usize>()
    };
    match response {
        Response::Welcome { topology, .. } | Response::Topology(topology) => {
            topology_bytes(topology)
        }
        Response::Stats(stats) => {
            room(stats) + stats.iter().map(|(name, _)| name.capacity()).sum::<usize>()
        }
        Response::Status(status) => {
            let members = status.replicas.iter().map(|replica| room(&replica.members));
            room(&status.replicas) + members.sum::<usize>()
        }
        Response::Values { tokens, values } => room(tokens) + room(values),
        Response::BatchWritten { counters, .. } => room(counters),
        Response::Rows { tokens, rows, .. } => room(tokens) + room(rows),
        Response::Keyspaces(keyspaces) => {
            room(keyspaces)
                + keyspaces
                    .iter()
                    .map(|keyspace| keyspace.name.capacity())
                    .sum::<usize>()
        }
        _ => 0,
    }
}

fn any_token() -> impl Strategy<Value = Token> {
    (any::<u16>(), any::<u64>(), any::<u64>()).prop_map(|(partition, term, index)| Token {
        partition,
        term,
        index,
    })
}

fn any_meta() -> impl Strategy<Value = Meta> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(version, updated_ms, created_ms, expires_ms)| Meta {
            version,
            updated_ms,
            created_ms,
            expires_ms,
        },
    )
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::None),
        Just(Condition::Absent),
        Just(Condition::Present),
        any::<u64>().prop_map(Condition::Version),
    ]
}

fn any_ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        Just(Ttl::Default),
        Just(Ttl::Never),
        any::<u64>().prop_map(Ttl::AfterMs),
        any::<u64>().prop_map(Ttl::AtMs),
        Just(Ttl::Keep),
    ]
}

fn any_level() -> impl Strategy<Value = ReadLevel> {
    prop_oneof![
        Just(ReadLevel::Linearizable),
        Just(ReadLevel::Strict),
        Just(ReadLevel::Session),
        any::<u32>().prop_map(|max_age_ms| ReadLevel::Stale { max_age_ms }),
    ]
}

fn any_ack() -> impl Strategy<Value = Ack> {
    prop_oneof![
        Just(Ack::Leader),
        Just(Ack::Quorum),
        Just(Ack::All),
        (1..=u8::MAX).prop_map(Ack::Count),
    ]
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..20)
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

/// A write that owns its parts: which, key, value, by, ttl, condition.
type OwnedOp = (u8, Vec<u8>, Vec<u8>, i64, Ttl, Condition);

fn any_op() -> impl Strategy<Value = OwnedOp> {
    (
        0..4u8,
        any_key(),
        any_bytes(),
        any::<i64>(),
        any_ttl(),
        any_condition(),
    )
}

fn op((which, key, value, by, ttl, condition): &OwnedOp) -> WriteOp<'_> {
    let (by, ttl, condition) = (*by, *ttl, *condition);
    match which {
        0 => WriteOp::Put {
            key,
            value,
            ttl,
            condition,
        },
        1 => WriteOp::Delete { key, condition },
        2 => WriteOp::Increment {
            key,
            by,
            ttl,
            condition,
        },
        _ => WriteOp::Touch {
            key,
            ttl,
            condition,
        },
    }
}

fn request_round_trip(request: Request<'_>, id: u64, deadline_ms: u32) {
    let mut out = b"what is in the buffer already".to_vec();
    let before = out.len();
    request.encode(id, deadline_ms, &mut out).unwrap();
    let view = whole(&out[before..]);
    assert_eq!((view.request_id, view.deadline_ms), (id, deadline_ms));
    assert_eq!(Request::decode(&view), Ok(request));
}

fn response_round_trip(response: Response<'_>, id: u64) {
    let mut out = b"what is in the buffer already".to_vec();
    let before = out.len();
    response.encode(id, &mut out);
    let view = whole(&out[before..]);
    assert_eq!((view.request_id, view.deadline_ms), (id, 0));
    assert_eq!(Response::decode(&view), Ok(response));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), limit in any::<u32>()) {
        match frame::peek(&bytes, limit) {
            Ok(Peek::Frame { len }) => prop_assert!(len <= bytes.len() && len <= limit as usize),
            Ok(Peek::Incomplete { need }) => {
                prop_assert!(need > bytes.len() && need <= (limit as usize).max(HEADER_BYTES));
            }
            Ok(Peek::Oversized { len, .. }) => prop_assert!(len > limit as usize),
            Err(error) => prop_assert!(error.is_fatal()),
        }
        let _ = frame::open(&bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic_nor_allocate_much(
        kind in proptest::sample::select(Kind::ALL),
        head in vec(prop_oneof![3 => Just(0u8), 1 => 0..4u8, 1 => any::<u8>()], 0..100),
        filler in any::<u8>(),
        tail in 0..3000usize,
    ) {
        let mut body = head;
        body.resize(body.len() + tail, filler);
        let frame = framed(kind as u8, &body);
        let view = whole(&frame);
        match Request::decode(&view) {
            Ok(Request::MultiGet { keys, .. }) => prop_assert_eq!(keys.iter().count(), keys.len()),
            Ok(Request::Batch { ops, .. }) => prop_assert_eq!(ops.iter().count(), ops.len()),
            Ok(_) => {}
            Err(error) => prop_assert!(!error.is_fatal()),
        }
        match Response::decode(&view) {
            Ok(response) => prop_assert!(reserved_bytes(&response) <= 7 * frame.len()),
            Err(error) => prop_assert!(!error.is_fatal()),
        }
    }

    #[test]
    fn requests_survive_the_round_trip(
        id in any::<u64>(),
        deadline_ms in any::<u32>(),
        keyspace in any::<u32>(),
        level in any_level(),
        tokens in vec(any_token(), 0..4),
        keys in vec(any_key(), 0..5),
        ops in vec(any_op(), 1..5),
        (ack, client, sequence, retry) in
            (any_ack(), 0..u64::MAX, 0..u64::MAX, any::<bool>()),
        parts in (any_bytes(), any_bytes(), any_bytes(), any_bytes()),
        (reverse, keys_only, limit) in (any::<bool>(), any::<bool>(), any::<u32>()),
        name in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
        core in any::<u16>(),
        versions in (any::<u16>(), any::<u16>()),
    ) {
        let token_list = tokens.iter().copied().collect::<TokensBuf>();
        let read = ReadOptions { level, tokens: token_list.as_tokens() };
        prop_assert_eq!(&read.tokens.iter().collect::<Vec<_>>(), &tokens);
        let mut key_list = KeysBuf::new();
        for key in &keys {
            key_list.push(key).unwrap();
        }
        prop_assert!(key_list.as_keys().iter().eq(keys.iter().map(Vec::as_slice)));
        let mut op_list = WriteOpsBuf::new();
        for owned in &ops {
            op_list.push(&op(owned)).unwrap();
        }
        prop_assert!(op_list.as_ops().iter().eq(ops.iter().map(op)));
        let retry = retry && client > 0 && sequence > 0;
        let options = WriteOptions { ack, client, sequence, retry };
        let key = ops[0].1.as_slice();
        let (prefix, start, end, cursor) = (&parts.0[..], &parts.1[..], &parts.2[..], &parts.3[..]);
        for request in [
            Request::Hello {
                version_min: versions.0.min(versions.1),
                version_max: versions.0.max(versions.1),
                core: (core != u16::MAX).then_some(core),
                agent: prefix,
            },
            Request::Ping,
            Request::Topology,
            Request::Stats,
            Request::Status,
            Request::Prefer { partition: core, node: keyspace },
            Request::Drain { node: keyspace, undo: core % 2 == 0 },
            Request::Get { keyspace, read, key },
            Request::Stat { keyspace, read, key },
            Request::MultiGet { keyspace, read, keys: key_list.as_keys() },
            Request::Batch { keyspace, options, ops: op_list.as_ops() },
            Request::Scan(Scan {
                keyspace, read, prefix, start, end, reverse, keys_only, limit, cursor,
            }),
            Request::KeyspaceCreate { name: &name, options: KeyspaceOptions { default_ttl_ms: id } },
            Request::KeyspaceDrop { name: &name },
            Request::Clear { keyspace: 7, partition: 9 },
            Request::KeyspaceList,
        ] {
            request_round_trip(request, id, deadline_ms);
        }
        for owned in &ops {
            request_round_trip(Request::Write { keyspace, options, op: op(owned) }, id, deadline_ms);
        }
    }

    #[test]
    fn responses_survive_the_round_trip(
        id in any::<u64>(),
        token in any_token(),
        tokens in vec(any_token(), 0..4),
        meta in any_meta(),
        (value, cursor) in (any_bytes(), any_bytes()),
        (number, counter) in (any::<u64>(), any::<i64>()),
        rows in vec((any_key(), any_meta(), any_bytes(), any::<bool>()), 0..5),
        counters in vec(proptest::option::of(any::<i64>()), 0..5),
        existed in proptest::option::of(any::<bool>()),
        texts in vec(".{0,20}", 1..4),
        code in proptest::sample::select(ErrorCode::ALL),
        (bits, cores) in (0..9u32, 1..9u16),
    ) {
        let ids: Vec<NodeId> = (1..=u32::from(cores)).map(|n| n * n).collect();
        let topology = Topology {
            cluster: number,
            version: id,
            here: ids[texts.len() % ids.len()],
            nodes: ids
                .iter()
                .map(|&id| NodeInfo {
                    id,
                    name: texts[0].clone(),
                    address: texts[texts.len() - 1].clone(),
                    cores,
                    zone: String::new(),
                })
                .collect(),
            replicas: (0..1usize << bits)
                .map(|partition| Replicas {
                    leader: [0, ids[partition % ids.len()]][partition % 2],
                    nodes: ids[partition % ids.len()..].to_vec(),
                })
                .collect(),
        };
        for response in [
            Response::Welcome {
                version: 1,
                core: 3,
                server: &texts[0],
                limits: Limits {
                    key_bytes_max: 1,
                    value_bytes_max: 2,
                    frame_bytes_max: 3,
                    inflight_requests_max: 4,
                    scan_rows_max: 5,
                },
                topology: topology.clone(),
            },
            Response::Done,
            Response::Topology(topology),
            Response::Stats(texts.iter().map(|text| (text.clone(), number)).collect()),
            Response::Status(NodeStatus {
                here: u32::from(cores),
                wall_ms: number,
                replicas: tokens
                    .iter()
                    .map(|token| ReplicaStatus {
                        partition: token.partition,
                        role: [Role::Follower, Role::Elected, Role::Leader][bits as usize % 3],
                        leader: bits,
                        term: token.term,
                        last: number,
                        commit: id,
                        applied: token.index,
                        elections: id,
                        members: ids
                            .iter()
                            .map(|&node| MemberStatus {
                                replica: u64::from(node) << 32 | 1,
                                stored: number,
                                alive: node % 2 == 0,
                                votes: node % 3 == 0,
                            })
                            .collect(),
                    })
                    .collect(),
            }),
            Response::NotFound { token },
            Response::Value { token, meta, value: &value },
            Response::Stat { token, meta, value_bytes: number },
            Response::Values {
                tokens: tokens.clone(),
                values: rows
                    .iter()
                    .map(|(_, meta, value, there)| there.then_some((*meta, &value[..])))
                    .collect(),
            },
            Response::Written { token, existed },
            Response::Counter { token, value: counter },
            Response::BatchWritten { token, counters },
            Response::Rows {
                tokens,
                rows: rows.iter().map(|(key, meta, value, _)| (&key[..], *meta, &value[..])).collect(),
                cursor: &cursor,
            },
            Response::Keyspaces(
                texts
                    .iter()
                    .map(|text| Keyspace {
                        id: 7,
                        name: text.clone(),
                        options: KeyspaceOptions { default_ttl_ms: number },
                    })
                    .collect(),
            ),
            Response::Error(ErrorReply { code, retry_after_ms: 1, detail: number, message: &texts[0] }),
        ] {
            response_round_trip(response, id);
        }
    }
}
