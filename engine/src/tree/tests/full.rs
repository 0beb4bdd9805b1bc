//! A full disk, and the end of it.

use std::time::Duration;

use super::walk::{Walk, first_seed};
use crate::env::Env;
use crate::env::sim::{self, SimOptions};
use crate::tree::TreeOptions;

#[test]
fn a_full_disk_stops_background_work_until_there_is_room() {
    let first = first_seed();
    for seed in first..first + 6 {
        println!("seed {seed}");
        sim::run(seed, SimOptions::default(), |env| async move {
            let store = env.store().clone();
            let mut walk = Walk::new(env.clone(), seed, 500, TreeOptions::tiny()).await;
            for round in 0..3 {
                (0..500).for_each(|_| walk.write());
                walk.tree.flush().await.expect("flushes");
                // What compaction frees is taken away again, until nothing more can be written.
                for attempt in 0.. {
                    assert!(attempt < 50, "round {round} went on forever");
                    store.set_capacity(store.used_bytes() + walk.rng.below(20_000));
                    let mut writes = 0;
                    while !walk.tree.pressure().stop && writes < 5000 {
                        walk.write();
                        writes += 1;
                        if writes % 20 == 0 {
                            env.sleep(Duration::from_millis(1)).await;
                        }
                        if writes % 100 == 0 {
                            walk.check_random_row().await;
                        }
                    }
                    env.sleep(Duration::from_secs(5)).await;
                    assert!(walk.tree.failure().is_none());
                    if walk.tree.pressure().stop {
                        break;
                    }
                }
                assert!(walk.tree.is_out_of_space());
                assert!(walk.tree.failure().is_none());
                walk.check_all().await;
                store.set_capacity(1 << 40);
                walk.tree.flush().await.expect("goes on by itself");
                env.sleep(Duration::from_secs(5)).await;
                assert!(!walk.tree.is_out_of_space());
                assert!(!walk.tree.pressure().stop);
            }
            assert!(walk.tree.stats().no_space > 0);
            walk.check_all().await;
            walk.tree.close().await.expect("closes");
        });
    }
}
