use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::table::test_block;

fn block(len: usize) -> Rc<Block> {
    Rc::new(test_block(len))
}

fn held(cache: &BlockCache) -> usize {
    let inner = cache.inner.borrow();
    let blocks = inner.map.values();
    blocks.map(|index| inner.slots.at(*index).bytes).sum()
}

#[test]
fn the_budget_holds_and_is_exact_whatever_comes() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let cache = BlockCache::new(1 << 20);
    for step in 0..60_000u64 {
        let (table, offset) = (rng.random_range(0..12), rng.random_range(0..200));
        match rng.random_range(0..100) {
            0..45 => {
                let priority = match rng.random_range(0..5) {
                    0 => Priority::Meta,
                    _ => Priority::Data,
                };
                let len = rng.random_range(100..9000);
                cache.insert(table, offset, block(len), priority);
            }
            45 => cache.retire_table(table),
            46 if step % 50 == 0 => cache.set_budget(rng.random_range(0..2 << 20)),
            _ => drop(cache.get(table, offset)),
        }
        assert!(cache.used() <= cache.budget());
        if step % 500 == 0 {
            assert_eq!(cache.used(), held(&cache));
        }
    }
    let stats = cache.stats();
    assert!(stats.evictions > 0 && stats.hits > 0 && stats.misses > 0);
    cache.set_budget(0);
    assert_eq!((cache.used(), cache.stats().blocks), (0, 0));
}

#[test]
fn a_scan_does_not_wash_out_what_is_hot() {
    let cache = BlockCache::new(1 << 20);
    for round in 0..2 {
        for offset in 0..50 {
            if cache.get(1, offset).is_none() {
                assert_eq!(round, 0);
                cache.insert(1, offset, block(4000), Priority::Data);
            }
        }
    }
    for offset in 0..5000 {
        cache.insert(2, offset, block(4000), Priority::Data);
    }
    assert!((0..50).all(|offset| cache.get(1, offset).is_some()));
    assert!(cache.is_hot(1, 7) && !cache.is_hot(2, 4999) && !cache.is_hot(3, 0));
}

#[test]
fn data_does_not_push_out_meta_blocks_within_their_share() {
    let cache = BlockCache::new(1 << 20);
    for offset in 0..100 {
        cache.insert(1, offset, block(4000), Priority::Meta);
    }
    for offset in 0..2000 {
        cache.insert(2, offset, block(4000), Priority::Data);
        drop(cache.get(2, offset));
    }
    assert!((0..100).all(|offset| cache.peek(1, offset).is_some()));
    for offset in 100..1000 {
        cache.insert(1, offset, block(4000), Priority::Meta);
    }
    assert!(cache.stats().meta_bytes <= 1 << 19);
    assert!(cache.stats().data_bytes > 1 << 18);
}

#[test]
fn retired_tables_go_first() {
    let cache = BlockCache::new(1 << 20);
    for offset in 0..100 {
        cache.insert(1, offset, block(4000), Priority::Data);
        cache.insert(2, offset, block(4000), Priority::Data);
    }
    cache.retire_table(1);
    for offset in 0..100 {
        cache.insert(3, offset, block(4000), Priority::Data);
    }
    assert!((0..100).all(|offset| cache.peek(1, offset).is_none()));
    assert!((0..100).all(|offset| cache.peek(2, offset).is_some()));
    assert_eq!(cache.stats().evictions, 0);
    // Larger than a sixteenth of the budget: not kept.
    cache.insert(4, 0, block(100_000), Priority::Data);
    assert!(cache.peek(4, 0).is_none());
}
