//! The pool of receive buffers that the kernel picks from.
//!
//! One block of memory cut into equal buffers, and beside it the ring of entries (address, length,
//! id) that is shared with the kernel: we add at the tail, the kernel takes at the head. A buffer is
//! either *in the ring* (the kernel may write to it) or *lent* (a completion named it; only the
//! holder of its [`RecvBytes`] may read it), never both: `lent` is checked at each step, because a
//! buffer that is both would be memory written behind a shared reference.
//!
//! A bundled receive fills several buffers that follow each other in the ring, not in memory, so
//! the order in which ids were added is kept in `order`.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// An anonymous private mapping, unmapped on drop.
struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no
        // memory of ours.
        let ptr = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_ANONYMOUS | libc::MAP_PRIVATE,
                -1,
                0,
            )
        };
        if ptr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ptr = NonNull::new(ptr.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ptr, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

pub(crate) struct Pool {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    buffer_bytes: usize,
    tail: Cell<u16>,
    in_ring: Cell<u16>,
    /// The id at each position of the entry ring.
    order: RefCell<Vec<u16>>,
    /// The position at which each id was last added.
    position: RefCell<Vec<u16>>,
    lent: RefCell<Vec<bool>>,
}

impl Pool {
    /// A pool with every buffer in the ring. `count` is a power of two up to 32,768.
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> io::Result<Rc<Self>> {
        let buffer_bytes = buffer_bytes as usize;
        let pool = Self {
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            memory: Mapping::new(usize::from(count) * buffer_bytes)?,
            count,
            buffer_bytes,
            tail: Cell::new(0),
            in_ring: Cell::new(0),
            order: RefCell::new(vec![0; usize::from(count)]),
            position: RefCell::new(vec![0; usize::from(count)]),
            lent: RefCell::new(vec![true; usize::from(count)]),
        };
        for id in 0..count {
            pool.give_back(id);
        }
        Ok(Rc::new(pool))
    }

    /// The address of the entry ring, for registration.
    pub(crate) fn entries_addr(&self) -> u64 {
        self.entries.ptr.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Buffers that the kernel may pick from, as far as this side knows.
    pub(crate) fn in_ring(&self) -> u16 {
        self.in_ring.get()
    }

    /// Takes a buffer that a completion named, holding `len` bytes. `None` if the id is unknown or
    /// the buffer is lent already, or too small: the kernel and we disagree.
    pub(crate) fn lend(self: &Rc<Self>, id: u16, len: usize) -> Option<RecvBytes> {
        if len > self.buffer_bytes {
            return None;
        }
        let mut lent = self.lent.borrow_mut();
        let flag = lent.get_mut(usize::from(id))?;
        if *flag {
            return None;
        }
        *flag = true;
        self.in_ring.set(self.in_ring.get() - 1);
        Some(RecvBytes {
            pool: Rc::clone(self),
            id,
            len,
        })
    }

    /// The id that follows `id` in the order of the ring.
    pub(crate) fn after(&self, id: u16) -> u16 {
        let position = self.position.borrow()[usize::from(id)];
        self.order.borrow()[usize::from(position.wrapping_add(1) & (self.count - 1))]
    }

    /// Puts a lent buffer back into the ring.
    fn give_back(&self, id: u16) {
        let was_lent = std::mem::replace(&mut self.lent.borrow_mut()[usize::from(id)], false);
        debug_assert!(was_lent, "a buffer goes back once");
        let tail = self.tail.get();
        let position = tail & (self.count - 1);
        self.order.borrow_mut()[usize::from(position)] = id;
        self.position.borrow_mut()[usize::from(id)] = position;
        let base = self.entries.ptr.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `position` is below `count`, the length of the entry ring. The kernel reads an
        // entry only once the tail has passed it, and the tail has not: at most `count` buffers
        // exist, so the entry written here was consumed. The buffer's address lies within
        // `memory`.
        unsafe {
            let entry = &mut *base.add(usize::from(position));
            let offset = usize::from(id) * self.buffer_bytes;
            entry.set_addr(self.memory.ptr.as_ptr().add(offset) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.in_ring.set(self.in_ring.get() + 1);
        // SAFETY: the shared tail lies inside the first entry (in its reserved field), is aligned
        // to two bytes, and is written by this thread only; the kernel loads it with acquire.
        unsafe {
            let shared = BufRingEntry::tail(base).cast::<AtomicU16>();
            (*shared).store(tail, Ordering::Release);
        }
    }
}

/// Received bytes in one of the ring's buffers. The buffer goes back to the kernel on drop: hold
/// it no longer than needed, the pool is shared by all connections of the ring.
pub struct RecvBytes {
    pool: Rc<Pool>,
    id: u16,
    len: usize,
}

impl Deref for RecvBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let offset = usize::from(self.id) * self.pool.buffer_bytes;
        // SAFETY: `id` is below the pool's count and `len` at most the size of a buffer, so the
        // range lies within the mapping, which is initialised (zeroed by mmap). The buffer is
        // lent to this value alone, so the kernel does not write to it.
        unsafe { std::slice::from_raw_parts(self.pool.memory.ptr.as_ptr().add(offset), self.len) }
    }
}

impl Drop for RecvBytes {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}

impl std::fmt::Debug for RecvBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecvBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_once_and_goes_back_to_the_tail() {
        let pool = Pool::new(4, 64).unwrap();
        assert_eq!(pool.in_ring(), 4);
        assert_eq!(pool.after(0), 1);
        let first = pool.lend(0, 64).unwrap();
        assert!(pool.lend(0, 1).is_none(), "lent already");
        assert!(pool.lend(1, 65).is_none(), "longer than a buffer");
        assert!(pool.lend(4, 1).is_none(), "no such buffer");
        assert_eq!((pool.in_ring(), first.len()), (3, 64));
        let second = pool.lend(1, 3).unwrap();
        drop(second);
        drop(first);
        assert_eq!(pool.in_ring(), 4);
        assert_eq!(pool.after(3), 1, "buffer 1 went back first");
        assert_eq!(pool.after(1), 0);
    }

    #[test]
    fn bytes_outlive_the_ring_side_of_the_pool() {
        let pool = Pool::new(2, 64).unwrap();
        let bytes = pool.lend(1, 10).unwrap();
        drop(pool);
        assert_eq!(&bytes[..], &[0; 10]);
    }
}
