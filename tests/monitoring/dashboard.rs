//! A dashboard for Grafana.

use serde_json::{Value, json};

use super::{expression, metrics, rate};

/// Panels in a row.
const COLUMNS: usize = 3;
const WIDTH: usize = 24 / COLUMNS;
const HEIGHT: usize = 8;

struct Panel {
    title: &'static str,
    unit: &'static str,
    /// Expressions, with metrics in `<...>`, and their legends.
    shows: &'static [(&'static str, &'static str)],
}

/// Rows of panels.
const ROWS: &[(&str, &[Panel])] = &[
    (
        "Overview",
        &[
            Panel {
                title: "Requests by operation",
                unit: "reqps",
                shows: &[(
                    "sum by (op) (rate(<requests_total>{instance=~\"$node\"}[$__rate_interval]))",
                    "{{op}}",
                )],
            },
            Panel {
                title: "Requests that failed, by outcome",
                unit: "reqps",
                shows: &[(
                    "sum by (outcome) (rate(<requests_total>{instance=~\"$node\",outcome!~\"ok|not_found|conflict\"}[$__rate_interval]))",
                    "{{outcome}}",
                )],
            },
            Panel {
                title: "Latency by operation, 99th percentile",
                unit: "s",
                shows: &[(
                    "histogram_quantile(0.99, sum by (op, le) (rate(<request_seconds>_bucket{instance=~\"$node\"}[$__rate_interval])))",
                    "{{op}}",
                )],
            },
            Panel {
                title: "Where requests wait, seconds in each second",
                unit: "short",
                shows: &[(
                    "sum by (stage) (rate(<request_wait_seconds>_sum{instance=~\"$node\"}[$__rate_interval]))",
                    "{{stage}}",
                )],
            },
            Panel {
                title: "Slow requests",
                unit: "reqps",
                shows: &[(
                    "rate(<slow_requests_total>{instance=~\"$node\"}[$__rate_interval])",
                    "{{instance}}",
                )],
            },
            Panel {
                title: "Hottest key: part of its core's requests",
                unit: "percentunit",
                shows: &[("<hot_key_share>{instance=~\"$node\"}", "{{instance}}")],
            },
        ],
    ),
    (
        "Cluster",
        &[
            Panel {
                title: "Partitions without a leader",
                unit: "short",
                shows: &[(
                    "<partitions_leaderless>{instance=~\"$node\"}",
                    "{{instance}}",
                )],
            },
            Panel {
                title: "Partitions led",
                unit: "short",
                shows: &[("<partitions_led>{instance=~\"$node\"}", "{{instance}}")],
            },
            Panel {
                title: "Replication lag by node, in entries",
                unit: "short",
                shows: &[("max by (node) (<replication_lag_entries>)", "node {{node}}")],
            },
        ],
    ),
    (
        "Cores",
        &[
            Panel {
                title: "CPU by core",
                unit: "percentunit",
                shows: &[(
                    "rate(<core_busy_seconds_total>{instance=~\"$node\"}[$__rate_interval])",
                    "{{instance}} core {{core}}",
                )],
            },
            Panel {
                title: "Cores that did not look at their sockets for long",
                unit: "s",
                shows: &[(
                    "rate(<core_stalled_seconds_total>{instance=~\"$node\"}[$__rate_interval])",
                    "{{instance}}",
                )],
            },
            Panel {
                title: "Memory: resident and budget",
                unit: "bytes",
                shows: &[
                    (
                        "<memory_resident_bytes>{instance=~\"$node\"}",
                        "{{instance}}",
                    ),
                    (
                        "<memory_budget_bytes>{instance=~\"$node\"}",
                        "{{instance}} budget",
                    ),
                ],
            },
        ],
    ),
    (
        "Log and disk",
        &[
            Panel {
                title: "Log write, 50th and 99th percentile",
                unit: "s",
                shows: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(<log_write_seconds>_bucket{instance=~\"$node\"}[$__rate_interval])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(<log_write_seconds>_bucket{instance=~\"$node\"}[$__rate_interval])))",
                        "p99",
                    ),
                ],
            },
            Panel {
                title: "Records in a group of the log",
                unit: "short",
                shows: &[(
                    "rate(<log_records_total>{instance=~\"$node\"}[$__rate_interval]) / rate(<log_groups_total>{instance=~\"$node\"}[$__rate_interval])",
                    "{{instance}}",
                )],
            },
            Panel {
                title: "Free space",
                unit: "bytes",
                shows: &[("<disk_free_bytes>{instance=~\"$node\"}", "{{instance}}")],
            },
        ],
    ),
    (
        "Tree",
        &[
            Panel {
                title: "Compaction and flush",
                unit: "Bps",
                shows: &[
                    (
                        "sum(rate(<tree_compaction_written_bytes_total>{instance=~\"$node\"}[$__rate_interval]))",
                        "compaction",
                    ),
                    (
                        "sum(rate(<tree_flush_written_bytes_total>{instance=~\"$node\"}[$__rate_interval]))",
                        "flush",
                    ),
                ],
            },
            Panel {
                title: "Compaction debt",
                unit: "bytes",
                shows: &[("<tree_debt_bytes>{instance=~\"$node\"}", "{{instance}}")],
            },
            Panel {
                title: "Blocks found in the cache",
                unit: "percentunit",
                shows: &[(
                    "rate(<tree_cache_hits_total>{instance=~\"$node\"}[$__rate_interval]) / (rate(<tree_cache_hits_total>{instance=~\"$node\"}[$__rate_interval]) + rate(<tree_cache_misses_total>{instance=~\"$node\"}[$__rate_interval]))",
                    "{{instance}}",
                )],
            },
        ],
    ),
];

