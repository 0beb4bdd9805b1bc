//! `ringbolt inspect table`: what a table holds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringbolt_engine::cache::BlockCache;
use ringbolt_engine::row::{Cell, split_row_key};
use ringbolt_engine::table::{ReadMode, Table, TableContext, TableCursor, Unthrottled};
use ringbolt_engine::tree::table_id;
use serde_json::{Value, json};

use super::files;
use super::manifest::{json_row_key, show_row_key};
use super::show_bytes;
use crate::cli::args::OutputArgs;
use crate::cli::failure::{Answer, Failure, Outcome};
use crate::cli::offline::{Access, PlainEnv};
use crate::cli::output::{Format, JsonBytes, Out, show_time};
use crate::config::about_bytes;

/// Memory for blocks, in bytes: enough that a walk reads each index block once.
const CACHE_BYTES: usize = 32 << 20;

const EXAMPLES: &str = "\
Examples:
  What every table below a folder is made of:
    ringbolt inspect table ringbolt-data/shard-000

  Every version of every row in one table, tombstones and range deletes too:
    ringbolt inspect table ringbolt-data/shard-000/tables/0000000012.table --rows

  Whether every block of every table is intact:
    ringbolt inspect table ringbolt-data --verify

A row is shown as partition/keyspace/key. Exits with 2 if a table is damaged.";

/// Shows what tables hold, and checks them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A table, or a folder with tables below it.
    path: PathBuf,

    /// Every version of every row.
    #[arg(long)]
    rows: bool,

    /// Only versions of this key.
    #[arg(long, value_name = "KEY", requires = "rows")]
    key: Option<String>,

    /// How many versions at most.
    #[arg(long, value_name = "N", requires = "rows")]
    limit: Option<u64>,

    /// Reads every block and checks it.
    #[arg(long)]
    verify: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let env = PlainEnv::new(Access::Read);
        let paths = files(&self.path, "tables", |path| table_id(path).is_some())?;
        let mut answer = Ok(Answer::Yes);
        let mut left = self.limit.unwrap_or(u64::MAX);
        for path in paths {
            let cache = Rc::new(BlockCache::new(CACHE_BYTES));
            let context = TableContext::new(env.clone(), cache);
            match env.block_on(self.table(&context, &path, &mut left, out)) {
                Ok(()) => {}
                Err(Told::Output(failure)) => return Err(failure),
                Err(Told::Damaged(why)) => {
                    eprintln!("ringbolt: {why}");
                    answer = Err(Failure::usage("not every table is intact"));
                }
            }
        }
        answer
    }

    async fn table(
        &self,
        context: &TableContext<PlainEnv>,
        path: &Path,
        left: &mut u64,
        out: &mut Out,
    ) -> Result<(), Told> {
        let Some(id) = table_id(path) else {
            return Err(Told::Damaged(format!(
                "{}: tables are named like 0000000012.table",
                path.display()
            )));
        };
        let table = Rc::new(Table::open(context, path, id, None).await?);
        if self.verify {
            table.verify().await?;
        }
        if self.rows {
            self.rows(&table, left, out).await
        } else {
            tell(&table, self.verify, self.output.format, out)?;
            Ok(())
        }
    }

    async fn rows(
        &self,
        table: &Rc<Table<PlainEnv>>,
        left: &mut u64,
        out: &mut Out,
    ) -> Result<(), Told> {
        let key = self.key.as_ref().map(String::as_bytes);
        for deleted in table.range_deletes().iter() {
            if *left == 0 {
                return Ok(());
            }
            if key.is_none() {
                *left -= 1;
                self.range_delete(table, deleted.from, deleted.to, deleted.version, out)?;
            }
        }
        let mut cursor = TableCursor::new(table, ReadMode::Sequential(Rc::new(Unthrottled)));
        cursor.seek_first().await?;
        while let Some((row_key, cell)) = cursor.get() {
            if *left == 0 {
                return Ok(());
            }
            let of_key = |wanted| split_row_key(row_key).is_some_and(|parts| parts.key == wanted);
            if key.is_none_or(of_key) {
                *left -= 1;
                match self.output.format {
                    Format::Text => writeln!(out, "{}", show_cell(row_key, &cell))?,
                    Format::Json => out.json(&json_cell(table, row_key, &cell))?,
                }
            }
            cursor.next().await?;
        }
        Ok(())
    }

    fn range_delete(
        &self,
        table: &Table<PlainEnv>,
        from: &[u8],
        to: &[u8],
        version: u64,
        out: &mut Out,
    ) -> std::io::Result<()> {
        match self.output.format {
            Format::Text => writeln!(
                out,
                "{} to {} version {version}: range deleted",
                show_row_key(from),
                show_row_key(to),
            ),
            Format::Json => out.json(&json!({
                "table": table.path(),
                "range_delete": {
                    "from": json_row_key(from),
                    "to": json_row_key(to),
                    "version": version,
                },
            })),
        }
    }
}

