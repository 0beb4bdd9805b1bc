//! A heap buffer aligned and sized for direct I/O.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use super::SECTOR;

/// A zero-initialised buffer whose address and length are multiples of [`SECTOR`].
///
/// Its memory can be shared for reading ([`AlignedBuf::share`]): the log goes on reading a group
/// while the disk writes it.
pub struct AlignedBuf {
    memory: Rc<Memory>,
    len: usize,
}

/// One allocation: `len` initialised bytes at `ptr`.
struct Memory {
    ptr: NonNull<u8>,
    len: usize,
}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes rounded up to [`SECTOR`], at least one sector.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let len = len.max(1).next_multiple_of(SECTOR);
        let layout = Memory::layout(len);
        // SAFETY: the layout has a non-zero size.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else {
            handle_alloc_error(layout)
        };
        let memory = Rc::new(Memory { ptr, len });
        Self { memory, len }
    }

    /// Grows to at least `len` bytes, keeping the content; the new bytes are zero. Never shrinks.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            let mut bigger = Self::zeroed(len);
            bigger[..self.len].copy_from_slice(self);
            *self = bigger;
        }
    }

    /// The bytes allocated, whatever [`AlignedBuf::set_len`] shows of them.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.len
    }

    /// Shows the first `len` bytes, rounded up to [`SECTOR`] and at most the capacity. Bytes that
    /// come into view again are what they were before.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.max(1).next_multiple_of(SECTOR).min(self.memory.len);
    }

    /// Another handle to the same memory that shows its first `len` bytes (as in
    /// [`AlignedBuf::set_len`]). While more than one handle exists, all are read-only: taking a
    /// mutable slice panics.
    #[must_use]
    pub fn share(&self, len: usize) -> Self {
        let mut other = Self {
            memory: Rc::clone(&self.memory),
            len: self.len,
        };
        other.set_len(len);
        other
    }

    /// Whether this is the only handle, so that the bytes may be changed.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        Rc::strong_count(&self.memory) == 1
    }
}

impl Memory {
    fn layout(len: usize) -> Layout {
        match Layout::from_size_align(len, SECTOR) {
            Ok(layout) => layout,
            Err(_) => panic!("a buffer of {len} bytes exceeds the address space"),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `AlignedBuf::zeroed` with this very layout.
        unsafe { dealloc(self.ptr.as_ptr(), Self::layout(self.len)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` is valid for `memory.len >= self.len` initialised bytes for the life of
        // `self`, and nobody holds a mutable slice: that takes the only handle, mutably.
        unsafe { std::slice::from_raw_parts(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        assert!(self.is_unique(), "a shared buffer is read-only");
        // SAFETY: as in `deref`; this is the only handle and it is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_buffer_reads_the_same_bytes_and_becomes_writable_again() {
        let mut buf = AlignedBuf::zeroed(2 * SECTOR);
        buf[5] = 7;
        let shared = buf.share(10);
        assert_eq!(
            (shared.len(), shared[5], buf.is_unique()),
            (SECTOR, 7, false)
        );
        drop(shared);
        buf[5] = 8;
        buf.set_len(1);
        assert_eq!((buf.len(), buf.capacity()), (SECTOR, 2 * SECTOR));
        buf.grow(3 * SECTOR);
        assert_eq!((buf.len(), buf[5]), (3 * SECTOR, 8));
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn a_shared_buffer_cannot_be_changed() {
        let mut buf = AlignedBuf::zeroed(1);
        let _other = buf.share(1);
        buf[0] = 1;
    }
}
