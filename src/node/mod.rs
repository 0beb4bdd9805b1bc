//! A node: one process, one thread a core, mailboxes between them.
//!
//! [`run`] is the whole life: preflight, data folder, the node's place in its cluster, cores, recovery,
//! then listening; and at a signal draining and a clean stop. The port is opened to clients only once
//! every core has recovered.

mod core;
mod core_main;
mod error;
mod eyes;
pub mod format;
mod handler;
mod identity;
mod listen;
mod lookup;
pub mod mailbox;
mod meet;
mod memory;
mod plan;
pub mod preflight;
mod service;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

pub use error::StartError;
pub use plan::engine_options;

use crate::admin::Admin;
use crate::cluster::ClusterView;
use crate::cluster::leaving::Leaving;
use crate::config::{self, Settings};
use crate::messages::{self, Form};
use crate::runtime::{self, Cores, Durability, probe, signals};
use format::{DataDir, Format};
use identity::Membership;
use mailbox::{Door, Letter, Mailboxes};
use plan::Plan;

/// How a node says that it serves.
const READY: &str = " is ready.";

/// Whether a line is the one by which a node says that it serves, in either form of messages.
#[must_use]
pub fn says_ready(line: &str) -> bool {
    line.ends_with(READY) || (line.starts_with('{') && line.contains(" is ready.\""))
}

