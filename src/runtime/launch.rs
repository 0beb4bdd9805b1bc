//! Starting and joining the cores.
//!
//! Each core is a thread with an executor and a ring made on it. Before any core runs its main, all
//! rings exist and every core holds the wakers of all; if one cannot be made, none runs.

use std::any::Any;
use std::future::Future;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use ringbolt_ring::{Ring, RingError, RingWaker};

use super::core::Core;
use super::{CoreError, CoreOptions, RealEnv, driver};

/// Submission entries of each of glommio's three rings: it carries no I/O here.
const EXECUTOR_RING_DEPTH: usize = 8;
/// I/O memory that glommio registers, in bytes: its minimum, unused.
const EXECUTOR_IO_MEMORY: usize = 64 << 10;
/// glommio looks at its own rings this often. Nothing is ever in flight there.
const EXECUTOR_PREEMPT: Duration = Duration::from_millis(100);

/// Which cores to start, and how.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// One entry a core: the CPU it is pinned to, or `None`.
    pub cpus: Vec<Option<usize>>,
    /// The settings of each.
    pub core: CoreOptions,
}

/// Why the cores could not be started. None of them runs.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A ring could not be made.
    #[error("core {core}: {error}")]
    Ring {
        /// The core.
        core: usize,
        /// Why.
        #[source]
        error: RingError,
    },
    /// An executor could not be made: the CPU does not exist or is not allowed, or too little
    /// memory may be locked.
    #[error("core {core}: the executor could not start: {detail}")]
    Executor {
        /// The core.
        core: usize,
        /// Why.
        detail: String,
    },
    /// A thread could not be started.
    #[error("core {core}: the thread could not start: {error}")]
    Thread {
        /// The core.
        core: usize,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

/// Running cores.
pub struct Cores<T> {
    threads: Vec<JoinHandle<Option<Result<T, CoreError>>>>,
    wakers: Arc<[RingWaker]>,
}

impl<T> Cores<T> {
    /// The wakers of the cores' rings, for threads that are not cores.
    #[must_use]
    pub fn wakers(&self) -> &[RingWaker] {
        &self.wakers
    }

    /// Whether a core has ended, by finishing or failing.
    #[must_use]
    pub fn any_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every core's main is finished; what each returned, by core number.
    pub fn join(self) -> Vec<Result<T, CoreError>> {
        let threads = self.threads.into_iter().enumerate();
        threads
            .map(|(core, thread)| match thread.join() {
                Ok(Some(outcome)) => outcome,
                Ok(None) => Err(CoreError::Panicked {
                    core,
                    message: "it was never started".to_owned(),
                }),
                Err(panic) => Err(CoreError::Panicked {
                    core,
                    message: words(panic.as_ref()),
                }),
            })
            .collect()
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Starts the cores; each runs `main(its environment)` to the end. Block signals first
/// ([`signals::block`](super::signals::block)), so that the cores' threads inherit it.
///
/// # Errors
///
/// [`LaunchError`]; then no main has run.
pub fn launch<T, M, F>(options: &LaunchOptions, main: M) -> Result<Cores<T>, LaunchError>
where
    T: Send + 'static,
    M: Fn(RealEnv) -> F + Clone + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let mut threads = Vec::with_capacity(options.cpus.len());
    let mut starts = Vec::with_capacity(options.cpus.len());
    let mut wakers = Vec::with_capacity(options.cpus.len());
    let mut failure = None;
    for (index, cpu) in options.cpus.iter().copied().enumerate() {
        let (ready, made) = mpsc::channel();
        let (start, go) = mpsc::channel::<Arc<[RingWaker]>>();
        let core_options = options.core.clone();
        let main = main.clone();
        let thread = thread::Builder::new()
            .name(format!("core-{index}"))
            .spawn(move || core_thread(index, cpu, core_options, &ready, &go, main));
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                failure = Some(LaunchError::Thread { core: index, error });
                break;
            }
        }
        starts.push(start);
        match made.recv() {
            Ok(Ok(waker)) => wakers.push(waker),
            Ok(Err(error)) => failure = Some(error),
            Err(_) => {
                failure = Some(LaunchError::Executor {
                    core: index,
                    detail: "its thread panicked".to_owned(),
                });
            }
        }
        if failure.is_some() {
            break;
        }
    }
    if let Some(failure) = failure {
        // Threads that wait for the start see their channel closed and end.
        drop(starts);
        for thread in threads {
            let _ = thread.join();
        }
        return Err(failure);
    }
    let wakers: Arc<[RingWaker]> = wakers.into();
    for start in starts {
        // A core that died since is found when it is joined.
        let _ = start.send(Arc::clone(&wakers));
    }
    Ok(Cores { threads, wakers })
}

/// One core's thread. `None` if it was told not to start.
fn core_thread<T, M, F>(
    index: usize,
    cpu: Option<usize>,
    options: CoreOptions,
    ready: &mpsc::Sender<Result<RingWaker, LaunchError>>,
    go: &mpsc::Receiver<Arc<[RingWaker]>>,
    main: M,
) -> Option<Result<T, CoreError>>
where
    T: 'static,
    M: Fn(RealEnv) -> F,
    F: Future<Output = T> + 'static,
{
    // Before the executor, which panics where io_uring is forbidden.
    let ring = Ring::new(&options.ring);
    let prepared = ring
        .map_err(|error| LaunchError::Ring { core: index, error })
        .and_then(|ring| {
            let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
            let executor = LocalExecutorBuilder::new(placement)
                .name("core")
                .ring_depth(EXECUTOR_RING_DEPTH)
                .io_memory(EXECUTOR_IO_MEMORY)
                .preempt_timer(EXECUTOR_PREEMPT)
                .make()
                .map_err(|error| LaunchError::Executor {
                    core: index,
                    detail: error.to_string(),
                })?;
            Ok((ring, executor))
        });
    let (ring, executor) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = ready.send(Err(error));
            return None;
        }
    };
    ready.send(Ok(ring.waker())).ok()?;
    let wakers = go.recv().ok()?;
    Some(executor.run(async move {
        let core = Core::new(index, ring, wakers, options);
        let env = RealEnv::new(std::rc::Rc::clone(&core));
        let outcome = driver::run(std::rc::Rc::clone(&core), main(env.clone())).await;
        env.uninstall();
        outcome
    }))
}
