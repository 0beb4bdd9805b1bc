use super::request::check_flags;
use super::rows::{ABSENT, ROW_HEAD_BYTES, RowsBuilder, VALUE_HEAD_BYTES, ValuesBuilder};
use super::status::{read_status, write_status};
use super::topology::{read_topology, write_topology};
use crate::frame::{self, FrameView, HEADER_BYTES};
use crate::list::{TOKEN_BYTES, read_token};
use crate::message::{
    ErrorCode, ErrorReply, Keyspace, KeyspaceOptions, Limits, Meta, Response, Token, Topology,
};
use crate::read::Reader;
use crate::{Kind, WireError};

/// Longest text in a response, in bytes: what is longer is cut.
const TEXT_BYTES_MAX: usize = 1024;
/// Length of a batch's result for one write, in bytes.
const COUNTER_BYTES: usize = 9;

pub(super) fn meta_bytes(meta: &Meta) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&meta.version.to_le_bytes());
    bytes[8..16].copy_from_slice(&meta.updated_ms.to_le_bytes());
    bytes[16..24].copy_from_slice(&meta.created_ms.to_le_bytes());
    bytes[24..].copy_from_slice(&meta.expires_ms.to_le_bytes());
    bytes
}

fn read_meta(body: &mut Reader<'_>) -> Result<Meta, WireError> {
    Ok(Meta {
        version: body.u64()?,
        updated_ms: body.u64()?,
        created_ms: body.u64()?,
        expires_ms: body.u64()?,
    })
}

/// Ends a response. One too long for a frame to say (a server's own limits are far below) is
/// replaced by the error that says so.
pub(crate) fn finish(out: &mut Vec<u8>, start: usize, request_id: u64) {
    if let Err(error) = frame::finish(out, start) {
        encode_wire_error(out, request_id, &error);
    }
}

/// Appends a response whose body is of fixed length.
fn encode_fixed<const N: usize>(out: &mut Vec<u8>, kind: Kind, request_id: u64, body: [u8; N]) {
    let start = out.len();
    out.reserve(HEADER_BYTES + N);
    out.extend_from_slice(&frame::header(kind as u8, request_id, 0));
    out.extend_from_slice(&body);
    finish(out, start, request_id);
}

/// Appends a [`Response::Done`].
pub fn encode_done(out: &mut Vec<u8>, request_id: u64) {
    encode_fixed(out, Kind::Done, request_id, []);
}

/// Appends a [`Response::NotFound`].
pub fn encode_not_found(out: &mut Vec<u8>, request_id: u64, token: Token) {
    encode_fixed(out, Kind::NotFound, request_id, token.to_wire());
}

