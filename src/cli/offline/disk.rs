//! Files by plain system calls.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ringbolt_engine::env::{AlignedBuf, Disk, DiskError, DiskFile, FileClass};

/// What may be done to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They are read.
    Read,
    /// They are read and written.
    Write,
}

/// The file system.
#[derive(Debug)]
pub struct PlainDisk {
    access: Access,
}

impl PlainDisk {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }

    /// Refuses what a reader must not do.
    fn writable(&self, op: &'static str, path: &Path) -> Result<(), DiskError> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => {
                let error = io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading");
                Err(DiskError::from_io(op, path, &error))
            }
        }
    }

    fn file(&self, file: File, path: &Path, class: FileClass) -> PlainFile {
        PlainFile {
            file,
            path: path.to_path_buf(),
            write_through: class == FileClass::Log,
        }
    }
}

/// Names the operation and the file in an error.
fn told<T>(op: &'static str, path: &Path, result: io::Result<T>) -> Result<T, DiskError> {
    result.map_err(|error| DiskError::from_io(op, path, &error))
}

impl Disk for PlainDisk {
    type File = PlainFile;

    async fn open(&self, path: &Path, class: FileClass) -> Result<PlainFile, DiskError> {
        let write = self.access == Access::Write && class != FileClass::Table;
        let file = OpenOptions::new().read(true).write(write).open(path);
        Ok(self.file(told("open", path, file)?, path, class))
    }

    async fn create(&self, path: &Path, class: FileClass) -> Result<PlainFile, DiskError> {
        self.writable("create", path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        Ok(self.file(told("create", path, file)?, path, class))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.writable("rename", from)?;
        told("rename", from, fs::rename(from, to))
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.writable("remove", path)?;
        told("remove", path, fs::remove_file(path))
    }

    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.writable("create", path)?;
        told("create", path, fs::create_dir_all(path))
    }

    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        let entries = told("list", path, fs::read_dir(path))?;
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut names = told("list", path, names)?;
        names.sort();
        Ok(names)
    }

    async fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        told(
            "sync",
            path,
            File::open(path).and_then(|dir| dir.sync_all()),
        )
    }

    async fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        let stat = told(
            "statvfs",
            path,
            rustix::fs::statvfs(path).map_err(Into::into),
        )?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An open file.
#[derive(Debug)]
pub struct PlainFile {
    file: File,
    path: PathBuf,
    write_through: bool,
}

impl DiskFile for PlainFile {
    type ReadBuf = Vec<u8>;

    async fn len(&self) -> Result<u64, DiskError> {
        let metadata = told("stat", &self.path, self.file.metadata())?;
        Ok(metadata.len())
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        // No more than the file has, whatever is asked for.
        let rest = self.len().await?.saturating_sub(offset);
        let len = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut bytes = vec![0; len];
        told(
            "read",
            &self.path,
            self.file.read_exact_at(&mut bytes, offset),
        )?;
        Ok(bytes)
    }

    async fn write_at(&self, offset: u64, buf: AlignedBuf) -> (Result<(), DiskError>, AlignedBuf) {
        let written =
            self.file
                .write_all_at(&buf, offset)
                .and_then(|()| match self.write_through {
                    true => self.file.sync_data(),
                    false => Ok(()),
                });
        (told("write", &self.path, written), buf)
    }

    async fn sync(&self) -> Result<(), DiskError> {
        told("sync", &self.path, self.file.sync_all())
    }

    async fn set_len(&self, len: u64) -> Result<(), DiskError> {
        told("truncate", &self.path, self.file.set_len(len))
    }
}
