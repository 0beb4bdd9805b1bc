//! Nodes without a cluster meet the others ([`super::super::meeting`]).

use super::super::meeting::{ASK_MAX, Met, PAUSE};
use super::super::net::{self, Chunk, End};
use super::super::node::State;
use super::traffic::Dialer;
use super::{Event, World};

impl World {
    /// A process begins: its cores turn, or it asks the others.
    pub(super) fn begin(&mut self, node: u16) {
        let found = &self.nodes[usize::from(node)];
        if found.state == State::Meeting {
            let life = found.life;
            self.at(self.now, Event::Meet { node, life });
        }
        self.wake_cores(node);
    }

    /// A node asks all others.
    pub(super) fn meet(&mut self, node: u16, life: u64) -> Result<(), String> {
        let found = &mut self.nodes[usize::from(node)];
        if found.life != life {
            return Ok(());
        }
        let wall_ms = found.wall_ms(self.now);
        let Some(meeting) = found.meeting() else {
            return Ok(());
        };
        let peers = meeting.begin(node, self.now, wall_ms);
        let round = meeting.round;
        let over = Event::MeetOver { node, life, round };
        self.at(self.now + ASK_MAX, over);
        for peer in peers {
            let who = Dialer::Meeting { node, life, round };
            self.begin_dial(who, peer, self.now);
        }
        self.conclude(node)
    }

    /// A round has had its time.
    pub(super) fn meet_over(&mut self, node: u16, life: u64, round: u64) -> Result<(), String> {
        let found = &mut self.nodes[usize::from(node)];
        let is_under_way = found.life == life;
        let meeting = found.meeting().filter(|_| is_under_way);
        match meeting.is_some_and(|meeting| meeting.round == round) {
            true => self.conclude(node),
            false => Ok(()),
        }
    }

    /// A peer was reached, or was not.
    pub(super) fn met(
        &mut self,
        (node, life, round): (u16, u64, u64),
        peer: u16,
        end: Option<End>,
    ) -> Result<(), String> {
        let found = &mut self.nodes[usize::from(node)];
        let is_under_way = found.life == life;
        let meeting = found.meeting().filter(|_| is_under_way);
        let meeting = meeting.filter(|meeting| meeting.round == round);
        match (meeting, end) {
            (Some(meeting), Some(end)) => {
                let question = meeting.ask(peer, end);
                self.send(end, self.now, question);
                Ok(())
            }
            (Some(meeting), None) => {
                meeting.is_silent(peer);
                self.conclude(node)
            }
            (None, Some(end)) => {
                self.let_go(end);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Something has arrived at a node that meets others.
    pub(super) fn heard(&mut self, node: u16, end: End, chunk: Chunk) -> Result<(), String> {
        let found = &mut self.nodes[usize::from(node)];
        let wall_ms = found.wall_ms(self.now);
        let Some(meeting) = found.meeting() else {
            self.let_go(end);
            return Ok(());
        };
        match chunk {
            Chunk::Bytes(bytes) => match meeting.received(end, &bytes, self.now, wall_ms) {
                Some(answer) => {
                    if !answer.is_empty() {
                        self.send(end, self.now, answer);
                    }
                    self.let_go(end);
                }
                None => return Ok(()),
            },
            Chunk::End { .. } => {
                meeting.ended(end);
                self.let_go(end);
            }
        }
        self.conclude(node)
    }

    /// Ends a node's round if it is over, and does what follows.
    fn conclude(&mut self, node: u16) -> Result<(), String> {
        let found = &mut self.nodes[usize::from(node)];
        let life = found.life;
        let Some(meeting) = found.meeting() else {
            return Ok(());
        };
        match meeting.conclude(self.now) {
            Met::NotYet => {}
            Met::AskAgain => self.at(self.now + PAUSE, Event::Meet { node, life }),
            Met::Placed(map, number) => {
                self.say(|| format!("node {} has its place", node + 1), 12);
                self.nodes[usize::from(node)].place(self.now, map, number);
                for end in self.ends_of(node) {
                    self.let_go(end);
                }
                self.wake_cores(node);
            }
            Met::Refused(words) if words.starts_with("the clock of") => {
                self.say(|| format!("node {} does not start: {words}", node + 1), 13);
                self.end_process(node, false);
            }
            Met::Refused(words) => {
                return Err(format!("node {} does not start: {words}", node + 1));
            }
        }
        Ok(())
    }

    fn let_go(&mut self, end: End) {
        if let Some(due) = self.net.finish(end, self.now) {
            self.at(due, Event::Look(net::other(end)));
        }
    }
}
