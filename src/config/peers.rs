//! The nodes of a cluster as people write them.

use rkyv::{Archive, Deserialize, Serialize};

use super::parse::name;

/// Most nodes of a list.
const PEERS_MAX: usize = 1024;

/// A node of `peers`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// `HOST:PORT`; the host may be a name, which is looked up at the start and whenever the node cannot be
    /// reached there.
    pub address: String,
}

/// Parses a list such as `a=10.0.0.1:7400,b=10.0.0.2:7400`; sorted by name.
///
/// # Errors
/// In words, what is wrong with it: a name or an address twice, too.
pub fn parse_peers(text: &str) -> Result<Vec<Peer>, String> {
    let mut peers: Vec<Peer> = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let Some((own, address)) = part.split_once('=') else {
            return Err(format!("{part:?} is not NAME=HOST:PORT"));
        };
        name(own).map_err(|_| format!("{own:?} is not a name"))?;
        let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if host_and_port.is_none() {
            return Err(format!("{address:?} is not HOST:PORT"));
        }
        for other in &peers {
            if other.name == own {
                return Err(format!("{own} is listed twice"));
            }
            if other.address == address {
                return Err(format!("{} and {own} have the same address", other.name));
            }
        }
        if peers.len() == PEERS_MAX {
            return Err(format!("more than {PEERS_MAX} nodes"));
        }
        peers.push(Peer {
            name: own.to_owned(),
            address: address.to_owned(),
        });
    }
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(peers)
}

/// A list as [`parse_peers`] reads it back.
#[must_use]
pub fn show_peers(peers: &[Peer]) -> String {
    let shown: Vec<String> = peers
        .iter()
        .map(|peer| format!("{}={}", peer.name, peer.address))
        .collect();
    shown.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let peers = parse_peers("b=10.0.0.2:7400, a=host:7410,c=[::1]:7420").unwrap();
        assert_eq!(
            show_peers(&peers),
            "a=host:7410,b=10.0.0.2:7400,c=[::1]:7420"
        );
        for (text, part) in [
            ("", "is not NAME=HOST:PORT"),
            ("a", "is not NAME=HOST:PORT"),
            ("a b=x:1", "is not a name"),
            ("a=x", "is not HOST:PORT"),
            ("a=:7400", "is not HOST:PORT"),
            ("a=x:0", "is not HOST:PORT"),
            ("a=x:1,a=x:2", "a is listed twice"),
            ("a=x:1,b=x:1", "a and b have the same address"),
        ] {
            let error = parse_peers(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
