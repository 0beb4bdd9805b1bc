use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::{self, FrameView, HEADER_BYTES, Peek};
use crate::message::ErrorCode;
use crate::{HELLO_FRAME_BYTES_MAX, SKIP_BYTES_MAX};

const HELLO: PeerHello = PeerHello {
    version: PEER_VERSION,
    cluster: 7,
    from_node: 1,
    from_core: 2,
    boot: 3,
    start: 4,
    to_node: 2,
    to_core: 1,
};

/// A batch of what `write` appends.
fn batch(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_batch(&mut out);
    write(&mut out);
    finish_batch(&mut out, start).unwrap();
    out
}

fn read(batch: &[u8]) -> Vec<Result<PeerItem<'_>, WireError>> {
    items(&frame::open(batch).unwrap()).unwrap().collect()
}

fn raft(kind: u8) -> RaftMessage<'static> {
    RaftMessage {
        kind,
        from: 1 << 32 | 1,
        to: 2 << 32 | 1,
        term: 5,
        log_term: 4,
        index: 10,
        ..RaftMessage::default()
    }
}

fn entry(term: u64, index: u64) -> RaftEntry<'static> {
    RaftEntry {
        kind: 0,
        term,
        index,
        data: b"effects",
    }
}

#[test]
fn a_hello_fits_before_the_handshake_and_is_no_request_of_a_client() {
    let mut out = Vec::new();
    HELLO.encode(9, &mut out).unwrap();
    assert!(matches!(
        frame::peek(&out, HELLO_FRAME_BYTES_MAX),
        Ok(Peek::Frame { .. })
    ));
    let view = frame::open(&out).unwrap();
    assert_eq!((view.request_id, view.deadline_ms), (9, 0));
    assert_eq!(PeerHello::decode(&view), Ok(HELLO));
    assert_eq!(
        crate::message::Request::decode(&view).unwrap_err().code(),
        ErrorCode::Unsupported
    );
    assert_eq!(
        PeerHello::decode(&FrameView { flags: 1, ..view }),
        Err(WireError::UnknownFlags { flags: 1 })
    );
    assert_eq!(
        PeerHello::decode(&FrameView {
            body: &view.body[..view.body.len() - 1],
            ..view
        })
        .unwrap_err()
        .code(),
        ErrorCode::BadRequest
    );
}

#[test]
fn a_hello_of_a_later_version_may_be_longer() {
    let later = PeerHello {
        version: PEER_VERSION + 1,
        ..HELLO
    };
    let mut out = Vec::new();
    later.encode(1, &mut out).unwrap();
    let mut body = frame::open(&out).unwrap().body.to_vec();
    body.extend_from_slice(b"more");
    let view = FrameView {
        body: &body,
        ..frame::open(&out).unwrap()
    };
    assert_eq!(PeerHello::decode(&view), Ok(later));
    body[4] = PEER_VERSION as u8;
    let view = FrameView {
        body: &body,
        ..frame::open(&out).unwrap()
    };
    assert!(PeerHello::decode(&view).is_err());
}

#[test]
fn zeros_are_refused_on_both_sides() {
    for zeroed in [
        PeerHello {
            cluster: 0,
            ..HELLO
        },
        PeerHello {
            from_node: 0,
            ..HELLO
        },
        PeerHello {
            to_node: 0,
            ..HELLO
        },
        PeerHello { boot: 0, ..HELLO },
    ] {
        let mut out = Vec::new();
        assert!(zeroed.encode(1, &mut out).is_err());
        assert!(out.is_empty());
    }
    let mut out = Vec::new();
    PeerWelcome {
        boot: 0,
        start: 1,
        cores: 1,
        batch_bytes_max: 1,
    }
    .encode(1, &mut out);
    assert!(PeerWelcome::decode(&frame::open(&out).unwrap()).is_err());
}

#[test]
fn an_unknown_tag_is_passed_over_and_what_follows_is_read() {
    let state = PeerItem::NodeState(NodeState {
        drains: true,
        is_full: false,
    });
    let bytes = batch(|out| {
        out.extend_from_slice(&[200, 3, 0, 0, 0, 1, 2, 3]);
        state.encode(out).unwrap();
        out.extend_from_slice(&[201, 0, 0, 0, 0]);
    });
    assert_eq!(read(&bytes), [Ok(state)]);
}

