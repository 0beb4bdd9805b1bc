//! Lists that stay in wire form: read by iterators, built by appending to a buffer.
//!
//! A list that was decoded was checked then, item by item, so its iterator cannot meet anything
//! wrong.

use std::fmt;
use std::str::FromStr;

use crate::message::{Condition, Keys, Token, Tokens, Ttl, WriteOp, WriteOps};
use crate::read::{Reader, check_key_length};
use crate::{VALUE_BYTES_MAX, WireError};

/// Length of one token, in bytes: partition u16, term u64, index u64.
pub const TOKEN_BYTES: usize = 18;
/// Length of what every write begins with, in bytes; key and value follow.
pub const WRITE_OP_HEAD_BYTES: usize = 32;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const INCREMENT: u8 = 3;
const TOUCH: u8 = 4;

impl Token {
    /// The wire form.
    pub fn to_wire(self) -> [u8; TOKEN_BYTES] {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[..2].copy_from_slice(&self.partition.to_le_bytes());
        bytes[2..10].copy_from_slice(&self.term.to_le_bytes());
        bytes[10..].copy_from_slice(&self.index.to_le_bytes());
        bytes
    }
}

/// `partition:term:index`, in decimal.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.partition, self.term, self.index)
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for Token {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Token, WireError> {
        let parse = || {
            let mut parts = text.split(':');
            let token = Token {
                partition: parts.next()?.parse().ok()?,
                term: parts.next()?.parse().ok()?,
                index: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(token)
        };
        parse().ok_or(WireError::Malformed {
            what: "a token is not partition:term:index in decimal",
        })
    }
}

pub(crate) fn read_token(reader: &mut Reader<'_>) -> Result<Token, WireError> {
    Ok(Token {
        partition: reader.u16()?,
        term: reader.u64()?,
        index: reader.u64()?,
    })
}

impl<'a> Tokens<'a> {
    /// No token.
    pub const EMPTY: Tokens<'static> = Tokens(&[]);

    /// Takes the wire form.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if it is no whole number of tokens.
    pub fn from_wire(bytes: &'a [u8]) -> Result<Tokens<'a>, WireError> {
        if bytes.len().is_multiple_of(TOKEN_BYTES) {
            Ok(Tokens(bytes))
        } else {
            Err(WireError::Malformed {
                what: "tokens are cut short",
            })
        }
    }

    /// The wire form.
    pub fn as_wire(&self) -> &'a [u8] {
        self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / TOKEN_BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens, in order.
    pub fn iter(&self) -> TokensIter<'a> {
        TokensIter(Reader::new(self.0))
    }
}

impl<'a> IntoIterator for Tokens<'a> {
    type Item = Token;
    type IntoIter = TokensIter<'a>;

    fn into_iter(self) -> TokensIter<'a> {
        self.iter()
    }
}

/// The tokens of a [`Tokens`], in order.
pub struct TokensIter<'a>(Reader<'a>);

impl Iterator for TokensIter<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        read_token(&mut self.0).ok()
    }
}

impl<'a> Keys<'a> {
    /// Their length on the wire, in bytes.
    pub fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The keys, in order.
    pub fn iter(&self) -> KeysIter<'a> {
        KeysIter(Reader::new(self.bytes))
    }

    pub(crate) fn read(reader: &mut Reader<'a>, count: usize) -> Result<Keys<'a>, WireError> {
        let all = reader.rest();
        for _ in 0..count {
            read_key(reader)?;
        }
        Ok(Keys {
            count: count as u32,
            bytes: &all[..all.len() - reader.rest().len()],
        })
    }
}

fn read_key<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let length = reader.u32()?;
    reader.key(length)
}

impl<'a> IntoIterator for Keys<'a> {
    type Item = &'a [u8];
    type IntoIter = KeysIter<'a>;

    fn into_iter(self) -> KeysIter<'a> {
        self.iter()
    }
}

/// The keys of a [`Keys`], in order.
pub struct KeysIter<'a>(Reader<'a>);

