//! A plan as a table: each figure, and why it is so.

use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, LineStyle, Table};

use crate::capacity::{LimitedBy, Plan, Question};
use crate::config::{about_bytes, show_bytes};

type Row = (&'static str, String, String);

/// The table.
pub(super) fn show(question: &Question, plan: &Plan, width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(["", "plan", "because"]);
    let rows = [
        cluster(question, plan),
        disk(question, plan),
        memory(plan),
        writing(question, plan),
        requests(question, plan),
        recovery(plan),
    ];
    for (figure, value, why) in rows.into_iter().flatten() {
        table.add_row([figure.to_string(), value, why]);
    }
    format!("{table}\n")
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// A number for people, with a unit.
fn count(number: f64) -> String {
    for (unit, factor) in [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if number >= factor {
            return format!("{:.1}{unit}", number / factor);
        }
    }
    format!("{number:.0}")
}

/// A time for people: nobody needs the seconds of a day.
fn span(seconds: f64) -> String {
    let step = match seconds {
        s if s < 60.0 => return format!("{seconds:.1}s"),
        s if s < 3600.0 => 1.0,
        _ => 60.0,
    };
    let rounded = (seconds / step).round() * step;
    // Beyond what a time span holds nobody waits.
    Duration::try_from_secs_f64(rounded).map_or_else(
        |_| "for ever".to_string(),
        |span| humantime::format_duration(span).to_string(),
    )
}

fn cluster(question: &Question, plan: &Plan) -> Vec<Row> {
    let why = match plan.limited_by {
        LimitedBy::Replicas => format!("each record is on {} nodes", question.replicas),
        LimitedBy::Disk => format!(
            "with one fewer the fullest disk of {} would not do",
            about_bytes(question.disk_bytes)
        ),
        LimitedBy::Cpu => "with one fewer the cores would be busier than 60%".to_string(),
    };
    vec![
        ("nodes", plan.nodes.to_string(), why),
        (
            "partitions",
            plan.partitions.to_string(),
            "four or more for each core, at least 128; cannot be changed later".to_string(),
        ),
    ]
}

fn disk(question: &Question, plan: &Plan) -> Vec<Row> {
    let disk = &plan.disk;
    vec![
        (
            "disk used",
            format!("{} ({})", about_bytes(disk.total_bytes), percent(disk.used)),
            format!(
                "of the fullest node, at its peak; it has {} records, {} of keys and values",
                count(disk.records as f64),
                about_bytes(disk.plain_bytes),
            ),
        ),
        (
            "  tables",
            about_bytes(disk.tables_bytes),
            format!(
                "keys and values x {:.2}: rows, index and filters; what {} levels hold twice; jobs \
                 under way",
                plan.amplification.space, plan.amplification.levels,
            ),
        ),
        (
            "  log",
            about_bytes(disk.log_bytes),
            format!("at its longest, on {} cores", question.cores),
        ),
        (
            "  kept free",
            about_bytes(disk.reserve_bytes),
            "disk.reserve_bytes, and 16 MiB of ballast a core".to_string(),
        ),
    ]
}

fn memory(plan: &Plan) -> Vec<Row> {
    let memory = &plan.memory;
    let why = if memory.meta_cached < 1.0 {
        format!(
            "only {} of indexes and filters stay in the cache; each get reads more",
            percent(memory.meta_cached)
        )
    } else {
        "indexes and filters stay in the cache".to_string()
    };
    vec![
        ("memory", show_bytes(memory.setting_bytes), why),
        (
            "  resident",
            about_bytes(memory.resident_bytes),
            format!(
                "at most as measured, with {} of entries kept for followers; the machine needs more",
                about_bytes(memory.entries_bytes)
            ),
        ),
        (
            "  cache",
            about_bytes(memory.cache_bytes),
            format!(
                "indexes and filters are {}, and may take half of it",
                about_bytes(memory.meta_bytes)
            ),
        ),
        (
            "  memtables",
            about_bytes(memory.memtable_bytes),
            "tree.memtable_percent of what requests and the log leave".to_string(),
        ),
    ]
}

fn writing(question: &Question, plan: &Plan) -> Vec<Row> {
    let amplification = &plan.amplification;
    let mut rows = vec![(
        "write amplification",
        format!("{:.1}", amplification.write),
        format!(
            "log {:.2}, flush {:.2}, level 0 {:.1}, deeper {:.1}; random overwrites",
            amplification.write_log,
            amplification.write_flush,
            amplification.write_level0,
            amplification.write_deeper,
        ),
    )];
    if let Some(device) = &plan.device {
        rows.push((
            "device writes",
            format!("{}/s", about_bytes(device.bytes_per_s)),
            format!(
                "the fullest node's part of {} puts/s",
                count(question.puts_per_s as f64)
            ),
        ));
        rows.push((
            "drive writes a day",
            format!("{:.2}", device.drive_writes_per_day),
            format!(
                "rated for 1 a day over 5 years, a drive lasts {:.1} years",
                device.years_at_one_a_day
            ),
        ));
    }
    rows
}

fn requests(question: &Question, plan: &Plan) -> Vec<Row> {
    let requests = &plan.requests;
    let mut rows = vec![
        (
            "reads per get",
            format!("{:.2}", requests.reads_per_get),
            "from the disk, of a key drawn uniformly; fewer where some keys are hot".to_string(),
        ),
        (
            "gets per core",
            format!("{}/s", count(requests.gets_per_core_per_s as f64)),
            format!(
                "{:.1} us of CPU each, at that many reads",
                requests.get_cpu_us
            ),
        ),
        (
            "puts per core",
            format!("{}/s", count(requests.puts_per_core_per_s as f64)),
            format!(
                "{:.1} us of CPU each with compaction, on each of {} replicas",
                requests.put_cpu_us, question.replicas
            ),
        ),
    ];
    if question.puts_per_s > 0 || question.gets_per_s > 0 {
        rows.push((
            "cores busy",
            percent(requests.cpu_used),
            "by the traffic; planned for 60% at most".to_string(),
        ));
    }
    rows
}

fn recovery(plan: &Plan) -> Vec<Row> {
    let recovery = &plan.recovery;
    vec![
        (
            "restart",
            span(recovery.restart_s),
            format!(
                "at most {} records of log a core, {}, are replayed",
                count(recovery.replay_records_per_core as f64),
                about_bytes(recovery.replay_bytes_per_core),
            ),
        ),
        (
            "lost node",
            span(recovery.copy_s),
            format!(
                "{} to copy to the new one at {}/s; the others serve meanwhile",
                about_bytes(recovery.copy_bytes),
                about_bytes(recovery.copy_bytes_per_s),
            ),
        ),
    ]
}
