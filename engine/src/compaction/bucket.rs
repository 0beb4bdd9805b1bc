//! The token bucket that background reads and writes pay from.
//!
//! Shares of the core do not order the disk, so background work takes tokens for each of its
//! operations: their bytes, and a charge for the operation itself. The rate grows with how far
//! compaction is behind: at rest it leaves the disk to the readers, under pressure it takes what
//! there is. Tokens may be overdrawn; the next operation then waits until they are back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use crate::env::Env;
use crate::table::Throttle;

/// What one operation costs beside its bytes.
const OPERATION_BYTES: f64 = 16.0 * 1024.0;
/// Tokens that can be saved up, as time at the current rate.
const BURST: Duration = Duration::from_millis(20);
/// Tokens that can be owed, as time at the current rate: no wait is longer.
const DEBT_MAX: Duration = Duration::from_millis(100);
/// Waits shorter than this are not worth a timer: they stay owed.
const WAIT_MIN: Duration = Duration::from_millis(2);
/// The rate under full pressure over that at rest, as a power of two.
const PRESSURE_DOUBLINGS: f64 = 4.0;

/// A token bucket. One for each tree, cheap to clone.
pub(crate) struct Bucket<E: Env> {
    env: E,
    state: Rc<State>,
}

struct State {
    bytes_per_s: Cell<f64>,
    tokens: Cell<f64>,
    filled_at: Cell<Duration>,
    /// From 0 to 1.
    pressure: Cell<f64>,
    waited: Cell<Duration>,
}

impl<E: Env> Clone for Bucket<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            state: Rc::clone(&self.state),
        }
    }
}

impl<E: Env> Bucket<E> {
    pub(crate) fn new(env: &E, bytes_per_s: u64) -> Self {
        let state = State {
            bytes_per_s: Cell::new(bytes_per_s.max(1) as f64),
            tokens: Cell::new(0.0),
            filled_at: Cell::new(env.now()),
            pressure: Cell::new(0.0),
            waited: Cell::new(Duration::ZERO),
        };
        Self {
            env: env.clone(),
            state: Rc::new(state),
        }
    }

    /// How far background work is behind, from 0 (not) to 1 (it decides how fast clients write).
    pub(crate) fn set_pressure(&self, pressure: f64) {
        self.state.pressure.set(pressure.clamp(0.0, 1.0));
    }

    /// Time spent waiting for tokens so far.
    pub(crate) fn waited(&self) -> Duration {
        self.state.waited.get()
    }

    fn rate(&self) -> f64 {
        let doublings = PRESSURE_DOUBLINGS * self.state.pressure.get();
        self.state.bytes_per_s.get() * doublings.exp2()
    }

    /// Takes the tokens of one operation, and says how long to wait for them.
    fn charge(&self, bytes: u64) -> Duration {
        let state = &*self.state;
        let rate = self.rate();
        let now = self.env.now();
        let passed = now.saturating_sub(state.filled_at.replace(now));
        let burst = rate * BURST.as_secs_f64();
        let filled = (state.tokens.get() + rate * passed.as_secs_f64()).min(burst);
        let owed_max = rate * DEBT_MAX.as_secs_f64();
        let tokens = (filled - bytes as f64 - OPERATION_BYTES).max(-owed_max);
        state.tokens.set(tokens);
        Duration::from_secs_f64((-tokens).max(0.0) / rate)
    }

    /// Pays for one operation of `bytes`, waiting for the tokens if they are spent.
    pub(crate) async fn take(&self, bytes: u64) {
        let wait = self.charge(bytes);
        if wait >= WAIT_MIN {
            self.state.waited.set(self.state.waited.get() + wait);
            self.env.sleep(wait).await;
        }
    }
}

impl<E: Env> Throttle for Bucket<E> {
    fn take(&self, bytes: u64) -> LocalBoxFuture<'_, ()> {
        Bucket::take(self, bytes).boxed_local()
    }
}

/// Takes tokens without waiting for them: others wait until they are back. For flushes, which must
/// keep up with the clients.
pub(crate) struct Overdraft<E: Env>(pub Bucket<E>);

impl<E: Env> Throttle for Overdraft<E> {
    fn take(&self, bytes: u64) -> LocalBoxFuture<'_, ()> {
        self.0.charge(bytes);
        ready(()).boxed_local()
    }
}
