//! The examples of `docs/format.md`, byte for byte, and codecs on arbitrary input.

use proptest::prelude::*;

use super::group::{self, GroupHeader};
use super::record::{self, CheckpointView, HardState, Place, RecordView};
use super::segment::{self, CheckpointEntry, HeaderError, SegmentHeader, SegmentStart};
use crate::entry::{Effect, EntryHead, LogId};
use crate::env::SECTOR;

const DOC: &str = include_str!("../../../../docs/format.md");

/// The bytes of the example of this name: hex up to `|` in each line of its block.
fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let start = DOC.find(&fence).expect("the example is in docs/format.md") + fence.len();
    let block = &DOC[start..start + DOC[start..].find("```").expect("the block ends")];
    let digits: String = block
        .lines()
        .flat_map(|line| line.split('|').next().unwrap_or_default().chars())
        .filter(char::is_ascii_hexdigit)
        .collect();
    (0..digits.len() / 2)
        .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// To write the examples anew:
/// `RINGBOLT_REWRITE=1 cargo test -p ringbolt-engine log::format -- --test-threads=1`.
fn assert_example(name: &str, bytes: &[u8]) {
    if std::env::var_os("RINGBOLT_REWRITE").is_some() {
        return rewrite(name, bytes);
    }
    assert!(
        example(name) == bytes,
        "docs/format.md, example {name}, should be:\n{}",
        dump(bytes)
    );
}

fn dump(bytes: &[u8]) -> String {
    let printable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    let rows = bytes.chunks(16).map(|row| {
        let hex: String = row.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String = row.iter().map(printable).collect();
        format!("{hex:<48}| {text}\n")
    });
    rows.collect()
}

fn rewrite(name: &str, bytes: &[u8]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format.md");
    let doc = std::fs::read_to_string(path).unwrap();
    let fence = format!("```hex {name}\n");
    let start = doc.find(&fence).unwrap() + fence.len();
    let end = start + doc[start..].find("```").unwrap();
    std::fs::write(path, doc[..start].to_owned() + &dump(bytes) + &doc[end..]).unwrap();
}

const PLACE: Place = Place {
    epoch: 5,
    offset: 0x2032,
};

fn head() -> EntryHead {
    EntryHead {
        partition: 3,
        id: LogId { term: 2, index: 41 },
        client: 0x1122,
        sequence: 7,
        time_ms: 1_700_000_000_000,
    }
}

fn put() -> [Effect<'static>; 1] {
    [Effect::Put {
        keyspace: 0,
        key: b"apple",
        value: b"red",
        expires_ms: 1_700_000_060_000,
        created_ms: 0,
    }]
}

