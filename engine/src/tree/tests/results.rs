//! What became of writes, over a flush and a new start.

use std::path::Path;
use std::time::Duration;

use crate::entry::{Effect, EntryHead, KeyspaceId, LogId, WriteId};
use crate::env::Env;
use crate::env::sim::{self, SimEnv, SimOptions};
use crate::row::{ReadAt, RowKeyBuf};
use crate::tree::{Tree, TreeOptions};
use crate::writers::{Known, REPEAT_WITHIN};

const OWN: KeyspaceId = KeyspaceId::MAX;

async fn open(env: &SimEnv, own_keyspace: Option<KeyspaceId>) -> Tree<SimEnv> {
    let options = TreeOptions {
        own_keyspace,
        ..TreeOptions::tiny()
    };
    let tree = Tree::open(env.clone(), Path::new("tree"), options).await;
    let tree = tree.expect("opens");
    for (partition, _) in tree.flushed_all() {
        tree.load_results(partition).await.expect("loads");
    }
    tree
}

fn apply(tree: &Tree<SimEnv>, index: u64, sequence: u64, effect: Effect<'_>) {
    let head = EntryHead {
        partition: 1,
        id: LogId { term: 1, index },
        client: 9,
        sequence,
        time_ms: index,
    };
    tree.apply(&head, std::iter::once(effect));
}

fn known(tree: &Tree<SimEnv>, client: u64, sequence: u64, now: Duration) -> &'static str {
    let write = WriteId { client, sequence };
    match tree.writers(1).find(write, true, 1, now) {
        Known::New => "new",
        Known::Done(_, b"yes") => "done",
        Known::Done(..) => panic!("another outcome"),
        Known::Doubtful => "doubtful",
    }
}

#[test]
fn they_are_flushed_with_what_they_are_results_of() {
    sim::run(1, SimOptions::default(), |env| async move {
        let tree = open(&env, Some(OWN)).await;
        apply(&tree, 1, 1, Effect::Outcome { outcome: b"yes" });
        tree.flush().await.expect("flushes");
        apply(&tree, 2, 2, Effect::Outcome { outcome: b"yes" });
        tree.close().await.expect("closes");
        let tree = open(&env, Some(OWN)).await;
        let now = env.now();
        assert_eq!(known(&tree, 9, 1, now), "done");
        assert_eq!(known(&tree, 9, 2, now), "new", "it is to be replayed");
        assert_eq!(known(&tree, 8, 1, now), "new");
        tree.close().await.expect("closes");
    });
}

#[test]
fn tables_that_say_nothing_of_them_leave_doubt() {
    sim::run(2, SimOptions::default(), |env| async move {
        let tree = open(&env, None).await;
        apply(&tree, 1, 1, Effect::Outcome { outcome: b"yes" });
        tree.flush().await.expect("flushes");
        tree.close().await.expect("closes");
        let tree = open(&env, Some(OWN)).await;
        let now = env.now();
        assert_eq!(known(&tree, 9, 1, now), "doubtful");
        assert_eq!(known(&tree, 9, 1, now + REPEAT_WITHIN), "new");
        tree.close().await.expect("closes");
    });
}

#[test]
fn the_row_of_an_entry_of_version_2_is_passed_over_and_leaves_doubt() {
    sim::run(3, SimOptions::default(), |env| async move {
        let tree = open(&env, Some(OWN)).await;
        let row = Effect::Put {
            keyspace: OWN,
            key: &[0, b'w', 0, 7],
            value: b"what it came to",
            expires_ms: 0,
            created_ms: 0,
        };
        apply(&tree, 1, 1, row);
        assert_eq!(known(&tree, 9, 1, env.now()), "doubtful");
        let row_key = RowKeyBuf::of(1, OWN, &[0, b'w', 0, 7]);
        let found = tree.get(&row_key, ReadAt::newest(1)).await.expect("reads");
        assert_eq!(found.map(|row| row.value), None);
        tree.close().await.expect("closes");
    });
}
