//! What a ring reports.

use std::os::fd::OwnedFd;

use crate::file::{FileBuf, FileOutcome};
use crate::{ConnId, ListenerId, RecvBytes};

/// Something that happened. Events of one connection come in order.
#[derive(Debug)]
pub enum Event {
    /// A client connected. Adopt the socket here, send it to another core's ring, or drop it.
    Accepted {
        /// The listener it came through.
        listener: ListenerId,
        /// The connected socket.
        socket: OwnedFd,
    },
    /// Accepting stands still for a moment because descriptors or memory have run out. It goes on
    /// by itself.
    AcceptPaused {
        /// The listener.
        listener: ListenerId,
        /// `EMFILE`, `ENFILE`, `ENOBUFS` or `ENOMEM`.
        errno: i32,
    },
    /// The listener accepts no more: it was stopped (`errno` 0) or failed.
    ListenerClosed {
        /// The listener.
        listener: ListenerId,
        /// 0, or what it failed with.
        errno: i32,
    },
    /// An outgoing connection is there. Adopt the socket here, or drop it.
    Connected {
        /// The token it was asked for with.
        token: u64,
        /// The connected socket.
        socket: OwnedFd,
    },
    /// An outgoing connection could not be made.
    ConnectFailed {
        /// The token it was asked for with.
        token: u64,
        /// Why: `ETIMEDOUT` for the timeout given.
        errno: i32,
    },
    /// Bytes arrived.
    Data {
        /// The connection.
        conn: ConnId,
        /// The bytes; dropping them frees the buffer.
        bytes: RecvBytes,
    },
    /// The peer sends no more. Sending may still work; the caller closes.
    Eof {
        /// The connection.
        conn: ConnId,
    },
    /// Receiving or sending failed (`ECONNRESET`, `EPIPE`, …). The caller closes.
    Failed {
        /// The connection.
        conn: ConnId,
        /// The error number.
        errno: i32,
    },
    /// A send finished whole; the next may follow.
    Sent {
        /// The connection.
        conn: ConnId,
        /// The buffer that was sent, for reuse. Its content is what was sent.
        buf: Vec<u8>,
    },
    /// The connection is gone and its descriptor closed. The last event of this id.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// The connection left this ring. The last event of this id.
    Detached {
        /// The connection as it was known here.
        conn: ConnId,
        /// The socket, without any operation on it.
        socket: OwnedFd,
        /// Bytes that arrived while it was being detached, to be read before the socket.
        leftover: Vec<u8>,
    },
    /// A file request finished.
    FileDone {
        /// The request's token.
        token: u64,
        /// What it brought, or the error number.
        result: Result<FileOutcome, i32>,
        /// The buffer of a read or write.
        buf: Option<Box<dyn FileBuf>>,
    },
    /// A [`RingWaker`](crate::RingWaker) was used, once or more.
    Woken,
}

/// Why a send was not started. The buffer comes back.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// One send is in flight on this socket: wait for [`Event::Sent`].
    #[error("a send is in flight on this connection")]
    Busy(Vec<u8>),
    /// The connection is closed, closing or leaving.
    #[error("the connection is closed")]
    Closed(Vec<u8>),
    /// There is nothing to send, or more than 2 GiB.
    #[error("a send must have from 1 byte to 2 GiB")]
    Length(Vec<u8>),
}
