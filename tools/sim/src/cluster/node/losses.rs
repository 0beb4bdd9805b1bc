//! What befalls the data of a node whose process has just died: its disk is replaced, is put back to an
//! earlier time, or is damaged.

use ringbolt_engine::engine::Engine;
use ringbolt_engine::env::sim::{DiskImage, Rng, SimMachine, SimOptions};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::error::EngineError;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use ringbolt::cluster::boot_of;
use ringbolt::cluster::map::ClusterMap;

use super::super::folder::Folder;
use super::{Node, folder_id};

/// Most tasks polled between two looks at a trial.
const POLLS: u64 = 1_000;

/// What disk and folder held at one time.
pub(super) struct Image {
    disk: DiskImage,
    folder: Folder,
}

impl Node {
    /// Keeps what disk and folder hold now.
    pub fn keep_image(&mut self) {
        self.image = Some(Image {
            disk: self.machine.store().image(),
            folder: self.folder.clone(),
        });
    }

    /// Whether the image that is kept is older than some start of this node that every other one has
    /// durably seen. Only then can the cluster find out; what nobody remembers, nobody can miss.
    #[must_use]
    pub fn can_roll_back(&self, nodes: &[Self]) -> bool {
        let Some(Image { folder, .. }) = &self.image else {
            return false;
        };
        let Some((map, number)) = &folder.belongs else {
            return false;
        };
        let boot = boot_of(generation(map, *number), folder.boots);
        let mut others = nodes.iter().filter(|node| node.number != self.number);
        others.all(|other| other.folder.has_seen_later(*number, boot))
    }

    /// The disk is put back to the image, and the folder with it.
    pub fn roll_back(&mut self) {
        if let Some(image) = self.image.take() {
            self.machine.store().restore(&image.disk);
            self.folder = image.folder;
        }
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&mut self) {
        self.machine.store().wipe();
        self.image = None;
        self.folder = Folder::new(folder_id(&mut self.rng));
    }

    /// Damages tables, the log or the manifest of a core, at random places, so that it is found: damage
    /// of the log's end that nothing later covers looks like a write that was cut short, and none is
    /// done then. Returns whether any was.
    pub fn damage(&mut self) -> bool {
        let core = self.rng.below(u64::from(self.cores())) as u16;
        let dir = self.folder.shard_dir(core);
        let (part, one_in) = [(".table", 4), (".seg", 8), ("MANIFEST", 1)][self.rng.index(3)];
        let before = self.machine.store().image();
        let mut done = false;
        for (path, len) in self.machine.store().files() {
            let name = path.to_string_lossy();
            if !path.starts_with(&dir) || !name.contains(part) {
                continue;
            }
            for sector in 0..len / SECTOR {
                if self.rng.one_in(one_in) {
                    let byte = sector * SECTOR + self.rng.below(SECTOR);
                    let bit = self.rng.below(8) as u32;
                    done |= self.machine.store().flip_bit(&path, byte, bit);
                }
            }
        }
        // Tables are looked at when they are read.
        if done && part != ".table" && !self.is_refused(&dir) {
            self.machine.store().restore(&before);
            return false;
        }
        done
    }

    /// Whether anything of the folder's data is damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.machine.store().is_damaged(&self.folder.id)
    }

    /// Whether an engine does not open on what the disk holds, because that is damaged.
    fn is_refused(&self, dir: &Path) -> bool {
        let options = SimOptions {
            faults: Vec::new(),
            ..self.machine.options().clone()
        };
        let mut trial = SimMachine::new(Rng::new(1), options, Rc::default());
        trial.store().restore(&self.machine.store().image());
        let core = trial.core(0);
        let (env, dir) = (core.env().clone(), dir.to_owned());
        let engine = self.setup.engine.clone();
        let refused = Rc::new(Cell::new(None));
        let told = Rc::clone(&refused);
        core.env().spawn(TaskClass::Foreground, async move {
            let opened = Engine::open(env, &dir, engine).await;
            let damaged = opened.is_err_and(|error| matches!(error, EngineError::Corrupt { .. }));
            told.set(Some(damaged));
        });
        while refused.get().is_none() {
            core.run_tasks(POLLS);
            match core.next_ns() {
                Some(next) => core.advance_to(next),
                None => break,
            }
        }
        refused.get() == Some(true)
    }
}

const SECTOR: u64 = ringbolt_engine::env::SECTOR as u64;

fn generation(map: &ClusterMap, node: u32) -> u32 {
    map.node(node).map_or(1, |node| node.generation)
}
