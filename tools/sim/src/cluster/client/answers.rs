//! What a client makes of the answers it gets, and of those it does not get.

use std::collections::BTreeMap;

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{Ack, ErrorClass, ErrorCode, Meta, Response};

use super::super::clock::{MILLI, Nanos};
use super::super::history::{Call, Cell, Change, KeyId, NEVER, Operation, Outcome};
use super::super::net::End;
use super::super::workload::{Keys, Plan};
use super::{Client, Link, Wish};

impl Client {
    /// Bytes arrived.
    ///
    /// # Errors
    /// An answer that no server may give.
    pub fn received(
        &mut self,
        now: Nanos,
        end: End,
        bytes: &[u8],
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        let Some(node) = self.node_of(end) else {
            return Ok(());
        };
        let mut input = std::mem::take(&mut self.inputs[usize::from(node)]);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Peek::Frame { len } =
            frame::peek(&input[at..], u32::MAX).map_err(|error| error.to_string())?
        {
            let view = frame::open(&input[at..at + len]).map_err(|error| error.to_string())?;
            let response = Response::decode(&view).map_err(|error| error.to_string())?;
            self.answered(now, node, view.request_id, &response, keys, done, wishes)?;
            at += len;
        }
        input.drain(..at);
        if self.links[usize::from(node)].end() == Some(end) {
            self.inputs[usize::from(node)] = input;
        }
        self.ask_to_wake(wishes);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // The frame and the world it came into.
    pub(super) fn answered(
        &mut self,
        now: Nanos,
        node: u16,
        request: u64,
        response: &Response<'_>,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        if let Response::Welcome { topology, .. } = response {
            for partition in 0..topology.partitions() {
                let known = self.leaders.contains_key(&partition);
                if let (false, Some(leader)) = (known, topology.leader(partition)) {
                    self.leaders.insert(partition, leader as u16 - 1);
                }
            }
            if let Link::Greeting(end) = self.links[usize::from(node)] {
                self.links[usize::from(node)] = Link::Open(end);
                let waits = self
                    .current
                    .as_ref()
                    .is_some_and(|current| current.node == node && current.request.is_none());
                if waits {
                    self.send(now, keys, end, wishes);
                }
            }
            return Ok(());
        }
        let Some(current) = &self.current else {
            return Ok(());
        };
        if current.request != Some(request) || current.node != node {
            return Ok(());
        }
        if let Response::Error(error) = response {
            let name = format!("{:?}", error.code);
            *self.met.errors.entry(name).or_default() += 1;
            return self.refused(
                now,
                error.code,
                error.detail,
                error.message,
                keys,
                done,
                wishes,
            );
        }
        self.leaders.insert(current.partition, node);
        let outcome = self.outcome(response, keys)?;
        self.finish(now, outcome, keys, done);
        Ok(())
    }

    pub(super) fn outcome(&self, response: &Response<'_>, keys: &Keys) -> Result<Outcome, String> {
        let Some(current) = &self.current else {
            return Ok(Outcome::Failed);
        };
        let cell = |key: KeyId, meta: &Meta, value: &[u8]| {
            let Some(number) = keys.decode(key, value) else {
                return Err(format!(
                    "key {key} has a value that was never written: {:?}",
                    String::from_utf8_lossy(value)
                ));
            };
            Ok(Cell {
                value: number,
                version: meta.version,
                updated_ms: meta.updated_ms,
            })
        };
        match (response, &current.plan) {
            (Response::Written { token, .. }, Plan::Write(changes)) => Ok(Outcome::Written {
                token: *token,
                numbers: vec![None; changes.len()],
            }),
            (Response::Counter { token, value }, Plan::Write(_)) => Ok(Outcome::Written {
                token: *token,
                numbers: vec![Some(*value)],
            }),
            (Response::BatchWritten { token, counters }, Plan::Write(_)) => Ok(Outcome::Written {
                token: *token,
                numbers: counters.clone(),
            }),
            (Response::NotFound { token }, Plan::Get(_)) => Ok(Outcome::Seen {
                tokens: vec![*token],
                cells: vec![None],
            }),
            (Response::Value { token, meta, value }, Plan::Get(of)) => Ok(Outcome::Seen {
                tokens: vec![*token],
                cells: vec![Some(cell(of[0], meta, value)?)],
            }),
            (Response::Values { tokens, values }, Plan::Get(of)) => {
                let cells = of.iter().zip(values).map(|(&key, found)| {
                    found
                        .as_ref()
                        .map(|(meta, value)| cell(key, meta, value))
                        .transpose()
                });
                Ok(Outcome::Seen {
                    tokens: tokens.clone(),
                    cells: cells.collect::<Result<_, _>>()?,
                })
            }
            (Response::Rows { tokens, rows, .. }, Plan::Scan(prefix)) => {
                let mut found = BTreeMap::new();
                for (name, meta, value) in rows {
                    let Some(key) = keys.of_name(name) else {
                        return Err(format!("a scan found {:?}", String::from_utf8_lossy(name)));
                    };
                    found.insert(key, cell(key, meta, value)?);
                }
                let all = keys.with_prefix(prefix);
                Ok(Outcome::Seen {
                    tokens: tokens.clone(),
                    cells: all.iter().map(|key| found.get(key).copied()).collect(),
                })
            }
            _ => Err(format!("{response:?} answers {:?}", current.plan)),
        }
    }

