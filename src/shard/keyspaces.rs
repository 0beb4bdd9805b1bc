//! The keyspaces a core knows, and how their definitions are stored.
//!
//! Definitions are rows of the system keyspace in partition 0: the key is the name, the value
//! [`encode`]d. One more row, under a name no keyspace can have, holds the next number, so that
//! numbers are never reused. A dropped keyspace stays as a row marked `dropped` until the leader of
//! every partition has forgotten it and deleted its rows; a new leader of the home partition finds such
//! rows and finishes the work.

use ahash::AHashMap;
use ringbolt_wire::message::{KEYSPACE_DEFAULT, Keyspace, KeyspaceId, KeyspaceOptions};

/// The partition that holds the definitions.
pub(super) const HOME: u16 = 0;
/// The row of the next number.
pub(super) const NEXT_ID: &[u8] = b"\0next";
/// The name of the keyspace that always exists.
pub(super) const DEFAULT_NAME: &str = "default";

const DEFINITION_BYTES: usize = 14;
const DEFINITION_VERSION: u8 = 1;

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) id: KeyspaceId,
    pub(super) options: KeyspaceOptions,
    pub(super) dropped: bool,
}

/// `version u8 | dropped u8 | id u32 LE | default TTL in ms u64 LE`.
pub(super) fn encode(definition: &Definition) -> [u8; DEFINITION_BYTES] {
    let mut out = [0; DEFINITION_BYTES];
    out[0] = DEFINITION_VERSION;
    out[1] = u8::from(definition.dropped);
    out[2..6].copy_from_slice(&definition.id.to_le_bytes());
    out[6..].copy_from_slice(&definition.options.default_ttl_ms.to_le_bytes());
    out
}

/// The reverse of [`encode`]; `None` if it is no definition of this version.
pub(super) fn decode(bytes: &[u8]) -> Option<Definition> {
    let bytes: &[u8; DEFINITION_BYTES] = bytes.try_into().ok()?;
    let [version, dropped @ (0 | 1), i0, i1, i2, i3, ttl @ ..] = *bytes else {
        return None;
    };
    (version == DEFINITION_VERSION).then(|| Definition {
        id: u32::from_le_bytes([i0, i1, i2, i3]),
        options: KeyspaceOptions {
            default_ttl_ms: u64::from_le_bytes(ttl),
        },
        dropped: dropped == 1,
    })
}

/// What one core knows.
pub(super) struct Keyspaces {
    by_id: AHashMap<KeyspaceId, Keyspace>,
    /// How often one came or went: a list from before that may be another.
    changes: u64,
}

impl Default for Keyspaces {
    fn default() -> Self {
        let mut by_id = AHashMap::new();
        by_id.insert(
            KEYSPACE_DEFAULT,
            Keyspace {
                id: KEYSPACE_DEFAULT,
                name: DEFAULT_NAME.to_owned(),
                options: KeyspaceOptions::default(),
            },
        );
        Self { by_id, changes: 0 }
    }
}

impl Keyspaces {
    pub(super) fn options(&self, id: KeyspaceId) -> Option<KeyspaceOptions> {
        self.by_id.get(&id).map(|keyspace| keyspace.options)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Keyspace> {
        self.by_id.values().find(|keyspace| keyspace.name == name)
    }

    pub(super) fn insert(&mut self, keyspace: Keyspace) {
        self.changes += 1;
        self.by_id.insert(keyspace.id, keyspace);
    }

    pub(super) fn remove(&mut self, id: KeyspaceId) {
        self.by_id.remove(&id);
        self.changes += 1;
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// From now on, there are these.
    pub(super) fn replace(&mut self, list: Vec<Keyspace>) {
        let listed = list.into_iter().map(|keyspace| (keyspace.id, keyspace));
        self.by_id = listed.collect();
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them, by number.
    pub(super) fn list(&self) -> Vec<Keyspace> {
        let mut all: Vec<_> = self.by_id.values().cloned().collect();
        all.sort_by_key(|keyspace| keyspace.id);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_round_trip_and_reject_the_rest() {
        let definition = Definition {
            id: 9,
            options: KeyspaceOptions {
                default_ttl_ms: 60_000,
            },
            dropped: true,
        };
        let bytes = encode(&definition);
        assert_eq!(decode(&bytes), Some(definition));
        assert_eq!(decode(&bytes[1..]), None);
        assert_eq!(decode(&[9; DEFINITION_BYTES]), None);
    }
}
