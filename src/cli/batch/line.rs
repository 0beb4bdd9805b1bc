//! The little language of `ringbolt batch`: one write a line, as JSON.
//!
//! ```text
//! {"op": "put", "key": "a", "value": "1", "ttl": "5m", "if": "absent"}
//! {"op": "del", "key": "b", "if": {"version": 7}}
//! {"op": "incr", "key": "n", "by": -2}
//! {"op": "touch", "key": "s", "ttl": "never"}
//! ```
//!
//! Keys and values are strings or `{"base64": "..."}`, the form in which `--format json` prints
//! them. Empty lines are passed over.

use ringbolt_wire::message::{Condition, Ttl};
use serde::Deserialize;

use crate::cli::args::{check_key, parse_ttl};
use crate::cli::output::JsonBytes;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Vec<u8>,
    /// What to do.
    pub op: Op,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value.
    Put {
        /// The value.
        value: Vec<u8>,
        /// Its expiry.
        ttl: Ttl,
        /// What must hold.
        condition: Condition,
    },
    /// Removes the key.
    Delete {
        /// What must hold.
        condition: Condition,
    },
    /// Adds.
    Increment {
        /// How much.
        by: i64,
        /// Its expiry.
        ttl: Ttl,
        /// What must hold.
        condition: Condition,
    },
    /// Changes the expiry of a key that exists.
    Touch {
        /// The new expiry.
        ttl: Ttl,
    },
}

type Bytes = JsonBytes<Vec<u8>>;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Put {
        key: Bytes,
        value: Bytes,
        ttl: Option<String>,
        #[serde(rename = "if")]
        condition: Option<If>,
    },
    Del {
        key: Bytes,
        #[serde(rename = "if")]
        condition: Option<If>,
    },
    Incr {
        key: Bytes,
        by: Option<i64>,
        ttl: Option<String>,
        #[serde(rename = "if")]
        condition: Option<If>,
    },
    Touch {
        key: Bytes,
        ttl: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum If {
    Absent,
    Present,
    Version(u64),
}

impl From<If> for Condition {
    fn from(condition: If) -> Self {
        match condition {
            If::Absent => Self::Absent,
            If::Present => Self::Present,
            If::Version(version) => Self::Version(version),
        }
    }
}

/// Parses one line; `None` for an empty one.
///
/// # Errors
/// In words, what is wrong with it.
pub fn parse(line: &str) -> Result<Option<Write>, String> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let ttl_or = |ttl: Option<String>, none: Ttl| match ttl {
        Some(ttl) => parse_ttl(&ttl).map_err(|error| format!("ttl: {error}")),
        None => Ok(none),
    };
    let (key, op) = match line {
        Line::Put {
            key,
            value,
            ttl,
            condition,
        } => {
            let op = Op::Put {
                value: value.0,
                ttl: ttl_or(ttl, Ttl::Default)?,
                condition: condition_or_none(condition),
            };
            (key, op)
        }
        Line::Del { key, condition } => {
            let condition = condition_or_none(condition);
            (key, Op::Delete { condition })
        }
        Line::Incr {
            key,
            by,
            ttl,
            condition,
        } => {
            let op = Op::Increment {
                by: by.unwrap_or(1),
                ttl: ttl_or(ttl, Ttl::Keep)?,
                condition: condition_or_none(condition),
            };
            (key, op)
        }
        Line::Touch { key, ttl } => {
            let ttl = ttl_or(Some(ttl), Ttl::Keep)?;
            (key, Op::Touch { ttl })
        }
    };
    check_key(&key.0)?;
    Ok(Some(Write { key: key.0, op }))
}

fn condition_or_none(condition: Option<If>) -> Condition {
    condition.map_or(Condition::None, Condition::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &[u8], op: Op) -> Result<Option<Write>, String> {
        Ok(Some(Write {
            key: key.into(),
            op,
        }))
    }

    #[test]
    fn every_write_can_be_said() {
        assert_eq!(
            parse(r#"{"op":"put","key":"a","value":"1","ttl":"5m","if":"absent"}"#),
            write(
                b"a",
                Op::Put {
                    value: b"1".into(),
                    ttl: Ttl::AfterMs(300_000),
                    condition: Condition::Absent,
                }
            )
        );
        assert_eq!(
            parse(r#"{"op":"del","key":{"base64":"/w=="},"if":{"version":7}}"#),
            write(
                b"\xff",
                Op::Delete {
                    condition: Condition::Version(7)
                }
            )
        );
        assert_eq!(
            parse(r#"{"op":"incr","key":"n"}"#),
            write(
                b"n",
                Op::Increment {
                    by: 1,
                    ttl: Ttl::Keep,
                    condition: Condition::None,
                }
            )
        );
        assert_eq!(
            parse(r#" {"key":"s","op":"touch","ttl":"never"} "#),
            write(b"s", Op::Touch { ttl: Ttl::Never })
        );
        assert_eq!(parse("  "), Ok(None));
    }

    #[test]
    fn what_it_cannot_be_is_said() {
        for (line, part) in [
            ("put a 1", "expected value"),
            (r#"{"op":"put","key":"a"}"#, "missing field `value`"),
            (r#"{"op":"get","key":"a"}"#, "unknown variant `get`"),
            (r#"{"op":"del","key":"a","x":1}"#, "unknown field `x`"),
            (r#"{"op":"del","key":""}"#, "the key is empty"),
            (r#"{"op":"del","key":3}"#, "expected a string or"),
            (
                r#"{"op":"touch","key":"a","ttl":"soon"}"#,
                "ttl: not a time span",
            ),
            (
                r#"{"op":"del","key":"a","if":"maybe"}"#,
                "unknown variant `maybe`",
            ),
            (r#"{"op":"incr","key":"a","by":1.5}"#, "expected i64"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
