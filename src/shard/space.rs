//! Watches the free space, so that puts are refused before the disk is full.

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
                    inner.space_low.set(free < enough);
                }
                drop(inner);
                env.sleep(EVERY).await;
            }
        });
    }
}
