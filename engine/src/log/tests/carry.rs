//! A partition whose entries stay uncommitted beside one that goes on writing.

use super::*;
use crate::env::sim::{SimOptions, SimWorld, Stop};

/// The last entry of the partition that has no quorum.
const STUCK: u64 = 40;

fn carried(index: u64) -> Carried<Vec<u8>> {
    let (key, value) = (index.to_be_bytes(), value(2, index, 0));
    let head = head(2, index);
    Carried {
        id: head.id,
        time_ms: head.time_ms,
        payload: encode_payload(&head, &effects_of(index, &key, &value)).unwrap(),
    }
}

/// What outlives a crash.
#[derive(Debug, Clone, Default)]
struct Known {
    acked: Rc<RefCell<BTreeMap<PartitionId, u64>>>,
    tables: Tables,
}

/// One life: partition 2 has entries that never get into tables, partition 1 writes `segments` more,
/// and what it has written is in tables at once. Answers how often entries were carried forward.
async fn life(env: SimEnv, known: Known, segments: u64) -> u64 {
    let opened = open(&env, small(), &known.tables).await.unwrap();
    let log = opened.log;
    let mut acked = known.acked.borrow().clone();
    for (partition, index) in &acked {
        assert!(opened.last.get(partition) >= Some(index), "{partition}");
    }
    acked.extend(opened.last.clone());
    let last = acked.get(&2).copied().unwrap_or(0);
    for index in last + 1..=STUCK {
        append(&log, 2, index).unwrap();
    }
    settle(&log, &env, &mut acked, (2, STUCK)).await.unwrap();
    known.acked.borrow_mut().extend(acked.clone());
    let (mut index, mut times) = (acked.get(&1).copied().unwrap_or(0), 0);
    while log.stats().segments_begun < segments {
        match append(&log, 1, index + 1) {
            Ok(_) => index += 1,
            Err(AppendError::Full) => env.sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
        if index % 4 == 0 {
            settle(&log, &env, &mut acked, (1, index)).await.unwrap();
            known.acked.borrow_mut().insert(1, index);
            known.tables.flush(1, index);
            log.recycle(&known.tables.flushed());
        }
        let waits = log.waits_for(&known.tables.flushed());
        if let Some((2, upto)) = waits.iter().find(|(partition, _)| *partition == 2) {
            assert_eq!(*upto, STUCK);
            let all: Vec<_> = (1..=STUCK).map(carried).collect();
            assert_eq!(
                log.append_again(2, &all[1..STUCK as usize - 1]),
                Err(AppendError::Gap)
            );
            times += u64::from(log.append_again(2, &all).is_ok());
        }
    }
    log.close().await.unwrap();
    times
}

#[test]
fn the_log_goes_on_without_what_stays_uncommitted() {
    let mut world = SimWorld::new(1, SimOptions::default());
    let known = Known::default();
    let (first, again) = (known.clone(), known.clone());
    // Many times as many segments as there may be.
    let times = world.run(|env| life(env, first, 60)).unwrap();
    assert!((3..=20).contains(&times), "once a segment at most: {times}");
    world.run(|env| life(env, again, 20)).unwrap();
    assert_eq!(known.acked.borrow()[&2], STUCK);
}

/// Nothing that was durable is lost with a crash on the way.
#[test]
fn a_crash_while_entries_are_carried_forward_loses_none() {
    for seed in 0..60 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        let known = Known::default();
        let mut rng = Rng::new(seed);
        for _ in 0..6 {
            let steps = 1 + rng.below(3000);
            let life_known = known.clone();
            let result = world.run(move |env| async move {
                env.crash_after_steps(steps);
                life(env, life_known, 40).await
            });
            match result {
                Ok(_) | Err(Stop::Crashed) => {}
                Err(stop) => panic!("seed {seed}: {stop}"),
            }
            world.crash();
        }
        world.run(|env| life(env, known.clone(), 2)).unwrap();
    }
}
