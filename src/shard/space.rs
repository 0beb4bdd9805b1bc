//! Watches the free space, so that puts are refused before the disk is full.
//!
//! A node tells the others that its disk is nearly full ([`super::drain`]). A leader refuses puts where most
//! voters have said so, too: it could have them stored by no quorum.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::{Disk, Env, TaskClass};

use super::Inner;

/// How often the file system is asked.
const EVERY: Duration = Duration::from_millis(500);

impl<E: Env> Inner<E> {
    /// Starts watching. Puts are refused while less than the reserve is free, and taken again by
    /// themselves once a little more than the reserve is.
    pub(super) fn watch_space(self: &Rc<Self>) {
        let this = Rc::downgrade(self);
        let env = self.env.clone();
        self.env.spawn(TaskClass::Background, async move {
            while let Some(inner) = this.upgrade() {
                let free = env.disk().free_bytes(&inner.config.dir).await;
                if let Ok(free) = free {
                    let reserve = inner.config.space_reserve;
                    let enough = if inner.space_low.get() {
                        reserve + reserve / 8
                    } else {
                        reserve
                    };
                    let is_low = free < enough;
                    inner.space_low.set(is_low);
                    if is_low {
                        inner.engine.log().give_up_holds();
                    }
                    if inner.config.core == 0 {
                        let cluster = &inner.config.cluster;
                        cluster.note_full(cluster.here(), is_low, env.now());
                    }
                }
                drop(inner);
                env.sleep(EVERY).await;
            }
        });
    }
}
