//! `ringbolt slow`: requests that took long, and where their time went.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::admin_client::AdminArgs;
use super::failure::{Answer, Failure, FailureKind, Outcome};
use super::output::{Format, Out};

const EXAMPLES: &str = "\
Examples:
  The slow requests that a node remembers, the newest last:
    ringbolt slow

  Those that took 50 ms or more, as they happen:
    ringbolt slow --min 50ms --follow

  Of all that is remembered, the time by stage:
    ringbolt slow --format json | jq -s 'map(.stages_us | to_entries[]) | group_by(.key)
      | map({(.[0].key): (map(.value) | add)}) | add'

What counts as slow is the setting admin.slow_threshold of the node. Each core remembers its newest 256.
The stages of a request add up to its time:
  queue     the core did not look at its socket, or held the connection back (at most this long)
  core      the core worked on it, and on the others of the same turn
  mailbox   on the way to another core of the node, or back
  apply     until the partition had applied what the request must see
  disk      table reads
  proof     until a quorum had said that the replica still leads
  log       until the log had made it durable on the leader
  peers     from then until a quorum had stored it
  spread    from then until as many replicas as asked for had
  throttle  held back because compaction is behind
  forward   until other cores or nodes had answered
Behind them: how much of this time the core gave to flushes and compactions, and when each member
had stored a write.";

/// How often --follow looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows slow requests and where their time went.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only those that took at least this long.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::config::parse_span)]
    min: Duration,

    /// Goes on showing new ones until it is stopped.
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Deserialize)]
struct Told {
    threshold_us: u64,
    total: u64,
    stages: Vec<String>,
    requests: Vec<Request>,
}

#[derive(Deserialize, Serialize)]
struct Request {
    core: u16,
    number: u64,
    wall_ms: u64,
    op: String,
    outcome: String,
    bytes: u32,
    forwarded_by: Option<u32>,
    partition: Option<u16>,
    keyspace: Option<u32>,
    key: Option<String>,
    total_us: u64,
    stages_us: BTreeMap<String, u64>,
    background_us: u64,
    members: Vec<Member>,
}

#[derive(Deserialize, Serialize)]
struct Member {
    node: u32,
    stored_us: Option<u64>,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let mut shown: BTreeMap<u16, u64> = BTreeMap::new();
        let mut is_first = true;
        loop {
            let mut told = self.ask()?;
            told.requests.reverse();
            let min_us = self.min.as_micros() as u64;
            for request in &told.requests {
                let last = shown.entry(request.core).or_default();
                // A node that was started anew counts from the beginning.
                if request.number <= *last && is_known(&told.requests, request.core, *last) {
                    continue;
                }
                *last = request.number;
                if request.total_us >= min_us {
                    self.show(request, &told.stages, out)?;
                }
            }
            if is_first
                && told.requests.is_empty()
                && self.admin.client.output.format == Format::Text
            {
                let ms = told.threshold_us as f64 / 1000.0;
                writeln!(
                    out,
                    "no request took {ms} ms or longer ({} in all)",
                    told.total
                )?;
            }
            if !self.follow {
                return Ok(Answer::Yes);
            }
            out.flush()?;
            is_first = false;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn ask(&self) -> Result<Told, Failure> {
        let told = self.admin.get("/api/slow")?;
        serde_json::from_value(told).map_err(|error| {
            let message = format!("the node's answer is not understood: {error}");
            Failure::new(FailureKind::Refused, message)
        })
    }

    fn show(&self, request: &Request, stages: &[String], out: &mut Out) -> std::io::Result<()> {
        if self.admin.client.output.format == Format::Json {
            return out.json(request);
        }
        let ms = |us: u64| us as f64 / 1000.0;
        let time = humantime::format_rfc3339_millis(
            std::time::UNIX_EPOCH + Duration::from_millis(request.wall_ms),
        );
        write!(
            out,
            "{time}  {:>9.3} ms  {} {}",
            ms(request.total_us),
            request.op,
            request.outcome
        )?;
        if let Some(key) = &request.key {
            write!(out, "  {key}")?;
        }
        match request.partition {
            Some(partition) => write!(out, "  partition {partition}, core {}", request.core)?,
            None => write!(out, "  core {}", request.core)?,
        }
        if let Some(node) = request.forwarded_by {
            write!(out, ", for node {node}")?;
        }
        write!(out, "\n   ")?;
        for stage in stages {
            if let Some(us) = request.stages_us.get(stage) {
                write!(out, " {stage} {:.3}", ms(*us))?;
            }
        }
        if request.background_us > 0 {
            write!(out, "; background {:.3}", ms(request.background_us))?;
        }
        for member in &request.members {
            match member.stored_us {
                Some(us) => write!(out, "; node {} after {:.3}", member.node, ms(us))?,
                None => write!(out, "; node {} not yet", member.node)?,
            }
        }
        writeln!(out)
    }
}

/// Whether a core still counts on from a number that was shown.
fn is_known(requests: &[Request], core: u16, last: u64) -> bool {
    let mut of_core = requests.iter().filter(|request| request.core == core);
    of_core.any(|request| request.number >= last)
}