fn entry(place: Place, head: &EntryHead, effects: &[Effect<'_>]) -> Vec<u8> {
    let mut out = vec![0; record::entry_bytes(head, effects).unwrap()];
    record::encode_entry(&mut out, place, head, effects);
    out
}

fn hard() -> HardState {
    HardState {
        replica_id: 9,
        term: 2,
        vote: 9,
        commit: 40,
    }
}

#[test]
fn records_are_as_documented() {
    let [put] = put();
    let found = Effect::Outcome { outcome: &[2] };
    let bytes = entry(PLACE, &head(), &[put, found]);
    assert_example("entry", &bytes);
    let (RecordView::Entry { head: got, effects }, len) = record::decode(&bytes, PLACE).unwrap()
    else {
        panic!("not an entry");
    };
    assert_eq!((got, len), (head(), bytes.len()));
    assert_eq!(effects.collect::<Vec<_>>(), [put, found]);

    let plain = EntryHead {
        client: 0,
        sequence: 0,
        ..head()
    };
    let effects = [
        Effect::Delete {
            keyspace: 1,
            key: b"k",
        },
        Effect::DeleteRange {
            keyspace: 1,
            from: b"a",
            to: b"",
        },
    ];
    let bytes = entry(PLACE, &plain, &effects);
    assert_example("deletes", &bytes);

    let mut bytes = vec![0; record::HARD_STATE_BYTES];
    record::encode_hard_state(&mut bytes, PLACE, 3, &hard());
    assert_example("hard-state", &bytes);
    let state = RecordView::HardState {
        partition: 3,
        state: hard(),
    };
    assert_eq!(record::decode(&bytes, PLACE), Some((state, bytes.len())));

    let upto = LogId { term: 2, index: 30 };
    let mut bytes = vec![0; record::TRUNCATION_BYTES];
    record::encode_truncation(&mut bytes, PLACE, 3, upto);
    assert_example("truncation", &bytes);
    let truncation = RecordView::Truncation { partition: 3, upto };
    assert_eq!(
        record::decode(&bytes, PLACE),
        Some((truncation, bytes.len()))
    );

    let mut bytes = vec![0; record::snapshot_bytes(b"members")];
    record::encode_snapshot(&mut bytes, PLACE, 3, upto, 99, b"members");
    assert_example("snapshot", &bytes);
    let snapshot = RecordView::Snapshot {
        partition: 3,
        id: upto,
        time_ms: 99,
        membership: b"members",
    };
    assert_eq!(record::decode(&bytes, PLACE), Some((snapshot, bytes.len())));

    let mut bytes = vec![0; record::membership_bytes(b"members")];
    record::encode_membership(&mut bytes, PLACE, 3, b"members");
    assert_example("membership", &bytes);
    let membership = RecordView::Membership {
        partition: 3,
        membership: b"members",
    };
    assert_eq!(
        record::decode(&bytes, PLACE),
        Some((membership, bytes.len()))
    );
    let mut bytes = vec![0; record::REMOVAL_BYTES];
    record::encode_removal(&mut bytes, PLACE, 3);
    assert_example("removal", &bytes);
    assert_eq!(
        record::decode(&bytes, PLACE),
        Some((RecordView::Removal { partition: 3 }, bytes.len()))
    );
}

#[test]
fn groups_are_as_documented() {
    let mut bytes = vec![0; SECTOR];
    let header = GroupHeader {
        epoch: 5,
        sequence: 77,
        durable_through: 75,
        offset: 0x2000,
        body_bytes: record::HARD_STATE_BYTES as u32,
        records: 1,
        partitions: 1,
        more_partitions: false,
    };
    let body = header.body_offset();
    let place = Place {
        epoch: 5,
        offset: 0x2000 + body as u32,
    };
    record::encode_hard_state(
        &mut bytes[body..body + record::HARD_STATE_BYTES],
        place,
        3,
        &hard(),
    );
    group::write_partitions(&mut bytes, &[12]);
    header.encode(&mut bytes);
    assert_example("group", &bytes[..body + record::HARD_STATE_BYTES]);
    let at = Place {
        epoch: 5,
        offset: 0x2000,
    };
    assert_eq!(GroupHeader::decode(&bytes, at), Some(header));
    assert_eq!(header.listed(&bytes).collect::<Vec<_>>(), [12]);
    assert!(header.records_intact(&bytes));
    assert_eq!(header.records(&bytes).count(), 1);
    let elsewhere = Place {
        epoch: 5,
        offset: 0x3000,
    };
    assert_eq!(GroupHeader::decode(&bytes, elsewhere), None);
    let stale = Place { epoch: 6, ..at };
    assert_eq!(GroupHeader::decode(&bytes, stale), None);
}

fn checkpoint() -> CheckpointEntry {
    CheckpointEntry {
        partition: 3,
        last: LogId { term: 2, index: 41 },
        hard: hard(),
        truncated: LogId { term: 2, index: 30 },
        time_ms: 1_700_000_000_000,
        membership: b"m".to_vec(),
    }
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        slot: 4,
        log_id: 0xfeed,
        epoch: 5,
        sequence: 76,
        durable_through: 75,
        prev_epoch: 4,
        prev_end: 0x3ff_f000,
        segment_bytes: 64 << 20,
        replicas: 0,
        used_bytes: 0,
        start: SegmentStart::Full,
    }
}

#[test]
fn segment_headers_are_as_documented() {
    let entries = [checkpoint()];
    let mut bytes = vec![0; segment::area_bytes(entries.iter())];
    let mut header = segment_header();
    header.encode(&mut bytes, entries.iter());
    assert_eq!(bytes.len(), SECTOR);
    assert_example("segment", &bytes[..header.used_bytes as usize]);
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    assert_eq!(header.checkpoints(&bytes), Some(entries.to_vec()));
}

#[test]
fn a_header_area_may_need_many_sectors() {
    let entries: Vec<_> = (0..4096)
        .map(|partition| CheckpointEntry {
            partition,
            ..checkpoint()
        })
        .collect();
    let mut bytes = vec![0; segment::area_bytes(entries.iter())];
    let mut header = segment_header();
    header.encode(&mut bytes, entries.iter());
    assert!(bytes.len() > 90 * SECTOR);
    assert_eq!(header.checkpoints(&bytes), Some(entries));
    // A torn header area is no header area.
    bytes[50 * SECTOR..51 * SECTOR].fill(0);
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    assert_eq!(header.checkpoints(&bytes), None);
}

