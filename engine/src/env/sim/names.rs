//! The simulated directory tree: the names that are seen, those on the medium, and the changes in
//! between that no `sync_dir` has covered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::fault::{Counts, Fault};
use super::inode::Cut;
use super::rng::Rng;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Add {
        path: PathBuf,
        node: Node,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: Node,
    },
    Remove {
        path: PathBuf,
        node: Node,
    },
}

impl NameChange {
    /// Makes the change, as far as it still fits what is there.
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add { path, node } => {
                names.insert(path.clone(), *node);
            }
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
            Self::Remove { path, node } => {
                if names.get(path) == Some(node) {
                    names.remove(path);
                }
            }
        }
    }

    /// The directory whose sync makes it durable.
    fn dir(&self) -> &Path {
        let path = match self {
            Self::Add { path, .. } | Self::Remove { path, .. } => path,
            Self::Rename { to, .. } => to,
        };
        path.parent().unwrap_or(Path::new(""))
    }

    fn node(&self) -> Node {
        match self {
            Self::Add { node, .. } | Self::Rename { node, .. } | Self::Remove { node, .. } => *node,
        }
    }
}

/// The parent of a relative path is empty; `.` means the same.
fn without_dot(dir: &Path) -> &Path {
    dir.strip_prefix(".").unwrap_or(dir)
}

#[derive(Clone, Default)]
pub(super) struct Names {
    view: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<(u64, NameChange)>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if path.as_os_str().is_empty() || path == Path::new("/") || path == Path::new(".") {
            return Some(Node::Dir);
        }
        self.view.get(path).copied()
    }

    /// Whether the directory that `path` is in is there.
    pub(super) fn parent_exists(&self, path: &Path) -> bool {
        path.parent()
            .is_none_or(|parent| self.get(parent) == Some(Node::Dir))
    }

    pub(super) fn change(&mut self, change: NameChange, stamp: u64) {
        change.apply(&mut self.view);
        self.unsynced.push((stamp, change));
    }

    /// The entries of one directory, sorted.
    pub(super) fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let dir = without_dot(dir);
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        self.view.keys().filter(inside).cloned().collect()
    }

    /// Every file, sorted by name.
    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, u64)> {
        self.view.iter().filter_map(|(path, node)| match node {
            Node::File(ino) => Some((path, *ino)),
            Node::Dir => None,
        })
    }

    pub(super) fn sync_dir(&mut self, dir: &Path, stamp: u64) {
        let dir = without_dot(dir);
        let durable = &mut self.durable;
        self.unsynced.retain(|(at, change)| {
            let covered = *at <= stamp && change.dir() == dir;
            if covered {
                change.apply(durable);
            }
            !covered
        });
    }

    pub(super) fn power_cut(&mut self, cut: Cut, rng: &mut Rng, counts: &mut Counts) {
        for (stamp, change) in std::mem::take(&mut self.unsynced) {
            let kept = match cut {
                Cut::LoseAll => false,
                Cut::KeepAll => true,
                Cut::UpTo(last) => stamp <= last,
                Cut::Independent => rng.one_in(2),
            };
            if kept {
                counts.add(Fault::NameKept);
                change.apply(&mut self.durable);
            } else {
                counts.add(Fault::NameLost);
            }
        }
        self.view = self.durable.clone();
        loop {
            let orphans: Vec<PathBuf> = self
                .view
                .keys()
                .filter(|path| !self.parent_exists(path))
                .cloned()
                .collect();
            if orphans.is_empty() {
                break;
            }
            for path in orphans {
                self.view.remove(&path);
            }
        }
        self.durable = self.view.clone();
    }

    /// The files that are named now.
    pub(super) fn named(&self) -> BTreeSet<u64> {
        self.files().map(|(_, ino)| ino).collect()
    }

    /// The files that a crash may bring back, though no longer named.
    pub(super) fn recoverable(&self) -> BTreeSet<u64> {
        let unsynced = self.unsynced.iter().map(|(_, change)| change.node());
        self.durable
            .values()
            .copied()
            .chain(unsynced)
            .filter_map(|node| match node {
                Node::File(ino) => Some(ino),
                Node::Dir => None,
            })
            .collect()
    }
}
