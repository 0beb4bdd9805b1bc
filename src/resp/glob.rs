//! Patterns of `KEYS` and `SCAN MATCH`: `*`, `?`, `[a-c]`, `[^a]`, and `\` before a byte taken as it is.
//!
//! A mismatch goes back to the last `*` only: what stood before it has matched as early as it can, so
//! that no text makes the search take more than (pattern × text) steps.

/// Whether `text` matches the pattern, byte for byte.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last star: where the pattern goes on, and the text it was last tried at.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        match text.get(t) {
            None if p == pattern.len() => return true,
            // More text cannot help: what is left of the pattern wants a byte.
            None => return false,
            Some(&byte) => {
                if let Some(next) = one(pattern, p, byte) {
                    (p, t) = (next, t + 1);
                } else if let Some((behind, from)) = star {
                    star = Some((behind, from + 1));
                    (p, t) = (behind, from + 1);
                } else {
                    return false;
                }
            }
        }
    }
}

/// Where the pattern goes on if what stands at `p` matches the byte.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte),
        b'\\' => match pattern.get(p + 1) {
            Some(&escaped) => (escaped == byte).then_some(p + 2),
            None => (byte == b'\\').then_some(p + 1),
        },
        &literal => (literal == byte).then_some(p + 1),
    }
}

/// The same for what stands behind a `[`. A class that is not closed ends with the pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    loop {
        match (pattern.get(p), pattern.get(p + 1), pattern.get(p + 2)) {
            (None, ..) => break,
            (Some(b']'), ..) => {
                p += 1;
                break;
            }
            (Some(b'\\'), Some(&escaped), _) => {
                found |= escaped == byte;
                p += 2;
            }
            (Some(&low), Some(b'-'), Some(&high)) => {
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                p += 3;
            }
            (Some(&literal), ..) => {
                found |= literal == byte;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}

/// The bytes that everything which matches begins with.
pub(crate) fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..end.unwrap_or(pattern.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [
            ("*", ""),
            ("*", "abc"),
            ("a*", "a"),
            ("a*c", "abbc"),
            ("**", "x"),
            ("?", "x"),
            ("a?c", "abc"),
            ("[abc]", "b"),
            ("[a-c]x", "bx"),
            ("[c-a]", "b"),
            ("[^a]", "b"),
            (r"\*", "*"),
            (r"a\", r"a\"),
            (r"[\]]", "]"),
            ("[ab", "a"),
            ("", ""),
            ("a*b*c", "axbxbxc"),
            ("[+--]", "-"),
            ("*[0-9]", "ab7"),
        ];
        for (pattern, text) in yes {
            assert!(
                matches(pattern.as_bytes(), text.as_bytes()),
                "{pattern} {text}"
            );
        }
        let no = [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("a*c", "abb"),
            ("[abc]", "d"),
            ("[^a]", "a"),
            (r"\*", "x"),
            ("abc", "abcd"),
            ("*a", "ab"),
            ("[]", "a"),
        ];
        for (pattern, text) in no {
            assert!(
                !matches(pattern.as_bytes(), text.as_bytes()),
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 5000]));
    }

    #[test]
    fn the_literal_prefix_ends_before_the_first_special_byte() {
        assert_eq!(literal_prefix(b"user:*"), b"user:");
        assert_eq!(literal_prefix(b"a\\*"), b"a");
        assert_eq!(literal_prefix(b"abc"), b"abc");
        assert_eq!(literal_prefix(b"[a]"), b"");
    }
}
