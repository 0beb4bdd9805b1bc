//! Little-endian base-128 numbers, as in LEB128: seven bits a byte, the high bit set on all but the
//! last.

/// Appends a number.
#[inline]
pub(crate) fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the difference of two numbers, small in either direction.
#[inline]
pub(crate) fn put_delta(number: u64, base: u64, out: &mut Vec<u8>) {
    let delta = number.wrapping_sub(base) as i64;
    put(((delta << 1) ^ (delta >> 63)) as u64, out);
}

/// Reads a number at `at`, which moves behind it. `None` past the end or the range.
#[inline(always)] // Several for each entry that a search passes; nearly all are one byte long.
pub(crate) fn get(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    match first < 0x80 {
        true => Some(u64::from(first)),
        false => get_rest(first, bytes, at),
    }
}

/// Reads what follows a first byte that is not the last.
fn get_rest(first: u8, bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Reads a number that counts bytes in memory.
#[inline]
pub(crate) fn get_len(bytes: &[u8], at: &mut usize) -> Option<usize> {
    usize::try_from(get(bytes, at)?).ok()
}

/// Reads what [`put_delta`] wrote.
#[inline]
pub(crate) fn get_delta(bytes: &[u8], at: &mut usize, base: u64) -> Option<u64> {
    let zigzag = get(bytes, at)?;
    let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    Some(base.wrapping_add(delta as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(number: u64, base: u64, shift in 0..64u32) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put(number, &mut bytes);
            put_delta(number, base, &mut bytes);
            let mut at = 0;
            prop_assert_eq!(get(&bytes, &mut at), Some(number));
            prop_assert_eq!(get_delta(&bytes, &mut at, base), Some(number));
            prop_assert_eq!(at, bytes.len());
            prop_assert_eq!(get(&bytes, &mut at), None);
        }

        #[test]
        fn garbage_is_a_number_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut at = 0;
            get(&bytes, &mut at);
            prop_assert!(at <= bytes.len());
        }
    }
}
