use crate::Kind;
use crate::codec::response::{finish, meta_bytes};
use crate::frame;
use crate::message::{Meta, Token};

/// In a `Values`, stands for the length of a value that does not exist.
pub(super) const ABSENT: u32 = u32::MAX;
/// Length of a `Values` item beside its value, in bytes.
pub(super) const VALUE_HEAD_BYTES: usize = 36;
/// Length of a `Rows` item beside key and value, in bytes.
pub(super) const ROW_HEAD_BYTES: usize = 40;

/// Writes a [`Response::Values`](crate::message::Response::Values) straight into the buffer it is
/// sent from, value by value, in the order of the keys asked for.
///
/// Until [`ValuesBuilder::finish`] the frame is not valid: a builder that is given up must be
/// [`abandon`](ValuesBuilder::abandon)ed. Nothing else may be appended to the buffer meanwhile.
#[derive(Debug)]
#[must_use = "a frame that is begun must be finished or abandoned"]
pub struct ValuesBuilder {
    start: usize,
    request_id: u64,
    count: u32,
}

impl ValuesBuilder {
    /// Begins the reply at the end of `out`.
    pub fn begin(out: &mut Vec<u8>, request_id: u64) -> Self {
        let start = frame::begin(out, Kind::Values as u8, request_id, 0);
        out.extend_from_slice(&[0; 8]);
        ValuesBuilder {
            start,
            request_id,
            count: 0,
        }
    }

    /// Length of the frame so far, in bytes.
    pub fn frame_bytes(&self, out: &[u8]) -> usize {
        out.len() - self.start
    }

    /// How many values there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds the next key's value.
    pub fn push(&mut self, out: &mut Vec<u8>, meta: &Meta, value: &[u8]) {
        self.push_head(out, value.len() as u32, meta);
        out.extend_from_slice(value);
    }

    /// Says that the next key does not exist.
    pub fn push_absent(&mut self, out: &mut Vec<u8>) {
        self.push_head(out, ABSENT, &Meta::default());
    }

    fn push_head(&mut self, out: &mut Vec<u8>, length: u32, meta: &Meta) {
        let mut head = [0; VALUE_HEAD_BYTES];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&meta_bytes(meta));
        out.extend_from_slice(&head);
        self.count += 1;
    }

    /// Ends the reply with what it saw of each partition.
    pub fn finish(self, out: &mut Vec<u8>, tokens: impl IntoIterator<Item = Token>) {
        let token_count = push_tokens(out, tokens);
        patch(out, self.start, [self.count, token_count]);
        finish(out, self.start, self.request_id);
    }

    /// Takes it all back: `out` is as it was before.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

/// Writes a [`Response::Rows`](crate::message::Response::Rows) straight into the buffer it is sent
/// from, row by row.
///
/// Until [`RowsBuilder::finish`] the frame is not valid: a builder that is given up must be
/// [`abandon`](RowsBuilder::abandon)ed. Nothing else may be appended to the buffer meanwhile.
#[derive(Debug)]
#[must_use = "a frame that is begun must be finished or abandoned"]
pub struct RowsBuilder {
    start: usize,
    request_id: u64,
    count: u32,
}

impl RowsBuilder {
    /// Begins the reply at the end of `out`.
    pub fn begin(out: &mut Vec<u8>, request_id: u64) -> Self {
        let start = frame::begin(out, Kind::Rows as u8, request_id, 0);
        out.extend_from_slice(&[0; 12]);
        RowsBuilder {
            start,
            request_id,
            count: 0,
        }
    }

    /// Length of the frame so far, in bytes.
    pub fn frame_bytes(&self, out: &[u8]) -> usize {
        out.len() - self.start
    }

    /// What a row would add to the frame, in bytes.
    pub fn row_bytes(key: &[u8], value: &[u8]) -> usize {
        ROW_HEAD_BYTES + key.len() + value.len()
    }

    /// How many rows there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds a row.
    pub fn push(&mut self, out: &mut Vec<u8>, key: &[u8], meta: &Meta, value: &[u8]) {
        let mut head = [0; ROW_HEAD_BYTES];
        head[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&(value.len() as u32).to_le_bytes());
        head[8..].copy_from_slice(&meta_bytes(meta));
        out.reserve(Self::row_bytes(key, value));
        out.extend_from_slice(&head);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
        self.count += 1;
    }

    /// Ends the reply with what it saw of each partition and where the next page begins (empty:
    /// there is none).
    pub fn finish(self, out: &mut Vec<u8>, tokens: impl IntoIterator<Item = Token>, cursor: &[u8]) {
        let token_count = push_tokens(out, tokens);
        out.extend_from_slice(cursor);
        patch(
            out,
            self.start,
            [self.count, token_count, cursor.len() as u32],
        );
        finish(out, self.start, self.request_id);
    }

    /// Takes it all back: `out` is as it was before.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

fn push_tokens(out: &mut Vec<u8>, tokens: impl IntoIterator<Item = Token>) -> u32 {
    let mut count = 0;
    for token in tokens {
        out.extend_from_slice(&token.to_wire());
        count += 1;
    }
    count
}

/// Fills in the numbers that the body begins with.
fn patch<const N: usize>(out: &mut [u8], start: usize, numbers: [u32; N]) {
    let body = &mut out[start + frame::HEADER_BYTES..];
    for (bytes, number) in body.chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
}