impl<'a> Iterator for KeysIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        read_key(&mut self.0).ok()
    }
}

impl<'a> WriteOp<'a> {
    /// The key it writes.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            WriteOp::Put { key, .. }
            | WriteOp::Delete { key, .. }
            | WriteOp::Increment { key, .. }
            | WriteOp::Touch { key, .. } => key,
        }
    }

    /// What must hold for it.
    pub fn condition(&self) -> Condition {
        match *self {
            WriteOp::Put { condition, .. }
            | WriteOp::Delete { condition, .. }
            | WriteOp::Increment { condition, .. }
            | WriteOp::Touch { condition, .. } => condition,
        }
    }

    /// Checks key and value against the protocol's limits.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        check_key(self.key())?;
        match self {
            WriteOp::Put { value, .. } => check_value_length(value.len() as u64),
            _ => Ok(()),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (op, condition, ttl, argument, value) = match *self {
            WriteOp::Put {
                value,
                ttl,
                condition,
                ..
            } => (PUT, condition, ttl, value.len() as u64, value),
            WriteOp::Delete { condition, .. } => (DELETE, condition, Ttl::Default, 0, &[][..]),
            WriteOp::Increment {
                by, ttl, condition, ..
            } => (INCREMENT, condition, ttl, by as u64, &[][..]),
            WriteOp::Touch { ttl, condition, .. } => (TOUCH, condition, ttl, 0, &[][..]),
        };
        let (condition, version) = match condition {
            Condition::None => (0, 0),
            Condition::Absent => (1, 0),
            Condition::Present => (2, 0),
            Condition::Version(version) => (3, version),
        };
        let (ttl, ttl_ms) = match ttl {
            Ttl::Default => (0, 0),
            Ttl::Never => (1, 0),
            Ttl::AfterMs(ms) => (2, ms),
            Ttl::AtMs(ms) => (3, ms),
            Ttl::Keep => (4, 0),
        };
        let key = self.key();
        let mut head = [0; WRITE_OP_HEAD_BYTES];
        head[0] = op;
        head[1] = condition;
        head[2] = ttl;
        head[4..8].copy_from_slice(&(key.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&version.to_le_bytes());
        head[16..24].copy_from_slice(&ttl_ms.to_le_bytes());
        head[24..].copy_from_slice(&argument.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<WriteOp<'a>, WireError> {
        let op = reader.u8()?;
        let condition = reader.u8()?;
        let ttl = reader.u8()?;
        reader.reserved::<1>()?;
        let key_length = reader.u32()?;
        let version = reader.u64()?;
        let ttl_ms = reader.u64()?;
        let argument = reader.u64()?;
        let condition = match (condition, version) {
            (0, 0) => Condition::None,
            (1, 0) => Condition::Absent,
            (2, 0) => Condition::Present,
            (3, version) => Condition::Version(version),
            _ => {
                return Err(WireError::Malformed {
                    what: "a condition is not known, or has a version without asking for one",
                });
            }
        };
        let ttl = match (ttl, ttl_ms) {
            (0, 0) => Ttl::Default,
            (1, 0) => Ttl::Never,
            (2, ms) => Ttl::AfterMs(ms),
            (3, ms) => Ttl::AtMs(ms),
            (4, 0) => Ttl::Keep,
            _ => {
                return Err(WireError::Malformed {
                    what: "a kind of expiry is not known, or has a time without asking for one",
                });
            }
        };
        let key = reader.key(key_length)?;
        match (op, argument) {
            (PUT, length) => {
                check_value_length(length)?;
                Ok(WriteOp::Put {
                    key,
                    value: reader.bytes(length as usize)?,
                    ttl,
                    condition,
                })
            }
            (DELETE, 0) if ttl == Ttl::Default => Ok(WriteOp::Delete { key, condition }),
            (INCREMENT, by) => Ok(WriteOp::Increment {
                key,
                by: by as i64,
                ttl,
                condition,
            }),
            (TOUCH, 0) => Ok(WriteOp::Touch {
                key,
                ttl,
                condition,
            }),
            _ => Err(WireError::Malformed {
                what: "a write's operation is not known, or has an argument it does not take",
            }),
        }
    }
}

fn check_value_length(length: u64) -> Result<(), WireError> {
    if length > u64::from(VALUE_BYTES_MAX) {
        return Err(WireError::OverLimit {
            what: "a value",
            length,
            limit: u64::from(VALUE_BYTES_MAX),
        });
    }
    Ok(())
}

/// Whether a key may be sent: 1 to [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX) bytes.
///
/// # Errors
/// [`WireError::Malformed`] for an empty key, [`WireError::OverLimit`] for one too long.
pub fn check_key(key: &[u8]) -> Result<(), WireError> {
    check_key_length(u32::try_from(key.len()).unwrap_or(u32::MAX))
}

impl<'a> WriteOps<'a> {
    /// Their length on the wire, in bytes.
    pub fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The writes, in order.
    pub fn iter(&self) -> WriteOpsIter<'a> {
        WriteOpsIter(Reader::new(self.bytes))
    }

    pub(crate) fn read(reader: &mut Reader<'a>, count: usize) -> Result<WriteOps<'a>, WireError> {
        let all = reader.rest();
        for _ in 0..count {
            WriteOp::read(reader)?;
        }
        Ok(WriteOps {
            count: count as u32,
            bytes: &all[..all.len() - reader.rest().len()],
        })
    }
}

impl<'a> IntoIterator for WriteOps<'a> {
    type Item = WriteOp<'a>;
    type IntoIter = WriteOpsIter<'a>;

    fn into_iter(self) -> WriteOpsIter<'a> {
        self.iter()
    }
}

