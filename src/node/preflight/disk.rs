//! The file system of the data folder: its kind, direct I/O on it, and its free space.
//!
//! Before the first start the folder does not exist: the nearest folder above it stands for it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringbolt_engine::env::{AlignedBuf, SECTOR};

use super::{Check, Verdict};
use crate::config::{Durability, Settings, about_bytes};
use crate::runtime::probe::{self, DurabilityReport};

/// Log space that a first start needs at once, in segments a core.
const SEGMENTS_AT_START: u64 = 2;

/// How long each way to make a write durable is measured.
const PROBE_BUDGET: Duration = Duration::from_millis(200);

/// All checks of the disk.
pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let folder = existing(&settings.data);
    vec![
        file_system(&folder),
        direct_io(&folder),
        free_space(settings, &folder),
    ]
}

/// The folder, or the nearest above it that exists.
pub(super) fn existing(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_path_buf());
    absolute
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"))
        .to_path_buf()
}

/// How fast a durable write is, in both ways to make one, and which the folder uses.
pub(super) fn durability(settings: &Settings) -> Check {
    let required = "a 4KiB write that survives a power cut";
    let check = Check::passed("durability", required, String::new());
    match probe::durability(&existing(&settings.data), PROBE_BUDGET) {
        Ok(report) => Check {
            current: show_durability(&report, chosen_mode(settings).as_deref()),
            ..check
        },
        Err(error) => Check {
            current: error.detail,
            ..check
        }
        .but(
            Verdict::Failed,
            "give a folder on a local disk that can be written to with --data",
        ),
    }
}

fn show_durability(report: &DurabilityReport, recorded: Option<&str>) -> String {
    let measured = format!(
        "O_DSYNC {} µs, write+fdatasync {} µs (medians)",
        report.dsync_p50.as_micros(),
        report.datasync_p50.as_micros()
    );
    match recorded {
        Some(mode) => format!("{measured}; this folder uses {mode}"),
        None => format!("{measured}; a new folder will use {}", report.mode),
    }
}

/// The mode that the settings ask for, or else the one recorded at the folder's first start.
fn chosen_mode(settings: &Settings) -> Option<String> {
    match settings.log.durability {
        Durability::Dsync => return Some(probe::Durability::Dsync.name().into()),
        Durability::Fdatasync => return Some(probe::Durability::WriteDatasync.name().into()),
        Durability::Auto => {}
    }
    let text = fs::read_to_string(settings.data.join("FORMAT")).ok()?;
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("durability")?.as_str()?.to_string())
}

fn file_system(folder: &Path) -> Check {
    let kind = fs::canonicalize(folder)
        .and_then(|folder| {
            Ok(mounted(
                &fs::read_to_string("/proc/self/mountinfo")?,
                &folder,
            ))
        })
        .ok()
        .flatten();
    judge_file_system(folder, kind.as_deref())
}

/// The type of the file system that a folder is on: of the mounts at or above it, the deepest and
/// of those the last.
fn mounted(mountinfo: &str, folder: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (
            mount.split(' ').nth(4).map(unescape),
            file_system.split(' ').next(),
        ) else {
            continue;
        };
        let depth = Path::new(&point).components().count();
        if folder.starts_with(&point) && best.is_none_or(|(deepest, _)| depth >= deepest) {
            best = Some((depth, kind));
        }
    }
    best.map(|(_, kind)| kind.to_string())
}

/// The kernel writes blanks in paths as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

fn judge_file_system(folder: &Path, kind: Option<&str>) -> Check {
    let current = match kind {
        Some(kind) => format!("{kind} ({})", folder.display()),
        None => format!("unknown ({})", folder.display()),
    };
    let check = Check::passed("file system", "ext4 or xfs on a local disk", current);
    let elsewhere = "give a folder on ext4 or xfs with --data";
    match kind {
        Some("ext4" | "xfs") => check,
        Some("tmpfs" | "ramfs" | "devtmpfs") => check.but(
            Verdict::Failed,
            format!("it is memory and loses everything with the power: {elsewhere}"),
        ),
        Some("overlay") => check.but(
            Verdict::Warning,
            "a container's own layer is slow and goes with the container: mount a volume and \
             give it with --data",
        ),
        Some("nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph") => check.but(
            Verdict::Warning,
            format!("what a network file system calls durable depends on its server: {elsewhere}"),
        ),
        Some("btrfs" | "zfs" | "bcachefs") => check.but(
            Verdict::Warning,
            format!("a copy-on-write file system makes durable writes slow: {elsewhere}"),
        ),
        Some(_) | None => check.but(Verdict::Warning, format!("not tested: {elsewhere}")),
    }
}

