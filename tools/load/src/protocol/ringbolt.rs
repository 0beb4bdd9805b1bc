//! Ringbolt's own protocol, through the codec that the server uses.

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{
    Ack, Condition, ErrorCode, ErrorReply, KeyspaceId, ReadOptions, Request, Response, Scan, Ttl,
    WriteOp, WriteOptions,
};

use super::{Command, Decoded, Effect, Failure, ProtocolError, Reply};

/// The protocol, once the handshake is done.
#[derive(Debug, Clone)]
pub struct RingboltCodec {
    /// Which keyspace requests go to.
    pub keyspace: KeyspaceId,
    /// When writes are acknowledged.
    pub ack: Ack,
    /// How long the server may take, in milliseconds.
    pub deadline_ms: u32,
    /// Longest frame that is waited for, in bytes.
    pub frame_bytes_max: u32,
    /// Who writes, 0 for nobody.
    pub client: u64,
    /// The number of the last write.
    pub sequence: u64,
}

impl RingboltCodec {
    /// Appends one request.
    ///
    /// # Errors
    /// For a key or value over the protocol's limits.
    pub fn encode(
        &mut self,
        id: u64,
        command: &Command<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let keyspace = self.keyspace;
        let read = ReadOptions::default();
        let request = match *command {
            Command::Get { key } => Request::Get {
                keyspace,
                read,
                key,
            },
            Command::Put { key, value } => self.write(WriteOp::Put {
                key,
                value,
                ttl: Ttl::Default,
                condition: Condition::None,
            }),
            Command::Delete { key } => self.write(WriteOp::Delete {
                key,
                condition: Condition::None,
            }),
            Command::Scan {
                start,
                prefix,
                rows,
            } => Request::Scan(Scan {
                keyspace,
                read,
                prefix,
                start,
                end: b"",
                reverse: false,
                keys_only: false,
                limit: rows,
                cursor: b"",
            }),
        };
        request
            .encode(id, self.deadline_ms, out)
            .map_err(|error| ProtocolError(error.to_string()))
    }

    fn write<'a>(&mut self, op: WriteOp<'a>) -> Request<'a> {
        if self.client != 0 {
            self.sequence += 1;
        }
        Request::Write {
            keyspace: self.keyspace,
            options: WriteOptions {
                ack: self.ack,
                client: self.client,
                sequence: self.sequence,
                retry: false,
            },
            op,
        }
    }

    /// The first reply in `bytes`; `None` if it is not whole yet.
    ///
    /// # Errors
    /// If `bytes` are no frame, or one that answers no request of ours.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<Decoded<'a>>, ProtocolError> {
        let text = |error: ringbolt_wire::WireError| ProtocolError(error.to_string());
        let len = match frame::peek(bytes, self.frame_bytes_max).map_err(text)? {
            Peek::Incomplete { .. } => return Ok(None),
            Peek::Frame { len } => len,
            Peek::Oversized { len, .. } => {
                return Err(ProtocolError(format!(
                    "a frame of {len} bytes, over the limit of {} that the server itself gave",
                    self.frame_bytes_max
                )));
            }
        };
        let view = frame::open(&bytes[..len]).map_err(text)?;
        let response = Response::decode(&view).map_err(text)?;
        let reply = match response {
            Response::Value { value, .. } => Reply::Value(value),
            Response::NotFound { .. } => Reply::Absent,
            Response::Written { .. } => Reply::Written,
            Response::Rows { rows, .. } => Reply::Rows(rows.len() as u32),
            Response::Error(error) => Reply::Error(failure(&error)),
            other => {
                return Err(ProtocolError(format!(
                    "a reply that answers no request of ours: {:?}",
                    other.kind()
                )));
            }
        };
        Ok(Some(Decoded {
            bytes: len,
            id: Some(view.request_id),
            reply,
        }))
    }
}

fn failure(error: &ErrorReply<'_>) -> Failure {
    let effect = match error.code {
        ErrorCode::Overloaded | ErrorCode::NoSpace | ErrorCode::Stale | ErrorCode::Unavailable => {
            Effect::Retry {
                after_ms: error.retry_after_ms.max(1),
            }
        }
        ErrorCode::NotLeader => Effect::NotLeader {
            node: u32::try_from(error.detail).unwrap_or(0),
        },
        ErrorCode::InDoubt | ErrorCode::ShardFailed => Effect::InDoubt,
        ErrorCode::CommittedNotAll => Effect::Done,
        _ => Effect::None,
    };
    Failure {
        code: format!("{:?}", error.code).into(),
        effect,
        message: error.message.to_string(),
    }
}
