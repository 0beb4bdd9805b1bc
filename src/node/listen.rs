//! Listening sockets: one a core on the node's one port.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Connections that wait to be accepted, on each core.
const BACKLOG: i32 = 4096;
/// How long a port may stay in use after a server on it was killed.
const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// Takes the address, if it is free. The cores' own sockets share the port, so they could not tell that
/// another server has it; they can have it once what this returns is dropped.
///
/// # Errors
/// [`StartError::Listen`].
pub fn claim(address: SocketAddr) -> Result<TcpListener, StartError> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Ok(port) => return Ok(port),
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(refused(address, &error)),
        }
    }
}

/// A listening socket that shares its port with the other cores'.
///
/// # Errors
/// [`StartError::Listen`].
pub fn listener(address: SocketAddr) -> Result<TcpListener, StartError> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| refused(address, &error))
}

fn refused(address: SocketAddr, error: &std::io::Error) -> StartError {
    StartError::Listen {
        address,
        detail: error.to_string(),
    }
}
