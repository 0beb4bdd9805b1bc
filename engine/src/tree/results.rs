//! What became of writes, between memory and rows: see [`crate::writers`].

use std::cell::RefMut;

use super::memtables::Memtables;
use super::{Inner, Tree};
use crate::entry::PartitionId;
use crate::env::Env;
use crate::error::{EngineError, Result};
use crate::row::{Cell, ReadAt, RowKeyBuf, RowMeta};
use crate::writers::{Writers, row};

impl<E: Env> Inner<E> {
    /// Puts the partition's results down in the active memtable, unless a row has them.
    pub(crate) fn put_down(&self, memtables: &Memtables, partition: PartitionId) {
        let mut writers = self.writers_of(partition);
        let (Some(keyspace), true) = (self.options.own_keyspace, writers.put_down()) else {
            return;
        };
        let mut value = Vec::new();
        writers.encode(self.env.now(), &mut value);
        let applied = self.applied.borrow().get(partition).unwrap_or_default();
        let meta = RowMeta {
            version: applied.id.index,
            updated_ms: applied.time_ms,
            ..RowMeta::default()
        };
        let row_key = RowKeyBuf::of(partition, keyspace, &row::KEY);
        let mut active = memtables.active.borrow_mut();
        active.insert(
            &row_key,
            Cell::Put {
                meta,
                value: &value,
            },
        );
    }

    /// Forgets what became of a partition's writes, until rows say it.
    pub(crate) fn forget_results(&self, partition: PartitionId) {
        *self.writers_of(partition) = Writers::unknown(self.env.now());
    }

    pub(super) fn writers_of(&self, partition: PartitionId) -> RefMut<'_, Writers> {
        RefMut::map(self.writers.borrow_mut(), |all| {
            let at = usize::from(partition);
            if all.len() <= at {
                all.resize_with(at + 1, Writers::default);
            }
            &mut all[at]
        })
    }
}

impl<E: Env> Tree<E> {
    /// Takes over what rows say became of a partition's writes. Before anything of it is applied.
    ///
    /// # Errors
    /// `Corrupt` for a damaged table or a row that cannot be believed; the disk's error.
    pub(crate) async fn load_results(&self, partition: PartitionId) -> Result<()> {
        let Some(keyspace) = self.inner.options.own_keyspace else {
            return Ok(());
        };
        let row_key = RowKeyBuf::of(partition, keyspace, &row::KEY);
        let found = self.get(&row_key, ReadAt::newest(0)).await?;
        let now = self.inner.env.now();
        let known = match &found {
            Some(found) => Writers::decode(&found.value, now),
            // Each partition of this version has a row in tables as soon as it has any.
            None => Some(Writers::unknown(now)),
        };
        let Some(known) = known else {
            let what = format!("what became of partition {partition}'s writes cannot be read");
            return Err(EngineError::corrupt(&self.inner.dir, 0, what));
        };
        *self.writers(partition) = known;
        Ok(())
    }
}
