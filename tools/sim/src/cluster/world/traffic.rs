//! What goes over the network: connections made, bytes sent and taken in, and what cores and clients
//! want of it.

use super::super::client::{Client, Wish};
use super::super::clock::{MICRO, Nanos, SECOND};
use super::super::history::Operation;
use super::super::net::{self, Chunk, End, Owner, Place, Sent};
use super::super::node::{Arrival, Out, State};
use super::super::workload::Keys;
use super::{Event, World};

/// How long a dial waits for an answer that does not come.
const DIAL_TIMEOUT: Nanos = 2 * SECOND;

/// Who dials.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialer {
    Client(u16),
    Core {
        node: u16,
        core: u16,
        life: u64,
        /// The shard's name for it.
        dial: u64,
    },
    Meeting {
        node: u16,
        life: u64,
        round: u64,
    },
}

impl Dialer {
    fn owner(self) -> Owner {
        match self {
            Self::Client(client) => Owner::Client(client),
            Self::Core {
                node, core, life, ..
            } => Owner::Core { node, core, life },
            Self::Meeting { node, life, .. } => Owner::Meeting { node, life },
        }
    }
}

impl World {
    /// Does what a core wants.
    pub(super) fn grant(&mut self, node: u16, core: u16, at: Nanos, wish: Out) {
        match wish {
            Out::Send(end, bytes) => self.send(end, at, bytes),
            Out::Pause(end, paused) => {
                self.net.set_paused(end, paused);
                if !paused {
                    self.at(at, Event::Look(end));
                }
            }
            Out::Finish(end) | Out::Close(end) => {
                if let Some(due) = self.net.finish(end, at) {
                    self.at(due, Event::Look(net::other(end)));
                }
            }
            Out::HandOver(end, to, input) => {
                let owner = Owner::Core {
                    node,
                    core: to,
                    life: self.nodes[usize::from(node)].life,
                };
                // What comes meanwhile is for the other core.
                self.net.set_paused(end, true);
                self.at(at + 2 * MICRO, Event::Moved { end, owner, input });
            }
            Out::Dial(dial, to) => {
                let life = self.nodes[usize::from(node)].life;
                let who = Dialer::Core {
                    node,
                    core,
                    life,
                    dial,
                };
                self.begin_dial(who, to as u16 - 1, at);
            }
            Out::Post(to, parcel) => {
                let life = self.nodes[usize::from(node)].life;
                let mail = Event::Mail {
                    node,
                    core: to,
                    life,
                    parcel,
                };
                self.at(at + MICRO, mail);
            }
        }
    }

    pub(super) fn arrive(&mut self, node: u16, core: u16, at: Nanos, arrival: Arrival) {
        if self.nodes[usize::from(node)]
            .arrive(core, at, arrival)
            .is_some()
        {
            self.wake_core(node, core);
        }
    }

    pub(super) fn send(&mut self, end: End, at: Nanos, bytes: Vec<u8>) {
        self.say(
            || format!("end {end} sends {} bytes", bytes.len()),
            end ^ (bytes.len() as u64) << 32,
        );
        let (sent, due) = self.net.send(end, at, bytes);
        if let Some(due) = due {
            self.at(due, Event::Look(net::other(end)));
        }
        if let Sent::Taken(buf) = sent {
            let delay = self.rng.between(MICRO, 20 * MICRO);
            self.at(at + delay, Event::Sent(end, buf));
        }
    }

    pub(super) fn tell_sent(&mut self, end: End, buf: Vec<u8>) {
        if let Some(Owner::Core { node, core, life }) = self.net.owner(end)
            && self.nodes[usize::from(node)].life == life
        {
            self.arrive(node, core, self.now, Arrival::Sent(end, buf));
        }
    }

    /// Takes what has arrived at an end to its owner.
    pub(super) fn look(&mut self, end: End) -> Result<(), String> {
        while let Some(chunk) = self.net.arrived(end, self.now) {
            let Some(owner) = self.net.owner(end) else {
                break;
            };
            let from = net::other(end);
            match (owner, chunk) {
                (Owner::Core { node, core, life }, chunk) => {
                    let arrival = match chunk {
                        Chunk::Bytes(bytes) => Arrival::Bytes(end, bytes),
                        Chunk::End { reset: false } => Arrival::Ended(end),
                        Chunk::End { reset: true } => {
                            self.net.finish(end, self.now);
                            Arrival::Closed(end)
                        }
                    };
                    if self.nodes[usize::from(node)].life == life {
                        self.arrive(node, core, self.now, arrival);
                    }
                }
                (Owner::Meeting { node, life }, chunk) => {
                    if self.nodes[usize::from(node)].life == life {
                        self.heard(node, end, chunk)?;
                    }
                }
                (Owner::Client(client), Chunk::Bytes(bytes)) => {
                    self.with_client(client, |client, now, keys, done, wishes| {
                        client.received(now, end, &bytes, keys, done, wishes)
                    })?;
                }
                (Owner::Client(client), Chunk::End { .. }) => {
                    self.with_client(client, |client, now, keys, done, wishes| {
                        client.closed(now, end, keys, done, wishes);
                        Ok(())
                    })?;
                    // Also if the client had let it go already.
                    self.net.finish(end, self.now);
                }
            }
            if let Some((buf, due)) = self.net.relieve(from, self.now) {
                if let Some(due) = due {
                    self.at(due, Event::Look(end));
                }
                self.tell_sent(from, buf);
            }
        }
        if let Some(due) = self.net.next_due(end)
            && due > self.now
        {
            self.at(due, Event::Look(end));
        }
        Ok(())
    }

