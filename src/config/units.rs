//! Sizes, time spans and CPU lists as people write them.

use std::fmt::Write as _;
use std::time::Duration;

/// Parses a size such as `4GiB`, `512 MiB`, `10MB` or a plain number of bytes.
///
/// # Errors
/// In words, what a size looks like.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "not a size: write a number and a unit, such as 512MiB or 4GiB".to_string();
    let text = text.trim();
    let size: bytesize::ByteSize = text.parse().map_err(|_| wrong())?;
    // The crate saturates where the number is beyond 64 bits.
    if size.0 == u64::MAX {
        return Err("a size beyond 64 bits".to_string());
    }
    Ok(size.0)
}

/// A size as [`parse_bytes`] reads it back: in the largest binary unit that divides it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// A size for people: rounded to three digits.
#[must_use]
pub fn about_bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Parses a time span such as `5s`, `250ms` or `1h 30m`.
///
/// # Errors
/// In words, what a time span looks like.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| "not a time span: write a number and a unit, such as 250ms, 5s or 1h".into())
}

/// A time span as [`parse_span`] reads it back.
#[must_use]
pub fn show_span(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

/// Parses a list of CPUs such as `0,2-3`: ascending or not, each at most once.
///
/// # Errors
/// In words, what is wrong with it.
pub fn parse_cpus(text: &str) -> Result<Vec<u16>, String> {
    const MAX: usize = 4096;
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let number = |text: &str| {
            text.trim().parse::<u16>().map_err(|_| {
                "not a list of CPUs: write numbers and ranges, such as 0,2-3".to_string()
            })
        };
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("the range {part} runs backwards"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is listed twice"));
            }
            if cpus.len() == MAX {
                return Err(format!("more than {MAX} CPUs"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// A list of CPUs as [`parse_cpus`] reads it back.
#[must_use]
pub fn show_cpus(cpus: &[u16]) -> String {
    let mut text = String::new();
    let mut rest = cpus;
    while let [first, ..] = rest {
        let run = rest
            .iter()
            .zip(*first..)
            .take_while(|(cpu, expected)| **cpu == *expected)
            .count();
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match run {
            1 => write!(text, "{first}"),
            run => write!(text, "{first}-{}", usize::from(*first) + run - 1),
        };
        rest = rest.get(run..).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4GiB", 4 << 30),
            ("512 MiB", 512 << 20),
            ("64mib", 64 << 20),
            ("10MB", 10_000_000),
            ("4096", 4096),
            ("0", 0),
            ("1.5KiB", 1536),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1MiB", "4GiBs", "four", "99999999999GiB", "1e9"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        for bytes in [
            0,
            1,
            1023,
            1024,
            1536,
            1 << 20,
            3 << 30,
            5 << 40,
            u64::MAX - 1,
        ] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn spans() {
        assert_eq!(parse_span("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_span("20us"), Ok(Duration::from_micros(20)));
        assert_eq!(parse_span("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_span("0"), Ok(Duration::ZERO));
        for text in ["", "5", "s", "-5s", "5 parsecs"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        for micros in [0, 20, 250_000, 5_000_000, 90_061_000_000] {
            let span = Duration::from_micros(micros);
            assert_eq!(parse_span(&show_span(span)), Ok(span));
        }
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0,2-3"), Ok(vec![0, 2, 3]));
        assert_eq!(parse_cpus("5"), Ok(vec![5]));
        assert_eq!(parse_cpus("3, 1"), Ok(vec![3, 1]));
        for text in [
            "", "a", "3-1", "1,1", "0-2,1", "0-65535", "-1", "1-", "70000",
        ] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        for cpus in [vec![0], vec![0, 1, 2, 3], vec![0, 2, 3, 7], vec![3, 1]] {
            assert_eq!(parse_cpus(&show_cpus(&cpus)), Ok(cpus));
        }
        assert_eq!(show_cpus(&[0, 2, 3]), "0,2-3");
    }
}
