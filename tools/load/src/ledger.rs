//! The ledger: what a verified run wrote and what of it was acknowledged, in a file of its own, so
//! that another process can check it after the server, the generator or both have died.
//!
//! ```text
//! one line of JSON (LedgerHeader), then records of 24 bytes, little-endian:
//!  0        8          16     20
//!  +--------+----------+------+---------+
//!  | record | sequence | mark | crc32c  |    the checksum covers the 20 bytes before it
//!  | u64    | u64      | u32  | u32     |
//!  +--------+----------+------+---------+
//! ```
//!
//! An *intent* is written (to the page cache) before the request goes out, so that a generator
//! killed at any point has told of everything that it may have sent. *Settled* is written when the
//! write was acknowledged, or seen by a read: if that record is lost the write is only in doubt,
//! which checks less but never wrongly. The file is synced once a second: if the generator's own
//! machine loses power, intents of the last second may be gone, and values newer than the ledger
//! are then found; use another machine for the generator, or copy the server's disk image while
//! the generator lives on.
//!
//! Sequences count per record from 1 and are shifted left by one; bit 0 says that the write is a
//! delete.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::LoadError;

const VERSION: u32 = 1;
const RECORD_BYTES: usize = 24;
const HEADER_BYTES_MAX: u64 = 64 << 10;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerHeader {
    /// The format's version.
    pub ringbolt_ledger: u32,
    /// The run, as stamped into values.
    pub run: u64,
    /// `ringbolt` or `redis`.
    pub protocol: String,
    /// Where the server was.
    pub addr: String,
    /// The keyspace's name.
    pub keyspace: String,
    /// What keys begin with.
    pub key_prefix: String,
    /// How many records there are.
    pub records: u64,
}

impl LedgerHeader {
    /// A header of this version.
    pub fn new(run: u64, options: &crate::Options) -> Self {
        Self {
            ringbolt_ledger: VERSION,
            run,
            protocol: options.protocol.to_string(),
            addr: options.addr.clone(),
            keyspace: options.keyspace.clone(),
            key_prefix: options.key_prefix.clone(),
            records: options.records,
        }
    }
}

/// What a record of the ledger says of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// It is about to be sent.
    Intent = 1,
    /// It was acknowledged, or read.
    Settled = 2,
    /// It was refused, or read past: it will never be there.
    NotDone = 3,
}

/// Records on their way to the file, of one thread.
#[derive(Debug)]
pub struct Ledger {
    file: Arc<File>,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Ledger {
    /// Adds a record.
    pub fn push(&mut self, record: u64, sequence: u64, mark: Mark) {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&record.to_le_bytes());
        self.buffer.extend_from_slice(&sequence.to_le_bytes());
        self.buffer.extend_from_slice(&(mark as u32).to_le_bytes());
        let crc = crc32c::crc32c(&self.buffer[at..]);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
    }