/// Appends a [`Response::Value`].
pub fn encode_value(out: &mut Vec<u8>, request_id: u64, token: Token, meta: &Meta, value: &[u8]) {
    let start = out.len();
    let mut head = [0; HEADER_BYTES + 54];
    head[..24].copy_from_slice(&frame::header(Kind::Value as u8, request_id, 0));
    head[24..42].copy_from_slice(&token.to_wire());
    head[42..74].copy_from_slice(&meta_bytes(meta));
    head[74..].copy_from_slice(&(value.len() as u32).to_le_bytes());
    out.reserve(head.len() + value.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(value);
    finish(out, start, request_id);
}

/// Appends a [`Response::Stat`].
pub fn encode_stat(
    out: &mut Vec<u8>,
    request_id: u64,
    token: Token,
    meta: &Meta,
    value_bytes: u64,
) {
    let mut body = [0; 58];
    body[..18].copy_from_slice(&token.to_wire());
    body[18..50].copy_from_slice(&meta_bytes(meta));
    body[50..].copy_from_slice(&value_bytes.to_le_bytes());
    encode_fixed(out, Kind::StatIs, request_id, body);
}

/// Appends a [`Response::Written`].
pub fn encode_written(out: &mut Vec<u8>, request_id: u64, token: Token, existed: Option<bool>) {
    let mut body = [0; 19];
    body[..18].copy_from_slice(&token.to_wire());
    body[18] = match existed {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    };
    encode_fixed(out, Kind::Written, request_id, body);
}

/// Appends a [`Response::Counter`].
pub fn encode_counter(out: &mut Vec<u8>, request_id: u64, token: Token, value: i64) {
    let mut body = [0; 26];
    body[..18].copy_from_slice(&token.to_wire());
    body[18..].copy_from_slice(&value.to_le_bytes());
    encode_fixed(out, Kind::Counter, request_id, body);
}

/// Appends a [`Response::BatchWritten`] with, for each write in order, the new number if it was an
/// increment.
pub fn encode_batch_written(
    out: &mut Vec<u8>,
    request_id: u64,
    token: Token,
    counters: impl IntoIterator<Item = Option<i64>>,
) {
    let start = frame::begin(out, Kind::BatchWritten as u8, request_id, 0);
    out.extend_from_slice(&token.to_wire());
    let count_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for counter in counters {
        let mut bytes = [0; COUNTER_BYTES];
        if let Some(value) = counter {
            bytes[0] = 1;
            bytes[1..].copy_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&bytes);
        count += 1;
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    finish(out, start, request_id);
}

/// Appends a [`Response::Topology`].
pub fn encode_topology(out: &mut Vec<u8>, request_id: u64, topology: &Topology) {
    let start = frame::begin(out, Kind::TopologyIs as u8, request_id, 0);
    write_topology(out, topology);
    finish(out, start, request_id);
}

/// Appends a [`Response::Error`]. A message over 1024 bytes is cut.
pub fn encode_error(out: &mut Vec<u8>, request_id: u64, error: &ErrorReply<'_>) {
    let message = cut(error.message);
    let start = out.len();
    let mut head = [0; HEADER_BYTES + 16];
    head[..24].copy_from_slice(&frame::header(Kind::Error as u8, request_id, 0));
    head[24..26].copy_from_slice(&(error.code as u16).to_le_bytes());
    head[26..28].copy_from_slice(&(message.len() as u16).to_le_bytes());
    head[28..32].copy_from_slice(&error.retry_after_ms.to_le_bytes());
    head[32..].copy_from_slice(&error.detail.to_le_bytes());
    out.reserve(head.len() + message.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(message.as_bytes());
    finish(out, start, request_id);
}

/// The kind of a reply frame that was just encoded, and if it is an error the class of its code: the
/// high byte of [`ErrorCode`](crate::message::ErrorCode). Nothing of it is checked.
#[must_use]
pub fn outcome_of(reply: &[u8]) -> (u8, u8) {
    let at = |place: usize| reply.get(place).copied().unwrap_or_default();
    (at(frame::KIND_AT), at(HEADER_BYTES + 1))
}

/// Appends the [`Response::Error`] that answers bytes which are no message. After a fatal error
/// the request id is not to be believed: give 0.
pub fn encode_wire_error(out: &mut Vec<u8>, request_id: u64, error: &WireError) {
    encode_error(
        out,
        request_id,
        &ErrorReply {
            code: error.code(),
            retry_after_ms: 0,
            detail: error.detail(),
            message: &error.to_string(),
        },
    );
}

/// A text as long as fits.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    let text = cut(text);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn read_text<'a>(body: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let length = usize::from(body.u16()?);
    body.text(length)
}

fn read_tokens(body: &mut Reader<'_>, count: usize) -> Result<Vec<Token>, WireError> {
    body.check_count(count, TOKEN_BYTES)?;
    (0..count).map(|_| read_token(body)).collect()
}

impl<'a> Response<'a> {
    /// The kind of frame that carries it.
    pub fn kind(&self) -> Kind {
        match self {
            Response::Welcome { .. } => Kind::Welcome,
            Response::Done => Kind::Done,
            Response::Topology(_) => Kind::TopologyIs,
            Response::Stats(_) => Kind::StatsAre,
            Response::Status(_) => Kind::StatusIs,
            Response::NotFound { .. } => Kind::NotFound,
            Response::Value { .. } => Kind::Value,
            Response::Stat { .. } => Kind::StatIs,
            Response::Values { .. } => Kind::Values,
            Response::Written { .. } => Kind::Written,
            Response::Counter { .. } => Kind::Counter,
            Response::BatchWritten { .. } => Kind::BatchWritten,
            Response::Rows { .. } => Kind::Rows,
            Response::Keyspaces(_) => Kind::Keyspaces,
            Response::Error(_) => Kind::Error,
        }
    }

    /// Appends the response to `out` as one frame. The encoders of this module do the same without
    /// a `Response` being built first.
    ///
    /// Texts over 1024 bytes are cut. A response over 4 GiB is replaced by a `TooLarge`.
    pub fn encode(&self, request_id: u64, out: &mut Vec<u8>) {
        match self {
            Response::Done => encode_done(out, request_id),
            Response::Topology(topology) => encode_topology(out, request_id, topology),
            Response::NotFound { token } => encode_not_found(out, request_id, *token),
            Response::Value { token, meta, value } => {
                encode_value(out, request_id, *token, meta, value);
            }
            Response::Stat {
                token,
                meta,
                value_bytes,
            } => encode_stat(out, request_id, *token, meta, *value_bytes),
            Response::Written { token, existed } => {
                encode_written(out, request_id, *token, *existed);
            }
            Response::Counter { token, value } => encode_counter(out, request_id, *token, *value),
            Response::BatchWritten { token, counters } => {
                encode_batch_written(out, request_id, *token, counters.iter().copied());
            }
            Response::Error(error) => encode_error(out, request_id, error),
            Response::Values { tokens, values } => {
                let mut builder = ValuesBuilder::begin(out, request_id);
                for value in values {
                    match value {
                        Some((meta, value)) => builder.push(out, meta, value),
                        None => builder.push_absent(out),
                    }
                }
                builder.finish(out, tokens.iter().copied());
            }
            Response::Rows {
                tokens,
                rows,
                cursor,
            } => {
                let mut builder = RowsBuilder::begin(out, request_id);
                for (key, meta, value) in rows {
                    builder.push(out, key, meta, value);
                }
                builder.finish(out, tokens.iter().copied(), cursor);
            }
            Response::Welcome {
                version,
                core,
                server,
                limits,
                topology,
            } => {
                let start = frame::begin(out, Kind::Welcome as u8, request_id, 0);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&core.to_le_bytes());
                for limit in [
                    limits.key_bytes_max,
                    limits.value_bytes_max,
                    limits.frame_bytes_max,
                    limits.inflight_requests_max,
                    limits.scan_rows_max,
                ] {
                    out.extend_from_slice(&limit.to_le_bytes());
                }
                write_text(out, server);
                write_topology(out, topology);
                finish(out, start, request_id);
            }
            Response::Status(status) => {
                let start = frame::begin(out, Kind::StatusIs as u8, request_id, 0);
                write_status(out, status);
                finish(out, start, request_id);
            }
            Response::Stats(stats) => {
                let start = frame::begin(out, Kind::StatsAre as u8, request_id, 0);
                out.extend_from_slice(&(stats.len() as u32).to_le_bytes());
                for (name, number) in stats {
                    write_text(out, name);
                    out.extend_from_slice(&number.to_le_bytes());
                }
                finish(out, start, request_id);
            }
            Response::Keyspaces(keyspaces) => {
                let start = frame::begin(out, Kind::Keyspaces as u8, request_id, 0);
                out.extend_from_slice(&(keyspaces.len() as u32).to_le_bytes());
                for keyspace in keyspaces {
                    out.extend_from_slice(&keyspace.id.to_le_bytes());
                    out.extend_from_slice(&keyspace.options.default_ttl_ms.to_le_bytes());
                    write_text(out, &keyspace.name);
                }
                finish(out, start, request_id);
            }
        }
    }

    /// Understands a response. User data is borrowed from the frame; lists are allocated, at most
    /// seven times the frame's length in all.
    ///
    /// # Errors
    /// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`],
    /// [`WireError::Malformed`], [`WireError::OverLimit`].
    pub fn decode(frame: &FrameView<'a>) -> Result<Response<'a>, WireError> {
        check_flags(frame)?;
        let mut body = Reader::new(frame.body);
        let response = match Kind::from_u8(frame.kind)? {
            Kind::Error => Response::Error(read_error(&mut body)?),
            Kind::Welcome => read_welcome(&mut body)?,
            Kind::Done => Response::Done,
            Kind::TopologyIs => Response::Topology(read_topology(&mut body)?),
            Kind::StatusIs => Response::Status(read_status(&mut body)?),
            Kind::StatsAre => {
                let count = body.count(10)?;
                let mut stats = Vec::with_capacity(count);
                for _ in 0..count {
                    stats.push((read_text(&mut body)?.to_owned(), body.u64()?));
                }
                Response::Stats(stats)
            }
            Kind::NotFound => Response::NotFound {
                token: read_token(&mut body)?,
            },
            Kind::Value => {
                let token = read_token(&mut body)?;
                let meta = read_meta(&mut body)?;
                let length = body.u32()? as usize;
                Response::Value {
                    token,
                    meta,
                    value: body.bytes(length)?,
                }
            }
            Kind::StatIs => Response::Stat {
                token: read_token(&mut body)?,
                meta: read_meta(&mut body)?,
                value_bytes: body.u64()?,
            },
            Kind::Values => read_values(&mut body)?,
            Kind::Rows => read_rows(&mut body)?,
            Kind::Written => Response::Written {
                token: read_token(&mut body)?,
                existed: match body.u8()? {
                    0 => None,
                    1 => Some(false),
                    2 => Some(true),
                    _ => {
                        return Err(WireError::Malformed {
                            what: "whether the key existed is neither 0, 1 nor 2",
                        });
                    }
                },
            },
            Kind::Counter => Response::Counter {
                token: read_token(&mut body)?,
                value: body.i64()?,
            },
            Kind::BatchWritten => read_batch_written(&mut body)?,
            Kind::Keyspaces => {
                let count = body.count(14)?;
                let mut keyspaces = Vec::with_capacity(count);
                for _ in 0..count {
                    let id = body.u32()?;
                    let default_ttl_ms = body.u64()?;
                    keyspaces.push(Keyspace {
                        id,
                        name: read_text(&mut body)?.to_owned(),
                        options: KeyspaceOptions { default_ttl_ms },
                    });
                }
                Response::Keyspaces(keyspaces)
            }
            _ => return Err(WireError::UnknownKind { kind: frame.kind }),
        };
        body.end()?;
        Ok(response)
    }
}

fn read_error<'a>(body: &mut Reader<'a>) -> Result<ErrorReply<'a>, WireError> {
    let code = ErrorCode::from_u16(body.u16()?);
    let message_length = usize::from(body.u16()?);
    Ok(ErrorReply {
        code,
        retry_after_ms: body.u32()?,
        detail: body.u64()?,
        message: body.text(message_length)?,
    })
}

