//! What all gates share: where to run, for how long, and on which cores.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use super::Args;
use super::gate::Skip;

/// What all gates share.
#[derive(Debug)]
pub struct Context {
    /// The long form.
    pub full: bool,
    /// Rounds of each side.
    pub rounds: usize,
    /// The server's program.
    pub ringbolt: PathBuf,
    /// This program, for engine jobs.
    pub this: PathBuf,
    /// CPU for servers and engines.
    pub server_cpu: usize,
    /// CPU for the load; the same where there is only one.
    pub load_cpu: usize,
    dir: PathBuf,
    /// The gates that were asked for; none for all.
    only: Vec<u8>,
    /// What was measured and several gates rest on.
    measured: RefCell<BTreeMap<TypeId, Rc<dyn Any>>>,
}

impl Context {
    /// Builds the server if need be, and pins this process to the load's CPU: its threads are the
    /// load, and inherit that.
    pub fn new(args: &Args) -> Result<Self, String> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let load_cpu = args.load_cpu.min(cpus - 1);
        if cpus < 2 {
            eprintln!("compare: one CPU only: servers and load share it, ratios mean little");
        }
        if cfg!(debug_assertions) {
            eprintln!("compare: this is not a release build: add --release, ratios mean little");
        }
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let ringbolt = match &args.ringbolt {
            Some(path) => path.clone(),
            None => build(&this)?,
        };
        let dir = args
            .dir
            .clone()
            .unwrap_or_else(|| PathBuf::from("target/compare"));
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let dir = dir.canonicalize().map_err(|error| error.to_string())?;
        let mut set = CpuSet::new();
        set.set(load_cpu);
        if let Err(error) = sched_setaffinity(None, &set) {
            eprintln!("compare: the load cannot be pinned to CPU {load_cpu}: {error}");
        }
        Ok(Self {
            full: args.full,
            rounds: args.rounds.unwrap_or(if args.full { 5 } else { 2 }).max(1),
            ringbolt,
            this,
            server_cpu: args.server_cpu.min(cpus - 1),
            load_cpu,
            dir,
            only: args.only.clone(),
            measured: RefCell::default(),
        })
    }

    /// A new folder on the disk to be measured, removed when dropped.
    pub fn temp_dir(&self, name: &str) -> Result<TempDir, Skip> {
        tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&self.dir)
            .map_err(|error| Skip::Failed(format!("{}: {error}", self.dir.display())))
    }

    /// Whether a gate was asked for.
    pub fn wants(&self, gate: u8) -> bool {
        self.only.is_empty() || self.only.contains(&gate)
    }

    /// What several gates rest on: measured once, for the first of them.
    pub fn once<T: Any>(&self, measure: impl FnOnce() -> Result<T, Skip>) -> Result<Rc<T>, Skip> {
        let known = self.measured.borrow().get(&TypeId::of::<T>()).cloned();
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return Ok(known);
        }
        let new = Rc::new(measure()?);
        let mut measured = self.measured.borrow_mut();
        measured.insert(TypeId::of::<T>(), Rc::clone(&new) as Rc<dyn Any>);
        Ok(new)
    }

    /// The server's and the load's CPUs, for what does not fit on one.
    pub fn all_cpus(&self) -> String {
        match self.server_cpu == self.load_cpu {
            true => self.server_cpu.to_string(),
            false => format!("{},{}", self.server_cpu, self.load_cpu),
        }
    }

    /// The short form's or the full form's.
    pub fn pick<T>(&self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }

    /// How long one side of a round is measured.
    pub fn round_time(&self, short_seconds: f64, full_seconds: f64) -> Duration {
        Duration::from_secs_f64(self.pick(short_seconds, full_seconds))
    }
}

/// The server's program, built by the cargo that runs this.
fn build(this: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--package",
            "ringbolt",
            "--bin",
            "ringbolt",
        ])
        .status()
        .map_err(|error| format!("cargo build: {error}"))?;
    if !status.success() {
        return Err("the server does not build; give one with --ringbolt PATH".into());
    }
    let target = this
        .ancestors()
        .find(|dir| {
            dir.file_name()
                .is_some_and(|name| name == "release" || name == "debug")
        })
        .and_then(Path::parent)
        .ok_or("this program is not in a target folder: give the server with --ringbolt PATH")?;
    Ok(target.join("release").join("ringbolt"))
}
