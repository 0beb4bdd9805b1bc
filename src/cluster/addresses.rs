//! Where the nodes are now.
//!
//! The map has `HOST:PORT` of each. A numeric host is known at once and for good. A name stands for
//! another address once its node is on another machine, and for none while that is gone: so names are
//! looked up when a node begins, and again after each failure to reach the node, at most once in
//! [`LOOK_UP_EVERY`]. That blocks, so it is done away from the cores (by the node's `lookup`), which find
//! here what has come of it.
//!
//! What was found stays until something else is: a name service that does not answer takes nothing away.
//! Where a name stands for several addresses, the one after the one that could not be reached is next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{NodeId, NodeInfo, locked};

/// How long after a name was looked up it may be looked up again.
pub const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// The addresses of all nodes. One lock for all: it is taken where a node is dialed, and where clients are
/// told where nodes are.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<BTreeMap<NodeId, Place>>);

#[derive(Debug)]
struct Place {
    /// As the map has it.
    written: String,
    at: Option<SocketAddr>,
    name: Option<Name>,
}

/// What there is to know of a host's name.
#[derive(Debug)]
struct Name {
    /// Whether it is to be looked up, and whether it is being.
    wanted: bool,
    under_way: bool,
    /// Not before this.
    not_before: Option<Instant>,
    /// Whether it was said that it stands for nothing.
    told: bool,
}

/// What has come of looking a name up, if it is worth a word.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// All is as it was before.
    AsBefore,
    /// It stands for another address than before, or for one at last.
    Moved(SocketAddr),
    /// It stands for no address, for the first time in a row: in words, why.
    Nothing(String),
}

impl Addresses {
    /// Of these nodes. Names are wanted.
    #[must_use]
    pub fn of(nodes: &[NodeInfo]) -> Self {
        let place = |node: &NodeInfo| {
            let at = node.address.parse().ok();
            let name = Name {
                wanted: true,
                under_way: false,
                not_before: None,
                told: false,
            };
            let written = node.address.clone();
            let name = at.is_none().then_some(name);
            (node.id, Place { written, at, name })
        };
        Self(Mutex::new(nodes.iter().map(place).collect()))
    }

