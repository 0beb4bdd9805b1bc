//! Which slot a key belongs to, exactly as Redis Cluster defines it, and which partition.
//!
//! The slot is CRC16-XMODEM modulo 16384 of the key's *tag*: what stands between the first `{` and
//! the first `}` after it, if that is not empty; else the whole key. The partition is the slot's
//! high bits. Both are stable for ever.

/// How many slots there are.
pub const SLOTS: u16 = 1 << 14;

/// `TABLES[n][byte]` is what a byte adds to the checksum when `n` bytes follow it, so that four
/// bytes are looked up side by side instead of one after the other.
const TABLES: [[u16; 256]; 4] = tables();

const fn tables() -> [[u16; 256]; 4] {
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 32 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
            if bit % 8 == 0 {
                tables[bit / 8 - 1][byte] = crc;
            }
        }
        byte += 1;
    }
    tables
}

fn crc16(bytes: &[u8]) -> u16 {
    let at = |table: usize, byte: u8| TABLES[table][usize::from(byte)];
    let mut chunks = bytes.chunks_exact(4);
    let mut crc = 0u16;
    for chunk in &mut chunks {
        let [high, low] = crc.to_be_bytes();
        crc = at(3, chunk[0] ^ high) ^ at(2, chunk[1] ^ low) ^ at(1, chunk[2]) ^ at(0, chunk[3]);
    }
    chunks.remainder().iter().fold(crc, |crc, &byte| {
        let [high, low] = crc.to_be_bytes();
        at(0, high ^ byte) ^ u16::from_be_bytes([low, 0])
    })
}

/// The part of a key that decides its slot: what is between the first `{` and the first `}` after
/// it, unless that is empty or missing; else the whole key.
pub fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else {
        return key;
    };
    let inner = &key[open + 1..];
    match inner.iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(close) => &inner[..close],
    }
}

/// The key's slot, below [`SLOTS`].
pub fn slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

/// The key's partition, below `partitions`: its slot's high bits. `partitions` is a power of two
/// from 1 to [`SLOTS`].
pub fn partition_of(key: &[u8], partitions: u16) -> u16 {
    // Equal to a shift for every power of two; in bounds for anything else.
    (u32::from(slot(key)) * u32::from(partitions) / u32::from(SLOTS)) as u16
}

/// The core on which a node of `cores` cores keeps a partition: contiguous ranges whose lengths
/// differ by at most one.
pub fn core_of(partition: u16, partitions: u16, cores: u16) -> u16 {
    debug_assert!(partition < partitions);
    (u32::from(partition) * u32::from(cores) / u32::from(partitions.max(1))) as u16
}

/// The partition of every key that begins with `prefix`, if the prefix alone decides it: it holds
/// a whole, non-empty tag.
pub fn partition_of_prefix(prefix: &[u8], partitions: u16) -> Option<u16> {
    (tag(prefix).len() < prefix.len()).then(|| partition_of(prefix, partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc16_xmodem() {
        // The check value of the CRC catalogue, which Redis Cluster's specification quotes too.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn four_bytes_at_once_give_what_one_bit_at_a_time_gives() {
        let bytes: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(97) ^ 0x5a).collect();
        for length in 0..bytes.len() {
            let mut expected = 0u16;
            for &byte in &bytes[..length] {
                expected ^= u16::from(byte) << 8;
                for _ in 0..8 {
                    let carry = expected & 0x8000 != 0;
                    expected = (expected << 1) ^ if carry { 0x1021 } else { 0 };
                }
            }
            assert_eq!(crc16(&bytes[..length]), expected, "{length}");
        }
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // CLUSTER KEYSLOT's answers.
        for (key, expected) in [
            (&b"somekey"[..], 11058),
            (b"foo{hash_tag}", 2515),
            (b"bar{hash_tag}", 2515),
            (b"hash_tag", 2515),
            (b"foo", 12182),
            (b"bar", 5061),
            (b"hello", 866),
            (b"123456789", 12739),
        ] {
            assert_eq!(slot(key), expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn tags_follow_the_specification() {
        assert_eq!(tag(b"{user1000}.following"), b"user1000");
        assert_eq!(tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(tag(b"foo{bar"), b"foo{bar");
        assert_eq!(tag(b"}foo{"), b"}foo{");
        assert_eq!(tag(b""), b"");
    }

    #[test]
    fn partitions_are_the_high_bits() {
        for bits in 0..=14 {
            let partitions = 1u16 << bits;
            for key in 0..1000u32 {
                let key = key.to_string();
                assert_eq!(
                    partition_of(key.as_bytes(), partitions),
                    slot(key.as_bytes()) >> (14 - bits)
                );
            }
        }
    }

    #[test]
    fn a_prefix_decides_only_with_a_whole_tag() {
        assert_eq!(
            partition_of_prefix(b"{a}:", 128),
            Some(partition_of(b"{a}:anything{b}", 128))
        );
        assert_eq!(
            partition_of_prefix(b"x{a}", 128),
            Some(partition_of(b"a", 128))
        );
        assert_eq!(partition_of_prefix(b"{a", 128), None);
        assert_eq!(partition_of_prefix(b"{}", 128), None);
        assert_eq!(partition_of_prefix(b"a", 128), None);
        assert_eq!(partition_of_prefix(b"", 128), None);
    }
}
