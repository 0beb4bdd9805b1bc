//! Numbers with a fraction, as `INCRBYFLOAT` reads, adds and writes them.
//!
//! Redis adds in binary, with 64 bits of precision, and writes up to 17 places behind the point. Here
//! it is done in decimal, so that what is written is the exact sum, rounded to 17 places: the same
//! wherever Redis's is exact to these places, and the nearer one where it is not.

use std::cmp::Ordering;

/// Places behind the point that are written.
const PLACES: usize = 17;
/// Places behind the point that are kept while adding.
const PLACES_KEPT: usize = 40;
/// Longest text that is taken for a number, in bytes, as Redis has it.
const TEXT_BYTES_MAX: usize = 255;
/// Greatest power of ten, as that of Redis's `long double`.
const EXPONENT_MAX: i64 = 4932;

/// Digits of a magnitude times 10^[`PLACES_KEPT`], lowest first, none of them zero at the end.
type Digits = Vec<u8>;

/// A number with a fraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decimal {
    Finite {
        negative: bool,
        digits: Digits,
    },
    /// What Redis takes for one, but adds to nothing.
    Infinite,
}

impl Decimal {
    pub(crate) fn zero() -> Self {
        Self::Finite {
            negative: false,
            digits: Vec::new(),
        }
    }

    /// Reads what C's `strtold` does, but for hexadecimal.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite);
        }
        let (mantissa, exponent) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|&b| b == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        let all = || whole.iter().chain(fraction);
        if all().count() == 0 || !all().all(u8::is_ascii_digit) {
            return None;
        }
        // The power of ten of the last digit, in places kept.
        let last = exponent - fraction.len() as i64 + PLACES_KEPT as i64;
        let significant = all().skip_while(|&&digit| digit == b'0').count() as i64;
        if significant > 0 && last + significant - PLACES_KEPT as i64 > EXPONENT_MAX + 1 {
            return None;
        }
        let mut digits: Digits = Vec::new();
        if significant > 0 {
            digits.resize(usize::try_from(last).unwrap_or(0), 0);
        }
        // What stands further behind than is kept is cut off.
        let cut = usize::try_from(-last).unwrap_or(0);
        digits.extend(all().rev().skip(cut).map(|digit| digit - b'0'));
        Some(Self::finite(negative, digits))
    }

    fn finite(negative: bool, mut digits: Digits) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Self::Finite { negative, digits }
    }

    /// The sum, as Redis would write it; `None` if it is infinite.
    pub(crate) fn plus(&self, other: &Self) -> Option<String> {
        let (
            Self::Finite { negative, digits },
            Self::Finite {
                negative: other_negative,
                digits: other_digits,
            },
        ) = (self, other)
        else {
            return None;
        };
        let sum = if negative == other_negative {
            Self::finite(*negative, add(digits, other_digits))
        } else {
            match compare(digits, other_digits) {
                Ordering::Less => Self::finite(*other_negative, subtract(other_digits, digits)),
                _ => Self::finite(*negative, subtract(digits, other_digits)),
            }
        };
        sum.show()
    }

    fn show(&self) -> Option<String> {
        let Self::Finite { negative, digits } = self else {
            return None;
        };
        let (low, high) = digits.split_at(digits.len().min(PLACES_KEPT - PLACES));
        let mut kept = match rounds_up(low, high) {
            true => add(high, &[1]),
            false => high.to_vec(),
        };
        if kept.len() <= PLACES {
            kept.resize(PLACES + 1, 0);
        }
        let shown = |digits: &[u8]| -> String {
            let from_first = digits.iter().rev();
            from_first.map(|digit| char::from(b'0' + digit)).collect()
        };
        let whole = shown(&kept[PLACES..]);
        let whole = whole.trim_start_matches('0');
        let fraction = shown(&kept[..PLACES]);
        let fraction = fraction.trim_end_matches('0');
        let is_zero = whole.is_empty() && fraction.is_empty();
        let sign = if *negative && !is_zero { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if fraction.is_empty() { "" } else { "." };
        Some(format!("{sign}{whole}{point}{fraction}"))
    }
}

/// Whether what is cut off, lowest digit first, is more than a half; of a half, whether it makes the last
/// digit even.
fn rounds_up(low: &[u8], high: &[u8]) -> bool {
    let Some((first, rest)) = low
        .split_last()
        .filter(|_| low.len() == PLACES_KEPT - PLACES)
    else {
        return false;
    };
    let is_odd = high.first().is_some_and(|digit| digit % 2 == 1);
    *first > 5 || *first == 5 && (is_odd || rest.iter().any(|&digit| digit != 0))
}

fn exponent(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    let exponent: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // Beyond these nothing is left of any text that is short enough.
    Some(exponent.clamp(-10_000, 10_000))
}

fn add(a: &[u8], b: &[u8]) -> Digits {
    let mut carry = 0;
    let mut sum = Vec::with_capacity(a.len().max(b.len()) + 1);
    for at in 0..a.len().max(b.len()) {
        let both = a.get(at).unwrap_or(&0) + b.get(at).unwrap_or(&0) + carry;
        sum.push(both % 10);
        carry = both / 10;
    }
    sum.push(carry);
    sum
}

/// `b` is not greater than `a`.
fn subtract(a: &[u8], b: &[u8]) -> Digits {
    let mut borrow = 0;
    let mut rest = Vec::with_capacity(a.len());
    for (at, &digit) in a.iter().enumerate() {
        let less = b.get(at).unwrap_or(&0) + borrow;
        borrow = u8::from(digit < less);
        rest.push(digit + 10 * borrow - less);
    }
    rest
}

fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.len()
        .cmp(&b.len())
        .then_with(|| a.iter().rev().cmp(b.iter().rev()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        Decimal::parse(a.as_bytes())?.plus(&Decimal::parse(b.as_bytes())?)
    }

    #[test]
    fn sums_are_those_that_people_expect() {
        for (a, b, expected) in [
            ("0", "0", "0"),
            ("1.5", "0.1", "1.6"),
            ("3.0e3", "200", "3200"),
            ("1", "-1.1", "-0.1"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("-1.5", "1.5", "0"),
            ("-0", "-0", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-18", "0", "0"),
            ("5e-18", "0", "0"),
            ("6e-18", "0", "0.00000000000000001"),
            ("1.5e-17", "0", "0.00000000000000002"),
            ("0.02439024390243902", "-0.024390243902439025", "0"),
            ("0.024390243902439025", "0", "0.02439024390243902"),
            ("1e20", "1", "100000000000000000001"),
            ("999", "0.999", "999.999"),
            (".5", "5.", "5.5"),
            ("+1", "1E+1", "11"),
            ("100", "-0.01", "99.99"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
        assert_eq!(sum("inf", "1"), None);
    }

    #[test]
    fn what_is_no_number() {
        for text in [
            "", " 1", "1 ", "a", "1a", "e5", ".", "1e", "--1", "nan", "1e5000", "1.2.3",
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(sum("1e-99999999", "2").as_deref(), Some("2"));
    }
}
