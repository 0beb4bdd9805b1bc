//! The gates, one file each.

use super::gate::Gate;

mod cached_get;
mod catch_up;
mod cold_get;
mod durable_put;
mod durable_puts;
mod failover;
mod get_beside_puts;
mod get_compacting;
mod memory;
mod replay;
mod replicated_put;
mod replicated_puts;
mod seek_deleted;
mod shards;
mod steady;

/// All gates, by number. Those that the same run answers share a file; its time is the first's.
pub const ALL: [Gate; 18] = [
    Gate {
        number: 1,
        title: "durable PUT, 1 connection",
        run: durable_put::run,
    },
    Gate {
        number: 2,
        title: "durable PUT, 50 connections",
        run: durable_puts::run,
    },
    Gate {
        number: 3,
        title: "GET while durable PUTs run",
        run: get_beside_puts::run,
    },
    Gate {
        number: 4,
        title: "cached GET, server CPU",
        run: cached_get::run,
    },
    Gate {
        number: 5,
        title: "cold GET, one core",
        run: cold_get::run,
    },
    Gate {
        number: 6,
        title: "device reads per GET",
        run: cold_get::run_device_reads,
    },
    Gate {
        number: 7,
        title: "write amplification",
        run: steady::run_write_amplification,
    },
    Gate {
        number: 8,
        title: "space amplification",
        run: steady::run_space_amplification,
    },
    Gate {
        number: 9,
        title: "sustained random writes",
        run: steady::run_throughput,
    },
    Gate {
        number: 10,
        title: "GET while compacting",
        run: get_compacting::run,
    },
    Gate {
        number: 11,
        title: "seek after 100 k deletes",
        run: seek_deleted::run,
    },
    Gate {
        number: 12,
        title: "reopen after a kill",
        run: replay::run,
    },
    Gate {
        number: 13,
        title: "memory under load",
        run: memory::run,
    },
    Gate {
        number: 14,
        title: "two shards on two cores",
        run: shards::run,
    },
    Gate {
        number: 15,
        title: "quorum-durable PUT, three nodes, 64 clients",
        run: replicated_puts::run,
    },
    Gate {
        number: 16,
        title: "quorum-durable PUT, three nodes, 1 connection",
        run: replicated_put::run,
    },
    Gate {
        number: 17,
        title: "a leader is killed",
        run: failover::run,
    },
    Gate {
        number: 18,
        title: "a node without its data catches up",
        run: catch_up::run,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_numbered_in_order() {
        assert!(ALL.iter().map(|gate| gate.number).eq(1..=18));
    }
}