    pub(super) fn with_client(
        &mut self,
        client: u16,
        act: impl FnOnce(
            &mut Client,
            Nanos,
            &Keys,
            &mut Vec<Operation>,
            &mut Vec<Wish>,
        ) -> Result<(), String>,
    ) -> Result<(), String> {
        let (mut done, mut wishes) = (Vec::new(), Vec::new());
        let acting = &mut self.clients[usize::from(client)];
        act(acting, self.now, &self.keys, &mut done, &mut wishes)?;
        for operation in done {
            self.say(
                || {
                    format!(
                        "client {client}: {:?} -> {:?}",
                        operation.call, operation.outcome
                    )
                },
                operation.invoked,
            );
            self.history.operations.push(operation);
        }
        for wish in wishes {
            match wish {
                Wish::Dial(node) => self.begin_dial(Dialer::Client(client), node, self.now),
                Wish::Send(end, bytes) => self.send(end, self.now, bytes),
                Wish::Close(end) => {
                    if let Some(due) = self.net.finish(end, self.now) {
                        self.at(due, Event::Look(net::other(end)));
                    }
                }
                Wish::Wake(at) => self.at(at, Event::Client(client)),
            }
        }
        Ok(())
    }

    pub(super) fn begin_dial(&mut self, who: Dialer, node: u16, since: Nanos) {
        let delay = self.net.delay(who.owner().place(), Place::Node(node));
        self.at(since + delay, Event::Dial { who, node, since });
    }

    /// A dial reaches its node.
    pub(super) fn dial(&mut self, who: Dialer, node: u16, since: Nanos) {
        if let Dialer::Core { node, life, .. } | Dialer::Meeting { node, life, .. } = who
            && self.nodes[usize::from(node)].life != life
        {
            return;
        }
        let (here, there) = (who.owner().place(), Place::Node(node));
        let back = self.net.delay(there, here);
        let silent = self.net.is_cut(here, there) || self.net.is_cut(there, here);
        let (at, end) = if silent || self.faults.is_dark(node) {
            // Nobody answers, not even with a refusal.
            (since + DIAL_TIMEOUT, None)
        } else if self.nodes[usize::from(node)].state == State::Meeting {
            let life = self.nodes[usize::from(node)].life;
            let owner = Owner::Meeting { node, life };
            (self.now + back, Some(self.net.connect(who.owner(), owner)))
        } else if let Some(core) = self.nodes[usize::from(node)].accepting_core() {
            let life = self.nodes[usize::from(node)].life;
            let owner = Owner::Core { node, core, life };
            let end = self.net.connect(who.owner(), owner);
            let arrival = Arrival::Connection(net::other(end), Vec::new());
            self.arrive(node, core, self.now, arrival);
            (self.now + back, Some(end))
        } else {
            (self.now + back, None)
        };
        self.at(at, Event::Dialed { who, node, end });
    }

    pub(super) fn dialed(&mut self, who: Dialer, to: u16, end: Option<End>) -> Result<(), String> {
        match who {
            Dialer::Client(client) => self.with_client(client, |client, now, _, _, wishes| {
                client.dialed(now, to, end, wishes);
                Ok(())
            }),
            Dialer::Core {
                node,
                core,
                life,
                dial,
            } => {
                if self.nodes[usize::from(node)].life == life {
                    self.arrive(node, core, self.now, Arrival::Dialed(dial, end));
                }
                Ok(())
            }
            Dialer::Meeting { node, life, round } => self.met((node, life, round), to, end),
        }
    }

    pub(super) fn look_everywhere(&mut self) {
        for end in self.net.ends(|_| true) {
            if self.net.next_due(end).is_some() {
                self.at(self.now, Event::Look(end));
            }
        }
    }

    /// Lets a client read keys, whatever else it would have done.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn read_all(&mut self, client: u16, of: Vec<u16>) -> Result<(), String> {
        self.with_client(client, |client, now, keys, _, wishes| {
            client.begin_read(now, keys, of, wishes);
            Ok(())
        })
    }
}
