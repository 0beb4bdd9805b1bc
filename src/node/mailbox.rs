//! Mailboxes between cores: one bounded ring for each ordered pair.
//!
//! A core posts at most one letter to another core per turn: a parcel of everything it has for it.
//! Then it wakes the receiver, which costs one atomic load unless the receiver is parked. A core
//! about to park says so first and looks into its mailboxes once more, so that no letter is missed.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::admin::Look;
use crate::shard::mail::Parcel;

/// Letters a mailbox holds. A full one makes the sender keep its parcel for a later turn; what may
/// wait there is bounded by the limits on requests in flight.
const LETTERS_MAX: usize = 256;

/// Who connects through a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Clients of Ringbolt's own protocol, and other nodes.
    Own,
    /// Redis clients.
    Resp,
}

/// What one core sends another.
#[derive(Debug)]
pub enum Letter {
    /// Requests and replies.
    Parcel(Parcel),
    /// A connection that wants the receiving core, and the input it has sent already.
    Connection {
        /// The socket.
        socket: OwnedFd,
        /// Bytes received so far.
        input: Vec<u8>,
    },
    /// Every core is ready: accept connections here.
    Listen(Door, TcpListener),
    /// Somebody wants to know what the core is at.
    Look(Look),
    /// Finish what is under way and stop.
    Stop,
}

/// All mailboxes of a node.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    cores: usize,
    /// `rings[to * senders + from]`; the last sender stands for the threads that are no cores.
    rings: Arc<[ArrayQueue<Letter>]>,
}

impl Mailboxes {
    /// Mailboxes for `cores` cores and the other threads, which only send.
    #[must_use]
    pub fn new(cores: u16) -> Self {
        let cores = usize::from(cores);
        let rings = (0..cores * (cores + 1))
            .map(|_| ArrayQueue::new(LETTERS_MAX))
            .collect();
        Self { cores, rings }
    }

    /// The number as a sender of every thread that is no core.
    #[must_use]
    pub fn outside(&self) -> u16 {
        self.cores as u16
    }

    /// Posts a letter; the caller wakes the receiver.
    ///
    /// # Errors
    /// The letter, if the mailbox is full.
    pub fn post(&self, from: u16, to: u16, letter: Letter) -> Result<(), Letter> {
        self.ring(from, to).push(letter)
    }

    /// The next letter for a core, from any sender.
    #[must_use]
    pub fn take(&self, to: u16) -> Option<Letter> {
        (0..=self.cores as u16).find_map(|from| self.ring(from, to).pop())
    }

    /// Whether a core has mail.
    #[must_use]
    pub fn has_mail(&self, to: u16) -> bool {
        (0..=self.cores as u16).any(|from| !self.ring(from, to).is_empty())
    }

    fn ring(&self, from: u16, to: u16) -> &ArrayQueue<Letter> {
        &self.rings[usize::from(to) * (self.cores + 1) + usize::from(from)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_kept_apart_and_what_does_not_fit_comes_back() {
        let boxes = Mailboxes::new(2);
        boxes.post(0, 1, Letter::Stop).unwrap();
        boxes.post(0, 1, Letter::Stop).unwrap();
        boxes.post(boxes.outside(), 1, Letter::Stop).unwrap();
        assert!(boxes.has_mail(1) && !boxes.has_mail(0));
        for _ in 2..LETTERS_MAX {
            boxes.post(0, 1, Letter::Stop).unwrap();
        }
        let back = boxes.post(0, 1, Letter::Parcel(Parcel::default()));
        assert!(matches!(back, Err(Letter::Parcel(_))));
        let mut taken = 0;
        while boxes.take(1).is_some() {
            taken += 1;
        }
        assert_eq!(taken, LETTERS_MAX + 1);
    }
}
