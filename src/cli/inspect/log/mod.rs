//! `ringbolt inspect log`: segments, and the records in them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ringbolt_engine::log::RecordView;
use ringbolt_engine::log::format::SegmentStart;
use serde::Serialize;

use super::files;
use crate::cli::args::OutputArgs;
use crate::cli::failure::{Answer, Failure, Outcome};
use crate::cli::output::{Format, Out};
use crate::config::about_bytes;
use segment::{Segment, Visit};

mod record;
mod segment;

const EXAMPLES: &str = "\
Examples:
  The segments of one core in the order they were written:
    ringbolt inspect log ringbolt-data/shard-000

  What was written to one partition, newest format for scripts:
    ringbolt inspect log ringbolt-data --records --partition 17 --format json

  Every write of one key:
    ringbolt inspect log ringbolt-data --records --key greeting

A segment ends where the next group is not intact: what follows is of an earlier use of the file, or
was never acknowledged. Whether something acknowledged is missing, the server finds out at its
start.";

/// Shows the segments of a log, and their records.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A segment, or a folder with segments below it.
    path: PathBuf,

    /// Every record, not only the segments.
    #[arg(long)]
    records: bool,

    /// Only records of this partition.
    #[arg(long, value_name = "N", requires = "records")]
    partition: Option<u16>,

    /// Only records that write this key.
    #[arg(long, value_name = "KEY", requires = "records")]
    key: Option<String>,

    /// How many records at most.
    #[arg(long, value_name = "N", requires = "records")]
    limit: Option<u64>,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is told of a segment.
#[derive(Serialize)]
struct Summary<'a> {
    segment: &'a Path,
    epoch: u64,
    start: &'static str,
    follows_epoch: Option<u64>,
    file_bytes: u64,
    replicas: u32,
    first_sequence: u64,
    groups: u64,
    records: u64,
    record_bytes: u64,
    end: u64,
    durable_through: u64,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "seg");
        let paths = files(&self.path, "log segments", is_segment)?;
        let mut segments = Vec::new();
        let mut all_intact = true;
        for path in paths {
            match Segment::open(&path) {
                Ok(segment) => segments.push(segment),
                // A file that waits to be used has no header: that is no damage.
                Err(segment::Unreadable::Empty) => self.tell_unused(&path, out)?,
                Err(segment::Unreadable::Failed(why)) => {
                    all_intact = false;
                    eprintln!("ringbolt: {}: {why}", path.display());
                }
            }
        }
        let folder = |segment: &Segment| segment.path.parent().map(Path::to_path_buf);
        segments.sort_by_key(|segment| (folder(segment), segment.header.epoch));
        let mut left = self.limit.unwrap_or(u64::MAX);
        for segment in &segments {
            self.segment(segment, &mut left, out)?;
        }
        match all_intact {
            true => Ok(Answer::Yes),
            false => Err(Failure::usage("not every segment could be read")),
        }
    }

    fn tell_unused(&self, path: &Path, out: &mut Out) -> std::io::Result<()> {
        match (self.output.format, self.records) {
            (_, true) => Ok(()),
            (Format::Text, _) => writeln!(out, "{}: not in use yet", path.display()),
            (Format::Json, _) => out.json(&serde_json::json!({ "segment": path, "epoch": null })),
        }
    }

    fn segment(&self, segment: &Segment, left: &mut u64, out: &mut Out) -> Result<(), Failure> {
        let mut summary = Summary {
            segment: &segment.path,
            epoch: segment.header.epoch,
            start: match segment.header.start {
                SegmentStart::Format => "format",
                SegmentStart::Full => "full",
                SegmentStart::Open => "open",
            },
            follows_epoch: (segment.header.prev_epoch != 0).then_some(segment.header.prev_epoch),
            file_bytes: segment.bytes,
            replicas: segment.header.replicas,
            first_sequence: segment.header.sequence,
            groups: 0,
            records: 0,
            record_bytes: 0,
            end: 0,
            durable_through: segment.header.durable_through,
        };
        let mut told = Ok(());
        summary.end = segment.walk(|visit| match visit {
            Visit::Checkpoint(record) => {
                if told.is_ok() {
                    told = self.record(segment, summary.first_sequence, 0, &record, left, out);
                }
            }
            Visit::Group(header) => {
                summary.groups += 1;
                summary.records += u64::from(header.records);
                summary.record_bytes += u64::from(header.body_bytes);
                summary.durable_through = header.durable_through;
            }
            Visit::Record(header, at, record) => {
                if told.is_ok() {
                    let offset = u64::from(header.offset) + u64::from(at);
                    told = self.record(segment, header.sequence, offset, &record, left, out);
                }
            }
        })?;
        told?;
        if !self.records {
            tell(&summary, self.output.format, out)?;
        }
        Ok(())
    }

    fn record(
        &self,
        segment: &Segment,
        sequence: u64,
        offset: u64,
        record: &RecordView<'_>,
        left: &mut u64,
        out: &mut Out,
    ) -> std::io::Result<()> {
        let key = self.key.as_ref().map(String::as_bytes);
        if !self.records || *left == 0 || !record::is_wanted(record, self.partition, key) {
            return Ok(());
        }
        *left -= 1;
        let place = record::Place {
            segment: &segment.path,
            epoch: segment.header.epoch,
            sequence,
            offset,
        };
        match self.output.format {
            Format::Text => record::text(&place, record, out),
            Format::Json => out.json(&record::json(&place, record)),
        }
    }
}

fn tell(summary: &Summary<'_>, format: Format, out: &mut Out) -> std::io::Result<()> {
    if format == Format::Json {
        return out.json(summary);
    }
    let follows = match summary.follows_epoch {
        Some(epoch) => format!(", follows epoch {epoch}"),
        None => String::new(),
    };
    writeln!(
        out,
        "{}: epoch {}, begun by {}{follows}, {} replicas",
        summary.segment.display(),
        summary.epoch,
        summary.start,
        summary.replicas,
    )?;
    writeln!(
        out,
        "  {} groups from number {}, {} records of {}; ends at {} of {}; durable through {}",
        summary.groups,
        summary.first_sequence + 1,
        summary.records,
        about_bytes(summary.record_bytes),
        summary.end,
        summary.file_bytes,
        summary.durable_through,
    )
}
