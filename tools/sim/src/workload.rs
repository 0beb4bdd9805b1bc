//! Random operations. Each seed draws a profile first, so that some runs are all range deletes,
//! some all expiry, some all large values: rare paths get runs in which they are common.

use std::rc::Rc;

use ringbolt_engine::entry::{EntryHead, KeyspaceId, LogId};
use ringbolt_engine::env::sim::Rng;

use crate::model::{Key, OwnedEffect, OwnedEntry, Partition};

/// The keyspace of the engine's own rows.
pub const OWN_KEYSPACE: KeyspaceId = KeyspaceId::MAX;

/// What a seed's operations look like.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Partitions, 1–4.
    pub partitions: u16,
    /// Keyspaces in each, 1–2.
    pub keyspaces: u32,
    /// Different keys in a keyspace.
    pub keys: u64,
    /// Most bytes of an ordinary value.
    pub value_bytes_max: u64,
    /// One value in so many is large (up to 40 KiB); 0 for none.
    pub large_one_in: u64,
    /// Of 100 effects, so many are deletes.
    pub delete_percent: u64,
    /// One effect in so many is a range delete; 0 for none.
    pub range_delete_one_in: u64,
    /// Of 100 puts, so many expire.
    pub ttl_percent: u64,
    /// Most effects of an entry.
    pub effects_max: u64,
    /// Most entries between two submissions of the log.
    pub turn_max: u64,
    /// Of 100 operations, so many are reads.
    pub read_percent: u64,
    /// One operation in so many is a scan.
    pub scan_one_in: u64,
    /// One operation in so many is a flush.
    pub flush_one_in: u64,
    /// One operation in so many is a pause or a jump in time.
    pub pause_one_in: u64,
}

impl Profile {
    /// Draws one.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        let pick = |rng: &mut Rng, of: &[u64]| of[rng.index(of.len())];
        Self {
            partitions: pick(rng, &[1, 2, 3, 4]) as u16,
            keyspaces: pick(rng, &[1, 2]) as u32,
            keys: pick(rng, &[8, 60, 300, 1500]),
            value_bytes_max: pick(rng, &[16, 120, 120, 600]),
            large_one_in: pick(rng, &[0, 0, 100, 400]),
            delete_percent: pick(rng, &[2, 10, 30, 60]),
            range_delete_one_in: pick(rng, &[0, 300, 80, 20]),
            ttl_percent: pick(rng, &[0, 5, 30, 80]),
            effects_max: pick(rng, &[1, 1, 4, 12]),
            turn_max: pick(rng, &[1, 4, 16, 40]),
            read_percent: pick(rng, &[10, 30, 50]),
            scan_one_in: pick(rng, &[60, 150, 400]),
            flush_one_in: pick(rng, &[150, 400, 1000]),
            pause_one_in: pick(rng, &[20, 60, 200]),
        }
    }
}

/// The partition's next entry. `now_ms` is the leader's clock.
pub fn entry(rng: &mut Rng, profile: &Profile, partition: &Partition, now_ms: u64) -> OwnedEntry {
    let time_ms = partition.time_proposed_ms.max(now_ms);
    let index = partition.next_index();
    let head = EntryHead {
        partition: partition.id,
        id: LogId {
            term: partition.term,
            index,
        },
        client: rng.below(4),
        // Some are numbered.
        sequence: match index.is_multiple_of(6) {
            true => index,
            false => 0,
        },
        time_ms,
    };
    // Now and then an entry that only carries the time.
    let count = match rng.one_in(40) {
        true => 0,
        false => rng.between(1, profile.effects_max),
    };
    let mut effects: Vec<OwnedEffect> = Vec::new();
    for _ in 0..count {
        let next = effect(rng, profile, partition, time_ms);
        let repeated = match &next {
            OwnedEffect::Put { key, .. } | OwnedEffect::Delete { key } => {
                effects.iter().any(|other| {
                    matches!(other,
                    OwnedEffect::Put { key: k, .. } | OwnedEffect::Delete { key: k } if k == key)
                })
            }
            OwnedEffect::DeleteRange { .. } | OwnedEffect::Outcome(_) => false,
        };
        // A key occurs once in a batch.
        if !repeated {
            effects.push(next);
        }
    }
    if head.write_id().is_some() && index.is_multiple_of(12) {
        let outcome = index.to_le_bytes();
        effects.push(OwnedEffect::Outcome(
            outcome[..1 + (index % 8) as usize].to_vec(),
        ));
    }
    OwnedEntry { head, effects }
}