#[test]
fn a_pulse_names_partitions_that_there_can_be() {
    let pulse = Pulse {
        first: 65_520,
        bits: &[0b1000_0001, 0b1000_0000],
    };
    let item = PeerItem::Pulse(pulse);
    let bytes = batch(|out| item.encode(out).unwrap());
    assert_eq!(read(&bytes), [Ok(item)]);
    assert!(pulse.partitions().eq([65_520, 65_527, 65_535]));
    let beyond = PeerItem::Pulse(Pulse {
        first: 65_521,
        ..pulse
    });
    let mut out = Vec::new();
    assert!(beyond.encode(&mut out).is_err() && out.is_empty());
    let bytes = batch(|out| out.extend_from_slice(&[9, 4, 0, 0, 0, 0xf1, 0xff, 1, 1]));
    assert!(matches!(
        read(&bytes)[..],
        [Err(WireError::Malformed { .. })]
    ));
}

#[test]
fn an_item_beyond_its_batch_ends_it() {
    let bytes = batch(|out| {
        out.extend_from_slice(&[200, 4, 0, 0, 0, 1, 2, 3]);
    });
    assert!(matches!(
        read(&bytes)[..],
        [Err(WireError::Malformed { .. })]
    ));
    let head_only = batch(|out| out.extend_from_slice(&[1, 0]));
    assert!(matches!(read(&head_only)[..], [Err(_)]));
    assert_eq!(read(&batch(|_| ())), []);
}

#[test]
fn entries_must_follow_each_other_in_terms_that_grow_up_to_the_leaders() {
    let good = [entry(4, 11), entry(5, 12), entry(5, 13)];
    let bad = [
        vec![entry(4, 12)],
        vec![entry(4, 11), entry(4, 13)],
        vec![entry(5, 11), entry(4, 12)],
        vec![entry(6, 11)],
        vec![entry(3, 11)],
    ];
    let message = raft(raft_kind::APPEND);
    let mut out = Vec::new();
    encode_raft(&mut out, 1, &message, good).unwrap();
    for entries in bad {
        let before = out.clone();
        assert!(encode_raft(&mut out, 1, &message, entries.iter().copied()).is_err());
        assert_eq!(out, before, "a refused item leaves nothing behind");
        // The receiver does not trust the sender to have looked.
        let unchecked = RaftMessage {
            kind: raft_kind::READ_INDEX,
            ..message
        };
        let mut item = Vec::new();
        encode_raft(&mut item, 1, &unchecked, entries).unwrap();
        item[ITEM_HEAD_BYTES + 2] = raft_kind::APPEND;
        let bytes = batch(|out| out.extend_from_slice(&item));
        assert!(matches!(
            read(&bytes)[..],
            [Err(WireError::Malformed { .. })]
        ));
    }
}

#[test]
fn what_does_not_fit_the_kind_is_refused() {
    let snapshot = RaftSnapshot {
        index: 7,
        term: 2,
        time_ms: 1,
        membership: b"who",
    };
    let mut bad = vec![
        RaftMessage {
            snapshot: Some(snapshot),
            ..raft(raft_kind::APPEND)
        },
        RaftMessage {
            snapshot: Some(RaftSnapshot {
                index: 0,
                ..snapshot
            }),
            ..raft(raft_kind::SNAPSHOT)
        },
        raft(raft_kind::SNAPSHOT),
        RaftMessage {
            to: 1 << 32 | 1,
            ..raft(raft_kind::HEARTBEAT)
        },
        RaftMessage {
            from: 0,
            ..raft(raft_kind::HEARTBEAT)
        },
        RaftMessage {
            context: &[0; CONTEXT_BYTES_MAX + 1],
            ..raft(raft_kind::HEARTBEAT)
        },
        RaftMessage {
            snapshot: Some(RaftSnapshot {
                membership: &[0; MEMBERSHIP_BYTES_MAX + 1],
                ..snapshot
            }),
            ..raft(raft_kind::SNAPSHOT)
        },
    ];
    // The kinds that a replica says to itself, proposals, and those that do not exist.
    bad.extend([0, 1, 2, 10, 11, 12, 19, 255].map(raft));
    let mut out = Vec::new();
    for message in bad {
        assert!(
            encode_raft(&mut out, 0, &message, []).is_err(),
            "{message:?}"
        );
    }
    assert!(encode_raft(&mut out, 0, &raft(raft_kind::HEARTBEAT), [entry(5, 11)]).is_err());
    assert!(out.is_empty());
}

