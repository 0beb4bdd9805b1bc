//! Connections: receive, send, pause, close, leave.
//!
//! The rule behind each path: the kernel may hold up to three things of a connection (its receive,
//! its send, a cancel by descriptor). Only when it holds none is the descriptor closed or handed
//! over and the slot freed; `settle` is called after each completion to see whether that is so.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use io_uring::types::Timespec;
use io_uring::{cqueue, opcode, types};

use crate::conn::{Phase, Recv, Send};
use crate::ring::{BUFFER_GROUP, Ring};
use crate::token::{Op, encode};
use crate::{ConnId, Event, SendError};

/// How long a finishing connection waits for the peer's FIN.
static LINGER: LazyLock<Timespec> = LazyLock::new(|| Timespec::from(Duration::from_secs(1)));

/// How much a finishing connection reads away before it gives up on being polite, in bytes.
const DISCARD_MAX: usize = 1 << 20;

const SEND_MAX: usize = 0x7fff_f000;

/// Makes requests on `fd` wait in the kernel: io_uring answers `EAGAIN` for a descriptor that is
/// non-blocking instead of waiting until it is ready.
pub(crate) fn set_blocking(fd: &OwnedFd) {
    // SAFETY: reads and sets the flags of a descriptor that is ours.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags >= 0 && flags & libc::O_NONBLOCK != 0 {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK);
        }
    }
}

