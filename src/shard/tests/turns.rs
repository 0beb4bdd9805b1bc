//! In which order a turn serves its connections, and how many.

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::message::{Condition, Ttl};

use super::rig::{Rig, limits, with_node};
use super::{get, put};

const WRITERS: usize = 40;
/// As many acknowledgements as go out in a turn that answers reads.
const ACKS_BESIDE_READS: usize = 16;

/// Lets all writers put at once; returns to whom each turn sent until the last had its answer. The
/// reader, if there is one, reads in every turn.
async fn turns(rig: &Rig, writers: &[u64], reader: Option<u64>) -> Vec<Vec<u64>> {
    let mut bytes = Vec::new();
    let request = put(b"key", b"value", Ttl::Default, Condition::None);
    request.encode(1, 0, &mut bytes).unwrap();
    let mut read = Vec::new();
    get(b"key").encode(2, 0, &mut read).unwrap();
    rig.sends.take();
    for writer in writers {
        rig.send(*writer, &bytes);
    }
    let mut turns = Vec::new();
    let mut waiting = writers.len();
    while waiting > 0 {
        if let Some(reader) = reader {
            rig.send(reader, &read);
        }
        rig.env.sleep(Duration::from_micros(50)).await;
        for turn in rig.sends.take() {
            waiting -= turn.iter().filter(|to| writers.contains(to)).count();
            turns.push(turn);
        }
    }
    turns
}

#[test]
fn reads_are_answered_ahead_of_writes_and_need_not_wait_for_all_of_them() {
    with_node(5, 1, limits(), |rig| async move {
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(rig.connect(0, None).await);
        }
        let reader = rig.connect(0, None).await;
        let alone = turns(&rig, &writers, None).await;
        let most = alone.iter().map(Vec::len).max();
        assert!(most > Some(ACKS_BESIDE_READS), "{alone:?}");
        let beside = turns(&rig, &writers, Some(reader)).await;
        assert!(
            beside
                .iter()
                .any(|turn| turn.len() == 1 + ACKS_BESIDE_READS),
            "{beside:?}"
        );
        for turn in &beside {
            let has_reader_first = turn[0] == reader && !turn[1..].contains(&reader);
            assert!(has_reader_first, "{beside:?}");
            assert!(turn.len() <= 1 + ACKS_BESIDE_READS, "{beside:?}");
        }
        // In the order in which they wrote.
        let acknowledged = beside.iter().flat_map(|turn| &turn[1..]);
        assert!(acknowledged.eq(&writers), "{beside:?}");
    });
}
