//! Making requests: which, on which connection, and writing them.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::io::{ErrorKind, Write as _};
use std::sync::atomic::Ordering;

use super::conn::{Conn, SlotState, request_id};
use super::{BUFFER_KEEP_BYTES, TICKETS, Turn, Worker};
use crate::LoadError;
use crate::open_loop::Schedule;
use crate::protocol::{Command, Effect, Failure};
use crate::source::{Next, OpKind, Outcome, Source};
use crate::value::Stamp;

impl Worker {
    /// Puts requests into all free slots of a connection (closed loop).
    pub(super) fn fill<S: Source>(&mut self, turn: &mut Turn<'_, S>, conn: usize, now: u64) {
        while !self.conns[conn].free.is_empty() {
            if !self.issue(turn, conn, now, now) {
                return;
            }
        }
    }

    /// Makes every request that is due (open loop).
    pub(super) fn issue_due<S: Source>(&mut self, turn: &mut Turn<'_, S>, now: u64) {
        let mut skipped = 0;
        while !turn.closed {
            let Some(due) = turn
                .schedule
                .as_ref()
                .map(Schedule::due)
                .filter(|&due| due <= now)
            else {
                return;
            };
            if skipped > self.room.len() {
                return;
            }
            let Some(conn) = self.room.pop_front() else {
                return;
            };
            if self.issue(turn, conn, due, now) {
                skipped = 0;
                if let Some(schedule) = &mut turn.schedule {
                    schedule.advance();
                }
            } else {
                if !self.conns[conn].done {
                    self.room.push_back(conn);
                }
                skipped += 1;
            }
        }
    }

    /// Makes one request on a connection that has room. Says whether it did.
    pub(super) fn issue<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        begun: u64,
        now: u64,
    ) -> bool {
        let Conn {
            place,
            stream,
            done,
            ..
        } = &self.conns[conn];
        if turn.closed || *done || stream.is_none() {
            return false;
        }
        let place = *place;
        let limited = turn.phase.tickets.is_some() && now >= turn.phase.window.start;
        if limited && !self.has_ticket(turn) {
            self.conns[conn].done = true;
            return false;
        }
        let op = match turn.source.next(conn, place, now) {
            Next::Op(op) => op,
            Next::Wait => {
                let state = &mut self.conns[conn];
                if !state.waiting && turn.schedule.is_none() {
                    state.waiting = true;
                    self.waiting.push(conn);
                }
                return false;
            }
            Next::Done => {
                self.conns[conn].done = true;
                return false;
            }
        };
        let state = &mut self.conns[conn];
        let Some(slot) = state.free.pop() else {
            return false;
        };
        let entry = &mut state.slots[slot as usize];
        self.tickets -= i64::from(limited);
        entry.op = op;
        entry.begun_ns = begun;
        entry.modifying = false;
        entry.generation = entry.generation.wrapping_add(1);
        self.under_way += 1;
        self.send(turn, conn, slot, now);
        true
    }

    /// Whether a run limited by requests lets one more be made: takes a few from all that are left
    /// when this thread has none.
    pub(super) fn has_ticket<S: Source>(&mut self, turn: &Turn<'_, S>) -> bool {
        if self.tickets <= 0
            && let Some(shared) = &turn.phase.tickets
        {
            let left = shared.fetch_sub(TICKETS, Ordering::Relaxed);
            self.tickets = left.clamp(0, TICKETS);
        }
        self.tickets > 0
    }

    /// Encodes a slot's request into its connection's output.
    pub(super) fn send<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        now: u64,
    ) {
        let state = &mut self.conns[conn];
        let entry = &mut state.slots[slot as usize];
        entry.state = SlotState::InFlight;
        entry.sent_ns = now;
        let op = entry.op;
        let key = self.keys.key(op.index);
        let command = match op.kind {
            OpKind::Read => Command::Get { key },
            OpKind::Modify if !entry.modifying => Command::Get { key },
            OpKind::Update | OpKind::Insert | OpKind::Modify => Command::Put {
                key,
                value: match self.run {
                    Some(run) => {
                        let stamp = Stamp {
                            run,
                            sequence: op.sequence,
                        };
                        self.values.stamped(stamp, key, op.size)
                    }
                    None => self.values.plain(op.sequence, op.size),
                },
            },
            OpKind::Delete => Command::Delete { key },
            OpKind::Scan => Command::Scan {
                start: key,
                prefix: &self.prefix,
                rows: op.size,
            },
        };
        let id = request_id(slot, entry.generation);
        match self.codec.encode(id, &command, &mut state.output) {
            Ok(()) => {
                if self.codec.in_order() {
                    state.order.push_back(slot);
                }
                if !state.dirty {
                    state.dirty = true;
                    self.dirty.push(conn);
                }
            }
            Err(error) => {
                let failure = Failure {
                    code: Cow::Borrowed("CannotEncode"),
                    effect: Effect::None,
                    message: error.0,
                };
                self.fail(turn, conn, slot, &failure, now);
            }
        }
    }

    /// Sends again what the server refused for a while, once that has passed.
    pub(super) fn send_again<S: Source>(&mut self, turn: &mut Turn<'_, S>, now: u64) {
        while let Some(Reverse((due, ..))) = self.retries.peek() {
            if *due > now && !turn.closed {
                return;
            }
            let Some(Reverse((_, conn, slot, generation))) = self.retries.pop() else {
                return;
            };
            let Some(entry) = self.conns[conn].slots.get_mut(slot as usize) else {
                continue;
            };
            if entry.state != SlotState::Waiting || entry.generation != generation {
                continue;
            }
            entry.generation = generation.wrapping_add(1);
            if turn.closed {
                self.release(turn, conn, slot, Outcome::NotDone, now);
            } else {
                self.send(turn, conn, slot, now);
            }
        }
    }

    pub(super) fn flush_dirty<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), LoadError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        if turn.source.batched() {
            turn.source.before_send()?;
        }
        for conn in std::mem::take(&mut self.dirty) {
            self.conns[conn].dirty = false;
            self.flush(turn, conn);
        }
        Ok(())
    }

    /// Writes as much of a connection's output as the socket takes.
    pub(super) fn flush<S: Source>(&mut self, turn: &mut Turn<'_, S>, conn: usize) {
        let state = &mut self.conns[conn];
        let Some(stream) = &mut state.stream else {
            return;
        };
        while state.written < state.output.len() {
            match stream.write(&state.output[state.written..]) {
                Ok(0) => {
                    return self.lose(turn, conn, "ConnectionLost", "the socket takes no bytes");
                }
                Ok(n) => state.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.lose(turn, conn, "ConnectionLost", &error.to_string());
                }
            }
        }
        state.output.clear();
        state.written = 0;
        if state.output.capacity() > BUFFER_KEEP_BYTES {
            state.output = Vec::new();
        }
    }
}