#[test]
fn another_version_is_told_from_damage() {
    let mut bytes = vec![0; SECTOR];
    segment_header().encode(&mut bytes, [].iter());
    bytes[12] = 4;
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Invalid));
    let crc = |bytes: &[u8]| super::crc32c(&bytes[12..96]).to_le_bytes();
    let sum = crc(&bytes);
    bytes[8..12].copy_from_slice(&sum);
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(4)));
    bytes[12] = 1;
    let sum = crc(&bytes);
    bytes[8..12].copy_from_slice(&sum);
    assert!(SegmentHeader::decode(&bytes).is_ok(), "the first is read");
}

#[test]
fn a_record_is_believed_in_its_own_place_only() {
    let bytes = entry(PLACE, &head(), &put());
    for place in [
        Place { epoch: 4, ..PLACE },
        Place {
            offset: PLACE.offset + 4096,
            ..PLACE
        },
    ] {
        assert_eq!(record::decode(&bytes, place), None);
    }
    assert!(
        super::crc32c(b"123456789") == 0xe306_9283,
        "CRC-32C's check value"
    );
}

/// Seals arbitrary bytes as a record with a right checksum: what a hostile disk could hold.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < record::RECORD_HEADER_BYTES {
        bytes.resize(record::RECORD_HEADER_BYTES, 0);
    }
    let len = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..12].copy_from_slice(&(PLACE.epoch as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&PLACE.offset.to_le_bytes());
    bytes[16] %= 7;
    let crc = super::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = record::decode(&bytes, PLACE);
        let _ = SegmentHeader::decode(&bytes);
        if let Some(header) = GroupHeader::decode_anywhere(&bytes) {
            let _ = header.records_intact(&bytes);
        }
        let bytes = sealed(bytes);
        if let Some((RecordView::Entry { effects, .. }, _)) = record::decode(&bytes, PLACE) {
            // What was accepted decodes to the last byte.
            let used: usize = effects.map(|effect| match effect {
                Effect::Put { key, value, .. } => key.len() + value.len(),
                Effect::Delete { key, .. } => key.len(),
                Effect::DeleteRange { from, to, .. } => from.len() + to.len(),
                Effect::Membership { change } => change.len(),
                Effect::Outcome { outcome } => outcome.len(),
            }).sum();
            prop_assert!(used <= bytes.len());
        }
    }

    #[test]
    fn entries_come_back_and_every_flipped_bit_is_noticed(
        key in prop::collection::vec(any::<u8>(), 0..40),
        value in prop::collection::vec(any::<u8>(), 0..200),
        times in any::<(u64, u64, u64)>(),
        ids in any::<(u16, u64, u64, u64, u64)>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let head = EntryHead {
            partition: ids.0,
            id: LogId { term: ids.1, index: ids.2 },
            client: ids.3,
            sequence: ids.4,
            time_ms: times.0,
        };
        let effects = [
            Effect::Put { keyspace: 1, key: &key, value: &value, expires_ms: times.1, created_ms: times.2 },
            Effect::Delete { keyspace: u32::MAX, key: &key },
            Effect::DeleteRange { keyspace: 2, from: &key, to: &value },
            Effect::Membership { change: &value },
            Effect::Outcome { outcome: &value },
        ];
        let payload = record::encode_payload(&head, &effects).unwrap();
        let (got, back) = record::decode_payload(head.partition, head.id, &payload).unwrap();
        prop_assert_eq!((got, back.collect::<Vec<_>>()), (head, effects.to_vec()));
        let mut bytes = entry(PLACE, &head, &effects);
        let mut logged = vec![0; record::payload_record_bytes(&payload)];
        record::encode_entry_payload(&mut logged, PLACE, head.partition, head.id, &payload);
        prop_assert_eq!(&logged, &bytes);
        prop_assert_eq!(record::payload_of(&bytes), Some(payload));
        match record::decode(&bytes, PLACE) {
            Some((RecordView::Entry { head: got, effects: back }, len)) => {
                prop_assert_eq!((got, len), (head, bytes.len()));
                prop_assert_eq!(back.collect::<Vec<_>>(), effects);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(record::decode(&bytes, PLACE).is_none());
    }

    #[test]
    fn checkpoints_come_back(
        numbers in any::<[u64; 9]>(),
        partition in any::<u16>(),
        membership in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let [a, b, c, d, e, f, g, h, time_ms] = numbers;
        let view = CheckpointView {
            partition,
            last: LogId { term: a, index: b },
            hard: HardState { replica_id: c, term: d, vote: e, commit: f },
            truncated: LogId { term: g, index: h },
            time_ms,
            membership: &membership,
        };
        let mut bytes = vec![0; record::checkpoint_bytes(&membership)];
        record::encode_checkpoint(&mut bytes, PLACE, &view);
        prop_assert_eq!(
            record::decode(&bytes, PLACE),
            Some((RecordView::Checkpoint(view), bytes.len()))
        );
    }
}
