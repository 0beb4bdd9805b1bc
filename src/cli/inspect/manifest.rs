//! `ringbolt inspect manifest`: which tables make up a tree, and up to where partitions are in them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ringbolt_engine::manifest::{self, CURRENT, LEVELS, ManifestContent, TableRecord};
use ringbolt_engine::row::split_row_key;
use serde_json::{Value, json};

use super::{files, show_bytes};
use crate::cli::args::OutputArgs;
use crate::cli::failure::{Answer, Failure, Outcome};
use crate::cli::offline::{Access, PlainEnv};
use crate::cli::output::{Format, JsonBytes, Out, show_time};
use crate::config::about_bytes;

const EXAMPLES: &str = "\
Examples:
  The levels of every core's tree:
    ringbolt inspect manifest ringbolt-data

  Each table with its range of keys, and up to where each partition is in tables:
    ringbolt inspect manifest ringbolt-data/shard-000 --tables --partitions

  The largest tables first:
    ringbolt inspect manifest ringbolt-data --tables --format json | jq -s 'sort_by(-.bytes)'";

/// Shows the tables of a tree, level by level.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A folder with manifests below it.
    path: PathBuf,

    /// Every table.
    #[arg(long)]
    tables: bool,

    /// Up to where each partition is in the tables.
    #[arg(long)]
    partitions: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let is_current = |path: &Path| path.file_name().is_some_and(|name| name == CURRENT);
        let env = PlainEnv::new(Access::Read);
        let mut answer = Ok(Answer::Yes);
        for current in files(&self.path, "manifests (no file CURRENT)", is_current)? {
            let folder = current.parent().unwrap_or(Path::new("."));
            match env.block_on(manifest::read(&env, folder)) {
                Ok(Some(content)) => match self.output.format {
                    Format::Text => self.text(&content, out)?,
                    Format::Json => self.json(&content, out)?,
                },
                Ok(None) => {}
                Err(error) => {
                    eprintln!("ringbolt: {error}");
                    answer = Err(Failure::usage("not every manifest could be read"));
                }
            }
        }
        answer
    }

    fn text(&self, content: &ManifestContent, out: &mut Out) -> std::io::Result<()> {
        let torn = if content.torn {
            ", torn behind them"
        } else {
            ""
        };
        writeln!(
            out,
            "{}: {} edits in {}{torn}; {} partitions in tables",
            content.path.display(),
            content.edits.len(),
            about_bytes(content.end),
            content.state.flushed.len(),
        )?;
        for level in 0..LEVELS {
            let tables: Vec<_> = tables_of(content, level).collect();
            if tables.is_empty() {
                continue;
            }
            let sum = |f: fn(&TableRecord) -> u64| tables.iter().map(|table| f(table)).sum::<u64>();
            writeln!(
                out,
                "  level {level}: {} tables, {} ({} raw), {} entries, {} tombstones, {} range deletes",
                tables.len(),
                about_bytes(sum(|table| table.bytes)),
                about_bytes(sum(|table| table.raw_bytes)),
                sum(|table| table.entries),
                sum(|table| table.tombstones),
                sum(|table| table.range_deletes),
            )?;
            if self.tables {
                for table in tables {
                    writeln!(out, "    {}", show_table(table))?;
                }
            }
        }
        if self.partitions {
            for (partition, applied) in &content.state.flushed {
                writeln!(
                    out,
                    "  partition {partition}: up to {}:{}, {}",
                    applied.id.term,
                    applied.id.index,
                    show_time(applied.time_ms),
                )?;
            }
        }
        Ok(())
    }

    fn json(&self, content: &ManifestContent, out: &mut Out) -> std::io::Result<()> {
        if self.tables {
            for level in 0..LEVELS {
                for table in tables_of(content, level) {
                    out.json(&json_table(content, table))?;
                }
            }
        }
        if self.partitions {
            for (partition, applied) in &content.state.flushed {
                out.json(&json!({
                    "manifest": content.path,
                    "partition": partition,
                    "term": applied.id.term,
                    "index": applied.id.index,
                    "time_ms": applied.time_ms,
                }))?;
            }
        }
        if !self.tables && !self.partitions {
            let levels = (0..LEVELS).map(|level| {
                let tables = tables_of(content, level);
                let (count, bytes) = tables.fold((0_u64, 0), |(count, bytes), table| {
                    (count + 1, bytes + table.bytes)
                });
                json!({ "tables": count, "bytes": bytes })
            });
            out.json(&json!({
                "manifest": content.path,
                "edits": content.edits.len(),
                "bytes": content.end,
                "torn": content.torn,
                "partitions": content.state.flushed.len(),
                "levels": levels.collect::<Vec<_>>(),
            }))?;
        }
        Ok(())
    }
}

fn tables_of(content: &ManifestContent, level: usize) -> impl Iterator<Item = &TableRecord> {
    let tables = content.state.tables.values();
    tables.filter(move |table| usize::from(table.level) == level)
}

fn show_table(table: &TableRecord) -> String {
    let run = match table.level {
        0 => format!(" run {}", table.run),
        _ => String::new(),
    };
    format!(
        "table {}{run}: {}, {} entries, versions {}–{}, {} to {}{}",
        table.id,
        about_bytes(table.bytes),
        table.entries,
        table.version_min,
        table.version_max,
        show_row_key(&table.smallest),
        show_row_key(&table.largest),
        if table.largest_excluded {
            " (without)"
        } else {
            ""
        },
    )
}

/// A row key for people: partition, keyspace and key.
pub(super) fn show_row_key(row_key: &[u8]) -> String {
    match split_row_key(row_key) {
        Some(parts) => format!(
            "{}/{}/{}",
            parts.partition,
            parts.keyspace,
            show_bytes(parts.key)
        ),
        None => show_bytes(row_key),
    }
}

fn json_table(content: &ManifestContent, table: &TableRecord) -> Value {
    json!({
        "manifest": content.path,
        "table": table.id,
        "level": table.level,
        "run": table.run,
        "bytes": table.bytes,
        "raw_bytes": table.raw_bytes,
        "entries": table.entries,
        "tombstones": table.tombstones,
        "range_deletes": table.range_deletes,
        "version_min": table.version_min,
        "version_max": table.version_max,
        "smallest": json_row_key(&table.smallest),
        "largest": json_row_key(&table.largest),
        "largest_excluded": table.largest_excluded,
        "footer_checksum": format!("{:016x}", table.footer_checksum),
    })
}

/// A row key as JSON.
pub(super) fn json_row_key(row_key: &[u8]) -> Value {
    match split_row_key(row_key) {
        Some(parts) => json!({
            "partition": parts.partition,
            "keyspace": parts.keyspace,
            "key": JsonBytes(parts.key),
        }),
        None => json!({ "bytes": JsonBytes(row_key) }),
    }
}