/// What ended a table's showing.
enum Told {
    /// It is damaged or cannot be read: the others are still shown.
    Damaged(String),
    /// Nobody can be told.
    Output(Failure),
}

impl From<ringbolt_engine::error::EngineError> for Told {
    fn from(error: ringbolt_engine::error::EngineError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<std::io::Error> for Told {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error.into())
    }
}

fn tell(
    table: &Table<PlainEnv>,
    verified: bool,
    format: Format,
    out: &mut Out,
) -> std::io::Result<()> {
    let (info, footer) = (table.info(), table.footer());
    if format == Format::Json {
        return out.json(&json!({
            "table": table.path(),
            "id": info.id,
            "bytes": info.bytes,
            "raw_bytes": info.raw_bytes,
            "entries": info.entries,
            "tombstones": info.tombstones,
            "range_deletes": info.range_deletes,
            "version_min": info.version_min,
            "version_max": info.version_max,
            "expiring": info.expiring,
            "data_blocks": footer.data_blocks,
            "parts": footer.parts,
            "data_bytes": footer.data_bytes,
            "index_bytes": footer.index_bytes,
            "filter_bytes": footer.filter_bytes,
            "smallest": json_row_key(&info.smallest),
            "largest": json_row_key(&info.largest),
            "verified": verified,
        }));
    }
    let intact = if verified { ", every block intact" } else { "" };
    writeln!(
        out,
        "{}: {} ({} raw), {} entries, {} tombstones, {} range deletes, versions {}–{}{intact}",
        table.path().display(),
        about_bytes(info.bytes),
        about_bytes(info.raw_bytes),
        info.entries,
        info.tombstones,
        info.range_deletes,
        info.version_min,
        info.version_max,
    )?;
    writeln!(
        out,
        "  {} data blocks of {} in {} parts; index {}, filters {}",
        footer.data_blocks,
        about_bytes(footer.data_bytes),
        footer.parts,
        about_bytes(footer.index_bytes),
        about_bytes(footer.filter_bytes),
    )?;
    writeln!(
        out,
        "  {} to {}{}",
        show_row_key(&info.smallest),
        show_row_key(&info.largest),
        if info.largest_excluded {
            " (without)"
        } else {
            ""
        },
    )
}

fn show_cell(row_key: &[u8], cell: &Cell<'_>) -> String {
    let row = show_row_key(row_key);
    match cell {
        Cell::Delete { version } => format!("{row} version {version}: deleted"),
        Cell::Put { meta, value } => {
            let expires = match meta.expires_ms {
                0 => String::new(),
                ms => format!(", expires {}", show_time(ms)),
            };
            format!(
                "{row} version {}: {}, updated {}{expires}",
                meta.version,
                show_bytes(value),
                show_time(meta.updated_ms),
            )
        }
    }
}

fn json_cell(table: &Table<PlainEnv>, row_key: &[u8], cell: &Cell<'_>) -> Value {
    let content = match cell {
        Cell::Delete { version } => json!({ "version": version, "deleted": true }),
        Cell::Put { meta, value } => json!({
            "version": meta.version,
            "value": JsonBytes(value),
            "updated_ms": meta.updated_ms,
            "created_ms": meta.created_ms,
            "expires_ms": meta.expires_ms,
        }),
    };
    json!({ "table": table.path(), "row": json_row_key(row_key), "cell": content })
}
