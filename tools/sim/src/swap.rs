//! Two blocks of tables that change places on the medium, as when a device maps one for the other.
//!
//! Each is intact, and as long as the other: only a checksum that covers where a block belongs tells.

use std::path::PathBuf;
use std::rc::Rc;

use ringbolt_engine::cache::BlockCache;
use ringbolt_engine::env::sim::{Rng, SimEnv, SimWorld};
use ringbolt_engine::table::{BlockHandle, BlockKind, Table, TableContext};
use ringbolt_engine::tree::table_id;

/// A block of some table.
struct Place {
    path: PathBuf,
    kind: BlockKind,
    handle: BlockHandle,
}

/// Swaps two blocks of one kind and length in the tables on the disk. Returns whether there are two.
pub fn swap_two(rng: &mut Rng, world: &mut SimWorld) -> bool {
    let files = world.store().files();
    let places = world.run(|env| async move {
        let mut places = Vec::new();
        for (path, _) in files {
            if let Some(id) = table_id(&path) {
                places.extend(blocks_of(&env, path, id).await);
            }
        }
        places
    });
    world.kill();
    let Ok(places) = places else {
        return false;
    };
    if places.is_empty() {
        return false;
    }
    // From a random one on, the first that has a partner.
    let first = rng.index(places.len());
    let pair = (0..places.len()).find_map(|step| {
        let one = &places[(first + step) % places.len()];
        let mut later = (1..places.len()).map(|more| &places[(first + step + more) % places.len()]);
        let other = later.find(|p| p.kind == one.kind && p.handle.len == one.handle.len)?;
        Some((one, other))
    });
    pair.is_some_and(|(one, other)| {
        world.store().swap(
            (&one.path, one.handle.offset),
            (&other.path, other.handle.offset),
            one.handle.len as usize,
        )
    })
}

/// The blocks of a table; none of one that is damaged or half written.
async fn blocks_of(env: &SimEnv, path: PathBuf, id: u64) -> Vec<Place> {
    let context = TableContext::new(env.clone(), Rc::new(BlockCache::new(0)));
    let Ok(table) = Table::open(&context, &path, id, None).await else {
        return Vec::new();
    };
    let blocks = table.blocks().await.unwrap_or_default();
    blocks
        .into_iter()
        .map(|(kind, handle)| Place {
            path: path.clone(),
            kind,
            handle,
        })
        .collect()
}
