//! Numbers, parts and rates of networks as people write them.

use crate::config::parse_bytes;

/// The largest whole number that a float holds exactly, and more than anybody has of anything.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number: `5000`, `10e9`, `100k`, `1.5M`, `2G` or `3T`.
///
/// # Errors
/// In words, what a number looks like.
pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || "not a number: write one such as 5000, 10e9, 100k, 1.5M or 2G".to_string();
    let text = text.trim();
    let units = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)];
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1.0));
    // Not what else a float may be: inf, nan, a sign.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = digits.parse::<f64>().map_err(|_| wrong())? * factor;
    if number > COUNT_MAX {
        return Err("a number beyond 9e15".to_string());
    }
    // 1.1M is not exact in binary.
    let whole = number.round();
    if (number - whole).abs() > whole.abs() * 1e-12 {
        return Err("not a whole number".to_string());
    }
    Ok(whole as u64)
}

/// A part of a whole: `0.5` or `50%`. What range makes sense is for whoever asks to say.
///
/// # Errors
/// In words, what a part looks like.
pub(super) fn parse_part(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (digits, whole) = match text.strip_suffix('%') {
        Some(digits) => (digits.trim(), 100.0),
        None => (text, 1.0),
    };
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number / whole),
        _ => Err("not a part of a whole: write one such as 0.5 or 50%".to_string()),
    }
}

/// A network's rate, in bytes a second: bits as in `10Gbit`, or bytes as in `1.25GB`.
///
/// # Errors
/// In words, what a rate looks like.
pub(super) fn parse_network(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let Some(bits) = text.strip_suffix("bit") else {
        return parse_bytes(text)
            .map_err(|_| "not a rate: write bits or bytes a second, such as 10Gbit or 1GB".into());
    };
    Ok(parse_count(bits)? / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (text, count) in [
            ("0", 0),
            ("5000", 5000),
            ("10e9", 10_000_000_000),
            ("1e3k", 1_000_000),
            ("100k", 100_000),
            ("1.5M", 1_500_000),
            ("1.1M", 1_100_000),
            ("2G", 2_000_000_000),
            (" 3T ", 3_000_000_000_000),
        ] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in [
            "", "k", "-1", "+1", "inf", "nan", "1.5", "1e-3", "10e99", "1e400", "10 keys", "0x10",
            "1,000",
        ] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_and_networks() {
        assert_eq!(parse_part("50%"), Ok(0.5));
        assert_eq!(parse_part("0.25"), Ok(0.25));
        for text in ["", "half", "nan", "inf", "%"] {
            assert!(parse_part(text).is_err(), "{text}");
        }
        assert_eq!(parse_network("10Gbit"), Ok(1_250_000_000));
        assert_eq!(parse_network("1.25GB"), Ok(1_250_000_000));
        for text in ["", "bit", "fast", "-1Gbit", "10Gbits"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
