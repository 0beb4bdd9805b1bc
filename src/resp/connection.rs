//! One client's connection: what it has chosen, and the replies it waits for, in their order.
//!
//! Commands are executed as they come, and are done in whatever order; replies leave in the order of the
//! commands. So a command whose answer is not there at once gets a *slot* in a queue, and so does every
//! reply behind it. The front of the queue goes out as far as it is done. Where nothing waits there is no
//! queue: the reply goes straight to the bytes to be sent.
//!
//! Each slot knows which keys its command touches: a later command that has to come after it waits,
//! and with it all behind it. See [`Connection::must_wait`].

use std::collections::VecDeque;
use std::time::Duration;

use ringbolt_wire::message::{ErrorReply, KEYSPACE_DEFAULT, KeyspaceId, Response, Token};

use super::command::{Look, WriteWant};
use super::render;
use super::reply::{self, Version};

/// The keys that a command touches, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keys {
    None,
    One(u64),
    Many(Box<[u64]>),
    /// Whichever: it must be alone.
    All,
}

/// How a command touches its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touches {
    pub(crate) keys: Keys,
    /// Whether its answer rests on what it has read.
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// Whether writes that are asked for later are sure to be done later.
    pub(crate) ordered: bool,
}

impl Touches {
    pub(crate) const NOTHING: Self = Self {
        keys: Keys::None,
        reads: false,
        writes: false,
        ordered: true,
    };

    pub(crate) const ALL: Self = Self {
        keys: Keys::All,
        reads: true,
        writes: true,
        ordered: false,
    };

    pub(crate) fn read(keys: Keys) -> Self {
        Self {
            keys,
            reads: true,
            writes: false,
            ordered: false,
        }
    }

    /// A write that its leader does in the order in which it was asked.
    pub(crate) fn write(keys: Keys, ordered: bool) -> Self {
        Self {
            keys,
            reads: false,
            writes: true,
            ordered,
        }
    }

    /// A read that a write follows.
    pub(crate) fn modify(keys: Keys) -> Self {
        Self {
            keys,
            reads: true,
            writes: true,
            ordered: false,
        }
    }
}

/// What the answers to a command's requests come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Look(Look),
    Write(WriteWant),
    Values,
    /// The sum of the flags of several answers.
    Sum(i64),
    /// `OK` once all of several answers have come.
    AllOk,
    /// Whatever a task gives.
    Ready,
}

#[derive(Debug)]
enum State {
    /// So many answers are missing; the first that failed is kept.
    Waiting {
        missing: u32,
        failed: Option<Vec<u8>>,
    },
    Fixed(&'static [u8]),
    Done(Vec<u8>),
}

#[derive(Debug)]
struct Slot {
    version: Version,
    want: Want,
    touches: Touches,
    state: State,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number, unique on the node while the node runs.
    pub(crate) id: u64,
    pub(crate) version: Version,
    pub(crate) database: u16,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) name: Vec<u8>,
    pub(crate) library: Vec<u8>,
    pub(crate) library_version: Vec<u8>,
    /// When it was made.
    pub(crate) since: Duration,
    /// The last command, as `CLIENT LIST` tells it.
    pub(crate) last_command: &'static str,
    /// Where its last acknowledged write stands.
    pub(crate) last_write: Option<Token>,
    /// Bytes that its input must have for the next command to be whole.
    pub(crate) need: usize,
    queue: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// Bytes of replies that wait behind others.
    held_bytes: usize,
    /// Slots that are not done: all that write, and all that later writes must wait for.
    writing: usize,
    unordered: usize,
}

impl Connection {
    pub(crate) fn new(id: u64, since: Duration) -> Self {
        Self {
            id,
            version: Version::default(),
            database: 0,
            keyspace: KEYSPACE_DEFAULT,
            name: Vec::new(),
            library: Vec::new(),
            library_version: Vec::new(),
            since,
            last_command: "NULL",
            last_write: None,
            need: 0,
            queue: VecDeque::new(),
            first: 0,
            held_bytes: 0,
            writing: 0,
            unordered: 0,
        }
    }