fn effect(rng: &mut Rng, profile: &Profile, partition: &Partition, time_ms: u64) -> OwnedEffect {
    if rng.one_in(profile.range_delete_one_in) {
        return range_delete(rng, profile);
    }
    let key = key(rng, profile);
    if rng.percent(profile.delete_percent) {
        return OwnedEffect::Delete { key };
    }
    let expires_ms = match rng.percent(profile.ttl_percent) {
        true => time_ms + [rng.below(4), rng.below(100), rng.below(20_000)][rng.index(3)],
        false => 0,
    };
    // A leader that has looked at the old row says when it was created.
    let known = rng.one_in(4) && partition.pending.is_empty();
    let created_ms = match partition.get(&key, time_ms) {
        Some(row) if known => row.created_ms,
        None if known => time_ms,
        _ => 0,
    };
    OwnedEffect::Put {
        key,
        value: value(rng, profile),
        expires_ms,
        created_ms,
    }
}

fn range_delete(rng: &mut Rng, profile: &Profile) -> OwnedEffect {
    let keyspace = rng.below(u64::from(profile.keyspaces)) as u32;
    let (mut from, mut to) = (rng.below(profile.keys), rng.below(profile.keys));
    // Mostly short ones: a run in which everything is always deleted tests little.
    if from > to {
        std::mem::swap(&mut from, &mut to);
    }
    if !rng.one_in(8) {
        to = to.min(from + profile.keys / 10 + 1);
    }
    let bound = |rng: &mut Rng, number| match rng.one_in(20) {
        true => Vec::new(),
        false => key_bytes(number),
    };
    OwnedEffect::DeleteRange {
        keyspace,
        from: bound(rng, from),
        to: match rng.one_in(60) {
            true => Vec::new(),
            false => key_bytes(to),
        },
    }
}

/// A key of the profile's; some are touched much more often than others.
pub fn key(rng: &mut Rng, profile: &Profile) -> Key {
    let keyspace = rng.below(u64::from(profile.keyspaces)) as u32;
    let number = match rng.one_in(2) {
        true => rng.below(profile.keys.div_ceil(10)),
        false => rng.below(profile.keys),
    };
    (keyspace, key_bytes(number))
}

/// Keys share prefixes, differ in length, and one is empty of anything but a zero byte.
#[must_use]
pub fn key_bytes(number: u64) -> Vec<u8> {
    match number % 7 {
        0 => vec![(number / 7) as u8],
        1 | 2 => format!("user:{number:06}").into_bytes(),
        3 => format!(
            "user:{number:06}:settings:{}",
            "x".repeat((number % 90) as usize)
        )
        .into_bytes(),
        4 => [b"bin\xff\xff".as_slice(), &number.to_be_bytes()].concat(),
        5 => [b"\xff\xff\xff".as_slice(), &number.to_be_bytes()].concat(),
        _ => format!("z{number}").into_bytes(),
    }
}

/// Bytes that compress a little, and differ from one call to the next.
fn value(rng: &mut Rng, profile: &Profile) -> Rc<[u8]> {
    let len = match rng.one_in(profile.large_one_in) {
        true => rng.between(4 << 10, 40 << 10),
        false => rng.below(profile.value_bytes_max + 1),
    } as usize;
    let mut bytes = vec![0; len];
    let word = rng.next_u64().to_le_bytes();
    for (i, chunk) in bytes.chunks_mut(8).enumerate() {
        if i % 4 != 3 {
            chunk.copy_from_slice(&word[..chunk.len()]);
            chunk[0] = i as u8;
        }
    }
    bytes.into()
}