/// The writes of a [`WriteOps`], in order.
pub struct WriteOpsIter<'a>(Reader<'a>);

impl<'a> Iterator for WriteOpsIter<'a> {
    type Item = WriteOp<'a>;

    fn next(&mut self) -> Option<WriteOp<'a>> {
        if self.0.rest().is_empty() {
            return None;
        }
        WriteOp::read(&mut self.0).ok()
    }
}

/// Builds a [`Tokens`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokensBuf(Vec<u8>);

impl TokensBuf {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, token: Token) {
        self.0.extend_from_slice(&token.to_wire());
    }

    /// Empties it and keeps its room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What a request takes.
    pub fn as_tokens(&self) -> Tokens<'_> {
        Tokens(&self.0)
    }
}

impl FromIterator<Token> for TokensBuf {
    fn from_iter<I: IntoIterator<Item = Token>>(tokens: I) -> Self {
        let mut buf = TokensBuf::new();
        tokens.into_iter().for_each(|token| buf.push(token));
        buf
    }
}

/// Builds a [`Keys`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysBuf {
    count: u32,
    bytes: Vec<u8>,
}

impl KeysBuf {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// As [`check_key`]; nothing is added then.
    pub fn push(&mut self, key: &[u8]) -> Result<(), WireError> {
        check_key(key)?;
        self.count += 1;
        self.bytes
            .extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        Ok(())
    }

    /// Empties it and keeps its room.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }

    /// What a request takes.
    pub fn as_keys(&self) -> Keys<'_> {
        Keys {
            count: self.count,
            bytes: &self.bytes,
        }
    }
}

/// Builds a [`WriteOps`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOpsBuf {
    count: u32,
    bytes: Vec<u8>,
}

impl WriteOpsBuf {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for an empty key, [`WireError::OverLimit`] for a key or value over
    /// the protocol's limits; nothing is added then.
    pub fn push(&mut self, op: &WriteOp<'_>) -> Result<(), WireError> {
        op.check()?;
        self.count += 1;
        op.write(&mut self.bytes);
        Ok(())
    }

    /// Empties it and keeps its room.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their length on the wire, in bytes.
    pub fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What a request takes.
    pub fn as_ops(&self) -> WriteOps<'_> {
        WriteOps {
            count: self.count,
            bytes: &self.bytes,
        }
    }
}
