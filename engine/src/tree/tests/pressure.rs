//! Memtables that use up their share of memory: writers are held back, and let go again although nobody
//! writes meanwhile.

use std::time::Duration;

use super::walk::Walk;
use crate::entry::{Effect, EntryHead, LogId};
use crate::env::Env;
use crate::env::sim::{self, SimOptions};
use crate::tree::{Tree, TreeOptions};

fn put<E: Env>(tree: &Tree<E>, index: u64, value: &[u8]) {
    let head = EntryHead {
        partition: 1,
        id: LogId { term: 1, index },
        ..EntryHead::default()
    };
    let effect = Effect::Put {
        keyspace: 7,
        key: &index.to_be_bytes(),
        value,
        expires_ms: 0,
        created_ms: 0,
    };
    tree.apply(&head, std::iter::once(effect));
}

#[test]
fn a_value_as_large_as_all_memtables_holds_writers_back_for_a_moment_only() {
    sim::run(1, SimOptions::default(), |env| async move {
        let options = TreeOptions::tiny();
        let value = vec![7; options.memtable_budget(options.memory_bytes) as usize];
        let walk = Walk::new(env.clone(), 1, 1, options).await;
        put(&walk.tree, 1, &value);
        assert!(walk.tree.pressure().stop);
        env.sleep(Duration::from_secs(5)).await;
        assert!(!walk.tree.pressure().stop);
        walk.tree.close().await.expect("closes");
    });
}

#[test]
fn a_lower_budget_holds_writers_back_for_a_moment_only() {
    sim::run(2, SimOptions::default(), |env| async move {
        let options = TreeOptions {
            memtable_bytes: 0,
            ..TreeOptions::tiny()
        };
        let walk = Walk::new(env.clone(), 2, 1, options.clone()).await;
        let mut index = 0;
        // Nearly full, so that it is open.
        while walk.tree.stats().memtable_bytes
            < options.memtable_limit(options.memory_bytes) / 8 * 7
        {
            index += 1;
            put(&walk.tree, index, &[7; 500]);
        }
        assert!(!walk.tree.pressure().stop);
        walk.tree.set_budget(options.memory_bytes / 4);
        assert!(walk.tree.pressure().stop);
        env.sleep(Duration::from_secs(5)).await;
        assert!(!walk.tree.pressure().stop);
        walk.tree.close().await.expect("closes");
    });
}
