//! Which faults a simulated disk injects, how often, and the count of those it did.

use std::collections::BTreeMap;
use std::fmt;

use crate::env::FileClass;

/// Something that went wrong, or that a crash left behind. [`Counts`] counts each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A read fails once; the next attempt succeeds.
    ReadError,
    /// A read fails, and the sectors stay unreadable until they are written again or healed.
    ReadErrorSticky,
    /// A write fails; any part of it may have been done.
    WriteError,
    /// A write fails, and so does every later write and sync of that file until it is healed.
    WriteErrorSticky,
    /// A sync fails. As on Linux, the writes it was to cover may be lost although the next sync
    /// succeeds.
    SyncError,
    /// Creating, renaming, removing, opening or listing fails with an I/O error.
    NameError,
    /// No space is left, by the capacity or by a rule.
    NoSpace,
    /// A bit of what was read has flipped on the medium, and stays flipped.
    BitFlip,
    /// A write went to other sectors than it was meant for, and was acknowledged.
    MisdirectedWrite,
    /// A write was acknowledged and never done.
    LostWrite,
    /// Two places of the medium read as each other.
    Swapped,
    /// An operation took hundreds of times as long as usual.
    LatencySpike,
    /// A write does not come back while the process lives.
    WriteHang,
    /// The power was cut.
    PowerCut,
    /// The process was killed; the page cache survived.
    Kill,
    /// A crash took an unsynced or unfinished sector write.
    SectorLost,
    /// A crash kept an unsynced or unfinished sector write.
    SectorKept,
    /// A crash left a sector partly old and partly new.
    SectorTorn,
    /// A crash kept a later write to a file and lost an earlier one.
    Reordered,
    /// A crash took an unsynced creation, renaming or removal.
    NameLost,
    /// A crash kept an unsynced creation, renaming or removal.
    NameKept,
    /// A crash took an unsynced change of a file's length.
    LengthLost,
    /// A write was under way when the process died.
    WriteCutShort,
}

impl Fault {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 23] = [
        Self::ReadError,
        Self::ReadErrorSticky,
        Self::WriteError,
        Self::WriteErrorSticky,
        Self::SyncError,
        Self::NameError,
        Self::NoSpace,
        Self::BitFlip,
        Self::MisdirectedWrite,
        Self::LostWrite,
        Self::Swapped,
        Self::LatencySpike,
        Self::WriteHang,
        Self::PowerCut,
        Self::Kill,
        Self::SectorLost,
        Self::SectorKept,
        Self::SectorTorn,
        Self::Reordered,
        Self::NameLost,
        Self::NameKept,
        Self::LengthLost,
        Self::WriteCutShort,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadError => "read error",
            Self::ReadErrorSticky => "read error, sticky",
            Self::WriteError => "write error",
            Self::WriteErrorSticky => "write error, sticky",
            Self::SyncError => "sync error",
            Self::NameError => "name error",
            Self::NoSpace => "no space",
            Self::BitFlip => "bit flip",
            Self::MisdirectedWrite => "misdirected write",
            Self::LostWrite => "lost write",
            Self::Swapped => "places swapped",
            Self::LatencySpike => "latency spike",
            Self::WriteHang => "write that hangs",
            Self::PowerCut => "power cut",
            Self::Kill => "kill",
            Self::SectorLost => "sector lost",
            Self::SectorKept => "sector kept",
            Self::SectorTorn => "sector torn",
            Self::Reordered => "writes reordered",
            Self::NameLost => "name lost",
            Self::NameKept => "name kept",
            Self::LengthLost => "length lost",
            Self::WriteCutShort => "write cut short",
        })
    }
}

/// How often one kind of fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRule {
    /// The kind: one of those that strike an operation, not what a crash leaves behind.
    pub fault: Fault,
    /// Strikes one in so many of the operations it can strike; 0 for never.
    pub one_in: u64,
    /// Strikes only files opened with this class; `None` for every file and directory.
    pub class: Option<FileClass>,
    /// Strikes at most so many times.
    pub at_most: u64,
}

impl FaultRule {
    /// A rule for every file without an upper limit.
    #[must_use]
    pub fn new(fault: Fault, one_in: u64) -> Self {
        Self {
            fault,
            one_in,
            class: None,
            at_most: u64::MAX,
        }
    }

    /// Only for files of this class.
    #[must_use]
    pub fn only(mut self, class: FileClass) -> Self {
        self.class = Some(class);
        self
    }

    /// At most `times` times.
    #[must_use]
    pub fn at_most(mut self, times: u64) -> Self {
        self.at_most = times;
        self
    }
}

/// How many times each kind of fault struck.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Fault, u64>);

impl Counts {
    /// The count of one kind.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// Counts one more.
    pub fn add(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (&fault, &count) in &other.0 {
            *self.0.entry(fault).or_default() += count;
        }
    }

    /// Each kind that struck, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        self.0.iter().map(|(&fault, &count)| (fault, count))
    }
}