fn direct_io(folder: &Path) -> Check {
    let check = Check::passed(
        "direct I/O",
        "O_DIRECT reads and writes of 4KiB",
        "they work",
    );
    match try_direct_io(folder) {
        Ok(()) => check,
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "let this user write there, or give another folder with --data"
                }
                io::ErrorKind::StorageFull => "free some space",
                _ => "give a folder on a file system that supports it (ext4, xfs) with --data",
            };
            Check {
                current: format!("{error} ({})", folder.display()),
                ..check
            }
            .but(Verdict::Failed, remedy)
        }
    }
}

fn try_direct_io(folder: &Path) -> io::Result<()> {
    let probe = Probe::create(folder, rustix::fs::OFlags::DIRECT)?;
    let mut block = AlignedBuf::zeroed(SECTOR);
    block.fill(0xa5);
    probe.file.write_all_at(&block, 0)?;
    let mut back = AlignedBuf::zeroed(SECTOR);
    probe.file.read_exact_at(&mut back, 0)?;
    match back[..] == block[..] {
        true => Ok(()),
        false => Err(io::Error::other("what was written did not come back")),
    }
}

/// A file that is gone from its folder as soon as it is open.
pub(super) struct Probe {
    pub(super) file: File,
}

impl Probe {
    pub(super) fn create(folder: &Path, flags: rustix::fs::OFlags) -> io::Result<Self> {
        let path = folder.join(format!(".ringbolt-probe-{}", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path);
        // Some file systems make the name and then refuse the flags.
        let removed = fs::remove_file(&path);
        let file = file?;
        removed?;
        Ok(Self { file })
    }
}

fn free_space(settings: &Settings, folder: &Path) -> Check {
    let free = probe::free_bytes(folder);
    // An existing folder has its log already.
    let first_start = !settings.data.join("FORMAT").exists();
    judge_free_space(settings, first_start, free.ok())
}

fn judge_free_space(settings: &Settings, first_start: bool, free: Option<u64>) -> Check {
    let log = u64::from(settings.cores) * settings.log.segment_bytes * SEGMENTS_AT_START;
    let reserve = settings.disk.reserve_bytes;
    let required = if first_start { reserve + log } else { reserve };
    let check = Check::passed(
        "free space",
        format!("more than {}", about_bytes(required)),
        match free {
            Some(free) => about_bytes(free),
            None => "unknown".to_string(),
        },
    );
    match free {
        None => check.but(Verdict::Warning, "the system does not tell"),
        Some(free) if free > required => check,
        Some(_) if first_start => check.but(
            Verdict::Failed,
            "free some space, lower disk.reserve_bytes, or give another folder with --data",
        ),
        Some(_) => check.but(
            Verdict::Warning,
            "puts are refused until there is room: free some space, or lower disk.reserve_bytes",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::preflight::tests::settings;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
30 27 0:25 / /data\\040one rw - xfs /dev/vdb rw
31 27 0:26 / /data rw shared:1 - overlay overlay rw
";

    #[test]
    fn the_deepest_mount_counts() {
        let kind = |path: &str| mounted(MOUNTS, Path::new(path));
        assert_eq!(kind("/home/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/dev/shm/y").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/data one/z").as_deref(), Some("xfs"));
        assert_eq!(kind("/data/z").as_deref(), Some("overlay"));
        assert_eq!(kind("/database").as_deref(), Some("ext4"));
        assert_eq!(mounted("", Path::new("/")), None);
    }

    #[test]
    fn file_systems() {
        for (kind, verdict) in [
            (Some("ext4"), Verdict::Passed),
            (Some("tmpfs"), Verdict::Failed),
            (Some("overlay"), Verdict::Warning),
            (Some("btrfs"), Verdict::Warning),
            (None, Verdict::Warning),
        ] {
            assert_eq!(
                judge_file_system(Path::new("/d"), kind).verdict,
                verdict,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn free_space_is_for_the_log_and_the_reserve() {
        let settings = settings();
        let judge = |first_start, mib: u64| {
            judge_free_space(&settings, first_start, Some(mib << 20)).verdict
        };
        assert_eq!(judge(true, 513), Verdict::Passed);
        assert_eq!(judge(true, 512), Verdict::Failed);
        assert_eq!(judge(false, 257), Verdict::Passed);
        assert_eq!(
            judge(false, 256),
            Verdict::Warning,
            "it starts, and refuses puts"
        );
        assert_eq!(
            judge_free_space(&settings, true, None).verdict,
            Verdict::Warning
        );
    }

    #[test]
    fn probes_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let _ = direct_io(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(
            direct_io(Path::new("/nonexistent")).verdict,
            Verdict::Failed
        );
    }

    #[test]
    fn a_missing_folder_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing(&folder.path().join("a/b/c")), folder.path());
    }
}
