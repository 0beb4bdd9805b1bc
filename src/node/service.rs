//! Tells the service manager that started the node, if one did (systemd, `Type=notify`), how far it is.
//!
//! Each is a datagram to the socket that `NOTIFY_SOCKET` names; without it nothing happens.

use std::net::SocketAddr;

use sd_notify::NotifyState;

/// The node serves.
pub(super) fn ready(listen: SocketAddr) {
    tell(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serves at {listen}")),
    ]);
}

/// The node has been told to stop.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stops")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager does not hear how far the node is");
    }
}
