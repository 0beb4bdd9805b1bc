//! Outgoing connections: a connect with a linked timeout each.
//!
//! Both requests complete, in either order, whichever of the two ended the other; the address and
//! the time stay in the slot until both have.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::Timespec;
use io_uring::{opcode, squeue, types};

use crate::Event;
use crate::ring::Ring;
use crate::token::{Op, encode};

/// How long what was sent on an outgoing connection may be unacknowledged before the connection is
/// broken off, in milliseconds. Left to itself, TCP repeats into a dead network for a quarter of an
/// hour, ever more rarely, and notices late that it is back.
static UNACKNOWLEDGED_MS_MAX: libc::c_int = 3000;

/// One connect, at an address that does not change while the kernel may look.
struct Dial {
    token: u64,
    /// Until the connect has completed.
    socket: Option<OwnedFd>,
    address: Address,
    timeout: Timespec,
    /// Operations that the kernel owes a completion for.
    owed: u8,
}

/// An address as the kernel takes it.
enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Address {
    fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    fn family(&self) -> libc::c_int {
        match self {
            Self::V4(_) => libc::AF_INET,
            Self::V6(_) => libc::AF_INET6,
        }
    }

    fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(v4) => ((&raw const *v4).cast(), size_of_val(v4) as libc::socklen_t),
            Self::V6(v6) => ((&raw const *v6).cast(), size_of_val(v6) as libc::socklen_t),
        }
    }
}

/// The connects of a ring by slot. A slot is free again once both its operations have completed.
#[derive(Default)]
pub(crate) struct Dials(slab::Slab<Box<Dial>>);

fn stream_socket(family: libc::c_int) -> Result<OwnedFd, i32> {
    // SAFETY: takes no memory.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(error.raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: the kernel just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the option's value is a live `c_int` of the given size.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw const UNACKNOWLEDGED_MS_MAX).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    debug_assert_eq!(set, 0, "every TCP socket has this option");
    Ok(socket)
}

impl Ring {
    /// Connects a new TCP socket to `address`; [`Event::Connected`] or [`Event::ConnectFailed`] with
    /// this token follows, after `timeout` at the latest.
    ///
    /// It fails with `EMFILE` if `connections_max` are open or being made.
    pub fn connect(&mut self, token: u64, address: SocketAddr, timeout: Duration) {
        let failed = |errno| Event::ConnectFailed { token, errno };
        if self.conns.len() + self.dials.0.len() >= self.connections_max as usize {
            self.ready.push_back(failed(libc::EMFILE));
            return;
        }
        let address = Address::new(address);
        let socket = match stream_socket(address.family()) {
            Ok(socket) => socket,
            Err(errno) => {
                self.ready.push_back(failed(errno));
                return;
            }
        };
        let fd = types::Fd(socket.as_raw_fd());
        let slot = self.dials.0.insert(Box::new(Dial {
            token,
            socket: Some(socket),
            address,
            timeout: Timespec::from(timeout),
            owed: 2,
        }));
        let dial = &self.dials.0[slot];
        let (raw, length) = dial.address.as_raw();
        let connect = opcode::Connect::new(fd, raw, length)
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(encode(Op::Connect, slot as u32, 0));
        let limit = opcode::LinkTimeout::new(&raw const dial.timeout)
            .build()
            .user_data(encode(Op::ConnectLimit, slot as u32, 0));
        self.push_pair([connect, limit]);
    }

    /// The connect has completed.
    pub(crate) fn on_connect(&mut self, slot: u32, result: i32) -> Option<Event> {
        let Some(dial) = self.dials.0.get_mut(slot as usize) else {
            self.stats.strays += 1;
            return None;
        };
        let token = dial.token;
        let socket = dial.socket.take();
        self.settle_dial(slot);
        match result {
            0.. => {
                self.stats.connected += 1;
                socket.map(|socket| Event::Connected { token, socket })
            }
            // Only the linked timeout cancels it.
            _ => Some(Event::ConnectFailed {
                token,
                errno: if -result == libc::ECANCELED {
                    libc::ETIMEDOUT
                } else {
                    -result
                },
            }),
        }
    }

    /// The timeout has: it fired or was of no use any more.
    pub(crate) fn on_connect_limit(&mut self, slot: u32) {
        if self.dials.0.contains(slot as usize) {
            self.settle_dial(slot);
        } else {
            self.stats.strays += 1;
        }
    }

    fn settle_dial(&mut self, slot: u32) {
        if let Some(dial) = self.dials.0.get_mut(slot as usize) {
            dial.owed -= 1;
            if dial.owed == 0 {
                self.dials.0.remove(slot as usize);
            }
        }
    }
}