fn set_nodelay(fd: &OwnedFd) {
    let one: libc::c_int = 1;
    // SAFETY: the option's value is a live `c_int` of the given size. It fails on a socket that
    // is not TCP, which then needs no such option.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

fn shutdown(fd: &OwnedFd, how: libc::c_int) {
    // SAFETY: takes a descriptor that is ours and no memory. It fails when the peer is gone already.
    unsafe { libc::shutdown(fd.as_raw_fd(), how) };
}

impl Ring {
    /// Takes a connected stream socket over, sets `TCP_NODELAY` and starts receiving.
    ///
    /// # Errors
    ///
    /// The socket, if `connections_max` are open.
    pub fn adopt(&mut self, socket: OwnedFd) -> Result<ConnId, OwnedFd> {
        set_blocking(&socket);
        set_nodelay(&socket);
        let id = self.conns.insert(socket)?;
        self.arm_recv(id);
        Ok(id)
    }

    /// Open connections, those that are closing or leaving included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// The socket of a connection, for `getpeername` and the like.
    #[must_use]
    pub fn socket(&self, conn: ConnId) -> Option<BorrowedFd<'_>> {
        self.conns.get(conn).map(|conn| conn.fd.as_fd())
    }

    /// Whether [`Ring::send`] would take a buffer for this connection now.
    #[must_use]
    pub fn can_send(&self, conn: ConnId) -> bool {
        self.conns
            .get(conn)
            .is_some_and(|conn| conn.phase == Phase::Open && conn.send.is_none())
    }

    /// Sends a buffer whole; [`Event::Sent`] brings it back. One at a time per connection.
    ///
    /// # Errors
    ///
    /// The buffer, with why it was not taken.
    pub fn send(&mut self, conn: ConnId, buf: Vec<u8>) -> Result<(), SendError> {
        if buf.is_empty() || buf.len() > SEND_MAX {
            return Err(SendError::Length(buf));
        }
        let Some(state) = self.conns.get_mut(conn) else {
            return Err(SendError::Closed(buf));
        };
        if state.phase != Phase::Open {
            return Err(SendError::Closed(buf));
        }
        if state.send.is_some() {
            return Err(SendError::Busy(buf));
        }
        state.send = Some(Send { buf, done: 0 });
        self.push_send(conn);
        Ok(())
    }

    /// Stops receiving, for back-pressure. What the kernel has received already still comes.
    pub fn pause_recv(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(conn)
            && state.phase == Phase::Open
        {
            state.recv_wanted = false;
            self.cancel_recv(conn);
        }
    }

    /// Receives again.
    pub fn resume_recv(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(conn)
            && state.phase == Phase::Open
            && !state.eof
        {
            state.recv_wanted = true;
            if state.recv == Recv::Idle {
                self.arm_recv(conn);
            }
        }
    }

    /// Closes at once: what is in flight is dropped. [`Event::Closed`] follows, and nothing else.
    pub fn close(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(conn) else {
            return;
        };
        if state.phase == Phase::Closing {
            return;
        }
        state.phase = Phase::Closing;
        state.recv_wanted = false;
        shutdown(&state.fd, libc::SHUT_RDWR);
        if !state.is_quiet() {
            state.cancelling = true;
            let target = types::CancelBuilder::fd(types::Fd(state.fd.as_raw_fd())).all();
            let cancel = opcode::AsyncCancel2::new(target).build();
            self.push(cancel.user_data(encode(Op::CancelAll, conn.slot, conn.generation)));
        }
        self.settle(conn);
    }

    /// Closes politely: the send in flight is finished, the peer is told, and what it still sends is
    /// read away (for a second and a mebibyte at most), so that it gets the last reply instead of a
    /// reset. [`Event::Closed`] follows, and nothing else. A peer that does not read keeps the
    /// connection until [`Ring::close`].
    pub fn finish(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(conn) else {
            return;
        };
        if state.phase != Phase::Open {
            return;
        }
        state.phase = Phase::Finishing;
        if state.send.is_none() {
            self.linger(conn);
        }
    }

    /// Takes the socket out of this ring; [`Event::Detached`] follows, after the send in flight if
    /// there is one. No more [`Event::Data`] of it: what arrives meanwhile is the event's
    /// `leftover`.
    pub fn detach(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(conn)
            && state.phase == Phase::Open
        {
            state.phase = Phase::Detaching;
            state.recv_wanted = false;
            self.cancel_recv(conn);
            self.settle(conn);
        }
    }

    fn push_send(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        let Some(send) = &conn.send else {
            return;
        };
        let rest = &send.buf[send.done..];
        // The buffer stays in the slot, untouched, until this send has completed.
        let sqe = opcode::Send::new(
            types::Fd(conn.fd.as_raw_fd()),
            rest.as_ptr(),
            rest.len() as u32,
        )
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build();
        self.push(sqe.user_data(encode(Op::Send, id.slot, id.generation)));
    }

    fn arm_recv(&mut self, id: ConnId) {
        let bundles = self.bundles;
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.recv = Recv::Armed;
        let fd = types::Fd(conn.fd.as_raw_fd());
        let sqe = if bundles {
            opcode::RecvMultiBundle::new(fd, BUFFER_GROUP).build()
        } else {
            opcode::RecvMulti::new(fd, BUFFER_GROUP).build()
        };
        self.push(sqe.user_data(encode(Op::Recv, id.slot, id.generation)));
    }

    fn cancel_recv(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        match conn.recv {
            Recv::Armed => conn.recv = Recv::Cancelling,
            Recv::Starved => {
                conn.recv = Recv::Idle;
                return;
            }
            Recv::Idle | Recv::Cancelling => return,
        }
        let target = encode(Op::Recv, id.slot, id.generation);
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::user_data(target)).build();
        self.push(cancel.user_data(encode(Op::CancelRecv, id.slot, id.generation)));
    }

    /// Re-arms the receives that ended for want of buffers, once some are back.
    pub(crate) fn rearm_starved(&mut self) {
        if self.starved.is_empty() || self.pool.in_ring() == 0 {
            return;
        }
        for id in std::mem::take(&mut self.starved) {
            if self.conns.get(id).is_some_and(|c| c.recv == Recv::Starved) {
                self.arm_recv(id);
            }
        }
    }

    /// A completion of a receive. The events it means are queued as ready.
    pub(crate) fn on_recv(&mut self, id: ConnId, result: i32, flags: u32) {
        let buffer = cqueue::buffer_select(flags);
        let Some(conn) = self.conns.get_mut(id) else {
            self.stats.strays += 1;
            if let (Some(buffer), true) = (buffer, result > 0) {
                self.take_buffers(buffer, result as usize, |_, _| {});
            }
            return;
        };
        let ended = !cqueue::more(flags);
        if ended {
            conn.recv = Recv::Idle;
        }
        let mut again = ended && conn.recv_wanted;
        match result {
            1.. => {
                self.stats.recvs += 1;
                self.stats.recv_bytes += result as u64;
                match buffer {
                    Some(buffer) => self.deliver(id, buffer, result as usize),
                    None => self.stats.strays += 1,
                }
            }
            0 => {
                again = false;
                conn.recv_wanted = false;
                conn.eof = true;
                match conn.phase {
                    Phase::Open => self.ready.push_back(Event::Eof { conn: id }),
                    Phase::Finishing => self.close(id),
                    Phase::Closing | Phase::Detaching => {}
                }
            }
            _ if -result == libc::ENOBUFS => {
                self.stats.enobufs += 1;
                if again {
                    again = false;
                    conn.recv = Recv::Starved;
                    self.starved.push(id);
                }
            }
            _ if matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            _ => {
                again = false;
                self.fail(id, -result);
            }
        }
        if again
            && self.conns.get(id).is_some_and(|conn| {
                conn.recv == Recv::Idle
                    && conn.recv_wanted
                    && matches!(conn.phase, Phase::Open | Phase::Finishing)
            })
        {
            self.arm_recv(id);
        }
        self.settle(id);
    }

    /// Hands received bytes to whoever wants them in the connection's phase.
    fn deliver(&mut self, id: ConnId, buffer: u16, bytes: usize) {
        let Some(phase) = self.conns.get(id).map(|conn| conn.phase) else {
            return;
        };
        match phase {
            Phase::Open => self.take_buffers(buffer, bytes, |ring, bytes| {
                ring.ready.push_back(Event::Data { conn: id, bytes });
            }),
            Phase::Detaching => self.take_buffers(buffer, bytes, |ring, bytes| {
                if let Some(conn) = ring.conns.get_mut(id) {
                    conn.leftover.extend_from_slice(&bytes);
                }
            }),
            Phase::Finishing | Phase::Closing => {
                self.take_buffers(buffer, bytes, |_, _| {});
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.discarded += bytes;
                    if phase == Phase::Finishing && conn.discarded > DISCARD_MAX {
                        self.close(id);
                    }
                }
            }
        }
    }

    /// Takes the buffers of one completion out of the pool, in order.
    fn take_buffers(
        &mut self,
        first: u16,
        bytes: usize,
        mut each: impl FnMut(&mut Self, crate::RecvBytes),
    ) {
        let mut id = first;
        let mut left = bytes;
        while left > 0 {
            let len = left.min(self.pool.buffer_bytes());
            // Before the buffer may go back and change the order.
            let next = if left > len { self.pool.after(id) } else { id };
            let Some(lent) = self.pool.lend(id, len) else {
                self.stats.strays += 1;
                return;
            };
            each(self, lent);
            left -= len;
            id = next;
        }
    }

    /// A completion of a send.
    pub(crate) fn on_send(&mut self, id: ConnId, result: i32) -> Option<Event> {
        let Some(conn) = self.conns.get_mut(id) else {
            self.stats.strays += 1;
            return None;
        };
        let Some(send) = conn.send.as_mut() else {
            self.stats.strays += 1;
            return None;
        };
        let closing = conn.phase == Phase::Closing;
        let mut event = None;
        match result {
            1.. => {
                send.done += result as usize;
                if send.done < send.buf.len() && !closing {
                    self.stats.short_sends += 1;
                    self.push_send(id);
                    return None;
                }
                let sent = conn.send.take()?;
                self.stats.sends += 1;
                self.stats.sent_bytes += sent.done as u64;
                match conn.phase {
                    Phase::Open | Phase::Detaching => {
                        event = Some(Event::Sent {
                            conn: id,
                            buf: sent.buf,
                        });
                    }
                    Phase::Finishing => self.linger(id),
                    Phase::Closing => {}
                }
            }
            _ if matches!(-result, libc::EINTR | libc::EAGAIN) && !closing => {
                self.push_send(id);
                return None;
            }
            _ => {
                conn.send = None;
                let errno = if result == 0 { libc::EPIPE } else { -result };
                self.fail(id, errno);
            }
        }
        self.ready.extend(event);
        self.settle(id);
        None
    }

    /// Receiving or sending failed for good.
    fn fail(&mut self, id: ConnId, errno: i32) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.eof = true;
        conn.recv_wanted = false;
        match conn.phase {
            Phase::Open => self.ready.push_back(Event::Failed { conn: id, errno }),
            Phase::Finishing => self.close(id),
            Phase::Closing | Phase::Detaching => {}
        }
    }

    /// Says FIN and waits for the peer's.
    fn linger(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.eof {
            self.close(id);
            return;
        }
        shutdown(&conn.fd, libc::SHUT_WR);
        conn.recv_wanted = true;
        if conn.recv == Recv::Idle {
            self.arm_recv(id);
        }
        let timer = opcode::Timeout::new(&*LINGER).build();
        self.push(timer.user_data(encode(Op::Linger, id.slot, id.generation)));
    }

    pub(crate) fn on_linger(&mut self, id: ConnId) {
        if self
            .conns
            .get(id)
            .is_some_and(|c| c.phase == Phase::Finishing)
        {
            self.close(id);
        }
    }

    pub(crate) fn on_cancelled(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.cancelling = false;
            self.settle(id);
        }
    }

    /// Frees the slot of a closing or leaving connection once the kernel holds nothing of it.
    fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        if !matches!(conn.phase, Phase::Closing | Phase::Detaching) || !conn.is_quiet() {
            return;
        }
        let Some(conn) = self.conns.remove(id) else {
            return;
        };
        self.ready.push_back(match conn.phase {
            Phase::Detaching => Event::Detached {
                conn: id,
                socket: conn.fd,
                leftover: conn.leftover,
            },
            _ => Event::Closed { conn: id },
        });
    }
}