    /// Where a node is; none while its name stands for nothing.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<SocketAddr> {
        locked(&self.0).get(&node)?.at
    }

    /// A node could not be reached: if it has a name, that is to be looked up again.
    pub fn note_failed(&self, node: NodeId) {
        let mut places = locked(&self.0);
        if let Some(name) = places.get_mut(&node).and_then(|place| place.name.as_mut()) {
            name.wanted = true;
        }
    }

    /// What is to be looked up now, as the map has it. Each is answered by [`Addresses::take`].
    pub fn due(&self, now: Instant) -> Vec<(NodeId, String)> {
        let mut due = Vec::new();
        for (node, place) in locked(&self.0).iter_mut() {
            let Some(name) = &mut place.name else {
                continue;
            };
            let may = !name.under_way && name.not_before.is_none_or(|at| now >= at);
            if name.wanted && may {
                (name.wanted, name.under_way) = (false, true);
                name.not_before = Some(now + LOOK_UP_EVERY);
                due.push((*node, place.written.clone()));
            }
        }
        due
    }

    /// What a name was found to stand for.
    pub fn take(&self, node: NodeId, found: Result<Vec<SocketAddr>, String>) -> Found {
        let mut places = locked(&self.0);
        let Some(place) = places.get_mut(&node) else {
            return Found::AsBefore;
        };
        let Some(name) = &mut place.name else {
            return Found::AsBefore;
        };
        name.under_way = false;
        let found = match found {
            Ok(found) if found.is_empty() => Err("it stands for no address".to_owned()),
            found => found,
        };
        match found {
            Ok(found) => {
                let last = found.iter().position(|address| Some(*address) == place.at);
                let next = found[last.map_or(0, |last| (last + 1) % found.len())];
                let was_told = std::mem::take(&mut name.told);
                let before = place.at.replace(next);
                match last {
                    None if before.is_some() || was_told => Found::Moved(next),
                    _ => Found::AsBefore,
                }
            }
            Err(why) => {
                // Nobody can be reached there: it is tried again by itself.
                name.wanted |= place.at.is_none();
                match std::mem::replace(&mut name.told, true) {
                    true => Found::AsBefore,
                    false => Found::Nothing(why),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(written: &str) -> Addresses {
        Addresses::of(&[NodeInfo {
            id: 1,
            name: "a".to_owned(),
            address: written.to_owned(),
            cores: 1,
            zone: String::new(),
            weight: 1,
        }])
    }

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7400))
    }

    #[test]
    fn a_numeric_address_is_never_looked_up() {
        let addresses = addresses("10.0.0.1:7400");
        assert_eq!(addresses.get(1), Some(at(1)));
        addresses.note_failed(1);
        addresses.note_failed(9);
        assert!(addresses.due(Instant::now()).is_empty());
        assert_eq!(addresses.take(1, Ok(vec![at(2)])), Found::AsBefore);
        assert_eq!((addresses.get(1), addresses.get(9)), (Some(at(1)), None));
    }

    #[test]
    fn a_name_is_looked_up_again_after_failures_and_not_too_often() {
        let addresses = addresses("a.example:7400");
        let (begin, wanted) = (Instant::now(), vec![(1, "a.example:7400".to_owned())]);
        assert_eq!(
            (addresses.get(1), addresses.due(begin)),
            (None, wanted.clone())
        );
        addresses.note_failed(1);
        let later = begin + 2 * LOOK_UP_EVERY;
        assert!(addresses.due(later).is_empty(), "it is being looked up");
        assert_eq!(
            addresses.take(1, Ok(vec![at(1)])),
            Found::AsBefore,
            "no news"
        );
        assert_eq!(addresses.get(1), Some(at(1)));
        let soon = begin + LOOK_UP_EVERY / 2;
        assert!(addresses.due(soon).is_empty(), "too soon");
        assert_eq!(addresses.due(later), wanted, "it had failed meanwhile");
        // The machine is replaced: first there is none, then another one.
        let none = || Err("no such name".to_owned());
        let told = Found::Nothing("no such name".to_owned());
        assert_eq!(addresses.take(1, none()), told);
        assert_eq!(addresses.get(1), Some(at(1)), "kept: it may be there still");
        let last = begin + 9 * LOOK_UP_EVERY;
        assert!(addresses.due(last).is_empty(), "nobody needs it");
        addresses.note_failed(1);
        assert_eq!(addresses.due(last), wanted);
        assert_eq!(addresses.take(1, none()), Found::AsBefore, "said once");
        assert_eq!(addresses.take(1, Ok(vec![at(2)])), Found::Moved(at(2)));
        assert_eq!(addresses.get(1), Some(at(2)));
    }

    #[test]
    fn a_name_without_an_address_is_tried_until_it_has_one() {
        let addresses = addresses("a.example:7400");
        let mut now = Instant::now();
        for round in 0..3 {
            assert_eq!(addresses.due(now).len(), 1);
            let said = addresses.take(1, Ok(Vec::new()));
            assert_eq!(matches!(said, Found::Nothing(_)), round == 0);
            now += LOOK_UP_EVERY;
        }
        assert_eq!(addresses.take(1, Ok(vec![at(3)])), Found::Moved(at(3)));
    }

    #[test]
    fn of_several_addresses_the_next_is_tried() {
        let addresses = addresses("a.example:7400");
        let both = || Ok(vec![at(1), at(2)]);
        for tried in [1, 2, 1] {
            assert_eq!(addresses.take(1, both()), Found::AsBefore);
            assert_eq!(addresses.get(1), Some(at(tried)));
        }
    }
}
