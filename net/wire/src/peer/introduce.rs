//! How nodes meet before they share a cluster: one asks, the other says who it is.
//!
//! The question is the first and only frame of its connection. A node that has lost its data adds a
//! [`Claim`]. What the answer holds is the nodes' affair: here it is bytes of a version.

use super::PEER_VERSION;
use crate::frame::{self, FrameView};
use crate::read::Reader;
use crate::{Kind, WireError};

/// What the question begins with, so that a client's first frame is never taken for it.
const MAGIC: [u8; 4] = *b"RGBI";
/// Largest `Introduced`, in bytes, header included.
pub const INTRODUCED_BYTES_MAX: u32 = (5 << 20) + 4096;

/// Longest text of a [`Claim`], in bytes.
pub const CLAIM_BYTES_MAX: usize = 64;

/// What a node says that the cluster knows with another data folder: it asks to be taken in under new
/// replica ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Its name, at most [`CLAIM_BYTES_MAX`] bytes, not empty.
    pub name: &'a str,
    /// The identity of the folder that it has now, likewise.
    pub folder: &'a str,
}

/// Appends the question as one frame.
///
/// # Errors
/// [`WireError::OverLimit`] for a text of a claim that is empty or too long; `out` is then as it was.
pub fn encode_introduce(
    request_id: u64,
    claim: Option<Claim<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let texts = claim.map(|claim| [claim.name, claim.folder]);
    for text in texts.iter().flatten() {
        if !(1..=CLAIM_BYTES_MAX).contains(&text.len()) {
            return Err(WireError::OverLimit {
                what: "a text of a claim",
                length: text.len() as u64,
                limit: CLAIM_BYTES_MAX as u64,
            });
        }
    }
    let start = frame::begin(out, Kind::Introduce as u8, request_id, 0);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&PEER_VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    for text in texts.iter().flatten() {
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }
    frame::finish(out, start)
}

/// Understands the question: the version that the asking node speaks, which may be another, and what
/// it claims.
///
/// # Errors
/// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`],
/// [`WireError::Malformed`].
pub fn decode_introduce<'a>(frame: &FrameView<'a>) -> Result<(u16, Option<Claim<'a>>), WireError> {
    super::item::check(frame, Kind::Introduce)?;
    let mut body = Reader::new(frame.body);
    if body.array::<4>()? != &MAGIC {
        return Err(WireError::Malformed {
            what: "an Introduce does not begin with RGBI",
        });
    }
    let version = body.u16()?;
    body.reserved::<2>()?;
    if version != PEER_VERSION || body.rest().is_empty() {
        return Ok((version, None));
    }
    let claim = Claim {
        name: read_text(&mut body)?,
        folder: read_text(&mut body)?,
    };
    body.end()?;
    Ok((version, Some(claim)))
}

fn read_text<'a>(body: &mut Reader<'a>) -> Result<&'a str, WireError> {
    match usize::from(body.u8()?) {
        length @ 1..=CLAIM_BYTES_MAX => body.text(length),
        _ => Err(WireError::Malformed {
            what: "a text of a claim is empty or too long",
        }),
    }
}

/// Appends the answer as one frame.
///
/// # Errors
/// [`WireError::OverLimit`] if it is over [`INTRODUCED_BYTES_MAX`]; `out` is then as it was.
pub fn encode_introduced(
    request_id: u64,
    answer: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let most = INTRODUCED_BYTES_MAX as usize - frame::HEADER_BYTES - 4;
    if answer.len() > most {
        return Err(WireError::OverLimit {
            what: "an answer to Introduce",
            length: answer.len() as u64,
            limit: most as u64,
        });
    }
    let start = frame::begin(out, Kind::Introduced as u8, request_id, 0);
    out.extend_from_slice(&PEER_VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(answer);
    frame::finish(out, start)
}

/// Understands the answer: what the other node says of itself.
///
/// # Errors
/// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`],
/// [`WireError::Malformed`], for another version too.
pub fn decode_introduced<'a>(frame: &FrameView<'a>) -> Result<&'a [u8], WireError> {
    super::item::check(frame, Kind::Introduced)?;
    let mut body = Reader::new(frame.body);
    let version = body.u16()?;
    body.reserved::<2>()?;
    if version != PEER_VERSION {
        return Err(WireError::Malformed {
            what: "an Introduced is of another version",
        });
    }
    Ok(body.rest())
}
