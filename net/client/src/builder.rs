use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::cluster::ClusterOptions;
use crate::connection::ConnectionOptions;
use crate::error::Error;
use crate::options::{ReadOptions, WriteOptions};

/// Settings of a [`Client`].
///
/// ```no_run
/// # async fn example() -> Result<(), ringbolt_client::Error> {
/// use std::time::Duration;
///
/// let client = ringbolt_client::Client::builder()
///     .addresses("10.0.0.1:7400,10.0.0.2:7400")
///     .address("10.0.0.3:7400")
///     .deadline(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    addresses: Vec<String>,
    agent: String,
    deadline: Duration,
    connect_timeout: Duration,
    keepalive: Duration,
    silence: Duration,
    connections_per_core: usize,
    inflight_max: u32,
    read: ReadOptions,
    write: WriteOptions,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            addresses: Vec::new(),
            agent: concat!("ringbolt-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            silence: Duration::from_millis(400),
            connections_per_core: 1,
            inflight_max: 1024,
            read: ReadOptions::new(),
            write: WriteOptions::new(),
        }
    }
}

impl Builder {
    /// Adds the address of a node, `host:port`. The first node that answers tells of all the others:
    /// give as many as may be down together, and one more. With none given, `127.0.0.1:7400`.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Adds the addresses of several nodes, with commas between.
    pub fn addresses(mut self, addresses: impl AsRef<str>) -> Self {
        let addresses = addresses.as_ref().split(',').map(str::trim);
        let addresses = addresses.filter(|address| !address.is_empty());
        self.addresses.extend(addresses.map(str::to_owned));
        self
    }

    /// How this program calls itself to the server's operator; 64 bytes are kept.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = agent.into();
        self
    }

    /// How long a request may take, unless its options say otherwise. 5 s if not set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long one attempt to connect to a node may take, all its addresses together. 5 s if not
    /// set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a connection is idle before the server is asked whether it still lives; it has as
    /// long again to answer. 30 s if not set.
    pub fn keepalive(mut self, keepalive: Duration) -> Self {
        self.keepalive = keepalive.max(Duration::from_millis(1));
        self
    }

    /// How long a node of several may say nothing while something is asked of it, before its
    /// connection is given up and other nodes are asked; half of it is how long a connection may
    /// take to be made before others are asked too. 400 ms if not set: requests are sent elsewhere
    /// within half a second. Give more than four times what a round trip to a node takes, and more
    /// than the largest value takes on the way, or healthy nodes are given up. A node that is alone
    /// is waited for, and so is one that allows a single request in flight, and has it.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence.max(Duration::from_millis(2));
        self
    }

    /// How many connections there are for each core of a node, 1 if not set. More help only
    /// where one connection's share of the network is the limit.
    pub fn connections_per_core(mut self, connections: usize) -> Self {
        self.connections_per_core = connections;
        self
    }

    /// How many requests a connection may have in flight, 1024 if not set; never as many as the
    /// server allows, unless that is one: a ping needs room too. One more waits, as long as its
    /// deadline lets it.
    pub fn inflight_max(mut self, requests: u32) -> Self {
        self.inflight_max = requests;
        self
    }

    /// How to read where a request does not say otherwise.
    pub fn read_options(mut self, options: ReadOptions) -> Self {
        self.read = options;
        self
    }

    /// How to write where a request does not say otherwise.
    pub fn write_options(mut self, options: WriteOptions) -> Self {
        self.write = options;
        self
    }

    /// Connects: one attempt by each address, until one answers.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no address answers, [`Error::Protocol`] if what answers does not
    /// speak this client's protocol.
    pub async fn connect(mut self) -> Result<Client, Error> {
        if self.addresses.is_empty() {
            self.addresses.push("127.0.0.1:7400".to_owned());
        }
        let options = ClusterOptions {
            addresses: self.addresses,
            connect_timeout: self.connect_timeout,
            lanes_per_core: self.connections_per_core,
            connection: ConnectionOptions {
                agent: Arc::from(self.agent),
                keepalive: self.keepalive,
                silence: self.silence,
                inflight_max: self.inflight_max,
            },
        };
        Client::open(options, self.deadline, self.read, self.write).await
    }
}
