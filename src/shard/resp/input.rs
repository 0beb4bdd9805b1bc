//! From a Redis client's bytes to commands, one after the other.

use std::rc::Rc;

use ringbolt_engine::env::Env;

use super::super::Inner;
use super::super::counters::add;
use super::super::mail::SessionKey;
use super::super::sessions::Stage;
use super::Asked;
use crate::resp::command::Command;
use crate::resp::connection::Touches;
use crate::resp::parse::{self, Arguments, Parsed, ProtocolError};
use crate::resp::table;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is executed, or under way.
    Yes,
    /// It has to wait until an earlier one is answered.
    MustWait,
}

impl<E: Env> Inner<E> {
    /// Takes up as many whole commands as there are and as limits allow; returns the bytes used.
    pub(in super::super) fn take_commands(self: &Rc<Self>, key: SessionKey, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut looked_at = 0;
        while at < bytes.len() {
            match self.may_take(key) {
                Some(Stage::Resp) => {}
                Some(_) => return bytes.len(),
                None => break,
            }
            let rest = &bytes[at..];
            let Some(asked) = self.asked(key, rest.len()) else {
                break;
            };
            if at >= looked_at {
                looked_at = at + self.look_ahead_commands(rest, asked.keyspace);
            }
            let (taken, len) = match parse::next(rest, &self.resp.limits) {
                Ok(Parsed::Incomplete { need }) => {
                    self.set_need(key, need);
                    break;
                }
                Ok(Parsed::Command { arguments, len }) => {
                    (self.take_command(Asked { len, ..asked }, &arguments), len)
                }
                Ok(Parsed::Inline { words, len }) => {
                    let arguments: Arguments<'_> = words.iter().map(Vec::as_slice).collect();
                    if is_http(&arguments) {
                        self.break_off_commands(key, None);
                        return bytes.len();
                    }
                    (self.take_command(Asked { len, ..asked }, &arguments), len)
                }
                Err(error) => {
                    self.break_off_commands(key, Some(&error));
                    return bytes.len();
                }
            };
            if taken == Taken::MustWait {
                if let Some(session) = self.sessions.borrow_mut().get(key) {
                    session.stuck = true;
                    session.paused_us = self.clock.get().us;
                }
                break;
            }
            at += len;
        }
        at
    }

    /// The connection's choices, if it is there and enough has arrived for its next command.
    fn asked(&self, key: SessionKey, have: usize) -> Option<Asked> {
        let mut sessions = self.sessions.borrow_mut();
        let connection = sessions.get(key)?.resp.as_mut()?;
        if have < connection.need {
            return None;
        }
        connection.need = 0;
        Some(Asked {
            key,
            version: connection.version,
            keyspace: connection.keyspace,
            len: 0,
        })
    }

    fn take_command(self: &Rc<Self>, asked: Asked, arguments: &[&[u8]]) -> Taken {
        if arguments.is_empty() {
            return Taken::Yes;
        }
        let wall_ms = self.clock.get().wall_ms;
        let limit = self.config.limits.shard_inflight_bytes_max;
        let taken = match Command::parse(arguments, wall_ms) {
            Ok(_) if self.inflight_bytes.get() > limit => {
                add(&self.counters.overloaded_total, 1);
                let text = "TRYAGAIN the shard has too many bytes of requests under way: try again \
                            a little later";
                self.say_error(asked.key, text);
                Taken::Yes
            }
            Ok(command) => self.run(&asked, command, arguments),
            Err(fault) => {
                self.say_error(asked.key, &fault);
                Taken::Yes
            }
        };
        if taken == Taken::Yes {
            add(&self.counters.requests_total, 1);
        }
        taken
    }

    fn run(self: &Rc<Self>, asked: &Asked, command: Command<'_>, arguments: &[&[u8]]) -> Taken {
        match command {
            Command::Look { key, look } => self.look(asked, key, look),
            Command::Write { op, want } => self.write_one(asked, &op, want),
            Command::Delete(keys) => self.delete(asked, keys),
            Command::Exists(keys) => self.exists(asked, keys),
            Command::MultiGet(keys) => self.get_many(asked, keys),
            Command::MultiSet(pairs) => self.set_many(asked, pairs),
            Command::Modify { key, modify } => self.modify(asked, key, modify),
            Command::Flush { all } => self.flush(asked, all),
            Command::Scan(page) => self.scan_page(asked, &page),
            Command::Keys(pattern) => self.all_keys(asked, pattern),
            Command::DbSize => self.database_size(asked),
            Command::RandomKey => self.random_key(asked),
            Command::Wait {
                replicas,
                timeout_ms,
            } => self.wait(asked, replicas, timeout_ms),
            Command::Talk(talk) => {
                let name = arguments.first().and_then(|name| table::find(name));
                self.talk(asked, talk, name.map_or("", |spec| spec.name));
                Taken::Yes
            }
        }
    }

    fn set_need(&self, key: SessionKey, need: usize) {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get(key);
        if let Some(connection) = session.and_then(|session| session.resp.as_mut()) {
            connection.need = need;
        }
    }

    /// Whether no reply of the connection waits. A question does not put it on the list of those to be
    /// served: one that has to wait would never leave it.
    pub(super) fn is_free(&self, key: SessionKey) -> bool {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get(key);
        let connection = session.and_then(|session| session.resp.as_ref());
        connection.is_none_or(|connection| connection.is_free())
    }

    /// Whether an earlier command of the connection has to be answered first.
    pub(super) fn must_wait(&self, key: SessionKey, touches: &Touches) -> bool {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get(key);
        let connection = session.and_then(|session| session.resp.as_mut());
        connection.is_some_and(|connection| connection.must_wait(touches))
    }

    /// The input is not the protocol: what was asked before is still answered, then the connection is
    /// closed.
    fn break_off_commands(&self, key: SessionKey, error: Option<&ProtocolError>) {
        add(&self.counters.bad_frames_total, 1);
        if let Some(error) = error {
            self.say_error(key, &format!("ERR {error}"));
        }
        self.finish(key);
    }
}

/// Whether this is a browser's request, sent here to make it speak for somebody else.
fn is_http(words: &[&[u8]]) -> bool {
    let names: [&[u8]; 2] = [b"post", b"host:"];
    let first = words.first();
    first.is_some_and(|word| names.iter().any(|name| name.eq_ignore_ascii_case(word)))
}
