//! What is made to go wrong in a life: the faults of the disk, and where the plug is pulled.

use std::time::Duration;

use ringbolt_engine::env::sim::{Fault, FaultRule, IoMatch, IoOp, Rng, SimEnv, SimStore};
use ringbolt_engine::env::{Env, FileClass, TaskClass};

/// A disk that holds more than any run writes.
pub const PLENTY_BYTES: u64 = 1 << 40;

/// Which faults a life has, beside crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultMode {
    /// None but slow operations.
    None,
    /// Reads that fail, once or for good.
    Reads,
    /// Writes, syncs and names that fail.
    Writes,
    /// A disk that is full for a while.
    Space,
    /// Tables and manifests that change behind the engine's back.
    Damage,
    /// The log changes behind the engine's back.
    LogDamage,
}

impl FaultMode {
    /// Draws one: half the lives have none.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.below(12) {
            0 => Self::Reads,
            1 | 2 => Self::Writes,
            3 => Self::Space,
            4 => Self::Damage,
            5 => Self::LogDamage,
            _ => Self::None,
        }
    }

    /// Sets the store up for it.
    pub fn arrange(self, rng: &mut Rng, store: &SimStore) {
        let mut rules = vec![FaultRule::new(Fault::LatencySpike, 400)];
        let often = [30, 300, 2000][rng.index(3)];
        let tables = |fault, times| {
            FaultRule::new(fault, often)
                .only(FileClass::Table)
                .at_most(times)
        };
        let manifest = |fault| {
            FaultRule::new(fault, 3)
                .only(FileClass::Manifest)
                .at_most(1)
        };
        let log = |fault| FaultRule::new(fault, often).only(FileClass::Log).at_most(1);
        let pick = |rng: &mut Rng, rules: &[FaultRule]| rules[rng.index(rules.len())];
        match self {
            Self::None => {}
            Self::Reads => rules.push(pick(
                rng,
                &[
                    FaultRule::new(Fault::ReadError, often).at_most(20),
                    tables(Fault::ReadError, 20),
                    tables(Fault::ReadErrorSticky, 3),
                    log(Fault::ReadError),
                    log(Fault::ReadErrorSticky),
                    manifest(Fault::ReadErrorSticky),
                ],
            )),
            Self::Writes => rules.push(pick(
                rng,
                &[
                    FaultRule::new(Fault::WriteError, often).at_most(1),
                    FaultRule::new(Fault::WriteErrorSticky, often).at_most(1),
                    FaultRule::new(Fault::SyncError, often / 10).at_most(1),
                    FaultRule::new(Fault::NameError, often / 10).at_most(1),
                    tables(Fault::WriteError, 1),
                    tables(Fault::SyncError, 1),
                    manifest(Fault::WriteError),
                    manifest(Fault::SyncError),
                    log(Fault::WriteError),
                ],
            )),
            Self::Space => {
                rules.push(FaultRule::new(Fault::NoSpace, often).only(FileClass::Table));
                let most = [100 << 10, 1 << 20][rng.index(2)];
                let room = rng.below(most);
                store.set_capacity(store.used_bytes() + room);
            }
            Self::Damage => {
                if rng.one_in(2) {
                    for _ in 0..3 {
                        flip_one(rng, store, ".table");
                    }
                }
                rules.push(pick(
                    rng,
                    &[
                        tables(Fault::BitFlip, 5),
                        tables(Fault::LostWrite, 2),
                        tables(Fault::MisdirectedWrite, 2),
                        manifest(Fault::BitFlip),
                        manifest(Fault::LostWrite),
                    ],
                ));
            }
            Self::LogDamage => rules.push(pick(
                rng,
                &[
                    log(Fault::BitFlip),
                    log(Fault::LostWrite),
                    log(Fault::MisdirectedWrite),
                ],
            )),
        }
        store.set_faults(rules);
    }

    /// Makes room again after a while, as somebody who cleans up does.
    pub fn relieve_later(self, rng: &mut Rng, env: &SimEnv) {
        if self == Self::Space {
            let after = Duration::from_millis(rng.below(20_000));
            let env2 = env.clone();
            env.spawn(TaskClass::Foreground, async move {
                env2.sleep(after).await;
                env2.store().set_capacity(PLENTY_BYTES);
                env2.store().set_faults(Vec::new());
            });
        }
    }

    /// Whether operations may fail with a typed error.
    #[must_use]
    pub fn allows_errors(self) -> bool {
        self != Self::None
    }
}

/// Flips one bit of one of the files whose names end so. Returns whether there is one.
pub fn flip_one(rng: &mut Rng, store: &SimStore, suffix: &str) -> bool {
    let mut files = store.files();
    files.retain(|(path, len)| *len > 0 && path.to_string_lossy().ends_with(suffix));
    if files.is_empty() {
        return false;
    }
    let (path, len) = &files[rng.index(files.len())];
    // The front of a file is written more often than its end.
    let most = [*len, *len / 8 + 1][rng.index(2)];
    store.flip_bit(path, rng.below(most), rng.below(8) as u32)
}

/// Where a life is to end before its time.
#[derive(Debug, Clone)]
pub enum CrashPlan {
    /// It is not.
    Never,
    /// After so many polled tasks.
    AfterSteps(u64),
    /// Around the n-th operation of the disk that matches.
    AtIo(IoMatch, u64),
    /// After so many polled tasks from when it begins to close.
    InClosing(u64),
}

impl CrashPlan {
    /// Draws one.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 | 1 => Self::Never,
            2 | 3 => Self::AfterSteps(Self::small(rng, 40_000)),
            // In recovery: it begins with these.
            4 => Self::AtIo(IoMatch::default(), rng.between(1, 40)),
            5 => Self::InClosing(rng.below(60)),
            _ => {
                let (which, most) = Self::target(rng);
                Self::AtIo(which, Self::small(rng, most))
            }
        }
    }

    /// Small numbers are as likely as large ones.
    fn small(rng: &mut Rng, most: u64) -> u64 {
        let most = rng.between(1, most.ilog2().into());
        rng.between(1, 1 << most)
    }

    fn target(rng: &mut Rng) -> (IoMatch, u64) {
        let op = |op| IoMatch {
            op: Some(op),
            ..IoMatch::default()
        };
        let class = |io, class| IoMatch {
            class: Some(class),
            ..op(io)
        };
        let task = |io, task| IoMatch {
            task: Some(task),
            ..class(io, FileClass::Table)
        };
        let path = |part: &str| IoMatch {
            path_contains: Some(part.to_owned()),
            ..IoMatch::default()
        };
        let targets = [
            (class(IoOp::Write, FileClass::Log), 1024),
            (class(IoOp::Create, FileClass::Log), 4),
            (task(IoOp::Write, TaskClass::Flush), 32),
            (task(IoOp::Sync, TaskClass::Flush), 32),
            (task(IoOp::Write, TaskClass::CompactL0), 32),
            (task(IoOp::Sync, TaskClass::CompactL0), 32),
            (task(IoOp::Write, TaskClass::Background), 32),
            (class(IoOp::Write, FileClass::Manifest), 64),
            (class(IoOp::Sync, FileClass::Manifest), 64),
            (path("CURRENT"), 8),
            (op(IoOp::Rename), 4),
            (op(IoOp::SyncDir), 32),
            (op(IoOp::Remove), 32),
            (op(IoOp::Create), 32),
            (op(IoOp::SetLen), 8),
            (op(IoOp::Read), 512),
        ];
        targets[rng.index(targets.len())].clone()
    }
}
