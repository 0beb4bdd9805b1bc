//! A run: threads, phases, and the sampling beside them.
//!
//! Phases are preload, measure and read back. The main thread says when each begins; each worker
//! thread runs it on its own connections and sends back what it counted. Meanwhile the main thread
//! shows progress and samples the processes at the ends of the measured window.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::clock::{Clock, nanos};
use crate::connect::{Reach, Target};
use crate::keys::{Keys, scramble, unique};
use crate::ledger::{self, Entry, LedgerFile, LedgerHeader};
use crate::options::{Limit, Preload, Protocol};
use crate::procfs::Usage;
use crate::progress::Progress;
use crate::report::{self, Measured, PreloadSummary, Report};
use crate::source::Routing;
use crate::source::load::{Load, Numbers};
use crate::source::mix::Mix;
use crate::source::verify::{Checks, Verify};
use crate::stats::{Intervals, Recorder};
use crate::worker::{Phase, Worker};
use crate::{LoadError, Options};

/// Depth of the preload and the read-back: enough for throughput whatever the round trip.
const BULK_DEPTH: usize = 64;
/// Bytes that a connection of the preload may have in flight.
const BULK_BYTES: usize = 1 << 20;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Threads get their orders a moment before the phase opens.
const LEAD_NS: u64 = 2_000_000;

/// What a worker thread is told.
enum Order {
    Preload(Phase, Arc<AtomicU64>),
    Measure(Phase),
    ReadBack(Phase),
}

/// What a worker thread tells.
struct Told {
    recorder: Recorder,
    result: Result<(), LoadError>,
    /// Records that could not be preloaded.
    failed: u64,
    /// Reads that found nothing.
    absent: u64,
    /// Rows scanned.
    rows: u64,
    checks: Checks,
}

/// What the threads of a run share.
struct Shared {
    options: Arc<Options>,
    target: Target,
    clock: Clock,
    /// Of a verified run.
    run: Option<u64>,
    entries: Vec<Entry>,
    /// Only the records in `entries` are read back.
    only_entries: bool,
    ledger: Option<LedgerFile>,
    newest: Arc<AtomicU64>,
    handed_out: Arc<AtomicU64>,
}

/// Does a run.
///
/// A run whose server goes away for good after measuring began still ends with a report, which
/// says so ([`Report::interrupted`]).
///
/// # Errors
/// [`LoadError`] if there is nothing to report.
pub fn run(options: Options) -> Result<Report, LoadError> {
    options.check()?;
    let mut shared = Shared {
        target: Target::find(&options)?,
        clock: Clock::start(),
        run: options.verifies().then(|| unique(options.seed)),
        entries: Vec::new(),
        only_entries: false,
        ledger: None,
        newest: Arc::new(AtomicU64::new(options.records)),
        handed_out: Arc::new(AtomicU64::new(options.records)),
        options: Arc::new(options),
    };
    if let (Some(path), Some(run)) = (&shared.options.ledger, shared.run) {
        let header = LedgerHeader::new(run, &shared.options);
        let (file, header, entries) = LedgerFile::open(path, header)?;
        shared.run = Some(header.run);
        shared.entries = entries;
        shared.ledger = Some(file);
    }
    Run::start(&shared, |run| run.all_phases())
}

/// Reads back everything that a ledger says was acknowledged. `options` says how: `addr` (an empty
/// one for the ledger's own), connections, depth, threads, timeouts and progress; the rest comes
/// from the ledger.
///
/// # Errors
/// [`LoadError`] if the ledger cannot be read or the server not be reached.
pub fn verify_ledger(path: &Path, options: Options) -> Result<Report, LoadError> {
    let read = ledger::read(path)?;
    let header = read.header;
    let options = Options {
        addr: if options.addr.is_empty() {
            header.addr
        } else {
            options.addr
        },
        protocol: match header.protocol.as_str() {
            "redis" => Protocol::Redis,
            _ => Protocol::Ringbolt,
        },
        keyspace: header.keyspace,
        key_prefix: header.key_prefix,
        records: header.records,
        verify: true,
        ledger: None,
        workload: crate::options::Workload::Get,
        ..options
    };
    options.check()?;
    let shared = Shared {
        target: Target::find(&options)?,
        clock: Clock::start(),
        run: Some(header.run),
        entries: read.entries,
        only_entries: true,
        ledger: None,
        newest: Arc::default(),
        handed_out: Arc::default(),
        options: Arc::new(options),
    };
    Run::start(&shared, |run| run.read_back_only())
}