fn panel(id: usize, at: usize, y: usize, panel: &Panel) -> Value {
    let targets = panel
        .shows
        .iter()
        .zip('A'..)
        .map(|((text, legend), letter)| {
            json!({
                "refId": letter.to_string(),
                "expr": expression(text),
                "legendFormat": legend,
                "datasource": { "type": "prometheus", "uid": "${source}" },
            })
        });
    json!({
        "id": id,
        "type": "timeseries",
        "title": panel.title,
        "datasource": { "type": "prometheus", "uid": "${source}" },
        "gridPos": {
            "x": at % COLUMNS * WIDTH,
            "y": y + at / COLUMNS * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
        "options": { "tooltip": { "mode": "multi" } },
        "targets": targets.collect::<Vec<_>>(),
    })
}

/// Every other metric of the node, each a panel in a row that is folded.
fn rest(shown: &str, first: usize, y: usize) -> Value {
    let all = metrics();
    let others = all.iter().filter(|metric| {
        metric.kind != super::Kind::Histogram
            && !matches!(
                metric.read,
                super::Read::Replica(_) | super::Read::Partitions(_)
            )
            && !shown.contains(&format!("ringbolt_{}", metric.name))
    });
    let panels = others.enumerate().map(|(at, metric)| {
        json!({
            "id": first + at,
            "type": "timeseries",
            "title": metric.name,
            "description": metric.help,
            "datasource": { "type": "prometheus", "uid": "${source}" },
            "gridPos": {
                "x": at % COLUMNS * WIDTH,
                "y": y + 1 + at / COLUMNS * HEIGHT,
                "w": WIDTH,
                "h": HEIGHT,
            },
            "fieldConfig": { "defaults": { "min": 0 }, "overrides": [] },
            "targets": [{ "refId": "A", "expr": rate(metric), "legendFormat": "{{instance}}" }],
        })
    });
    json!({
        "id": first - 1,
        "type": "row",
        "title": "Everything else",
        "collapsed": true,
        "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        "panels": panels.collect::<Vec<_>>(),
    })
}

pub(super) fn file() -> String {
    let mut panels = Vec::new();
    let mut y = 0;
    for (title, row) in ROWS {
        panels.push(json!({
            "id": panels.len() + 1,
            "type": "row",
            "title": title,
            "collapsed": false,
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
            "panels": [],
        }));
        for (at, one) in row.iter().enumerate() {
            panels.push(panel(panels.len() + 1, at, y + 1, one));
        }
        y += 1 + row.len().div_ceil(COLUMNS) * HEIGHT;
    }
    let shown = serde_json::to_string(&panels).unwrap();
    panels.push(rest(&shown, panels.len() + 2, y));
    let dashboard = json!({
        "uid": "ringbolt",
        "title": "Ringbolt",
        "tags": ["ringbolt"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": [
            {
                "name": "source",
                "label": "Prometheus",
                "type": "datasource",
                "query": "prometheus",
            },
            {
                "name": "node",
                "label": "Node",
                "type": "query",
                "datasource": { "type": "prometheus", "uid": "${source}" },
                "query": format!("label_values({}, instance)", super::name("node_info")),
                "refresh": 2,
                "multi": true,
                "includeAll": true,
                "current": { "text": "All", "value": "$__all" },
            },
        ] },
        "panels": panels,
    });
    serde_json::to_string_pretty(&dashboard).unwrap() + "\n"
}
