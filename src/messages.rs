//! What the process says: events of `tracing` on standard error, for people or for collectors.
//!
//! Nothing on a request's path says anything. What goes wrong again and again, such as a link to a node
//! that is down, is limited by the place in the code that tells of it: [`WITHIN_WINDOW_MAX`] times in a
//! [`WINDOW`] it is written, then it is counted, and once the window is over [`tell_held_back`] tells how
//! many were held back, with the first of them. The limit costs a look into a small map for each event
//! that is of the level set; there are as many entries as places that have spoken.
//!
//! No event carries a key or a value of a record.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{MessageFormat, MessageLevel, MessageSettings};

/// How often a place in the code is heard in one [`WINDOW`].
const WITHIN_WINDOW_MAX: u32 = 20;
/// For how long events of a place are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Characters that are kept of an event that was held back.
const LIKE_CHARS_MAX: usize = 200;

/// The form of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Form {
    /// The form that a setting means for this process.
    #[must_use]
    pub fn of(format: MessageFormat) -> Self {
        match format {
            MessageFormat::Text => Self::Text,
            MessageFormat::Json => Self::Json,
            MessageFormat::Auto if std::io::stderr().is_terminal() => Self::Text,
            MessageFormat::Auto => Self::Json,
        }
    }
}

/// Sends the process's events to standard error. Called once.
pub fn install(settings: &MessageSettings) {
    let level = match settings.level {
        MessageLevel::Error => "error",
        MessageLevel::Warn => "warn",
        MessageLevel::Info => "info",
        MessageLevel::Debug => "debug",
        MessageLevel::Trace => "trace",
    };
    // Ours by the setting, those of libraries only when they need attention.
    let filter = EnvFilter::new(format!(
        "warn,ringbolt={level},ringbolt_engine={level},ringbolt_ring={level}"
    ));
    let written = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(Limited(Arc::clone(&LIMITER)));
    match Form::of(settings.format) {
        Form::Text => registry.with(written).init(),
        Form::Json => registry
            .with(
                written
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .init(),
    }
}

/// Tells of the events that were held back in windows that are over. The node's main thread calls it
/// while it waits.
pub fn tell_held_back() {
    for held in LIMITER.due(Instant::now()) {
        let HeldBack { count, like, level } = held;
        // The level of an event is a constant of its place.
        if level == Level::ERROR {
            tracing::error!(held_back = count, like, "the same was said too often");
        } else {
            tracing::warn!(held_back = count, like, "the same was said too often");
        }
    }
}

/// The limit of the process, as `tracing`'s subscriber is the process's.
static LIMITER: LazyLock<Arc<Limiter>> = LazyLock::new(Arc::default);

/// What each place has said in its window.
#[derive(Default)]
struct Limiter {
    places: Mutex<HashMap<Identifier, Place>>,
}

struct Place {
    since: Instant,
    said: u32,
    held: Option<HeldBack>,
}

/// Events of one place that were not written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeldBack {
    count: u64,
    /// The first of them.
    like: String,
    level: Level,
}

impl Limiter {
    /// Whether an event is written. One that is not is counted.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if metadata.target() == module_path!() {
            return true;
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(metadata.callsite()).or_insert(Place {
            since: now,
            said: 0,
            held: None,
        });
        if now.duration_since(place.since) >= WINDOW {
            (place.since, place.said) = (now, 0);
        }
        if place.said < WITHIN_WINDOW_MAX {
            place.said += 1;
            return true;
        }
        let held = place.held.get_or_insert_with(|| HeldBack {
            count: 0,
            like: words(event),
            level: *metadata.level(),
        });
        held.count += 1;
        false
    }

    /// Takes out what was held back in windows that are over.
    fn due(&self, now: Instant) -> Vec<HeldBack> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places
            .values_mut()
            .filter(|place| now.duration_since(place.since) >= WINDOW)
            .filter_map(|place| place.held.take())
            .collect()
    }
}

/// An event's message, shortened.
fn words(event: &Event<'_>) -> String {
    struct Words(String);
    impl Visit for Words {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut words = Words(String::new());
    event.record(&mut words);
    if let Some((end, _)) = words.0.char_indices().nth(LIKE_CHARS_MAX) {
        words.0.truncate(end);
    }
    words.0
}

/// The limit as a layer below the one that writes.
struct Limited(Arc<Limiter>);

impl<S: Subscriber> Layer<S> for Limited {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admits(event, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what the limit lets through, at times that the test gives.
    struct Clocked {
        limiter: Arc<Limiter>,
        now: Arc<Mutex<Instant>>,
        written: Arc<Mutex<u32>>,
    }

    impl<S: Subscriber> Layer<S> for Clocked {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            if self.limiter.admits(event, *self.now.lock().unwrap()) {
                *self.written.lock().unwrap() += 1;
            }
        }
    }

    #[test]
    fn a_place_that_repeats_itself_is_counted_and_told_of_and_others_are_heard() {
        let limiter = Arc::new(Limiter::default());
        let begun = Instant::now();
        let (now, written) = (Arc::new(Mutex::new(begun)), Arc::new(Mutex::new(0)));
        let clocked = Clocked {
            limiter: Arc::clone(&limiter),
            now: Arc::clone(&now),
            written: Arc::clone(&written),
        };
        // Another target than the module's own, which is not limited.
        let repeat = |times: u32| {
            for turn in 0..times {
                tracing::warn!(target: "ringbolt::test", turn, "no link to node {}", turn % 3);
            }
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(clocked), || {
            repeat(WITHIN_WINDOW_MAX + 7);
            tracing::error!(target: "ringbolt::test", "something else");
            assert_eq!(*written.lock().unwrap(), WITHIN_WINDOW_MAX + 1);
            assert!(limiter.due(begun + WINDOW / 2).is_empty());
            let held = HeldBack {
                count: 7,
                like: format!("no link to node {}", WITHIN_WINDOW_MAX % 3),
                level: Level::WARN,
            };
            assert_eq!(limiter.due(begun + WINDOW), [held]);
            assert!(limiter.due(begun + WINDOW).is_empty());

            // A new window.
            *now.lock().unwrap() = begun + WINDOW;
            repeat(3);
            assert_eq!(*written.lock().unwrap(), WITHIN_WINDOW_MAX + 4);
            assert!(limiter.due(begun + WINDOW * 3).is_empty());
        });
    }
}
