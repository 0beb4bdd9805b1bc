//! Connections that are lost, given up and opened again.

use std::borrow::Cow;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::conn::SlotState;
use super::{NOT_LEADER_MAX, TICK_NS, Turn, Worker};
use crate::LoadError;
use crate::clock::nanos;
use crate::connect::Wanted;
use crate::source::{OpKind, Outcome, Source};

impl Worker {
    pub(super) fn attach(
        &mut self,
        conn: usize,
        stream: std::net::TcpStream,
    ) -> Result<(), LoadError> {
        stream
            .set_nonblocking(true)
            .map_err(LoadError::io("setting a socket to non-blocking"))?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(
                &mut stream,
                Token(conn),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(LoadError::io("registering a socket with epoll"))?;
        self.conns[conn].stream = Some(stream);
        Ok(())
    }

    /// Gives a connection up: what was under way on it is in doubt. It is opened again.
    pub(super) fn lose<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        code: &'static str,
        message: &str,
    ) {
        let now = self.clock.now();
        let state = &mut self.conns[conn];
        let Some(mut stream) = state.stream.take() else {
            return;
        };
        // It is closed next, which takes it out of epoll even if this fails.
        let _ = self.poll.registry().deregister(&mut stream);
        drop(stream);
        state.input.clear();
        state.output.clear();
        state.written = 0;
        state.order.clear();
        state.not_leader = 0;
        turn.recorder
            .error(Cow::Borrowed(code), message, now, &turn.phase.intervals);
        for slot in 0..state.slots.len() as u32 {
            let entry = &self.conns[conn].slots[slot as usize];
            match entry.state {
                SlotState::Free => {}
                SlotState::Waiting => self.release(turn, conn, slot, Outcome::NotDone, now),
                SlotState::InFlight => {
                    let read = matches!(entry.op.kind, OpKind::Read | OpKind::Scan)
                        || (entry.op.kind == OpKind::Modify && !entry.modifying);
                    let outcome = if read {
                        Outcome::NotDone
                    } else {
                        Outcome::InDoubt
                    };
                    self.release(turn, conn, slot, outcome, now);
                }
            }
        }
        self.connector.ask(Wanted {
            conn,
            home: self.conns[conn].home,
            until: Instant::now() + self.options.reconnect_for,
        });
    }

    pub(super) fn take_reconnected<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        now: u64,
    ) -> Result<(), LoadError> {
        while let Some((conn, opened)) = self.connector.opened() {
            match opened {
                Ok(stream) => {
                    self.attach(conn, stream)?;
                    if turn.schedule.is_none() {
                        self.fill(turn, conn, now);
                    }
                }
                Err(error) => {
                    self.conns[conn].dead = true;
                    // Its records cannot be reached any more: the run is over.
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives up connections with a request that has gone unanswered for too long, or whose node goes
    /// on saying that it does not lead.
    pub(super) fn expire<S: Source>(&mut self, turn: &mut Turn<'_, S>, now: u64) {
        // A Ringbolt server answers at the deadline itself: give the answer time to arrive.
        let timeout = nanos(self.options.timeout) + 2 * TICK_NS;
        for conn in 0..self.conns.len() {
            let state = &self.conns[conn];
            if state.in_use() == 0 || state.stream.is_none() {
                continue;
            }
            if state.not_leader >= NOT_LEADER_MAX && self.nodes.len() > 1 {
                self.lose(turn, conn, "Moved", "the node does not lead");
                continue;
            }
            let late = state.slots.iter().any(|slot| {
                slot.state == SlotState::InFlight && now.saturating_sub(slot.sent_ns) > timeout
            });
            if late {
                self.lose(turn, conn, "TimedOut", "no answer within --timeout");
            }
        }
        turn.recorder.enter_interval(now, &turn.phase.intervals);
    }
}
