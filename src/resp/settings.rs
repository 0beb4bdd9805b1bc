//! What a node's door for Redis clients is told at its start.

use std::net::{IpAddr, SocketAddr};

/// What a key that another node leads is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClusterMode {
    /// The other node's answer: any client may use any node for all data.
    #[default]
    Forward,
    /// `MOVED`: clients that know clusters ask the right node, and commands without a key tell of the
    /// part of the data that this node leads.
    Moved,
}

/// The options of the door. The same on every core.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where it listens; not used where it is shut.
    pub listen: Option<SocketAddr>,
    /// Where the node's own protocol listens.
    pub native: Option<SocketAddr>,
    /// The names of the keyspaces that `SELECT` chooses from.
    pub databases: Vec<String>,
    /// What is done about keys that other nodes lead.
    pub mode: ClusterMode,
    /// Most keys that `KEYS` answers with.
    pub keys_max: usize,
    /// The node's memory, in bytes, as `CONFIG GET maxmemory` tells it.
    pub memory: u64,
}

impl Options {
    /// The port of another node's door: as far from its own protocol's port as here.
    pub(crate) fn port_of(&self, native: u16) -> u16 {
        match (self.listen, self.native) {
            (Some(listen), Some(here)) => {
                let ahead = listen.port().wrapping_sub(here.port());
                native.wrapping_add(ahead)
            }
            _ => native,
        }
    }

    /// The host of a node as clients are told it: empty for the one that they have connected to.
    pub(crate) fn host_of(native: SocketAddr) -> String {
        match native.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => String::new(),
            IpAddr::V6(ip) if ip.is_unspecified() => String::new(),
            ip => ip.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doors_of_other_nodes_are_as_far_from_their_ports() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let options = Options {
            listen: Some(at(6379)),
            native: Some(at(7400)),
            ..Options::default()
        };
        assert_eq!(options.port_of(7400), 6379);
        assert_eq!(options.port_of(7410), 6389);
        assert_eq!(Options::host_of(at(1)), "127.0.0.1");
        assert_eq!(Options::host_of(SocketAddr::from(([0, 0, 0, 0], 1))), "");
    }
}