    /// Bytes of replies that are done and wait for those before them.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether a reply may go straight out.
    pub(crate) fn is_free(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a command that touches its keys so must wait for an earlier one: one that writes what
    /// it reads, or one after which it is not sure to come.
    pub(crate) fn must_wait(&self, touches: &Touches) -> bool {
        let may = touches.reads && self.writing > 0 || touches.writes && self.unordered > 0;
        may && self.queue.iter().any(|slot| {
            matches!(slot.state, State::Waiting { .. })
                && (touches.reads && slot.touches.writes || touches.writes && !slot.touches.ordered)
                && share(&touches.keys, &slot.touches.keys)
        })
    }

    /// The number of the slot that the next command to wait will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// Makes a slot for a command that `parts` requests are asked for; its number.
    pub(crate) fn expect(&mut self, want: Want, touches: Touches, parts: u32) -> u64 {
        let number = self.next_number();
        self.writing += usize::from(touches.writes);
        self.unordered += usize::from(!touches.ordered);
        self.queue.push_back(Slot {
            version: self.version,
            want,
            touches,
            state: State::Waiting {
                missing: parts,
                failed: None,
            },
        });
        number
    }

    /// Later writes are sure to come after this command's: its decision was made.
    pub(crate) fn set_ordered(&mut self, number: u64) {
        if let Some(slot) = slot(&mut self.queue, self.first, number)
            && !slot.touches.ordered
            && matches!(slot.state, State::Waiting { .. })
        {
            slot.touches.ordered = true;
            self.unordered -= 1;
        }
    }

    /// A reply that is there at once: behind what waits, or straight out.
    pub(crate) fn say(&mut self, out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(last) = self.queue.back_mut() else {
            return encode(out);
        };
        let (State::Done(bytes), true) = (&mut last.state, last.touches == Touches::NOTHING) else {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            self.held_bytes += bytes.len();
            self.queue.push_back(Slot {
                version: self.version,
                want: Want::Ready,
                touches: Touches::NOTHING,
                state: State::Done(bytes),
            });
            return;
        };
        let before = bytes.len();
        encode(bytes);
        self.held_bytes += bytes.len() - before;
    }

    /// An answer to one of the requests of a command.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        response: &Response<'_>,
        wall_ms: u64,
        out: &mut Vec<u8>,
    ) {
        if let Response::Written { token, .. }
        | Response::Counter { token, .. }
        | Response::BatchWritten { token, .. } = response
        {
            self.last_write = Some(*token);
        }
        let Some(slot) = slot(&mut self.queue, self.first, number) else {
            return;
        };
        let State::Waiting { missing, failed } = &mut slot.state else {
            return;
        };
        *missing = missing.saturating_sub(1);
        let is_last = *missing == 0;
        // What goes out next may go there at once.
        let is_first = number == self.first && is_last;
        match &mut slot.want {
            Want::Sum(sum) => match render::flag(response) {
                Ok(flag) => *sum += flag,
                Err(error) => fail(failed, error),
            },
            Want::AllOk => {
                if let Response::Error(error) = response {
                    fail(failed, error);
                }
            }
            want if is_first => {
                render::reply(out, *want, response, slot.version, wall_ms);
                return self.leave(out);
            }
            want => {
                let mut bytes = Vec::new();
                render::reply(&mut bytes, *want, response, slot.version, wall_ms);
                return self.done(number, State::Done(bytes), out);
            }
        }
        if !is_last {
            return;
        }
        let state = match (failed.take(), slot.want) {
            (Some(bytes), _) => State::Done(bytes),
            (None, Want::Sum(sum)) => {
                let mut bytes = Vec::new();
                reply::integer(&mut bytes, sum);
                State::Done(bytes)
            }
            (None, _) => State::Fixed(reply::OK),
        };
        self.done(number, state, out);
    }

    /// A whole reply to a command.
    pub(crate) fn complete(&mut self, number: u64, bytes: Vec<u8>, out: &mut Vec<u8>) {
        self.done(number, State::Done(bytes), out);
    }

    fn done(&mut self, number: u64, state: State, out: &mut Vec<u8>) {
        let Some(slot) = slot(&mut self.queue, self.first, number) else {
            return;
        };
        if !matches!(slot.state, State::Waiting { .. }) {
            return;
        }
        self.writing -= usize::from(slot.touches.writes);
        self.unordered -= usize::from(!slot.touches.ordered);
        self.held_bytes += match &state {
            State::Done(bytes) => bytes.len(),
            State::Fixed(bytes) => bytes.len(),
            State::Waiting { .. } => 0,
        };
        slot.state = state;
        self.flush(out);
    }

    /// The first slot's reply has gone out.
    fn leave(&mut self, out: &mut Vec<u8>) {
        if let Some(slot) = self.queue.pop_front() {
            self.first += 1;
            self.writing -= usize::from(slot.touches.writes);
            self.unordered -= usize::from(!slot.touches.ordered);
        }
        self.flush(out);
    }

    /// Sends what is done at the front.
    fn flush(&mut self, out: &mut Vec<u8>) {
        while let Some(slot) = self.queue.front() {
            let bytes = match &slot.state {
                State::Waiting { .. } => break,
                State::Fixed(bytes) => bytes,
                State::Done(bytes) => &bytes[..],
            };
            out.extend_from_slice(bytes);
            self.held_bytes -= bytes.len();
            self.queue.pop_front();
            self.first += 1;
        }
    }
}

