//! Listening sockets: one multishot accept each, with a pause when descriptors run out.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use io_uring::types::Timespec;
use io_uring::{cqueue, opcode, types};

use crate::ring::Ring;
use crate::token::{Op, encode};
use crate::{Event, ListenerId};

/// How long accepting pauses once descriptors or memory have run out.
static RETRY_AFTER: LazyLock<Timespec> =
    LazyLock::new(|| Timespec::from(Duration::from_millis(50)));

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Armed,
    /// A timer will arm it again.
    Paused,
    Stopping,
    Closed,
}

pub(crate) struct Listener {
    socket: Option<OwnedFd>,
    state: State,
    /// Operations that the kernel owes a last completion for.
    owed: u8,
}

impl Ring {
    /// Accepts connections on a bound, listening, blocking socket until it is stopped; each is an
    /// [`Event::Accepted`].
    pub fn listen(&mut self, socket: OwnedFd) -> ListenerId {
        crate::socket::set_blocking(&socket);
        let id = ListenerId(self.listeners.len() as u32);
        self.listeners.push(Listener {
            socket: Some(socket),
            state: State::Armed,
            owed: 0,
        });
        self.arm_accept(id);
        id
    }

    /// Stops accepting and closes the listening socket; [`Event::ListenerClosed`] follows.
    /// Connections that were accepted before may still be reported first.
    pub fn stop_listening(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else {
            return;
        };
        let was = listener.state;
        if matches!(was, State::Stopping | State::Closed) {
            return;
        }
        listener.state = State::Stopping;
        listener.owed += 1;
        let target = match was {
            State::Paused => Op::AcceptRetry,
            _ => Op::Accept,
        };
        let target = types::CancelBuilder::user_data(encode(target, id.0, 0));
        let cancel = opcode::AsyncCancel2::new(target).build();
        self.push(cancel.user_data(encode(Op::CancelAccept, id.0, 0)));
    }

    fn arm_accept(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else {
            return;
        };
        let Some(socket) = &listener.socket else {
            return;
        };
        listener.state = State::Armed;
        listener.owed += 1;
        let accept = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(accept.user_data(encode(Op::Accept, id.0, 0)));
    }

    pub(crate) fn on_accept(&mut self, slot: u32, result: i32, flags: u32) -> Option<Event> {
        let id = ListenerId(slot);
        let Some(listener) = self.listeners.get_mut(slot as usize) else {
            self.stats.strays += 1;
            return None;
        };
        let ended = !cqueue::more(flags);
        if ended {
            listener.owed -= 1;
        }
        let stopping = listener.state == State::Stopping;
        if result >= 0 {
            self.stats.accepted += 1;
            // SAFETY: the kernel just made this descriptor for us.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            if ended && !stopping {
                self.arm_accept(id);
            }
            self.ready.push_back(Event::Accepted {
                listener: id,
                socket,
            });
            return if ended {
                self.finish_listener_after(id)
            } else {
                None
            };
        }
        if !ended {
            return None;
        }
        if stopping {
            return self.finish_listener(id);
        }
        let errno = -result;
        match errno {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                self.stats.accept_pauses += 1;
                if let Some(listener) = self.listeners.get_mut(slot as usize) {
                    listener.state = State::Paused;
                    listener.owed += 1;
                }
                let timer = opcode::Timeout::new(&*RETRY_AFTER).build();
                self.push(timer.user_data(encode(Op::AcceptRetry, slot, 0)));
                Some(Event::AcceptPaused {
                    listener: id,
                    errno,
                })
            }
            // These say that the listening socket itself is of no use.
            libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT => {
                listener.state = State::Closed;
                listener.socket = None;
                Some(Event::ListenerClosed {
                    listener: id,
                    errno,
                })
            }
            // The rest say that one connection died before it was accepted.
            _ => {
                self.arm_accept(id);
                None
            }
        }
    }

    pub(crate) fn on_accept_retry(&mut self, slot: u32) -> Option<Event> {
        let listener = self.listeners.get_mut(slot as usize)?;
        listener.owed -= 1;
        match listener.state {
            State::Paused => {
                self.arm_accept(ListenerId(slot));
                None
            }
            _ => self.finish_listener(ListenerId(slot)),
        }
    }

    pub(crate) fn on_accept_cancelled(&mut self, slot: u32) -> Option<Event> {
        let listener = self.listeners.get_mut(slot as usize)?;
        listener.owed -= 1;
        self.finish_listener(ListenerId(slot))
    }

    /// The same as `finish_listener`, behind the events that are ready.
    fn finish_listener_after(&mut self, id: ListenerId) -> Option<Event> {
        let closed = self.finish_listener(id);
        self.ready.extend(closed);
        None
    }

    /// Closes a stopping listener once the kernel holds nothing of it.
    fn finish_listener(&mut self, id: ListenerId) -> Option<Event> {
        let listener = self.listeners.get_mut(id.0 as usize)?;
        if listener.state != State::Stopping || listener.owed > 0 {
            return None;
        }
        listener.state = State::Closed;
        listener.socket = None;
        Some(Event::ListenerClosed {
            listener: id,
            errno: 0,
        })
    }
}
