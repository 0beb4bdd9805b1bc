//! Reading entries again while the log goes on.

use super::*;
use crate::env::sim::{self, SimOptions, SimWorld};
use crate::log::format::record::decode_payload;

fn superseding(log: &Log<SimEnv>, term: u64, index: u64) -> Result<RecordRef, AppendError> {
    let head = EntryHead {
        id: LogId { term, index },
        ..head(1, index)
    };
    log.append(&head, &[])
}

/// Reads `after..=upto` piece by piece, and checks every entry. Says how many there were.
async fn read_all(log: &Log<SimEnv>, after: u64, upto: u64, bytes_max: usize) -> u64 {
    let mut next = after + 1;
    while next <= upto {
        let entries = log.read(1, next - 1, upto, bytes_max).await.unwrap();
        assert!(!entries.is_empty(), "entry {next}");
        let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
        assert!(entries.len() == 1 || bytes <= bytes_max);
        for entry in entries {
            assert_eq!(
                entry.id,
                LogId {
                    term: 1,
                    index: next
                }
            );
            let (head, effects) = decode_payload(1, entry.id, &entry.payload).unwrap();
            check_entry(&head, effects);
            next += 1;
        }
    }
    next - after - 1
}

#[test]
fn entries_are_read_from_memory_and_from_disk_until_they_are_gone() {
    let mut world = SimWorld::new(9, SimOptions::default());
    let mut options = small();
    options.segments_retained = 2;
    let (options_again, tables) = (options.clone(), Tables::default());
    let again = tables.clone();
    let written = world
        .run(|env| async move {
            let log = open(&env, options, &tables).await.unwrap().log;
            let (mut acked, mut index, mut other) = (BTreeMap::new(), 0, 0);
            while log.stats().segments < 4 {
                while index % 40 != 39 && append(&log, 1, index + 1).is_ok() {
                    index += 1;
                    if append(&log, 2, other + 1).is_ok() {
                        other += 1;
                    }
                }
                // Some are durable, some are under way, and some not even that.
                assert_eq!(read_all(&log, 0, index, 3000).await, index);
                settle(&log, &env, &mut acked, (1, index)).await.unwrap();
                index += u64::from(append(&log, 1, index + 1).is_ok());
                env.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(read_all(&log, 7, index, 1 << 20).await, index - 7);
            assert!(log.read(1, index, u64::MAX, 10).await.unwrap().is_empty());
            assert!(log.read(3, 0, u64::MAX, 10).await.unwrap().is_empty());
            settle(&log, &env, &mut acked, (1, index)).await.unwrap();
            // In tables, they stay for two segments.
            (1..=2).for_each(|p| tables.flush(p, acked[&p]));
            log.recycle(&tables.flushed());
            assert_eq!(log.stats().segments, 3);
            let ReadError::Gone { first } = log.read(1, 0, 9, 9).await.unwrap_err() else {
                panic!("it is gone");
            };
            assert!(first > 20 && first < index);
            assert_eq!(
                read_all(&log, first - 1, index, 5000).await,
                index + 1 - first
            );
            log.close().await.unwrap();
            index
        })
        .unwrap();
    world.crash();
    world
        .run(|env| async move {
            let log = open(&env, options_again, &again).await.unwrap().log;
            let ReadError::Gone { first } = log.read(1, 0, written, 9).await.unwrap_err() else {
                panic!("it is gone");
            };
            assert_eq!(
                read_all(&log, first - 1, written, 900).await,
                written + 1 - first
            );
            let (mut acked, first) = (BTreeMap::new(), written + 1);
            for index in first..first + 9 {
                append(&log, 1, index).unwrap();
            }
            settle(&log, &env, &mut acked, (1, first + 8))
                .await
                .unwrap();
            assert_eq!(read_all(&log, written, first + 8, 400).await, 9);
        })
        .unwrap();
}

/// Writes entries of partition 1 from `next` on, all of them put into tables, until so many segments have
/// been begun since; the next entry.
async fn fill_segments(
    (log, env): (&Log<SimEnv>, &SimEnv),
    tables: &Tables,
    acked: &mut BTreeMap<PartitionId, u64>,
    mut next: u64,
    segments: u64,
) -> u64 {
    let begun = |log: &Log<SimEnv>| log.stats().segments + log.stats().segments_recycled;
    let until = begun(log) + segments;
    while begun(log) < until {
        if append(log, 1, next).is_ok() {
            next += 1;
        }
        if next.is_multiple_of(20) {
            settle(log, env, acked, (1, next - 1)).await.unwrap();
            tables.flush(1, acked[&1]);
            log.recycle(&tables.flushed());
        }
        env.sleep(Duration::from_micros(100)).await;
    }
    next
}

#[test]
fn what_is_held_stays_however_much_is_written_until_it_is_too_much() {
    sim::run(11, SimOptions::default(), |env| async move {
        let tables = Tables::default();
        let options = small();
        let limit = options.segments_max as u64;
        let log = open(&env, options, &tables).await.unwrap().log;
        let mut acked = BTreeMap::new();
        let mut fill = async |next, segments| {
            fill_segments((&log, &env), &tables, &mut acked, next, segments).await
        };
        let next = fill(1, 3).await;
        let hold = log.hold();
        let last = fill(next, 3 * limit).await;
        assert!(
            log.stats().segments > 2 * limit,
            "what is held has a limit of its own"
        );
        assert_eq!(read_all(&log, next, last - 1, 3000).await, last - 1 - next);
        assert!(!log.needs_flush());
        drop(hold);
        let last = fill(last, 2).await;
        assert!(log.stats().segments <= limit);
        let gone = log.read(1, next, last - 1, 9).await;
        assert!(matches!(gone, Err(ReadError::Gone { .. })));
        let _hold = log.hold();
        fill(last, HELD_SEGMENTS_MAX as u64 + 5).await;
        assert!(log.stats().segments <= limit, "it was given up");
        log.close().await.unwrap();
    });
}

#[test]
fn what_was_superseded_is_never_read() {
    for seed in 0..20 {
        sim::run(seed, SimOptions::default(), |env| async move {
            let tables = Tables::default();
            let log = open(&env, small(), &tables).await.unwrap().log;
            let mut rng = Rng::new(seed);
            // By index, from 1: the term of the entry that counts.
            let mut terms: Vec<u64> = Vec::new();
            for term in 1..30 {
                let from = rng.index(terms.len() + 1);
                terms.truncate(from);
                for _ in 0..rng.between(1, 40) {
                    match superseding(&log, term, terms.len() as u64 + 1) {
                        Ok(_) => terms.push(term),
                        Err(AppendError::Full) => break,
                        Err(e) => panic!("{e}"),
                    }
                }
                log.submit();
                if rng.one_in(2) {
                    env.sleep(Duration::from_millis(2)).await;
                }
                while log.take_durable().is_some() {}
                let (after, last) = (rng.index(terms.len() + 1), terms.len());
                let entries = log.read(1, after as u64, last as u64, 1 << 20).await;
                let ids: Vec<_> = entries.unwrap().iter().map(|e| e.id).collect();
                let id = |at: usize| LogId {
                    term: terms[at],
                    index: at as u64 + 1,
                };
                let expected: Vec<_> = (after..last).map(id).collect();
                assert_eq!(ids, expected, "seed {seed}");
            }
            log.append_snapshot(1, LogId { term: 40, index: 9 }, 1, &[])
                .unwrap();
            let gone = log.read(1, 4, 9, 9).await;
            assert!(matches!(gone, Err(ReadError::Gone { first: 10 })));
            log.append_removal(1).unwrap();
            assert!(log.read(1, 4, 9, 9).await.unwrap().is_empty());
        });
    }
}
