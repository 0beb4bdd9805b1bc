//! Answers: to a connection of this core, to a gather, or to the core that asked.

use ringbolt_engine::entry::{KeyspaceId, LogId};
use ringbolt_engine::env::Env;
use ringbolt_engine::error::EngineError;
use ringbolt_engine::row::RowMeta;
use ringbolt_wire::message::{ErrorCode, ErrorReply, Meta, PartitionId, Response, Token};
use ringbolt_wire::{Kind, codec, frame};

use super::counters::add;
use super::mail::{Origin, Ticket};
use super::peers::PeerId;
use super::trace::{Note, Outcome, SlowHere};
use super::{Inner, micros};

/// How long a client with too many replies waiting should wait, in milliseconds.
const BACKLOG_RETRY_MS: u32 = 100;

/// A typed refusal, before it is a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) retry_after_ms: u32,
    pub(super) detail: u64,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, detail: u64, message: impl Into<String>) -> Self {
        Self {
            code,
            retry_after_ms: 0,
            detail,
            message: message.into(),
        }
    }

    pub(super) fn retry(code: ErrorCode, retry_after_ms: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            retry_after_ms,
            detail: 0,
            message: message.into(),
        }
    }
}

impl From<&ErrorReply<'_>> for Refusal {
    fn from(reply: &ErrorReply<'_>) -> Self {
        Self {
            code: reply.code,
            retry_after_ms: reply.retry_after_ms,
            detail: reply.detail,
            message: reply.message.to_owned(),
        }
    }
}

/// A request's time ran out before anything was done.
pub(super) fn late() -> Refusal {
    let message = "the deadline passed before the request could be served: nothing was done";
    Refusal::new(ErrorCode::DeadlineExceeded, 0, message)
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Corrupt { .. } | EngineError::WrongFormat { .. } => {
                Self::new(ErrorCode::Corrupt, 0, message)
            }
            EngineError::NoSpace(_) => Self::retry(ErrorCode::NoSpace, 1000, message),
            EngineError::Invalid(_) => Self::new(ErrorCode::BadRequest, 0, message),
            EngineError::Busy(_) | EngineError::Gone(_) => {
                Self::retry(ErrorCode::Overloaded, 10, message)
            }
            EngineError::Deadline => Self::new(ErrorCode::DeadlineExceeded, 0, message),
            EngineError::Disk(_) | EngineError::Closed => {
                Self::new(ErrorCode::ShardFailed, 0, message)
            }
        }
    }
}

/// Whether a reply brings stored data, so that asking again does no harm. An answer to a write, of
/// whatever size, must be given: it says what was done.
pub(super) fn carries_data(reply: &[u8]) -> bool {
    const DATA: [u8; 3] = [Kind::Value as u8, Kind::Values as u8, Kind::Rows as u8];
    frame::open(reply).is_ok_and(|view| DATA.contains(&view.kind))
}

/// Answers a read whose reply would go beyond what may wait on one connection.
fn encode_backlogged(out: &mut Vec<u8>, request_id: u64, limit: usize) {
    codec::encode_error(
        out,
        request_id,
        &ErrorReply {
            code: ErrorCode::Overloaded,
            retry_after_ms: BACKLOG_RETRY_MS,
            detail: limit as u64,
            message: "too many bytes of replies wait on this connection: read them, and have \
                      fewer large reads under way",
        },
    );
}

/// A token as the wire has it.
pub(super) fn token(partition: PartitionId, id: LogId) -> Token {
    Token {
        partition,
        term: id.term,
        index: id.index,
    }
}

/// A record's description as the wire has it.
pub(super) fn meta(row: &RowMeta) -> Meta {
    Meta {
        version: row.version,
        updated_ms: row.updated_ms,
        created_ms: row.created_ms,
        expires_ms: row.expires_ms,
    }
}

impl<E: Env> Inner<E> {
    /// Gives an answer to whoever asked. `encode` appends one whole frame.
    pub(super) fn reply(&self, origin: &Origin, encode: impl FnOnce(&mut Vec<u8>)) {
        if origin.core == self.config.core {
            return self.deliver(origin, encode);
        }
        let mut origin = *origin;
        let slow = self.sends_back(&mut origin);
        let mut outcome = Outcome::Ok;
        self.parcels.borrow_mut()[usize::from(origin.core)].reply(origin, |out| {
            let start = out.len();
            encode(out);
            outcome = Outcome::of_reply(&out[start..]);
        });
        if let Some(slow) = slow {
            self.account.leave(slow, outcome, origin.cost, None);
        }
    }