    /// Hands everything to the operating system in one write, so that threads do not mix.
    ///
    /// # Errors
    /// The run must end: what follows would not be in the ledger.
    pub fn write(&mut self) -> Result<(), LoadError> {
        if !self.buffer.is_empty() {
            (&*self.file)
                .write_all(&self.buffer)
                .map_err(LoadError::io(format!("writing {}", self.path.display())))?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// An open ledger file: hands out writers, and syncs.
#[derive(Debug)]
pub struct LedgerFile {
    file: Arc<File>,
    path: PathBuf,
    stop: Arc<AtomicBool>,
    syncer: Option<JoinHandle<()>>,
}

impl LedgerFile {
    /// Opens a ledger for appending: a new one, or an old one that continues (its records come
    /// back too).
    ///
    /// # Errors
    /// [`LoadError::Io`]; [`LoadError::Ledger`] if an old one is damaged, or for other records.
    pub fn open(
        path: &Path,
        header: LedgerHeader,
    ) -> Result<(Self, LedgerHeader, Vec<Entry>), LoadError> {
        let what = || format!("opening {}", path.display());
        let old = match File::open(path) {
            Ok(_) => Some(read(path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(LoadError::io(what())(error)),
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(LoadError::io(what()))?;
        let (header, entries) = match old {
            Some(old) => {
                let same = LedgerHeader {
                    run: old.header.run,
                    addr: old.header.addr.clone(),
                    ..header
                };
                if same != old.header {
                    return Err(LoadError::Ledger {
                        path: path.into(),
                        what: "it belongs to a run with another protocol, keyspace, key prefix \
                               or number of records: give the same, or another file"
                            .into(),
                    });
                }
                file.set_len(old.bytes)
                    .map_err(LoadError::io(format!("cutting {}", path.display())))?;
                (old.header, old.entries)
            }
            None => {
                let mut line = serde_json::to_vec(&header).map_err(|error| LoadError::Ledger {
                    path: path.into(),
                    what: error.to_string(),
                })?;
                line.push(b'\n');
                (&file)
                    .write_all(&line)
                    .and_then(|()| file.sync_all())
                    .map_err(LoadError::io(format!("writing {}", path.display())))?;
                (header, Vec::new())
            }
        };
        let file = Arc::new(file);
        let stop = Arc::new(AtomicBool::new(false));
        let syncer = std::thread::Builder::new()
            .name("ledger-sync".into())
            .spawn({
                let (file, stop) = (file.clone(), stop.clone());
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::thread::park_timeout(SYNC_EVERY);
                        // A failure only weakens what the ledger says after a loss of power.
                        let _ = file.sync_data();
                    }
                }
            })
            .map_err(LoadError::io("starting the thread that syncs the ledger"))?;
        Ok((
            Self {
                file,
                path: path.into(),
                stop,
                syncer: Some(syncer),
            },
            header,
            entries,
        ))
    }

    /// A writer for one thread.
    pub fn writer(&self) -> Ledger {
        Ledger {
            file: self.file.clone(),
            path: self.path.clone(),
            buffer: Vec::new(),
        }
    }
}

impl Drop for LedgerFile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(syncer) = self.syncer.take() {
            syncer.thread().unpark();
            let _ = syncer.join();
        }
    }
}

/// What the ledger says of one record in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: u64,
    /// The last write known to be there; 0 for none.
    pub settled: u64,
    /// A write that may be there; 0 for none.
    pub doubt: u64,
    /// The last write tried.
    pub last: u64,
}

/// A ledger that was read.
#[derive(Debug)]
pub struct LedgerRead {
    /// Its first line.
    pub header: LedgerHeader,
    /// Its records, by record number; only those that were written.
    pub entries: Vec<Entry>,
    /// Length of the part that is whole, in bytes.
    pub bytes: u64,
    /// Bytes behind it: a record that was being written when the generator died.
    pub torn_bytes: u64,
}

/// Reads a ledger.
///
/// # Errors
/// [`LoadError::Ledger`] if it is no ledger, of another version, or damaged anywhere but in an
/// incomplete last record.
pub fn read(path: &Path) -> Result<LedgerRead, LoadError> {
    let bad = |what: String| LoadError::Ledger {
        path: path.into(),
        what,
    };
    let io = |error| LoadError::io(format!("reading {}", path.display()))(error);
    let file = File::open(path).map_err(io)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    (&mut reader)
        .take(HEADER_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(io)?;
    if line.last() != Some(&b'\n') {
        return Err(bad("it is no ledger: its first line does not end".into()));
    }
    let header: LedgerHeader =
        serde_json::from_slice(&line).map_err(|error| bad(format!("it is no ledger: {error}")))?;
    if header.ringbolt_ledger != VERSION {
        return Err(bad(format!(
            "it is of version {}, this program reads {VERSION}",
            header.ringbolt_ledger
        )));
    }
    let mut states: std::collections::BTreeMap<u64, Entry> = Default::default();
    let mut bytes = line.len() as u64;
    let mut raw = [0; RECORD_BYTES];
    let torn_bytes = loop {
        let got = read_up_to(&mut reader, &mut raw).map_err(io)?;
        if got < RECORD_BYTES {
            break got as u64;
        }
        let (record, sequence, mark) =
            decode(&raw).ok_or_else(|| bad(format!("the record at byte {bytes} is damaged")))?;
        let state = states.entry(record).or_insert(Entry {
            record,
            settled: 0,
            doubt: 0,
            last: 0,
        });
        match mark {
            Mark::Intent => {
                state.doubt = sequence;
                state.last = state.last.max(sequence);
            }
            Mark::Settled => {
                state.settled = sequence;
                state.doubt = 0;
            }
            Mark::NotDone => state.doubt = 0,
        }
        bytes += RECORD_BYTES as u64;
    };
    Ok(LedgerRead {
        header,
        entries: states.into_values().collect(),
        bytes,
        torn_bytes,
    })
}

fn decode(raw: &[u8; RECORD_BYTES]) -> Option<(u64, u64, Mark)> {
    let word = |at: usize| {
        raw.get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map(|bytes| u64::from_le_bytes(*bytes))
    };
    let tail = word(16)?;
    let (mark, crc) = (tail as u32, (tail >> 32) as u32);
    if crc32c::crc32c(&raw[..20]) != crc {
        return None;
    }
    let mark = match mark {
        1 => Mark::Intent,
        2 => Mark::Settled,
        3 => Mark::NotDone,
        _ => return None,
    };
    Some((word(0)?, word(8)?, mark))
}

/// Fills `raw` as far as the file goes.
fn read_up_to(reader: &mut impl Read, raw: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < raw.len() {
        match reader.read(&mut raw[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn header() -> LedgerHeader {
        LedgerHeader::new(7, &Options::default())
    }

    #[test]
    fn a_ledger_reads_back_and_continues() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (file, _, entries) = LedgerFile::open(&path, header()).unwrap();
        assert!(entries.is_empty());
        let mut writer = file.writer();
        writer.push(1, 2, Mark::Intent);
        writer.push(1, 2, Mark::Settled);
        writer.push(1, 5, Mark::Intent);
        writer.push(9, 2, Mark::Intent);
        writer.push(9, 2, Mark::NotDone);
        writer.write().unwrap();
        drop(file);
        let expected = [
            Entry {
                record: 1,
                settled: 2,
                doubt: 5,
                last: 5,
            },
            Entry {
                record: 9,
                settled: 0,
                doubt: 0,
                last: 2,
            },
        ];
        assert_eq!(read(&path).unwrap().entries, expected);

        // A torn last record is cut off when the ledger continues.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(
            &path,
            [&whole[..], &whole[whole.len() - 24..][..11]].concat(),
        )
        .unwrap();
        assert_eq!(read(&path).unwrap().torn_bytes, 11);
        let (file, header_read, entries) =
            LedgerFile::open(&path, LedgerHeader { run: 8, ..header() }).unwrap();
        assert_eq!((header_read.run, &entries[..]), (7, &expected[..]));
        let mut writer = file.writer();
        writer.push(1, 5, Mark::Settled);
        writer.write().unwrap();
        drop(file);
        let again = read(&path).unwrap();
        assert_eq!((again.entries[0].settled, again.torn_bytes), (5, 0));
    }

    #[test]
    fn damage_and_other_runs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (file, ..) = LedgerFile::open(&path, header()).unwrap();
        let mut writer = file.writer();
        writer.push(1, 2, Mark::Intent);
        writer.push(2, 2, Mark::Intent);
        writer.write().unwrap();
        drop(file);
        let other = LedgerHeader {
            records: 3,
            ..header()
        };
        assert!(LedgerFile::open(&path, other).is_err());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 30;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(LoadError::Ledger { .. })));
        std::fs::write(&path, b"{}\n").unwrap();
        assert!(matches!(read(&path), Err(LoadError::Ledger { .. })));
    }
}
