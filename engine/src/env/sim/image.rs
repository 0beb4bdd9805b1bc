//! The content of a disk, kept: for disks that are rolled back, and for a look at what a damaged one
//! would do.

use std::collections::BTreeMap;

use super::SimStore;
use super::inode::Inode;
use super::names::Names;

/// What a disk held at one moment. Cheap to make: sectors are shared.
#[derive(Clone)]
pub struct DiskImage {
    inodes: BTreeMap<u64, Inode>,
    names: Names,
}

impl SimStore {
    /// The disk as it is now, while no process runs on its machine.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        let state = self.0.borrow();
        DiskImage {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
        }
    }

    /// Puts the disk back to what an image holds, while no process runs on its machine.
    pub fn restore(&self, image: &DiskImage) {
        let mut state = self.0.borrow_mut();
        state.inodes.clone_from(&image.inodes);
        state.names.clone_from(&image.names);
    }

    /// Removes everything, while no process runs on the machine.
    pub fn wipe(&self) {
        let mut state = self.0.borrow_mut();
        state.inodes.clear();
        state.names = Names::default();
    }
}
