//! Live progress on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::stats::{INTERVAL_NS, Intervals};

pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
}

impl Progress {
    /// Hidden unless `show` is set and stderr is a terminal.
    pub fn new(show: bool) -> Self {
        let target = if show {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(1000), target);
        bar.set_style(
            ProgressStyle::with_template(
                "{prefix:10} [{bar:30}] {percent:>3} %  {elapsed}  {wide_msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸ "),
        );
        Self {
            bar,
            what: String::new(),
        }
    }

    /// A new phase begins.
    pub fn begin(&mut self, what: &str) {
        self.what = what.to_string();
        self.bar.reset();
        self.bar.set_prefix(self.what.clone());
        self.bar.set_message("");
    }

    /// `fraction` of the phase is done.
    pub fn update(&self, fraction: f64, intervals: &Intervals) {
        self.bar
            .set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
        if let Some((requests, errors, p99_us)) = intervals.recent() {
            let per_second = requests as f64 * 1e9 / INTERVAL_NS as f64;
            let latency = Duration::from_nanos((p99_us * 1000.0) as u64);
            let errors = if errors > 0 {
                format!("  {errors} errors")
            } else {
                String::new()
            };
            self.bar
                .set_message(format!("{per_second:.0}/s  p99 {latency:.1?}{errors}"));
        }
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
