//! An engine with one partition that commits what is durable, as a shard of one voter does.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringbolt::runtime::RealEnv;
use ringbolt_engine::engine::{Engine, EngineOptions, EngineStats};
use ringbolt_engine::entry::{Effect, EntryHead, LogId};
use ringbolt_engine::env::Env as _;
use ringbolt_engine::log::{AppendError, HardState, RecordView};
use ringbolt_engine::row::{ReadAt, RowKeyBuf};
use ringbolt_engine::tree::{Pressure, Tree, TreeOptions};

use super::Args;

const PARTITION: u16 = 0;
const KEYSPACE: u32 = 0;
const TERM: u64 = 1;
/// Compaction has settled when it has done nothing for this long.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// An open engine, and the progress of its log.
pub(super) struct Store {
    env: RealEnv,
    engine: Engine<RealEnv>,
    index: u64,
    progress: Rc<Progress>,
}

#[derive(Default)]
struct Progress {
    news: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Progress {
    fn tell(&self) {
        self.news.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.news.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Store {
    /// Opens the engine in the job's folder.
    pub async fn open(env: RealEnv, args: &Args) -> Result<Self, String> {
        let options = EngineOptions {
            tree: TreeOptions {
                memory_bytes: args.memory_bytes,
                // A reserve for full disks says nothing about how well space is used.
                ballast_bytes: 0,
                ..TreeOptions::default()
            },
            ..EngineOptions::default()
        };
        let (engine, replicas) = Engine::open(env.clone(), &args.dir, options)
            .await
            .map_err(|error| error.to_string())?;
        let progress = Rc::new(Progress::default());
        let hook = progress.clone();
        engine.on_progress(Rc::new(move || hook.tell()));
        let mut store = Self {
            env,
            engine,
            index: 0,
            progress,
        };
        match replicas
            .iter()
            .find(|replica| replica.partition == PARTITION)
        {
            Some(replica) => store.index = replica.last.index,
            None => {
                let state = HardState {
                    replica_id: 1,
                    term: TERM,
                    vote: 1,
                    commit: 0,
                };
                store
                    .engine
                    .append_hard_state(PARTITION, state)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(store)
    }

    pub fn tree(&self) -> &Tree<RealEnv> {
        self.engine.tree()
    }

    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    pub fn pressure(&self) -> Pressure {
        self.engine.tree().pressure()
    }

    /// Where reads look: everything, at the present time.
    pub fn at(&self) -> ReadAt {
        ReadAt::newest(self.env.wall_ms())
    }

    /// The row key of a user's key.
    pub fn row_key(key: &[u8]) -> RowKeyBuf {
        RowKeyBuf::of(PARTITION, KEYSPACE, key)
    }

    /// Appends a put. `Ok(false)`: the log has too much under way.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool, String> {
        self.append(Effect::Put {
            keyspace: KEYSPACE,
            key,
            value,
            expires_ms: 0,
            created_ms: 0,
        })
    }

    /// Appends a delete. `Ok(false)`: the log has too much under way.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, String> {
        self.append(Effect::Delete {
            keyspace: KEYSPACE,
            key,
        })
    }

    fn append(&mut self, effect: Effect<'_>) -> Result<bool, String> {
        let head = EntryHead {
            partition: PARTITION,
            id: LogId {
                term: TERM,
                index: self.index + 1,
            },
            client: 1,
            sequence: self.index + 1,
            time_ms: self.env.wall_ms(),
        };
        match self.engine.append(&head, &[effect]) {
            Ok(_) => {
                self.index += 1;
                Ok(true)
            }
            Err(AppendError::Full) => Ok(false),
            Err(error) => Err(match self.engine.failure() {
                Some(failure) => failure.to_string(),
                None => error.to_string(),
            }),
        }
    }

    /// Ends a turn: starts the write of what was appended, waits until some of what is under way
    /// is durable, applies it, and says how many entries that were. May say 0.
    pub async fn turn(&mut self) -> Result<usize, String> {
        self.engine.submit();
        let mut entries = self.take();
        if entries == 0 {
            self.progress.wait().await;
            entries = self.take();
        }
        match self.engine.failure() {
            Some(failure) => Err(failure.to_string()),
            None => Ok(entries),
        }
    }

    fn take(&mut self) -> usize {
        let mut entries = 0;
        while let Some(group) = self.engine.take_durable() {
            for record in group.records() {
                if let RecordView::Entry { head, effects } = record {
                    self.engine.apply(&head, effects);
                    entries += 1;
                }
            }
        }
        entries
    }

    /// Flushes, and waits until compaction has nothing more to do.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.tree()
            .flush()
            .await
            .map_err(|error| error.to_string())?;
        let mut before = None;
        loop {
            let stats = self.tree().stats();
            let done = (stats.flushes, stats.compactions, stats.tables_moved);
            let busy = stats.memtables_waiting + stats.compactions_running > 0;
            if before == Some(done) && !busy {
                return Ok(());
            }
            before = Some(done);
            self.env.sleep(SETTLED_AFTER).await;
            if let Some(failure) = self.engine.failure() {
                return Err(failure.to_string());
            }
        }
    }

    /// Closes the engine.
    pub async fn close(self) -> Result<(), String> {
        self.engine.close().await.map_err(|error| error.to_string())
    }
}