fn read_welcome<'a>(body: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    Ok(Response::Welcome {
        version: body.u16()?,
        core: body.u16()?,
        limits: Limits {
            key_bytes_max: body.u32()?,
            value_bytes_max: body.u32()?,
            frame_bytes_max: body.u32()?,
            inflight_requests_max: body.u32()?,
            scan_rows_max: body.u32()?,
        },
        server: read_text(body)?,
        topology: read_topology(body)?,
    })
}

fn read_values<'a>(body: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    let count = body.u32()? as usize;
    let token_count = body.u32()? as usize;
    body.check_count(count, VALUE_HEAD_BYTES)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let length = body.u32()?;
        let meta = read_meta(body)?;
        values.push(if length != ABSENT {
            Some((meta, body.bytes(length as usize)?))
        } else if meta == Meta::default() {
            None
        } else {
            return Err(WireError::Malformed {
                what: "a value that does not exist has a version or times",
            });
        });
    }
    Ok(Response::Values {
        tokens: read_tokens(body, token_count)?,
        values,
    })
}

fn read_rows<'a>(body: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    let count = body.u32()? as usize;
    let token_count = body.u32()? as usize;
    let cursor_length = body.u32()? as usize;
    body.check_count(count, ROW_HEAD_BYTES)?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let key_length = body.u32()? as usize;
        let value_length = body.u32()? as usize;
        let meta = read_meta(body)?;
        let key = body.bytes(key_length)?;
        rows.push((key, meta, body.bytes(value_length)?));
    }
    Ok(Response::Rows {
        tokens: read_tokens(body, token_count)?,
        rows,
        cursor: body.bytes(cursor_length)?,
    })
}

fn read_batch_written<'a>(body: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    let token = read_token(body)?;
    let count = body.count(COUNTER_BYTES)?;
    let mut counters = Vec::with_capacity(count);
    for _ in 0..count {
        counters.push(match (body.u8()?, body.i64()?) {
            (0, 0) => None,
            (1, value) => Some(value),
            _ => {
                return Err(WireError::Malformed {
                    what: "a batch's result is neither a number nor none",
                });
            }
        });
    }
    Ok(Response::BatchWritten { token, counters })
}