fn thread_died() -> LoadError {
    LoadError::Io {
        what: "waiting for the generator's threads".into(),
        error: std::io::Error::other("one has died"),
    }
}

/// The main thread's side of a run.
struct Run<'a> {
    shared: &'a Shared,
    orders: Vec<mpsc::Sender<Order>>,
    told: mpsc::Receiver<Result<Told, LoadError>>,
    progress: Progress,
}

/// What one phase came to.
struct PhaseEnd {
    told: Told,
    measured: Measured,
    intervals: Arc<Intervals>,
}

impl Run<'_> {
    /// Starts the threads, does `body`, and ends them.
    fn start(
        shared: &Shared,
        body: impl FnOnce(&mut Run<'_>) -> Result<Report, LoadError>,
    ) -> Result<Report, LoadError> {
        let threads = shared.options.threads;
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let mut orders = Vec::new();
            for thread in 0..threads {
                let (order, ordered) = mpsc::channel();
                orders.push(order);
                let tell = tell.clone();
                std::thread::Builder::new()
                    .name(format!("bench-{thread}"))
                    .spawn_scoped(scope, move || {
                        worker_thread(shared, thread, &ordered, &tell)
                    })
                    .map_err(LoadError::io("starting a thread"))?;
            }
            drop(tell);
            let mut run = Run {
                shared,
                orders,
                told,
                progress: Progress::new(shared.options.progress),
            };
            run.progress.begin("connect");
            for _ in 0..threads {
                run.told.recv().map_err(|_| thread_died())??;
            }
            let report = body(&mut run);
            run.progress.end();
            report
        })
    }

    fn all_phases(&mut self) -> Result<Report, LoadError> {
        let options = self.shared.options.clone();
        let mut preload = None;
        if options.preloads() {
            preload = Some(self.preload()?);
        }
        if options.preload == Preload::Only {
            let summary = preload.unwrap_or_default();
            return Ok(Report::of_preload(&options, summary));
        }
        let mut end = self.measure()?;
        let interrupted = end.told.result.as_ref().err().map(ToString::to_string);
        if options.verifies() {
            let reads = self.read_back(interrupted.is_none())?;
            end.told.checks.merge(reads.told.checks);
            for (code, count) in reads.told.recorder.errors {
                *end.told.recorder.errors.entry(code).or_default() += count;
            }
        }
        let checks = options.verifies().then_some(end.told.checks);
        Ok(Report::new(
            &options,
            report::Parts {
                recorder: end.told.recorder,
                measured: end.measured,
                intervals: end.intervals.summaries(),
                absent: end.told.absent,
                rows: end.told.rows,
                preload,
                checks,
                interrupted,
            },
        ))
    }

    fn read_back_only(&mut self) -> Result<Report, LoadError> {
        let end = self.read_back(true)?;
        let interrupted = end.told.result.as_ref().err().map(ToString::to_string);
        Ok(Report::new(
            &self.shared.options,
            report::Parts {
                recorder: end.told.recorder,
                measured: end.measured,
                intervals: end.intervals.summaries(),
                absent: 0,
                rows: 0,
                preload: None,
                checks: Some(end.told.checks),
                interrupted,
            },
        ))
    }

    fn phase(&self, open: std::ops::Range<u64>, depth: usize) -> Phase {
        Phase {
            window: open.clone(),
            open,
            tickets: None,
            depth,
            rate: None,
            intervals: Arc::default(),
            stop: Arc::default(),
        }
    }

    fn bulk_depth(&self) -> usize {
        let options = &self.shared.options;
        let by_bytes = BULK_BYTES / (*options.value_bytes.end() as usize).max(1);
        let by_limit = self
            .shared
            .target
            .limits
            .map_or(BULK_DEPTH, |limits| limits.inflight_requests_max as usize);
        BULK_DEPTH
            .max(options.depth)
            .min(by_bytes)
            .min(by_limit)
            .max(1)
    }

    fn preload(&mut self) -> Result<PreloadSummary, LoadError> {
        self.progress.begin("preload");
        let start = self.shared.clock.now() + LEAD_NS;
        let phase = self.phase(start..u64::MAX, self.bulk_depth());
        let next = Arc::new(AtomicU64::new(0));
        let records = self.shared.options.records;
        let end = self.conduct(
            &phase,
            |phase| Order::Preload(phase, next.clone()),
            |_| next.load(Ordering::Relaxed) as f64 / records as f64,
        )?;
        end.told.result?;
        if self.shared.options.stop.load(Ordering::Relaxed) {
            return Err(LoadError::Usage("stopped in the preload".into()));
        }
        if end.told.failed > 0 {
            let errors: Vec<String> = end
                .told
                .recorder
                .errors
                .iter()
                .map(|(code, count)| format!("{code} × {count}"))
                .collect();
            return Err(LoadError::Unreachable {
                addr: self.shared.options.addr.clone(),
                what: format!(
                    "{} of {records} records could not be preloaded: {}",
                    end.told.failed,
                    errors.join(", ")
                ),
            });
        }
        let seconds = end.measured.seconds;
        Ok(PreloadSummary {
            records,
            seconds,
            records_per_second: records as f64 / seconds.max(1e-9),
        })
    }

    fn measure(&mut self) -> Result<PhaseEnd, LoadError> {
        self.progress.begin("measure");
        let options = self.shared.options.clone();
        let start = self.shared.clock.now() + LEAD_NS;
        let from = start + nanos(options.warmup);
        let mut phase = self.phase(start..u64::MAX, options.depth);
        phase.window = from..u64::MAX;
        phase.rate = options.rate.map(|rate| rate / options.threads as f64);
        match options.limit {
            Limit::Duration(duration) => {
                let end = from.saturating_add(nanos(duration));
                phase.open.end = end;
                phase.window.end = end;
            }
            Limit::Ops(ops) => {
                let ops = i64::try_from(ops).unwrap_or(i64::MAX);
                phase.tickets = Some(Arc::new(AtomicI64::new(ops)));
            }
        }
        let tickets = phase.tickets.clone();
        self.conduct(&phase, Order::Measure, move |now| {
            match (options.limit, &tickets) {
                (Limit::Ops(ops), Some(left)) => {
                    1.0 - left.load(Ordering::Relaxed).max(0) as f64 / ops.max(1) as f64
                }
                (Limit::Duration(duration), _) => {
                    now.saturating_sub(start) as f64
                        / (nanos(duration) + nanos(options.warmup)) as f64
                }
                (Limit::Ops(_), None) => 0.0,
            }
        })
    }

    /// Reads every known record back; if there is no server any more (`reachable`), only counts
    /// what was left unread.
    fn read_back(&mut self, reachable: bool) -> Result<PhaseEnd, LoadError> {
        self.progress.begin("read back");
        let start = self.shared.clock.now() + LEAD_NS;
        let end = if reachable { u64::MAX } else { start };
        let phase = self.phase(start..end, self.bulk_depth());
        self.conduct(&phase, Order::ReadBack, |_| 0.5)
    }

    /// Has all threads run a phase, and watches over it.
    fn conduct(
        &mut self,
        phase: &Phase,
        order: impl Fn(Phase) -> Order,
        fraction: impl Fn(u64) -> f64,
    ) -> Result<PhaseEnd, LoadError> {
        let options = &self.shared.options;
        for orders in &self.orders {
            // A thread that is gone is noticed when it does not tell.
            let _ = orders.send(order(phase.clone()));
        }
        let sample = || -> Result<(Option<Usage>, Usage, u64), LoadError> {
            let server = options.server_pid.map(Usage::of).transpose()?;
            let own = Usage::of_self().unwrap_or_default();
            Ok((server, own, self.shared.clock.now()))
        };
        let mut before = sample()?;
        let mut after = None;
        let mut begun = false;
        let mut rss_bytes_max = 0;
        let mut all: Option<Told> = None;
        let mut missing = self.orders.len();
        while missing > 0 {
            let now = self.shared.clock.now();
            let next_edge = if !begun {
                phase.window.start
            } else {
                phase.window.end
            };
            let to_edge = Duration::from_nanos(next_edge.saturating_sub(now).max(1));
            let edge_ahead = !begun || after.is_none();
            let within = if edge_ahead {
                to_edge.min(SAMPLE_EVERY)
            } else {
                SAMPLE_EVERY
            };
            match self.told.recv_timeout(within) {
                Ok(told) => {
                    missing -= 1;
                    let mut told = told?;
                    if after.is_none() {
                        after = sample().ok();
                    }
                    all = Some(match all.take() {
                        None => told,
                        Some(mut all) => {
                            all.recorder.merge(told.recorder);
                            all.failed += told.failed;
                            all.absent += told.absent;
                            all.rows += told.rows;
                            all.checks.merge(told.checks);
                            if all.result.is_ok() {
                                all.result = std::mem::replace(&mut told.result, Ok(()));
                            }
                            all
                        }
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(thread_died());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.shared.clock.now();
                    if !begun && now >= phase.window.start {
                        begun = true;
                        before = sample()?;
                    } else if begun && after.is_none() && now >= phase.window.end {
                        after = sample().ok();
                    }
                    if let Some(Ok(usage)) = options.server_pid.map(Usage::of) {
                        rss_bytes_max = usage.rss_bytes.max(rss_bytes_max);
                    }
                    if options.stop.load(Ordering::Relaxed) {
                        phase.stop.store(true, Ordering::Relaxed);
                    }
                    self.progress.update(fraction(now), &phase.intervals);
                }
            }
        }
        let told = all.ok_or_else(|| LoadError::Usage("--threads: at least 1".into()))?;
        let window = told.recorder.window();
        let after = after.unwrap_or(before);
        let elapsed = window.end.saturating_sub(window.start);
        Ok(PhaseEnd {
            measured: Measured {
                seconds: elapsed as f64 / 1e9,
                sampled_seconds: after.2.saturating_sub(before.2) as f64 / 1e9,
                server: before.0.zip(after.0).map(|(before, after)| Usage {
                    rss_bytes: rss_bytes_max.max(after.rss_bytes),
                    ..after.since(&before)
                }),
                generator: after.1.since(&before.1),
            },
            told,
            intervals: phase.intervals.clone(),
        })
    }
}

/// One worker thread, from its connections to its end.
fn worker_thread(
    shared: &Shared,
    thread: usize,
    orders: &mpsc::Receiver<Order>,
    tell: &mpsc::Sender<Result<Told, LoadError>>,
) {
    let mut worker = match connect(shared, thread) {
        Ok(worker) => worker,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let ready = Told {
        recorder: Recorder::new(0..0),
        result: Ok(()),
        failed: 0,
        absent: 0,
        rows: 0,
        checks: Checks::default(),
    };
    if tell.send(Ok(ready)).is_err() {
        return;
    }
    let options = &shared.options;
    let places = worker.places();
    let routing = Routing::new(shared.target.owners.clone(), places.iter().copied());
    let seed = scramble(options.seed ^ scramble(thread as u64));
    let mut verify: Option<Verify> = None;
    let new_verify = |run| {
        Verify::new(
            options.clone(),
            run,
            &routing,
            &places,
            (thread as u64, options.threads as u64),
            &shared.entries,
            shared.only_entries,
            shared.ledger.as_ref().map(LedgerFile::writer),
            shared.clock.now(),
        )
    };
    for order in orders {
        let mut failed = 0;
        let mut absent = 0;
        let mut rows = 0;
        let mut checks = Checks::default();
        let (recorder, result) = match (order, shared.run) {
            (Order::Preload(phase, next), _) => {
                let keys = Keys::new(&options.key_prefix);
                let numbers = Numbers::new(next, options.records, routing.clone(), keys);
                let mut load = Load::new(options.clone(), numbers, seed);
                let end = worker.run_phase(&phase, &mut load);
                failed = load.failed;
                end
            }
            (Order::Measure(phase), None) => {
                let mut mix = Mix::new(
                    options.clone(),
                    routing.clone(),
                    shared.newest.clone(),
                    shared.handed_out.clone(),
                    seed,
                );
                let end = worker.run_phase(&phase, &mut mix);
                absent = mix.absent;
                rows = mix.rows;
                end
            }
            (Order::Measure(phase), Some(run)) => {
                let verify = verify.get_or_insert_with(|| new_verify(run));
                worker.run_phase(&phase, verify)
            }
            (Order::ReadBack(phase), run) => {
                let verify = verify.get_or_insert_with(|| new_verify(run.unwrap_or(0)));
                verify.read_back();
                let end = worker.run_phase(&phase, verify);
                checks = verify.finish();
                end
            }
        };
        let told = Told {
            recorder,
            result,
            failed,
            absent,
            rows,
            checks,
        };
        if tell.send(Ok(told)).is_err() {
            return;
        }
    }
}

/// Opens one thread's connections: the `i`th of all belongs to the `i`th place, counted round.
fn connect(shared: &Shared, thread: usize) -> Result<Worker, LoadError> {
    let options = &shared.options;
    let first = options.connections * thread / options.threads;
    let end = options.connections * (thread + 1) / options.threads;
    let mut streams = Vec::with_capacity(end - first);
    let mut reach = Reach::default();
    for number in first..end {
        let (home, place) = shared.target.home(number, options.connections);
        streams.push((shared.target.open(home, &mut reach)?, home, place));
    }
    let seed = scramble(options.seed ^ scramble(!(thread as u64)));
    Worker::new(
        options.clone(),
        &shared.target,
        shared.clock,
        streams,
        shared.run,
        seed,
    )
}
