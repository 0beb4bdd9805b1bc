//! Buffers for groups: reused, and limited in all.

use std::cell::{Cell, RefCell};

use crate::env::AlignedBuf;

/// Idle buffers kept, at most.
const IDLE_MAX: usize = 8;

/// Hands out buffers until a limit on their bytes is reached.
pub(super) struct Pool {
    /// Size of the buffers that are kept for reuse.
    buffer_bytes: usize,
    bytes_max: usize,
    /// Bytes handed out and not given back.
    out: Cell<usize>,
    /// The last one given back is handed out first: it is the one still in the processor's cache.
    idle: RefCell<Vec<AlignedBuf>>,
}

impl Pool {
    pub(super) fn new(buffer_bytes: usize, bytes_max: usize) -> Self {
        Self {
            buffer_bytes,
            bytes_max,
            out: Cell::new(0),
            idle: RefCell::new(Vec::with_capacity(IDLE_MAX)),
        }
    }

    /// A buffer of at least `bytes`; `None` over the limit. Its content is whatever it was. One
    /// buffer may always be out, however large.
    pub(super) fn take(&self, bytes: usize) -> Option<AlignedBuf> {
        let bytes = bytes.max(self.buffer_bytes);
        if self.out.get() > 0 && self.out.get() + bytes > self.bytes_max {
            return None;
        }
        let idle = if bytes == self.buffer_bytes {
            self.idle.borrow_mut().pop()
        } else {
            // A large one is made for its record alone: the idle ones make room for it.
            self.idle.borrow_mut().clear();
            None
        };
        let mut buf = idle.unwrap_or_else(|| AlignedBuf::zeroed(bytes));
        buf.set_len(buf.capacity());
        self.out.set(self.out.get() + buf.capacity());
        Some(buf)
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buf: AlignedBuf) {
        self.out.set(self.out.get().saturating_sub(buf.capacity()));
        let mut idle = self.idle.borrow_mut();
        if buf.capacity() == self.buffer_bytes && buf.is_unique() && idle.len() < IDLE_MAX {
            idle.push(buf);
        }
    }

    /// Bytes of memory held, idle buffers included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.out.get() + self.idle.borrow().len() * self.buffer_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_buffers_are_reused() {
        let pool = Pool::new(8192, 3 * 8192);
        let one = pool.take(1).unwrap();
        let two = pool.take(9000).unwrap();
        assert!(pool.take(1).is_none());
        let address = one.as_ptr();
        pool.give(one);
        let again = pool.take(8192).unwrap();
        assert_eq!(again.as_ptr(), address);
        pool.give(two);
        pool.give(again);
        assert_eq!(pool.memory_bytes(), 8192);
        let large = pool.take(100_000).unwrap();
        assert!(pool.take(1).is_none());
        pool.give(large);
        assert_eq!(pool.memory_bytes(), 0);
    }
}