    #[allow(clippy::too_many_arguments)] // The parts of an error and the world it came into.
    pub(super) fn refused(
        &mut self,
        now: Nanos,
        code: ErrorCode,
        detail: u64,
        message: &str,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let writing = matches!(current.plan, Plan::Write(_));
        match code.class() {
            ErrorClass::DecideAgain if code == ErrorCode::ConditionFailed && writing => {
                let outcome = match current.doubtful {
                    true => Outcome::InDoubt,
                    false => Outcome::GuardFailed { version: detail },
                };
                self.finish(now, outcome, keys, done);
            }
            ErrorClass::FindOut if writing => {
                current.doubtful = true;
                self.attempt_failed(now, keys, done, wishes);
            }
            ErrorClass::TryAgain => {
                if code == ErrorCode::NotLeader {
                    let leader = u16::try_from(detail).ok().and_then(|id| id.checked_sub(1));
                    match leader.filter(|leader| usize::from(*leader) < self.links.len()) {
                        Some(leader) => self.leaders.insert(current.partition, leader),
                        None => self.leaders.remove(&current.partition),
                    };
                } else if self.rng.one_in(2) {
                    self.leaders.remove(&current.partition);
                }
                current.request = None;
                current.give_up_at = now + self.rng.between(5, 50) * MILLI;
            }
            ErrorClass::CallOperator => {
                self.leaders.remove(&current.partition);
                self.attempt_failed(now, keys, done, wishes);
            }
            _ => {
                return Err(format!(
                    "{code:?} ({message}) answers {:?}, {:?}",
                    current.plan, current.level
                ));
            }
        }
        Ok(())
    }

    /// This attempt came to nothing: the next one, or the end.
    pub(super) fn attempt_failed(
        &mut self,
        now: Nanos,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) {
        let Some(current) = &mut self.current else {
            return;
        };
        let writing = matches!(current.plan, Plan::Write(_));
        let sent = current.request.is_some();
        if writing && sent {
            current.doubtful = true;
        }
        let may_repeat = !writing || !current.doubtful || self.habits.retries && self.numbers;
        let node = current.node;
        if now < current.deadline && may_repeat {
            if let (false, Link::Greeting(end)) = (sent, &self.links[usize::from(node)]) {
                // The node may have died since it was greeted: nothing else would ever tell.
                wishes.push(Wish::Close(*end));
                self.links[usize::from(node)] = Link::Down;
            }
            if sent {
                self.leaders.remove(&current.partition);
                // A node that does not answer may have lost the connection without a word.
                if self.rng.one_in(2)
                    && let Some(end) = self.links[usize::from(node)].end()
                {
                    self.links[usize::from(node)] = Link::Down;
                    wishes.push(Wish::Close(end));
                }
            }
            return self.attempt(now, keys, wishes);
        }
        let outcome = match writing && current.doubtful {
            true => Outcome::InDoubt,
            false => Outcome::Failed,
        };
        self.finish(now, outcome, keys, done);
    }

    pub(super) fn finish(
        &mut self,
        now: Nanos,
        outcome: Outcome,
        keys: &Keys,
        done: &mut Vec<Operation>,
    ) {
        let Some(current) = self.current.take() else {
            return;
        };
        let pause = self.habits.pause;
        self.next_at = (now + self.rng.between(pause / 4, pause * 2)).max(self.quiet_until);
        let leader_only = current.ack == Ack::Leader;
        match (&current.plan, &outcome) {
            (Plan::Write(changes), Outcome::Written { token, .. }) if !leader_only => {
                self.remember(*token);
                for &(key, _, change) in changes {
                    match change {
                        Change::Put(value) => {
                            self.known.insert(key, (value, token.index));
                        }
                        Change::Delete | Change::Add(_) => {
                            self.known.remove(&key);
                        }
                    }
                }
            }
            (Plan::Get(_) | Plan::Scan(_), Outcome::Seen { tokens, .. }) => {
                for &token in tokens {
                    self.remember(token);
                }
            }
            _ => {}
        }
        let call = match current.plan {
            Plan::Write(changes) => Call::Write {
                changes,
                leader_only,
            },
            Plan::Get(of) => Call::Read {
                keys: of,
                level: current.level,
                tokens: current.tokens,
                page: false,
            },
            Plan::Scan(prefix) => Call::Read {
                keys: keys.with_prefix(&prefix),
                level: current.level,
                tokens: current.tokens,
                page: true,
            },
        };
        if let (Call::Read { keys: of, .. }, Outcome::Seen { cells, .. }) = (&call, &outcome) {
            for (&key, cell) in of.iter().zip(cells) {
                match cell {
                    Some(cell) => self.known.insert(key, (cell.value, cell.version)),
                    None => self.known.remove(&key),
                };
            }
        }
        let completed = match outcome {
            Outcome::InDoubt => NEVER,
            _ => now,
        };
        done.push(Operation {
            client: u32::from(self.number),
            invoked: current.invoked,
            completed,
            call,
            outcome,
        });
    }
}
