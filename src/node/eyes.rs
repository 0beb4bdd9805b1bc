//! Opens the node to its operators: the socket of [`crate::admin`], and its way to the cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ringbolt_ring::RingWaker;

use super::mailbox::{Letter, Mailboxes};
use super::plan::Plan;
use super::{StartError, listen};
use crate::admin::{Admin, Cores, Facts, Look, Running};
use crate::config::{AdminListen, Settings};

/// Serves metrics, health and the page, if the settings want it. An address that was asked for must
/// be free; the default one is done without if it is taken, with a warning.
pub(super) fn open(settings: &Settings) -> Result<Option<Admin>, StartError> {
    let wanted = settings.admin.listen;
    let Some(address) = wanted.address(settings.listen) else {
        return Ok(None);
    };
    let listener = match wanted {
        // An earlier server's sockets may linger on it.
        AdminListen::At(_) => listen::claim(address)?,
        AdminListen::Auto | AdminListen::Off => match std::net::TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) => {
                warn(address, &error);
                return Ok(None);
            }
        },
    };
    if !address.ip().is_loopback() {
        tracing::warn!(
            listen = %address,
            "metrics and the page are served beyond this machine, and there is no authentication: \
             make sure that only operators reach this address"
        );
    }
    let facts = Facts {
        name: settings.name.clone(),
        listen: settings.listen,
        data: settings.data.clone(),
        memory_bytes: settings.memory,
        reserve_bytes: settings.disk.reserve_bytes,
        slow_threshold: settings.admin.slow_threshold,
        keys: settings.admin.keys,
        began: Instant::now(),
    };
    let seed = super::random_bytes().map_err(|error| StartError::io("/dev/urandom", &error))?;
    match Admin::start(listener, facts, u64::from_le_bytes(seed)) {
        Ok(admin) => Ok(Some(admin)),
        Err(error) => {
            warn(address, &error);
            Ok(None)
        }
    }
}

/// Where a browser finds the page.
pub(super) fn url(settings: &Settings) -> String {
    let address = settings.admin.listen.address(settings.listen);
    address.map_or_else(String::new, |address| format!("http://{address}/"))
}

fn warn(address: SocketAddr, error: &std::io::Error) {
    tracing::warn!(
        listen = %address,
        %error,
        "metrics, health and the page are not served: choose another address with --admin, or off"
    );
}

/// The way to the cores of a node that serves.
pub(super) fn running(node: &super::Running, plan: &Plan) -> Running {
    Running {
        cores: Arc::new(Way {
            mailboxes: node.mailboxes.clone(),
            wakers: node.cores.wakers().to_vec(),
        }),
        cluster: Arc::clone(&plan.cluster),
        partitions: plan.map.partitions(),
    }
}

struct Way {
    mailboxes: Mailboxes,
    wakers: Vec<RingWaker>,
}

impl Cores for Way {
    fn count(&self) -> u16 {
        self.wakers.len() as u16
    }

    fn post(&self, core: u16, look: Look) -> bool {
        let outside = self.mailboxes.outside();
        let posted = self.mailboxes.post(outside, core, Letter::Look(look));
        if posted.is_ok()
            && let Some(waker) = self.wakers.get(usize::from(core))
        {
            waker.wake();
        }
        posted.is_ok()
    }
}