#[test]
fn a_batch_has_room_for_the_largest_frame_but_is_within_what_is_read_past() {
    assert!(
        BATCH_BYTES_MAX as usize
            >= FRAME_BYTES_MAX as usize
                + HEADER_BYTES
                + PeerItem::ForwardReply { id: 0, frame: &[] }.encoded_bytes()
    );
    const { assert!(BATCH_BYTES_MAX < SKIP_BYTES_MAX) };
}

fn any_bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

/// Words of a message, in order.
fn message<'a>(
    kind: u8,
    words: &[u64],
    reject: bool,
    context: &'a [u8],
    membership: &'a [u8],
) -> RaftMessage<'a> {
    RaftMessage {
        kind,
        from: words[0] | 1,
        to: (words[0] | 1).wrapping_add(1).max(2),
        term: words[1],
        log_term: words[2],
        index: words[3],
        commit: words[4],
        commit_term: words[5],
        reject,
        reject_hint: words[6],
        request_snapshot: words[7],
        priority: words[8] as i64,
        stamp: words[9],
        echo: words[10],
        context,
        snapshot: (kind == raft_kind::SNAPSHOT).then(|| RaftSnapshot {
            index: words[3] | 1,
            term: words[2],
            time_ms: words[4],
            membership,
        }),
    }
}

proptest! {
    #[test]
    fn messages_survive_the_round_trip(
        partition in any::<u16>(),
        kind in prop_oneof![3..=9u8, 13..=18u8],
        words in vec(any::<u64>(), 11),
        reject in any::<bool>(),
        context in any_bytes(CONTEXT_BYTES_MAX + 1),
        membership in any_bytes(200),
        data in vec((any::<u8>(), any::<bool>(), any_bytes(40)), 0..6),
    ) {
        let mut words = words;
        if kind == raft_kind::APPEND {
            words[3] %= u64::MAX - 10;
            words[2] %= u64::MAX - 10;
            words[1] = words[2] + 10;
        }
        let message = message(kind, &words, reject, &context, &membership);
        let carries = matches!(kind, 3 | 15 | 16);
        let mut term = message.log_term;
        let entries: Vec<RaftEntry<'_>> = data
            .iter()
            .take(if carries { data.len() } else { 0 })
            .zip(1..)
            .map(|((kind, later, data), step)| {
                term = term.wrapping_add(u64::from(*later));
                RaftEntry { kind: *kind, term, index: message.index.wrapping_add(step), data }
            })
            .collect();
        let bytes = batch(|out| {
            encode_raft(out, partition, &message, entries.iter().copied()).unwrap();
        });
        let data_bytes = entries.iter().map(|entry| entry.data.len()).sum();
        prop_assert_eq!(
            bytes.len() - HEADER_BYTES,
            encoded_raft_bytes(&message, entries.len(), data_bytes)
        );
        let found = read(&bytes);
        let [Ok(item @ PeerItem::Raft { partition: p, message: m, entries: e })] = found[..] else {
            panic!("{found:?}");
        };
        prop_assert_eq!((p, m), (partition, message));
        prop_assert_eq!(e.len(), entries.len());
        prop_assert!(e.iter().eq(entries.iter().copied()));
        let again = batch(|out| item.encode(out).unwrap());
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn items_survive_the_round_trip(
        (id, from, to, snapshot) in any::<(u64, u64, u64, u64)>(),
        (deadline_ms, sequence) in any::<(u32, u32)>(),
        (partition, cores) in any::<(u16, u16)>(),
        (share, last) in any::<(bool, bool)>(),
        outcome in any::<u8>(),
        frame in vec(any::<u8>(), HEADER_BYTES..100),
    ) {
        let reach = if share { Reach::Share } else { Reach::Whole };
        let all = [
            PeerItem::Forward { id, deadline_ms, reach, frame: &frame },
            PeerItem::ForwardReply { id, frame: &frame },
            PeerItem::SnapshotChunk(SnapshotChunk {
                partition, from, to, snapshot, sequence, last, bytes: &frame,
            }),
            PeerItem::SnapshotAck(SnapshotAck {
                partition, from, to, snapshot, sequence, outcome,
            }),
            PeerItem::NodeState(NodeState { drains: cores % 2 == 0, is_full: cores % 3 == 0 }),
            PeerItem::Map { version: id, bytes: &frame },
            PeerItem::Sleep(Sleep {
                partition, from, to, term: id, index: snapshot,
                word: [SleepWord::Ask, SleepWord::Agree, SleepWord::Wake][usize::from(outcome % 3)],
            }),
            PeerItem::Pulse(Pulse { first: partition >> 1, bits: &frame }),
            PeerItem::Clock { wall_ms: id },
        ];
        let bytes = batch(|out| {
            for item in &all {
                let before = out.len();
                item.encode(out).unwrap();
                assert_eq!(out.len() - before, item.encoded_bytes(), "{item:?}");
            }
        });
        prop_assert!(read(&bytes).into_iter().eq(all.map(Ok)));
        let in_place = batch(|out| {
            encode_forward_reply(out, id, |out| out.extend_from_slice(&frame)).unwrap();
        });
        prop_assert_eq!(read(&in_place), [Ok(PeerItem::ForwardReply { id, frame: &frame })]);
    }

    /// Whatever comes: items or an error, and what was understood encodes to the same bytes.
    #[test]
    fn any_bytes_are_items_or_an_error(
        tags in vec((1..=10u8, vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..180)), 0..4),
        cut in any::<usize>(),
    ) {
        let mut body = Vec::new();
        for (tag, bytes) in tags {
            body.push(tag);
            body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            body.extend_from_slice(&bytes);
        }
        body.truncate(body.len() - cut % (body.len() + 1));
        let bytes = batch(|out| out.extend_from_slice(&body));
        let mut errors = 0;
        for item in read(&bytes) {
            prop_assert_eq!(errors, 0, "nothing comes after an error");
            match item {
                Ok(item) => {
                    let mut out = Vec::new();
                    item.encode(&mut out).unwrap();
                    prop_assert!(body.windows(out.len()).any(|part| part == out));
                }
                Err(error) => {
                    prop_assert!(!error.is_fatal());
                    errors += 1;
                }
            }
        }
    }
}

