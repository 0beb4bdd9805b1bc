//! `INFO` and `CONFIG GET`: what tools look for, as far as it means something here.

use super::glob;
use super::reply::{self, Version, field};
use super::settings::{ClusterMode, Options};

/// The version of Redis whose commands and replies these are: clients compare it.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

/// What `INFO` tells of the node.
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) start: u64,
    pub(crate) up_seconds: u64,
    pub(crate) nodes: usize,
    pub(crate) memory: u64,
    pub(crate) port: u16,
    pub(crate) mode: ClusterMode,
    /// The node's counters, by name.
    pub(crate) counters: &'a [(String, u64)],
}

impl Facts<'_> {
    fn counter(&self, name: &str) -> u64 {
        let found = self.counters.iter().find(|(other, _)| other == name);
        found.map_or(0, |(_, value)| *value)
    }

    /// The sections of these names, or all.
    pub(crate) fn text(&self, wanted: &[Vec<u8>]) -> String {
        let all = ["all", "default", "everything"];
        let is = |a: &[u8], b: &str| a.eq_ignore_ascii_case(b.as_bytes());
        let every = wanted.is_empty()
            || wanted
                .iter()
                .any(|name| all.iter().any(|all| is(name, all)));
        let mut text = String::new();
        for (name, tell) in SECTIONS {
            if every || wanted.iter().any(|wanted| is(wanted, name)) {
                let separator = if text.is_empty() { "" } else { "\r\n" };
                text.push_str(&format!("{separator}# {name}\r\n"));
                tell(self, &mut text);
            }
        }
        text
    }
}

type Section = fn(&Facts<'_>, &mut String);

const SECTIONS: [(&str, Section); 7] = [
    ("Server", |facts, text| {
        field(text, "redis_version", REDIS_VERSION);
        field(text, "redis_mode", mode_name(facts.mode, facts.nodes));
        field(text, "server_name", "ringbolt");
        field(text, "ringbolt_version", env!("CARGO_PKG_VERSION"));
        field(text, "os", std::env::consts::OS);
        field(text, "arch_bits", 64);
        field(text, "process_id", std::process::id());
        field(text, "run_id", format!("{:016x}{:024x}", facts.start, 0));
        field(text, "tcp_port", facts.port);
        field(text, "uptime_in_seconds", facts.up_seconds);
        field(text, "uptime_in_days", facts.up_seconds / 86_400);
    }),
    ("Clients", |facts, text| {
        field(text, "connected_clients", facts.counter("connections"));
    }),
    ("Memory", |facts, text| {
        field(text, "maxmemory", facts.memory);
        field(text, "maxmemory_policy", "noeviction");
    }),
    ("Persistence", |_, text| {
        field(text, "loading", 0);
        field(text, "aof_enabled", 1);
        field(text, "aof_last_write_status", "ok");
        field(text, "rdb_bgsave_in_progress", 0);
    }),
    ("Stats", |facts, text| {
        let of = |name| facts.counter(name);
        field(text, "total_connections_received", of("connections_total"));
        field(text, "total_commands_processed", of("requests_total"));
        field(text, "total_net_input_bytes", of("received_bytes_total"));
        field(text, "total_net_output_bytes", of("sent_bytes_total"));
        field(
            text,
            "rejected_connections",
            of("connections_refused_total"),
        );
        field(text, "total_error_replies", of("errors_total"));
    }),
    ("Replication", |_, text| {
        // Every node takes writes: clients that look for a master find one.
        field(text, "role", "master");
        field(text, "connected_slaves", 0);
    }),
    ("Cluster", |facts, text| {
        field(
            text,
            "cluster_enabled",
            u8::from(is_cluster(facts.mode, facts.nodes)),
        );
    }),
];

/// Whether clients that know clusters should treat this as one.
pub(crate) fn is_cluster(mode: ClusterMode, nodes: usize) -> bool {
    mode == ClusterMode::Moved || nodes > 1
}

/// Redis's word for it.
pub(crate) fn mode_name(mode: ClusterMode, nodes: usize) -> &'static str {
    match is_cluster(mode, nodes) {
        true => "cluster",
        false => "standalone",
    }
}

/// What `CONFIG GET` knows.
pub(crate) struct Parameters<'a> {
    pub(crate) options: &'a Options,
    pub(crate) nodes: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) clients_max: usize,
    pub(crate) idle_seconds: u64,
}

impl Parameters<'_> {
    fn all(&self) -> Vec<(&'static str, String)> {
        let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
        let listen = self.options.listen;
        vec![
            ("appendfsync", "always".into()),
            ("appendonly", "yes".into()),
            (
                "bind",
                listen.map_or(String::new(), |at| at.ip().to_string()),
            ),
            (
                "cluster-enabled",
                yes_no(is_cluster(self.options.mode, self.nodes)),
            ),
            ("databases", self.options.databases.len().to_string()),
            ("maxclients", self.clients_max.to_string()),
            ("maxmemory", self.options.memory.to_string()),
            ("maxmemory-policy", "noeviction".into()),
            ("port", listen.map_or(0, |at| at.port()).to_string()),
            ("proto-max-bulk-len", self.value_bytes_max.to_string()),
            ("requirepass", String::new()),
            ("save", String::new()),
            ("timeout", self.idle_seconds.to_string()),
        ]
    }

    /// Those whose names match one of the patterns.
    pub(crate) fn get(&self, out: &mut Vec<u8>, version: Version, patterns: &[&[u8]]) {
        let patterns: Vec<_> = patterns.iter().map(|p| p.to_ascii_lowercase()).collect();
        let mut found = self.all();
        found.retain(|(name, _)| {
            let mut patterns = patterns.iter();
            patterns.any(|pattern| glob::matches(pattern, name.as_bytes()))
        });
        reply::map(out, version, found.len());
        for (name, value) in found {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_chosen_by_name() {
        let counters = [("connections".to_owned(), 3)];
        let facts = Facts {
            nodes: 1,
            counters: &counters,
            ..Facts::default()
        };
        assert_eq!(
            facts.text(&[b"clients".to_vec()]),
            "# Clients\r\nconnected_clients:3\r\n"
        );
        assert!(facts.text(&[]).contains("redis_mode:standalone\r\n"));
        assert!(
            facts
                .text(&[b"ALL".to_vec()])
                .contains("\r\n\r\n# Cluster\r\ncluster_enabled:0")
        );
        assert_eq!(facts.text(&[b"nothing".to_vec()]), "");
    }

    #[test]
    fn parameters_are_found_by_pattern() {
        let options = Options::default();
        let parameters = Parameters {
            options: &options,
            nodes: 1,
            value_bytes_max: 7,
            clients_max: 8,
            idle_seconds: 0,
        };
        let mut out = Vec::new();
        parameters.get(&mut out, Version::Two, &[b"Append*", b"nothing"]);
        let expected =
            "*4\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
