//! The manifest: which tables make up the tree, and up to where each partition is in them.
//!
//! `CURRENT` names the manifest in force, `MANIFEST-n`: a sequence of [`Edit`]s, each in a frame of
//! its own (see `frame.rs`). Adding them up gives the [`State`].
//!
//! * **Append.** The frame is written at the end and synced: the edit is durable. Then a *seal* is
//!   written behind it and synced; the next edit takes the seal's place.
//! * **Open.** Frames are read in sequence up to the first that is not intact. If no intact frame of
//!   the manifest lies behind it, it is the torn tail of an append that was never acknowledged, and
//!   is cut. If one does (the seal at least, for an acknowledged edit) it is damage, and is refused.
//! * **Rewrite.** Once the edits outgrow the state many times over, and after a torn tail, the state
//!   is written to `MANIFEST-(n+1)`, synced, and put in force: `CURRENT.tmp` is written, synced and
//!   renamed over `CURRENT`, and the directory synced.
//!
//! A write that finds no space has changed nothing that counts: the same frame can be written there
//! again once there is room. After any other failure the manifest refuses all further edits.

use std::path::{Path, PathBuf};

use crate::env::{AlignedBuf, Disk, DiskErrorKind, DiskFile, Env, FileClass, SECTOR};
use crate::error::{EngineError, Result};
use crate::planted::{self, Bug};

mod edit;
mod frame;
#[cfg(test)]
mod tests;

pub use edit::{
    Applied, Edit, FlushedRecord, HideRecord, LEVELS, MoveRecord, PendingRecord, Replacement,
    State, TableRecord,
};
use frame::{Kind, NotAFrame};

/// Name of the file that names the manifest in force.
pub const CURRENT: &str = "CURRENT";
const CURRENT_TMP: &str = "CURRENT.tmp";
const PREFIX: &str = "MANIFEST-";
/// Bytes read at once when a manifest is opened.
const READ_BYTES: usize = 1 << 20;
/// Largest manifest believed, in bytes.
const BYTES_MAX: u64 = 1 << 30;

type File<E> = <<E as Env>::Disk as Disk>::File;

/// An open manifest, the only writer of its directory's.
pub struct Manifest<E: Env> {
    env: E,
    dir: PathBuf,
    number: u64,
    file: File<E>,
    /// Where the next edit goes, in bytes.
    end: u64,
    /// The next edit's sequence.
    sequence: u64,
    state: State,
    /// Past this length it is rewritten, in bytes.
    rewrite_bytes: u64,
    /// The least `rewrite_bytes`.
    rewrite_bytes_min: u64,
    failed: bool,
}

/// A manifest as read, for `open` and for offline inspection.
pub struct ManifestContent {
    /// Its number.
    pub number: u64,
    /// Its path.
    pub path: PathBuf,
    /// What the edits add up to.
    pub state: State,
    /// The edits one by one.
    pub edits: Vec<Edit>,
    /// Length of the intact edits, in bytes.
    pub end: u64,
    /// Whether something that is not an intact frame follows them: an append that a crash cut off.
    pub torn: bool,
}

fn manifest_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:06}"))
}