#[test]
fn an_introduction_is_one_of_its_version() {
    let mut out = Vec::new();
    encode_introduce(3, None, &mut out).unwrap();
    let view = frame::open(&out).unwrap();
    assert_eq!(decode_introduce(&view), Ok((PEER_VERSION, None)));
    let with = |body| decode_introduce(&FrameView { body, ..view });
    let later = with(b"RGBI\x03\x00\x00\x00more");
    assert_eq!(later, Ok((3, None)), "a later version");
    for body in [
        &b"RGBP\x02\x00\x00\x00"[..],
        b"RGBI\x02\x00\x00\x01",
        b"RGBI\x02\x00\x00\x00more",
        b"RGBI\x02\x00\x00\x00\x01a",
        b"RGBI\x02\x00\x00\x00\x01a\x00",
        b"RGBI\x02\x00\x00\x00\x01a\x01\xff",
        b"RGBI\x02\x00\x00\x00\x01a\x01bc",
        b"RGBI\x02",
    ] {
        assert!(with(body).is_err(), "{body:?}");
    }

    let longest = "n".repeat(CLAIM_BYTES_MAX);
    let claim = Claim {
        name: &longest,
        folder: &longest,
    };
    let mut out = Vec::new();
    encode_introduce(3, Some(claim), &mut out).unwrap();
    assert!(out.len() <= HELLO_FRAME_BYTES_MAX as usize);
    let view = frame::open(&out).unwrap();
    assert_eq!(decode_introduce(&view), Ok((PEER_VERSION, Some(claim))));
    for text in ["", &"n".repeat(CLAIM_BYTES_MAX + 1)] {
        let mut out = Vec::new();
        let claim = Claim {
            name: "a",
            folder: text,
        };
        assert!(encode_introduce(3, Some(claim), &mut out).is_err() && out.is_empty());
    }

    let mut out = Vec::new();
    encode_introduced(3, b"who", &mut out).unwrap();
    let view = frame::open(&out).unwrap();
    assert_eq!(decode_introduced(&view), Ok(&b"who"[..]));
    assert!(decode_introduce(&view).is_err());
    for body in [&b"\x03\x00\x00\x00who"[..], b"\x02\x00\x01\x00who", b"\x02"] {
        assert!(decode_introduced(&FrameView { body, ..view }).is_err());
    }
    let most = vec![0; INTRODUCED_BYTES_MAX as usize];
    out.clear();
    assert!(encode_introduced(3, &most, &mut out).is_err() && out.is_empty());
}