    /// A request is answered that another core or node took up: what it leaves here if it is slow.
    fn sends_back(&self, origin: &mut Origin) -> Option<SlowHere> {
        let clock = self.clock.get();
        let has_record = matches!(origin.ticket, Ticket::Session(_) | Ticket::Peer { .. });
        let at = (clock.us, clock.wall_ms, micros(self.env.background()));
        self.account.sends_back(&mut origin.trace, has_record, at)
    }

    /// Whether a request that is about to be answered leaves a record.
    pub(super) fn is_slow(&self, origin: &Origin) -> bool {
        self.account.is_slow(&origin.trace, self.clock.get().us)
            && matches!(origin.ticket, Ticket::Session(_) | Ticket::Peer { .. })
    }

    /// Says which key a request is about that is answered next, if it is slow.
    pub(super) fn note_key(
        &self,
        origin: &Origin,
        partition: PartitionId,
        keyspace: KeyspaceId,
        key: &[u8],
    ) {
        if self.is_slow(origin) {
            self.account.note(Note::of_key(partition, keyspace, key));
        }
    }

    /// Gives an answer to a connection or gather of this core.
    pub(super) fn deliver(&self, origin: &Origin, encode: impl FnOnce(&mut Vec<u8>)) {
        match origin.ticket {
            Ticket::Session(key) => {
                self.release(origin.cost as usize);
                if let Some(session) = self.sessions.borrow_mut().touch(key) {
                    session.inflight = session.inflight.saturating_sub(1);
                    session.inflight_bytes =
                        session.inflight_bytes.saturating_sub(origin.cost as usize);
                    if session.backlog() == 0 {
                        session.sent = self.clock.get().now;
                    }
                    if session.resp.is_some() {
                        return self.answered(session, origin, encode);
                    }
                    let limit = self.config.limits.backlog_bytes_max();
                    let start = session.out.len();
                    encode(&mut session.out);
                    if session.backlog() > limit && carries_data(&session.out[start..]) {
                        session.out.truncate(start);
                        add(&self.counters.overloaded_total, 1);
                        encode_backlogged(&mut session.out, origin.request_id, limit);
                    }
                    let outcome = Outcome::of_reply(&session.out[start..]);
                    self.account.answered(&origin.trace, outcome, origin.cost);
                }
            }
            Ticket::Gather { key, part } => {
                let mut bytes = Vec::new();
                encode(&mut bytes);
                self.gathers.borrow_mut().part(key, part, bytes);
            }
            Ticket::Peer { node, core, id } => {
                self.release(origin.cost as usize);
                let mut origin = *origin;
                let slow = self.sends_back(&mut origin);
                let mut outcome = Outcome::Ok;
                self.answer_forwarded(PeerId { node, core }, id, |out| {
                    let start = out.len();
                    encode(out);
                    outcome = Outcome::of_reply(&out[start..]);
                });
                if let Some(slow) = slow {
                    self.account.leave(slow, outcome, origin.cost, Some(node));
                }
            }
            Ticket::None => {}
        }
    }

    /// Gives back a request's share of the shard's budget of bytes in flight.
    pub(super) fn release(&self, bytes: usize) {
        self.inflight_bytes
            .set(self.inflight_bytes.get().saturating_sub(bytes));
    }

    pub(super) fn answer(&self, origin: &Origin, response: &Response<'_>) {
        self.reply(origin, |out| response.encode(origin.request_id, out));
    }

    pub(super) fn fail(
        &self,
        origin: &Origin,
        code: ErrorCode,
        retry_after_ms: u32,
        detail: u64,
        message: &str,
    ) {
        add(&self.counters.errors_total, 1);
        let error = ErrorReply {
            code,
            retry_after_ms,
            detail,
            message,
        };
        self.reply(origin, |out| {
            codec::encode_error(out, origin.request_id, &error);
        });
    }

    pub(super) fn refuse(&self, origin: &Origin, refusal: &Refusal) {
        if refusal.code == ErrorCode::Corrupt {
            self.config.cluster.note_damage(&refusal.message);
        }
        self.fail(
            origin,
            refusal.code,
            refusal.retry_after_ms,
            refusal.detail,
            &refusal.message,
        );
    }

    /// Answers that a request's time ran out before anything was done.
    pub(super) fn too_late(&self, origin: &Origin) {
        self.refuse(origin, &late());
    }
}
