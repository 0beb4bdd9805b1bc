//! Alert rules for Prometheus.

use super::expression;

struct Alert {
    name: &'static str,
    /// Metrics stand in `<...>`, without the prefix.
    when: &'static str,
    lasting: &'static str,
    severity: &'static str,
    summary: &'static str,
    /// What to do.
    remedy: &'static str,
}

const ALERTS: &[Alert] = &[
    Alert {
        name: "RingboltNodeDown",
        when: "up{job=\"ringbolt\"} == 0",
        lasting: "1m",
        severity: "critical",
        summary: "{{ $labels.instance }} cannot be scraped",
        remedy: "Look whether the process runs and what it said last; start it again: it recovers what was acknowledged.",
    },
    Alert {
        name: "RingboltShardDown",
        when: "ringbolt_core_up == 0 or <cores_failed> > 0",
        lasting: "30s",
        severity: "critical",
        summary: "A core of {{ $labels.instance }} does not answer, or has stopped",
        remedy: "/readyz says which core and why. A damaged file: restore it. A failed disk: replace it. Then start the node again.",
    },
    Alert {
        name: "RingboltNoQuorum",
        when: "<partitions_leaderless> > 0",
        lasting: "30s",
        severity: "critical",
        summary: "{{ $value }} partitions on {{ $labels.instance }} have no leader",
        remedy: "ringbolt status says which nodes do not answer. Most replicas of a partition must be up.",
    },
    Alert {
        name: "RingboltReplicaSilent",
        when: "sum by (instance, node) (<replicas_silent>) > 0",
        lasting: "1m",
        severity: "warning",
        summary: "{{ $labels.instance }} does not hear {{ $value }} replicas of node {{ $labels.node }}",
        remedy: "Look whether that node runs and the network reaches it. One more loss may take the quorum.",
    },
    Alert {
        name: "RingboltClocksApart",
        when: "<clock_apart_seconds> > 10",
        lasting: "15s",
        severity: "warning",
        summary: "On {{ $labels.instance }} the clock of node {{ $labels.node }} is {{ $value }} s off",
        remedy: "Set the clocks by NTP. Until then records with a TTL expire too early or too late: drain the node whose clock is wrong.",
    },
    Alert {
        name: "RingboltReplicationLag",
        when: "max by (node) (<replication_lag_entries>) > 10000",
        lasting: "2m",
        severity: "warning",
        summary: "Node {{ $labels.node }} is {{ $value }} entries behind",
        remedy: "Look at its disk, CPU and link. It catches up by itself once it is faster than the writes.",
    },
    Alert {
        name: "RingboltHotKey",
        when: "<hot_key_share> > 0.2 and <hot_key_requests_per_second> > 1000",
        lasting: "1m",
        severity: "warning",
        summary: "One key takes {{ $value | humanizePercentage }} of a core's requests on {{ $labels.instance }}",
        remedy: "ringbolt hot names it. Cache it in the client, or spread it over several keys.",
    },
    Alert {
        name: "RingboltCoreImbalance",
        when: "max by (instance) (rate(<core_busy_seconds_total>[5m])) > 2 * avg by (instance) (rate(<core_busy_seconds_total>[5m])) and max by (instance) (rate(<core_busy_seconds_total>[5m])) > 0.5",
        lasting: "10m",
        severity: "warning",
        summary: "One core of {{ $labels.instance }} works more than twice as much as the mean",
        remedy: "ringbolt hot shows its partitions and keys.",
    },
    Alert {
        name: "RingboltNodeImbalance",
        when: "max(sum by (instance) (rate(<requests_total>[5m]))) > 2 * avg(sum by (instance) (rate(<requests_total>[5m]))) and max(sum by (instance) (rate(<requests_total>[5m]))) > 1000",
        lasting: "10m",
        severity: "warning",
        summary: "One node takes more than twice the mean of the requests",
        remedy: "Look at ringbolt status for who leads what, and at ringbolt hot on that node.",
    },
    Alert {
        name: "RingboltDiskFilling",
        when: "<disk_free_bytes> < 2 * <disk_reserve_bytes> or predict_linear(<disk_free_bytes>[6h], 86400) < <disk_reserve_bytes>",
        lasting: "10m",
        severity: "warning",
        summary: "The disk of {{ $labels.instance }} is filling: {{ $value | humanize1024 }}B",
        remedy: "Give it room, or delete data. Below disk.reserve_bytes puts are refused; deletes and reads go on.",
    },
    Alert {
        name: "RingboltPutsRefused",
        when: "<cores_refusing_puts> > 0",
        lasting: "1m",
        severity: "critical",
        summary: "{{ $labels.instance }} refuses puts: its disk is full",
        remedy: "Give it room, or delete data: puts are taken again by themselves.",
    },
    Alert {
        name: "RingboltThrottling",
        when: "rate(<throttled_seconds_total>[5m]) > 1 and <tree_debt_bytes> > 0",
        lasting: "10m",
        severity: "warning",
        summary: "Writers to {{ $labels.instance }} are held back because compaction is behind",
        remedy: "More is written than the disk can compact. Look at tree_debt_bytes and the disk; raise tree.background_bytes_per_second if the disk has room, or write less.",
    },
    Alert {
        name: "RingboltMemoryOverBudget",
        when: "<memory_resident_bytes> > 1.1 * <memory_budget_bytes>",
        lasting: "10m",
        severity: "warning",
        summary: "{{ $labels.instance }} uses more memory than its budget",
        remedy: "Look at connections and large requests; lower memory or the limits.",
    },
    Alert {
        name: "RingboltElections",
        when: "increase(<elections_total>[10m]) > 2 * <replicas>",
        lasting: "1m",
        severity: "warning",
        summary: "Replicas of {{ $labels.instance }} keep standing for election",
        remedy: "Leaders are lost again and again: look at the network, at core_stalls_total, and at the disks' write times.",
    },
    Alert {
        name: "RingboltRingOverflow",
        when: "increase(<ring_overflows_total>[5m]) > 0",
        lasting: "0m",
        severity: "warning",
        summary: "The completion queue of a ring of {{ $labels.instance }} has overflowed",
        remedy: "Nothing is lost, but it is too small for this load: please report it.",
    },
];

/// A YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn file() -> String {
    let mut text = String::from(
        "# Made of the metric registry by REWRITE=1 cargo test --test ringbolt monitoring.\n\
         # Scrape /metrics of every node as the job \"ringbolt\".\n\
         groups:\n  - name: ringbolt\n    rules:\n",
    );
    for alert in ALERTS {
        text += &format!(
            "      - alert: {}\n        expr: {}\n        for: {}\n        labels:\n          \
             severity: {}\n        annotations:\n          summary: {}\n          description: {}\n",
            alert.name,
            quoted(&expression(alert.when)),
            alert.lasting,
            alert.severity,
            quoted(alert.summary),
            quoted(alert.remedy),
        );
    }
    text
}