/// How often the main thread looks whether the cores are still well.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// How long draining may take before connections are cut.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a stopping node waits for somebody to take what it leads, since it was last taken something.
const GIVE_AWAY_MAX: Duration = Duration::from_millis(700);
/// How long the durability probe may measure.
const PROBE_BUDGET: Duration = Duration::from_millis(300);

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`], which says what to do. Nothing was served, unless a core failed later.
pub fn run(settings: Settings) -> Result<(), StartError> {
    signals::block().map_err(|error| StartError::Preflight(error.to_string()))?;
    let checks = preflight::run(&settings);
    if let Some(check) = preflight::failed(&checks) {
        return Err(StartError::Preflight(check.to_string()));
    }
    for check in preflight::warnings(&checks) {
        tracing::warn!("{check}");
    }
    let mut dir = open_folder(&settings)?;
    let port = listen::claim(settings.listen)?;
    let admin = eyes::open(&settings)?;
    if let Some(address) = settings.resp.listen {
        // Free now, and given back: until the node serves, clients are refused and not kept waiting.
        drop(listen::claim(address)?);
    }
    let Some(member) = identity::settle(&settings, &mut dir, port, stop_asked)? else {
        return Ok(());
    };
    if let Some(admin) = &admin {
        admin.recovering();
    }
    match serve(&settings, &mut dir, &member, admin.as_ref()) {
        // Of several nodes, one that cannot use its data any more gets it from the others. What it has
        // is set aside at its next start, which is at once.
        Err(error @ (StartError::Outlived(_) | StartError::CoreDamaged { .. }))
            if member.map.nodes().len() > 1 =>
        {
            dir.lose(&error.to_string())?;
            tracing::error!("{error}; the node begins anew");
            Err(begin_anew())
        }
        ended => ended,
    }
}

/// Replaces this process by one that starts with the same arguments: whatever the cores have under way
/// ends with it. Returns only if that fails.
fn begin_anew() -> StartError {
    let own = Path::new("/proc/self/exe");
    let error = std::process::Command::new(own)
        .args(std::env::args_os().skip(1))
        .exec();
    StartError::io(own, &error)
}

/// Runs the cores until a signal ends the node, or something it cannot go on with.
fn serve(
    settings: &Settings,
    dir: &mut DataDir,
    member: &Membership,
    admin: Option<&Admin>,
) -> Result<(), StartError> {
    let start = random_bytes().map_err(|error| StartError::io("/dev/urandom", &error))?;
    let told = dir.tell_start(u64::from_le_bytes(start))?;
    let plan = Arc::new(Plan::new(settings, dir, member, told)?);
    let mailboxes = Mailboxes::new(settings.cores);
    let (report, reports) = mpsc::channel();
    let options = plan.launch_options(settings);
    let cores = {
        let (plan, mailboxes) = (Arc::clone(&plan), mailboxes.clone());
        runtime::launch(&options, move |env| {
            core_main::run(env, Arc::clone(&plan), mailboxes.clone(), report.clone())
        })
        .map_err(|error| StartError::Preflight(error.to_string()))?
    };
    let node = Running {
        cores,
        mailboxes,
        reports,
    };
    let begun = Instant::now();
    let mut ready = 0;
    loop {
        lookup::look(&plan.cluster);
        match node.next_report()? {
            Some(Report::Ready) => ready += 1,
            Some(Report::Ended) => return node.finish(1),
            None => {}
        }
        if ready == settings.cores {
            break;
        }
        if stop_asked(Duration::from_millis(1))? {
            return node.stop();
        }
    }
    for core in 0..settings.cores {
        let listener = listen::listener(settings.listen)?;
        node.post(core, Letter::Listen(Door::Own, listener));
        if let Some(address) = settings.resp.listen {
            let listener = listen::listener(address)?;
            node.post(core, Letter::Listen(Door::Resp, listener));
        }
    }
    if let Some(admin) = admin {
        admin.serving(eyes::running(&node, &plan));
    }
    dir.begin()?;
    announce(settings, dir, member, admin, begun.elapsed());
    service::ready(settings.listen);
    let mut kept = Kept {
        map_version: member.map.version(),
        seen_changes: 0,
    };
    let mut leaving = Leaving::default();
    while !stop_asked(WATCH_EVERY)? {
        kept.follow(&plan.cluster, dir)?;
        lookup::look(&plan.cluster);
        if let Some(why) = plan.cluster.outlived() {
            return Err(StartError::Outlived(why.to_owned()));
        }
        let since_begun = begun.elapsed();
        if let Some(why) = leaving.look(&plan.cluster, settings.cores, since_begun) {
            return Err(StartError::Outlived(why));
        }
        if let Some(Report::Ended) = node.next_report()? {
            return node.finish(1);
        }
    }
    if let Some(admin) = admin {
        admin.stopping();
    }
    tracing::info!("stopping: requests under way are finished");
    give_away(&plan.cluster);
    node.stop()
}

/// Has the cores give away what they lead, so that clients do not wait for elections. What nobody
/// takes is kept.
fn give_away(cluster: &ClusterView) {
    if cluster.nodes().len() == 1 {
        return;
    }
    cluster.drain(true);
    let (mut led, mut since) = (usize::MAX, Instant::now());
    while cluster.led_here() > 0 && since.elapsed() < GIVE_AWAY_MAX {
        if cluster.led_here() < led {
            (led, since) = (cluster.led_here(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What of the cluster's state the folder keeps, as far as it has been written.
struct Kept {
    map_version: u64,
    seen_changes: u64,
}

impl Kept {
    /// Writes what has changed: the map, and which starts of other nodes were seen.
    fn follow(&mut self, cluster: &ClusterView, dir: &mut DataDir) -> Result<(), StartError> {
        if cluster.is_welcomed() {
            dir.start_welcomed()?;
        }
        let changes = cluster.seen_changes();
        if self.seen_changes != changes {
            dir.keep_seen(&cluster.seen())?;
            self.seen_changes = changes;
        }
        let map = cluster.map();
        if let Some(known) = map.filter(|known| known.map.version() != self.map_version) {
            dir.belong(&known.map, cluster.here())?;
            self.map_version = known.map.version();
        }
        Ok(())
    }
}

/// Waits for a signal to stop. All of the main thread's waiting is here.
fn stop_asked(wait: Duration) -> Result<bool, StartError> {
    messages::tell_held_back();
    match signals::wait(wait) {
        Ok(Some(signals::Signal::Stop)) => {
            service::stopping();
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) => Err(StartError::Preflight(error.to_string())),
    }
}

/// Opens the data folder, or lays one out.
fn open_folder(settings: &Settings) -> Result<DataDir, StartError> {
    let dir = DataDir::open(&settings.data, || {
        if settings.cores > settings.partitions {
            return Err(StartError::TooManyCores {
                cores: settings.cores,
                partitions: settings.partitions,
            });
        }
        let id = random_id().map_err(|error| StartError::io("/dev/urandom", &error))?;
        let durability = measure(settings)?.name();
        Ok(Format::new(
            id,
            settings.cores,
            settings.partitions,
            durability,
        ))
    })?;
    let found = dir.format().cores;
    if found != settings.cores {
        return Err(StartError::Cores {
            dir: settings.data.clone(),
            found,
            wanted: settings.cores,
        });
    }
    Ok(dir)
}

/// How to make a log write durable on this folder's disk.
fn measure(settings: &Settings) -> Result<Durability, StartError> {
    probe::durability(&settings.data, PROBE_BUDGET)
        .map(|report| report.mode)
        .map_err(|error| StartError::Preflight(error.to_string()))
}

fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    use std::io::Read;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn random_id() -> std::io::Result<String> {
    let bytes: [u8; 16] = random_bytes()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a core tells the main thread.
#[derive(Debug)]
pub(super) enum CoreReport {
    /// It has recovered and can serve.
    Ready,
    /// It has ended, cleanly or not.
    Ended(u16, Result<(), CoreFailure>),
}

/// Why a core ended, in words.
#[derive(Debug)]
pub(super) enum CoreFailure {
    /// What its folder holds is damaged.
    Damaged(String),
    /// Anything else.
    Failed(String),
}

enum Report {
    Ready,
    Ended,
}

/// The cores and how to reach them.
struct Running {
    cores: Cores<()>,
    mailboxes: Mailboxes,
    reports: mpsc::Receiver<CoreReport>,
}

impl Running {
    /// The next report, if there is one. A core that failed ends the node at once, without waiting
    /// for the others (invariant 6).
    fn next_report(&self) -> Result<Option<Report>, StartError> {
        match self.reports.try_recv() {
            Ok(CoreReport::Ready) => Ok(Some(Report::Ready)),
            Ok(CoreReport::Ended(_, Ok(()))) => Ok(Some(Report::Ended)),
            Ok(CoreReport::Ended(core, Err(CoreFailure::Damaged(detail)))) => {
                Err(StartError::CoreDamaged { core, detail })
            }
            Ok(CoreReport::Ended(core, Err(CoreFailure::Failed(detail)))) => {
                Err(StartError::Core { core, detail })
            }
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Ok(Some(Report::Ended)),
        }
    }

    fn post(&self, core: u16, mut letter: Letter) {
        // The main thread posts a handful of letters in a core's life: a full mailbox empties.
        while let Err(back) = self.mailboxes.post(self.mailboxes.outside(), core, letter) {
            letter = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.cores.wakers()[usize::from(core)].wake();
    }

    /// Tells every core to stop, and waits until all have.
    fn stop(self) -> Result<(), StartError> {
        for core in 0..self.cores.wakers().len() {
            self.post(core as u16, Letter::Stop);
        }
        self.finish(0)
    }

    /// Waits until every core has ended, of which `ended` have been seen to.
    fn finish(self, mut ended: usize) -> Result<(), StartError> {
        let cores = self.cores.wakers().len();
        while ended < cores {
            match self.next_report()? {
                Some(Report::Ended) => ended += 1,
                Some(Report::Ready) => {}
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        for (core, outcome) in self.cores.join().into_iter().enumerate() {
            outcome.map_err(|error| StartError::Core {
                core: core as u16,
                detail: error.to_string(),
            })?;
        }
        Ok(())
    }
}

/// Tells what a person who has just started the server wants to know.
fn announce(
    settings: &Settings,
    dir: &DataDir,
    member: &Membership,
    admin: Option<&Admin>,
    recovery: Duration,
) {
    let listen = settings.listen;
    let version = env!("CARGO_PKG_VERSION");
    let admin = match admin {
        Some(_) => eyes::url(settings),
        None => config::OFF.to_owned(),
    };
    if Form::of(settings.messages.format) == Form::Json {
        tracing::info!(
            node = settings.name,
            number = member.node,
            cluster = format!("{:016x}", member.map.cluster()),
            %listen,
            resp = settings.resp.listen.map(tracing::field::display),
            admin,
            data = %settings.data.display(),
            partitions = dir.format().partitions,
            start = dir.format().boots,
            cores = settings.cores,
            memory_bytes = settings.memory,
            durability = dir.format().durability,
            recovery_seconds = recovery.as_secs_f64(),
            "Ringbolt {version}{READY}"
        );
        return;
    }
    let resp = match settings.resp.listen {
        Some(address) => format!("\n  redis       {address}"),
        None => String::new(),
    };
    let durability = &dir.format().durability;
    let pinned = if settings.cpus.is_empty() {
        "not pinned".to_owned()
    } else {
        format!("on CPUs {}", config::show_cpus(&settings.cpus))
    };
    let text = format!(
        "Ringbolt {version}{READY}\n  \
           node        {} ({} of cluster {:016x})\n  \
           address     {listen}{resp}\n  \
           admin       {admin}\n  \
           data        {} ({} partitions, start {})\n  \
           cores       {} ({pinned}), memory {}\n  \
           durability  {durability}\n  \
           recovered   in {:.1} s\n\
         Try: ringbolt put --addr {listen} greeting hello\n",
        settings.name,
        member.node,
        member.map.cluster(),
        settings.data.display(),
        dir.format().partitions,
        dir.format().boots,
        settings.cores,
        config::show_bytes(settings.memory),
        recovery.as_secs_f64(),
    );
    // Standard error may be closed: that must not stop a server.
    let _unheard = std::io::stderr().write_all(text.as_bytes());
}
