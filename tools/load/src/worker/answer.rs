//! Taking replies: decoding, accounting, and what each means for its request.

use std::cmp::Reverse;
use std::io::{ErrorKind, Read as _};

use super::conn::{SlotState, request_id};
use super::{BUFFER_KEEP_BYTES, NOT_LEADER_MS, Turn, Worker};
use crate::LoadError;
use crate::clock::nanos;
use crate::protocol::{Effect, Failure, Reply};
use crate::source::{OpKind, Outcome, Source};

impl Worker {
    /// Reads until the socket has no more. A short read means that it has none, unless the other
    /// end has closed: then the end of file is still to come.
    pub(super) fn read<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        closed: bool,
    ) -> Result<(), LoadError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut result = Ok(());
        while let Some(stream) = &mut self.conns[conn].stream {
            match stream.read(&mut scratch) {
                Ok(0) => {
                    self.lose(
                        turn,
                        conn,
                        "ConnectionLost",
                        "the server closed the connection",
                    );
                }
                Ok(n) => {
                    result = self.take_bytes(turn, conn, &scratch[..n]);
                    if result.is_err() || (n < scratch.len() && !closed) {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(turn, conn, "ConnectionLost", &error.to_string()),
            }
        }
        self.scratch = scratch;
        result
    }

    pub(super) fn take_bytes<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        bytes: &[u8],
    ) -> Result<(), LoadError> {
        let now = self.clock.now();
        if self.conns[conn].input.is_empty() {
            let used = self.take_replies(turn, conn, bytes, now)?;
            self.conns[conn].input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.conns[conn].input);
            input.extend_from_slice(bytes);
            let used = self.take_replies(turn, conn, &input, now)?;
            if self.conns[conn].stream.is_some() {
                input.drain(..used);
                if input.is_empty() && input.capacity() > BUFFER_KEEP_BYTES {
                    input = Vec::new();
                }
                self.conns[conn].input = input;
            }
        }
        if turn.schedule.is_none() {
            self.fill(turn, conn, now);
            if !turn.source.batched() && self.conns[conn].dirty {
                // It stays in the dirty list; writing nothing then costs nothing.
                self.flush(turn, conn);
            }
        }
        Ok(())
    }

    /// Takes all whole replies at the front of `bytes` and says how long they are.
    pub(super) fn take_replies<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        bytes: &[u8],
        now: u64,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        loop {
            let decoded = match self.codec.decode(&bytes[used..]) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => return Ok(used),
                Err(error) => return Err(LoadError::Protocol(error.to_string())),
            };
            used += decoded.bytes;
            let state = &mut self.conns[conn];
            let slot = match decoded.id {
                // Not ours to answer: what the server says before it closes a connection.
                Some(0) if matches!(decoded.reply, Reply::Error(_)) => None,
                Some(id) => {
                    let slot = id as u32;
                    let known = state.slots.get(slot as usize).is_some_and(|entry| {
                        entry.state == SlotState::InFlight
                            && request_id(slot, entry.generation) == id
                    });
                    if !known {
                        return Err(LoadError::Protocol(format!(
                            "a reply to request {id:#x}, which is not under way"
                        )));
                    }
                    Some(slot)
                }
                None => {
                    let oldest = state.order.pop_front();
                    if oldest.is_none() {
                        return Err(LoadError::Protocol("a reply to no request".into()));
                    }
                    oldest
                }
            };
            match (slot, decoded.reply) {
                (Some(slot), reply) => self.take_reply(turn, conn, slot, reply, now)?,
                (None, Reply::Error(failure)) => {
                    turn.recorder
                        .error(failure.code, &failure.message, now, &turn.phase.intervals);
                }
                (None, _) => {}
            }
        }
    }

    pub(super) fn take_reply<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        reply: Reply<'_>,
        now: u64,
    ) -> Result<(), LoadError> {
        let entry = &mut self.conns[conn].slots[slot as usize];
        let reads = match entry.op.kind {
            OpKind::Read => true,
            OpKind::Modify => !entry.modifying,
            _ => false,
        };
        let scans = entry.op.kind == OpKind::Scan;
        let outcome = match reply {
            Reply::Error(failure) => {
                self.fail(turn, conn, slot, &failure, now);
                return Ok(());
            }
            Reply::Value(value) if reads => Outcome::Value(value),
            Reply::Absent if reads => Outcome::Absent,
            Reply::Written if !reads && !scans => Outcome::Written,
            Reply::Rows(rows) if scans => Outcome::Rows(rows),
            other => {
                return Err(LoadError::Protocol(format!(
                    "{:?} answered with {other:?}",
                    entry.op.kind
                )));
            }
        };
        if entry.op.kind == OpKind::Modify && !entry.modifying {
            entry.modifying = true;
            entry.generation = entry.generation.wrapping_add(1);
            self.send(turn, conn, slot, now);
            return Ok(());
        }
        let (op, begun) = (entry.op, entry.begun_ns);
        self.conns[conn].not_leader = 0;
        turn.recorder
            .success(op.kind, begun, now, &turn.phase.intervals);
        self.release(turn, conn, slot, outcome, now);
        Ok(())
    }

    /// A request was refused or failed.
    pub(super) fn fail<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        failure: &Failure,
        now: u64,
    ) {
        turn.recorder.error(
            failure.code.clone(),
            &failure.message,
            now,
            &turn.phase.intervals,
        );
        if let Effect::NotLeader { node } = failure.effect {
            self.conns[conn].not_leader += 1;
            self.conns[conn].home.node = self.elsewhere(conn, node);
        }
        let entry = &mut self.conns[conn].slots[slot as usize];
        let writes = entry.op.kind.writes();
        let outcome = match failure.effect {
            Effect::Retry { .. } | Effect::NotLeader { .. } => {
                let after_ms = match failure.effect {
                    Effect::Retry { after_ms } => after_ms,
                    _ => NOT_LEADER_MS,
                };
                let due = now + u64::from(after_ms) * 1_000_000;
                let give_up = entry.begun_ns.saturating_add(nanos(self.options.timeout));
                if due < give_up && !turn.closed {
                    entry.state = SlotState::Waiting;
                    turn.recorder.retries += 1;
                    self.retries
                        .push(Reverse((due, conn, slot, entry.generation)));
                    return;
                }
                Outcome::NotDone
            }
            Effect::None => Outcome::NotDone,
            Effect::InDoubt => Outcome::InDoubt,
            Effect::Done if writes => Outcome::Written,
            Effect::Done => Outcome::NotDone,
        };
        self.release(turn, conn, slot, outcome, now);
    }

    /// Where a connection goes whose node does not lead: to the one that does, if it is known.
    pub(super) fn elsewhere(&self, conn: usize, leader: u32) -> usize {
        let next = (self.conns[conn].home.node + 1) % self.nodes.len();
        let known = self.nodes.iter().position(|&node| node == leader);
        known.unwrap_or(next)
    }

    /// Ends a request.
    pub(super) fn release<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        outcome: Outcome<'_>,
        now: u64,
    ) {
        let state = &mut self.conns[conn];
        let entry = &mut state.slots[slot as usize];
        entry.state = SlotState::Free;
        state.free.push(slot);
        self.under_way -= 1;
        if turn.schedule.is_some() {
            self.room.push_back(conn);
        }
        let op = entry.op;
        let key = self.keys.key(op.index);
        turn.source.done(conn, &op, key, outcome, now);
        // A refused request frees its slot outside of a reply: ask for the next soon.
        if turn.schedule.is_none() && !state.waiting && !state.done {
            state.waiting = !matches!(
                outcome,
                Outcome::Value(_) | Outcome::Absent | Outcome::Written | Outcome::Rows(_)
            );
            if state.waiting {
                self.waiting.push(conn);
            }
        }
    }
}