fn slot(queue: &mut VecDeque<Slot>, first: u64, number: u64) -> Option<&mut Slot> {
    let at = usize::try_from(number.checked_sub(first)?).ok()?;
    queue.get_mut(at)
}

fn fail(failed: &mut Option<Vec<u8>>, error: &ErrorReply<'_>) {
    if failed.is_none() {
        let mut bytes = Vec::new();
        render::error(&mut bytes, error);
        *failed = Some(bytes);
    }
}

fn share(a: &Keys, b: &Keys) -> bool {
    match (a, b) {
        (Keys::None, _) | (_, Keys::None) => false,
        (Keys::All, _) | (_, Keys::All) => true,
        (Keys::One(a), Keys::One(b)) => a == b,
        (Keys::One(one), Keys::Many(many)) | (Keys::Many(many), Keys::One(one)) => {
            many.contains(one)
        }
        (Keys::Many(a), Keys::Many(b)) => a.iter().any(|one| b.contains(one)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token {
        partition: 1,
        term: 2,
        index: 3,
    };

    fn written(existed: Option<bool>) -> Response<'static> {
        Response::Written {
            token: TOKEN,
            existed,
        }
    }

    fn connection() -> (Connection, Vec<u8>) {
        (Connection::new(1, Duration::ZERO), Vec::new())
    }

    #[test]
    fn replies_leave_in_the_order_of_the_commands() {
        let (mut connection, mut out) = connection();
        connection.say(&mut out, |out| reply::simple(out, "0"));
        assert_eq!(out, b"+0\r\n");
        let write = || Touches::write(Keys::One(1), true);
        let first = connection.expect(Want::Write(WriteWant::Ok), write(), 1);
        connection.say(&mut out, |out| reply::simple(out, "1"));
        connection.say(&mut out, |out| reply::simple(out, "2"));
        let second = connection.expect(Want::Write(WriteWant::Flag), write(), 1);
        assert_eq!((out.len(), connection.held_bytes()), (4, 8));
        connection.answered(second, &written(None), 0, &mut out);
        assert_eq!(out.len(), 4);
        connection.answered(first, &written(None), 0, &mut out);
        assert_eq!(out, b"+0\r\n+OK\r\n+1\r\n+2\r\n:1\r\n");
        assert!(connection.is_free() && connection.held_bytes() == 0);
        assert_eq!(connection.last_write, Some(TOKEN));
        assert_eq!((connection.writing, connection.unordered), (0, 0));
    }

    #[test]
    fn answers_of_many_requests_are_one_reply() {
        let (mut connection, mut out) = connection();
        let keys = || Keys::Many([1, 2].into());
        let sum = connection.expect(Want::Sum(0), Touches::write(keys(), false), 2);
        let all = connection.expect(Want::AllOk, Touches::write(keys(), true), 2);
        let failed = ErrorReply {
            code: ringbolt_wire::message::ErrorCode::ConditionFailed,
            retry_after_ms: 0,
            detail: 0,
            message: "",
        };
        connection.answered(sum, &written(Some(true)), 0, &mut out);
        connection.answered(sum, &Response::Error(failed), 0, &mut out);
        connection.answered(all, &written(None), 0, &mut out);
        assert_eq!(out, b":1\r\n");
        connection.answered(all, &written(None), 0, &mut out);
        assert_eq!(out, b":1\r\n+OK\r\n");
    }

    #[test]
    fn a_command_waits_for_what_it_must_come_after() {
        let (mut connection, mut out) = connection();
        let one = || Keys::One(1);
        let put = connection.expect(Want::Write(WriteWant::Ok), Touches::write(one(), true), 1);
        assert!(
            connection.must_wait(&Touches::read(one())),
            "a read of what is written"
        );
        assert!(
            !connection.must_wait(&Touches::write(one(), true)),
            "put after put"
        );
        assert!(connection.must_wait(&Touches::modify(one())));
        assert!(!connection.must_wait(&Touches::read(Keys::One(2))));
        assert!(connection.must_wait(&Touches::ALL));
        connection.answered(put, &written(None), 0, &mut out);
        assert!(!connection.must_wait(&Touches::read(one())));

        let read = connection.expect(Want::Look(Look::Value), Touches::read(one()), 1);
        assert!(!connection.must_wait(&Touches::read(one())));
        assert!(
            connection.must_wait(&Touches::write(one(), true)),
            "a write of what is read"
        );
        connection.answered(read, &Response::NotFound { token: TOKEN }, 0, &mut out);

        let decide = connection.expect(
            Want::Write(WriteWant::Flag),
            Touches::write(one(), false),
            1,
        );
        assert!(connection.must_wait(&Touches::write(one(), true)));
        connection.set_ordered(decide);
        assert!(!connection.must_wait(&Touches::write(one(), false)));
        assert!(!connection.must_wait(&Touches::NOTHING));
    }
}
