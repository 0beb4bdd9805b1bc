//! What comes to a core and what it wants of the world: its sockets and mailboxes.

use std::collections::BTreeMap;
use std::io;

use ringbolt::cluster::NodeId;
use ringbolt::shard::mail::{Parcel, SessionKey};
use ringbolt::shard::{Port, Shard};
use ringbolt_engine::env::sim::SimEnv;

use super::super::net::End;

/// What has arrived at a core.
#[derive(Debug)]
pub enum Arrival {
    /// A connection, with what it has sent to the core that had it before.
    Connection(End, Vec<u8>),
    /// Bytes.
    Bytes(End, Vec<u8>),
    /// The other side sends no more.
    Ended(End),
    /// The connection is gone.
    Closed(End),
    /// A send is done.
    Sent(End, Vec<u8>),
    /// Mail of another core.
    Parcel(Parcel),
    /// The answer to a dial; `None` if there is no connection.
    Dialed(u64, Option<End>),
}

/// What a core wants of the world, in order.
#[derive(Debug)]
pub enum Out {
    /// Bytes sent.
    Send(End, Vec<u8>),
    /// A connection to be read no more, or again.
    Pause(End, bool),
    /// A connection to be closed once what was sent has gone out.
    Finish(End),
    /// A connection to be closed at once.
    Close(End),
    /// A connection for another core.
    HandOver(End, u16, Vec<u8>),
    /// Mail for another core.
    Post(u16, Parcel),
    /// A connection to another node.
    Dial(u64, NodeId),
}

pub(super) struct Outbox<'a> {
    pub(super) out: Vec<Out>,
    /// Room in each core's mailbox.
    pub(super) room: &'a [usize],
}

impl Port for Outbox<'_> {
    fn send(&mut self, handle: u64, bytes: Vec<u8>) {
        self.out.push(Out::Send(handle, bytes));
    }
    fn pause(&mut self, handle: u64) {
        self.out.push(Out::Pause(handle, true));
    }
    fn resume(&mut self, handle: u64) {
        self.out.push(Out::Pause(handle, false));
    }
    fn finish(&mut self, handle: u64) {
        self.out.push(Out::Finish(handle));
    }
    fn close(&mut self, handle: u64) {
        self.out.push(Out::Close(handle));
    }
    fn hand_over(&mut self, handle: u64, core: u16, input: Vec<u8>) {
        self.out.push(Out::HandOver(handle, core, input));
    }
    fn dial(&mut self, dial: u64, node: NodeId) {
        self.out.push(Out::Dial(dial, node));
    }
    fn post(&mut self, core: u16, parcel: Parcel) -> Result<(), Parcel> {
        if self.room.get(usize::from(core)) == Some(&0) {
            return Err(parcel);
        }
        self.out.push(Out::Post(core, parcel));
        Ok(())
    }
}

/// Hands what has arrived to the shard.
pub(super) fn take_in(
    shard: &Shard<SimEnv>,
    sessions: &mut BTreeMap<End, SessionKey>,
    arrival: Arrival,
    out: &mut Vec<Out>,
) {
    match arrival {
        Arrival::Connection(end, input) => match shard.connected(end) {
            Some(session) => {
                sessions.insert(end, session);
                if !input.is_empty() {
                    shard.received(session, &input);
                }
            }
            None => out.push(Out::Finish(end)),
        },
        Arrival::Bytes(end, bytes) => {
            if let Some(session) = sessions.get(&end) {
                shard.received(*session, &bytes);
            }
        }
        Arrival::Ended(end) => {
            if let Some(session) = sessions.get(&end) {
                shard.ended(*session);
            }
        }
        Arrival::Closed(end) => {
            if let Some(session) = sessions.remove(&end) {
                shard.closed(session);
            }
        }
        Arrival::Sent(end, buf) => {
            if let Some(session) = sessions.get(&end) {
                shard.sent(*session, buf);
            }
        }
        Arrival::Parcel(parcel) => shard.parcel(&parcel),
        Arrival::Dialed(dial, None) => {
            // Nothing is there that could be closed.
            let _none = shard.dialed(dial, Err(io::ErrorKind::ConnectionRefused.into()));
        }
        Arrival::Dialed(dial, Some(end)) => match shard.dialed(dial, Ok(end)) {
            Some(session) => {
                sessions.insert(end, session);
            }
            None => out.push(Out::Close(end)),
        },
    }
}
