//! Data that must not be used any more, and how it is moved aside.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{DataDir, FORMAT_FILE, Format, LOCK_FILE, LOST_MAX, LOST_PREFIX, NodeIdentity};
use crate::node::StartError;

impl DataDir {
    /// Notes durably that the data must not be used any more, and why.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn lose(&mut self, why: &str) -> Result<(), StartError> {
        self.format.lost.get_or_insert_with(|| why.to_owned());
        self.write()
    }

    /// Moves lost data into a folder beside, and begins anew as the empty folder `id` of the same node.
    /// Gives where the data is now.
    ///
    /// # Errors
    /// [`StartError::LostTooOften`]; nothing was moved then. [`StartError::Io`]: the next call goes on.
    pub fn set_aside(&mut self, id: String) -> Result<PathBuf, StartError> {
        let place = |n: u32| self.path.join(format!("{LOST_PREFIX}{n}"));
        // Its FORMAT is the last thing that comes into it.
        let is_used = |n: &u32| place(*n).join(FORMAT_FILE).exists();
        let Some(number) = (1..=LOST_MAX).find(|n| !is_used(n)) else {
            return Err(StartError::LostTooOften {
                dir: self.path.clone(),
                why: self.format.lost.clone().unwrap_or_default(),
                kept: LOST_MAX,
            });
        };
        let aside = place(number);
        self.move_into(&aside)
            .map_err(|error| StartError::io(&aside, &error))?;
        let node = self.format.node.take();
        let was = node.as_ref().and_then(|node| node.cluster.clone());
        let old = &mut self.format;
        let rejoins = was.or_else(|| old.rejoins.take());
        self.format = Format {
            boots: old.boots,
            rejoins,
            node: node.map(|node| NodeIdentity {
                cluster: None,
                id: None,
                ..node
            }),
            ..Format::new(id, old.cores, old.partitions, &old.durability)
        };
        self.write()?;
        Ok(aside)
    }

    /// Moves everything but the lock and earlier lost data, and copies FORMAT.
    fn move_into(&self, aside: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(aside)?;
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let stays = [LOCK_FILE, FORMAT_FILE, "FORMAT.new", "lost+found"];
            let is_lost = name.to_string_lossy().starts_with(LOST_PREFIX);
            if !is_lost && !stays.iter().any(|stay| name == *stay) {
                std::fs::rename(self.path.join(&name), aside.join(&name))?;
            }
        }
        File::open(aside)?.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        std::fs::copy(self.path.join(FORMAT_FILE), aside.join(FORMAT_FILE))?;
        File::open(aside.join(FORMAT_FILE))?.sync_all()?;
        File::open(aside)?.sync_all()
    }

    /// Whether a shard's log is there.
    #[must_use]
    pub fn has_log(&self, core: u16) -> bool {
        let entries = std::fs::read_dir(self.shard(core).join("log"));
        let is_segment = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "seg"))
        };
        entries.is_ok_and(|mut entries| entries.any(is_segment))
    }
}