/// Reads the manifest in force in `dir`, or `None` in a directory that has none and no table.
///
/// # Errors
/// `Corrupt` for damage, `WrongFormat` for another version's file, or the disk's error.
pub async fn read<E: Env>(env: &E, dir: &Path) -> Result<Option<ManifestContent>> {
    let current = dir.join(CURRENT);
    let file = match env.disk().open(&current, FileClass::Manifest).await {
        Ok(file) => file,
        Err(e) if e.kind == DiskErrorKind::NotFound => {
            let names = env.disk().list(dir).await?;
            if names.iter().any(|p| crate::tree::table_id(p).is_some()) {
                let what = "it is missing, and there are tables";
                return Err(EngineError::corrupt(&current, 0, what));
            }
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
    };
    let text = file.read_at(0, SECTOR).await?;
    let number = parse_current(&text)
        .ok_or_else(|| EngineError::corrupt(&current, 0, "it does not name a manifest"))?;
    drop(text);
    let path = manifest_path(dir, number);
    let file = match env.disk().open(&path, FileClass::Manifest).await {
        Ok(file) => file,
        Err(e) if e.kind == DiskErrorKind::NotFound => {
            let what = format!("CURRENT names it, but it is missing: {e}");
            return Err(EngineError::corrupt(&path, 0, what));
        }
        Err(e) => return Err(e.into()),
    };
    let bytes = read_all::<E>(&file, &path).await?;
    parse(&bytes, number, path).map(Some)
}

async fn read_all<E: Env>(file: &File<E>, path: &Path) -> Result<Vec<u8>> {
    let len = file.len().await?;
    if len > BYTES_MAX {
        let what = format!("{len} bytes are too many for a manifest");
        return Err(EngineError::corrupt(path, 0, what));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let rest = (len - bytes.len() as u64).next_multiple_of(SECTOR as u64);
        let want = rest.min(READ_BYTES as u64) as usize;
        let chunk = file.read_at(bytes.len() as u64, want).await?;
        bytes.extend_from_slice(&chunk);
        if chunk.len() < want {
            break;
        }
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], number: u64, path: PathBuf) -> Result<ManifestContent> {
    let mut state = State::default();
    let mut edits = Vec::new();
    let mut at = 0;
    let mut sealed = false;
    while at < bytes.len() {
        match frame::decode(&bytes[at..], number, at as u64) {
            Ok(f) if f.sequence == edits.len() as u64 && f.kind == Kind::Edit => {
                let edit = f.edit().map_err(|what| {
                    EngineError::corrupt(&path, at as u64, format!("a bad edit: {what}"))
                })?;
                state.apply(&edit).map_err(|what| {
                    EngineError::corrupt(&path, at as u64, format!("an edit {what}"))
                })?;
                edits.push(edit);
                at += f.len;
            }
            Ok(f) if f.sequence == edits.len() as u64 => {
                sealed = true;
                break;
            }
            Err(NotAFrame::Version(version)) => {
                return Err(EngineError::WrongFormat {
                    file: path,
                    found: format!("manifest version {version}"),
                    expected: format!("manifest versions up to {}", frame::VERSION),
                });
            }
            Ok(_) | Err(NotAFrame::Damaged) => break,
        }
    }
    // An intact frame behind the end that has a later sequence was acknowledged, and so was
    // everything before it.
    let mut later = at + SECTOR;
    while later < bytes.len() {
        if let Ok(f) = frame::decode(&bytes[later..], number, later as u64)
            && f.sequence > edits.len() as u64
        {
            let what = "an edit is damaged, and later ones are not";
            return Err(EngineError::corrupt(&path, at as u64, what));
        }
        later += SECTOR;
    }
    if edits.is_empty() {
        return Err(EngineError::corrupt(&path, 0, "no intact edit"));
    }
    Ok(ManifestContent {
        number,
        path,
        state,
        edits,
        end: at as u64,
        torn: !sealed,
    })
}

fn current_text(number: u64) -> String {
    let name = format!("{PREFIX}{number:06}");
    let crc = crc_fast::crc32_iscsi(name.as_bytes());
    format!("{name} {crc:08x}\n")
}

fn parse_current(bytes: &[u8]) -> Option<u64> {
    let line = bytes.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let number = line.strip_prefix(PREFIX)?.split(' ').next()?.parse().ok()?;
    // The checksum is compared with the text as it would have been written.
    (current_text(number).trim_end() == line).then_some(number)
}

impl<E: Env> Manifest<E> {
    /// Opens the manifest of `dir`, or begins one in an empty directory. Manifests that are not in
    /// force are removed. It is rewritten at `rewrite_bytes`, or at four times the size it had after
    /// the last rewrite if that is more.
    ///
    /// # Errors
    /// As [`read`]; `NoSpace` if a manifest must be written and there is no room.
    pub async fn open(env: &E, dir: &Path, rewrite_bytes: u64) -> Result<Self> {
        let content = read(env, dir).await?;
        let in_force = content.as_ref().map(|c| c.number);
        if let Some(c) = &content {
            // A process that was killed leaves edits and names that only the cache holds. They count
            // from now on, and files are removed on their word: they must survive a power cut.
            let file = env.disk().open(&c.path, FileClass::Manifest).await?;
            file.sync().await?;
            env.disk().sync_dir(dir).await?;
        }
        let names = env.disk().list(dir).await?;
        let mut number_max = in_force.unwrap_or(0);
        for path in &names {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let number: Option<u64> = name.strip_prefix(PREFIX).and_then(|n| n.parse().ok());
            let stale = number.is_some() && number != in_force;
            if stale || name == CURRENT_TMP {
                env.disk().remove(path).await?;
            }
            number_max = number_max.max(number.unwrap_or(0));
        }
        match content {
            Some(c) if !c.torn && c.end < rewrite_bytes => {
                let file = env.disk().open(&c.path, FileClass::Manifest).await?;
                Ok(Self {
                    env: env.clone(),
                    dir: dir.to_path_buf(),
                    number: c.number,
                    file,
                    end: c.end,
                    sequence: c.edits.len() as u64,
                    state: c.state,
                    rewrite_bytes,
                    rewrite_bytes_min: rewrite_bytes,
                    failed: false,
                })
            }
            other => {
                let old = other.as_ref().map(|c| c.path.clone());
                let state = other.map(|c| c.state).unwrap_or_default();
                let written = write_state(env, dir, number_max + 1, &state).await?;
                if let Some(old) = old {
                    env.disk().remove(&old).await?;
                }
                Ok(Self {
                    env: env.clone(),
                    dir: dir.to_path_buf(),
                    number: number_max + 1,
                    rewrite_bytes: rewrite_bytes.max(4 * written.end),
                    rewrite_bytes_min: rewrite_bytes,
                    file: written.file,
                    end: written.end,
                    sequence: written.sequence,
                    state,
                    failed: false,
                })
            }
        }
    }

    /// What the durable edits add up to.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes an edit durable.
    ///
    /// # Errors
    /// `NoSpace`: nothing has changed, try again later. Anything else is final: the edit may or may
    /// not be found at the next open, and every later append is refused with `Closed`.
    pub async fn append(&mut self, edit: &Edit) -> Result<()> {
        if self.failed {
            return Err(EngineError::Closed);
        }
        let mut next = self.state.clone();
        next.apply(edit)
            .map_err(|what| EngineError::Invalid(format!("a manifest edit {what}")))?;
        // Set while the write is under way, so that dropping this future half way fails too.
        self.failed = true;
        let frame = frame::encode(Some(edit), self.number, self.sequence, self.end)
            .map_err(EngineError::Invalid)?;
        let frame_bytes = frame.len() as u64;
        let (written, _) = self.file.write_at(self.end, frame).await;
        if let Err(e) = written {
            self.failed = e.kind != DiskErrorKind::NoSpace;
            return Err(e.into());
        }
        if planted::is(Bug::ManifestNotSynced) {
            self.end += frame_bytes;
            self.sequence += 1;
            self.state = next;
            self.failed = false;
            return Ok(());
        }
        self.file.sync().await.map_err(EngineError::Disk)?;
        self.end += frame_bytes;
        self.sequence += 1;
        self.state = next;
        // Without its seal the edit is durable all the same; only damage to it would go unnoticed.
        match seal::<E>(&self.file, self.number, self.sequence, self.end).await {
            Ok(()) | Err(EngineError::NoSpace(_)) => {}
            Err(e) => return Err(e),
        }
        self.failed = false;
        if self.end >= self.rewrite_bytes {
            self.rewrite().await?;
        }
        Ok(())
    }

    async fn rewrite(&mut self) -> Result<()> {
        let number = self.number + 1;
        let written = match write_state(&self.env, &self.dir, number, &self.state).await {
            Ok(written) => written,
            Err(EngineError::NoSpace(_)) => {
                // The old one serves on; the next attempt waits until it has grown further.
                self.rewrite_bytes = self.rewrite_bytes.saturating_mul(2);
                return Ok(());
            }
            Err(e) => {
                self.failed = true;
                return Err(e);
            }
        };
        let old = manifest_path(&self.dir, self.number);
        self.number = number;
        self.file = written.file;
        self.end = written.end;
        self.sequence = written.sequence;
        self.rewrite_bytes = self.rewrite_bytes_min.max(4 * written.end);
        self.env.disk().remove(&old).await?;
        Ok(())
    }
}

async fn seal<E: Env>(file: &File<E>, number: u64, sequence: u64, end: u64) -> Result<()> {
    let frame = frame::encode(None, number, sequence, end).map_err(EngineError::Invalid)?;
    let (written, _) = file.write_at(end, frame).await;
    written?;
    file.sync().await.map_err(EngineError::Disk)
}

struct Written<E: Env> {
    file: File<E>,
    end: u64,
    sequence: u64,
}

/// Writes a whole manifest and puts it in force.
async fn write_state<E: Env>(
    env: &E,
    dir: &Path,
    number: u64,
    state: &State,
) -> Result<Written<E>> {
    let path = manifest_path(dir, number);
    match write_manifest(env, &path, number, state).await {
        Ok(written) => match write_current(env, dir, number).await {
            Ok(()) => Ok(written),
            Err(e) => {
                // Until the rename `CURRENT` names the old one: this one is rubbish.
                if matches!(e, EngineError::NoSpace(_)) {
                    drop(written);
                    env.disk().remove(&path).await?;
                }
                Err(e)
            }
        },
        Err(e) => {
            if matches!(e, EngineError::NoSpace(_)) {
                remove_if_there(env, &path).await?;
            }
            Err(e)
        }
    }
}

async fn remove_if_there<E: Env>(env: &E, path: &Path) -> Result<()> {
    match env.disk().remove(path).await {
        Err(e) if e.kind != DiskErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

async fn write_manifest<E: Env>(
    env: &E,
    path: &Path,
    number: u64,
    state: &State,
) -> Result<Written<E>> {
    let file = env.disk().create(path, FileClass::Manifest).await?;
    let mut end = 0;
    let mut sequence = 0;
    for edit in state.to_edits() {
        let frame =
            frame::encode(Some(&edit), number, sequence, end).map_err(EngineError::Invalid)?;
        let bytes = frame.len() as u64;
        let (written, _) = file.write_at(end, frame).await;
        written?;
        end += bytes;
        sequence += 1;
    }
    file.sync().await.map_err(EngineError::Disk)?;
    seal::<E>(&file, number, sequence, end).await?;
    Ok(Written {
        file,
        end,
        sequence,
    })
}

async fn write_current<E: Env>(env: &E, dir: &Path, number: u64) -> Result<()> {
    let tmp = dir.join(CURRENT_TMP);
    remove_if_there(env, &tmp).await?;
    let file = env.disk().create(&tmp, FileClass::Manifest).await?;
    let mut buf = AlignedBuf::zeroed(SECTOR);
    let text = current_text(number);
    buf[..text.len()].copy_from_slice(text.as_bytes());
    let (written, _) = file.write_at(0, buf).await;
    if let Err(e) = written {
        drop(file);
        remove_if_there(env, &tmp).await?;
        return Err(e.into());
    }
    file.sync().await.map_err(EngineError::Disk)?;
    drop(file);
    // The manifest's own name must be durable before `CURRENT` can name it.
    env.disk().sync_dir(dir).await.map_err(EngineError::Disk)?;
    env.disk()
        .rename(&tmp, &dir.join(CURRENT))
        .await
        .map_err(EngineError::Disk)?;
    env.disk().sync_dir(dir).await.map_err(EngineError::Disk)
}
