//! A server that does what a test's script says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as the script sees it.
pub struct Seen<'a> {
    /// The node, from 1.
    pub node: NodeId,
    /// Connections are counted from 0.
    pub connection: usize,
    /// The core that serves the connection.
    pub core: u16,
    pub id: u64,
    pub deadline_ms: u32,
    pub request: Request<'a>,
}

impl Seen<'_> {
    /// The reply to this request, as bytes to send.
    pub fn reply(&self, response: Response<'_>) -> Act {
        Act::Send(encoded(self.id, &response))
    }

    pub fn error(&self, code: ErrorCode, retry_after_ms: u32) -> Act {
        self.reply(Response::Error(ErrorReply {
            code,
            retry_after_ms,
            detail: 0,
            message: "as the script says",
        }))
    }
}

pub fn encoded(id: u64, response: &Response<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    response.encode(id, &mut out);
    out
}

/// What the script wants done.
pub enum Act {
    Send(Vec<u8>),
    /// Nothing now, and nothing later.
    Nothing,
    /// Sends this and closes.
    Close(Vec<u8>),
}

type Script = dyn Fn(&Seen<'_>) -> Act + Send + Sync;

/// What the server says of itself.
#[derive(Clone)]
pub struct Settings {
    pub cores: u16,
    pub partitions: u16,
    pub limits: Limits,
    /// The node's number.
    pub node: NodeId,
    /// What it tells of the cluster; that it is alone if there is none.
    pub cluster: Option<Arc<Mutex<Topology>>>,
    /// While set, the node takes connections and bytes and says nothing.
    pub mute: Arc<AtomicBool>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cores: 2,
            partitions: 8,
            limits: Limits {
                key_bytes_max: 1024,
                value_bytes_max: 1 << 20,
                frame_bytes_max: (1 << 20) + 8192,
                inflight_requests_max: 64,
                scan_rows_max: 1000,
            },
            node: 1,
            cluster: None,
            mute: Arc::default(),
        }
    }
}

impl Settings {
    pub fn topology(&self) -> Topology {
        match &self.cluster {
            None => Topology::alone("fake", self.cores, self.partitions),
            Some(cluster) => Topology {
                here: self.node,
                ..cluster.lock().unwrap().clone()
            },
        }
    }

    pub fn core_of(&self, key: &[u8]) -> u16 {
        let partition = ringbolt_wire::partition_of(key, self.partitions);
        ringbolt_wire::slot::core_of(partition, self.partitions, self.cores)
    }

    pub fn welcome(&self, core: u16) -> Response<'static> {
        Response::Welcome {
            version: 1,
            core,
            server: "fake 1",
            limits: self.limits,
            topology: self.topology(),
        }
    }
}

pub struct Fake {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Fake {
    /// Starts a server that shakes hands by itself and leaves the rest to the script.
    pub async fn start(
        settings: Settings,
        script: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static,
    ) -> Fake {
        Fake::start_at("127.0.0.1:0".parse().unwrap(), settings, script).await
    }

    pub async fn start_at(
        address: SocketAddr,
        settings: Settings,
        script: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static,
    ) -> Fake {
        let script: Arc<Script> = Arc::new(script);
        Fake::listen(address, move |stream, connection| {
            serve(stream, connection, settings.clone(), script.clone())
        })
        .await
    }

    /// Starts a server that does with each connection what `serve` does.
    pub async fn listen<F>(
        address: SocketAddr,
        serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Fake
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let (count, all) = (connections.clone(), tasks.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let task = tokio::spawn(serve(stream, connection));
                all.lock().unwrap().push(task);
            }
        });
        tasks.lock().unwrap().push(accepting);
        Fake {
            address,
            connections,
            tasks,
        }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Stops listening and closes every connection.
    pub async fn stop(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }

    pub fn client(&self) -> ringbolt_client::Builder {
        ringbolt_client::Client::builder().address(self.address.to_string())
    }

    pub async fn connect(&self) -> ringbolt_client::Client {
        self.client().connect().await.unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for task in &*self.tasks.lock().unwrap() {
            task.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, connection: usize, settings: Settings, script: Arc<Script>) {
    let mut arrived = Vec::new();
    let mut core = 0;
    loop {
        let mut out = Vec::new();
        let mut closing = false;
        while let Peek::Frame { len } = frame::peek(&arrived, u32::MAX).unwrap() {
            let bytes: Vec<u8> = arrived.drain(..len).collect();
            let view = frame::open(&bytes).unwrap();
            let request = Request::decode(&view).unwrap();
            let id = view.request_id;
            if settings.mute.load(Ordering::SeqCst) {
                continue;
            }
            if let Request::Hello { core: wanted, .. } = request {
                core = wanted.unwrap_or(0).min(settings.cores - 1);
                settings.welcome(core).encode(id, &mut out);
                continue;
            }
            let seen = Seen {
                node: settings.node,
                connection,
                core,
                id,
                deadline_ms: view.deadline_ms,
                request,
            };
            match script(&seen) {
                Act::Send(bytes) => out.extend(bytes),
                Act::Nothing => {}
                Act::Close(bytes) => {
                    out.extend(bytes);
                    closing = true;
                    break;
                }
            }
        }
        if stream.write_all(&out).await.is_err() || closing {
            return;
        }
        if !matches!(stream.read_buf(&mut arrived).await, Ok(1..)) {
            return;
        }
    }
}

/// Where nobody else listens, nor connects from: a port that is freed here stays free.
pub fn own_address() -> SocketAddr {
    static LAST: AtomicUsize = AtomicUsize::new(1);
    let host = if cfg!(target_os = "linux") {
        LAST.fetch_add(1, Ordering::SeqCst) + 1
    } else {
        1
    };
    format!("127.0.0.{host}:0").parse().unwrap()
}

pub fn token(index: u64) -> Token {
    Token {
        partition: 0,
        term: 1,
        index,
    }
}

pub fn value(value: &[u8]) -> Response<'_> {
    Response::Value {
        token: token(1),
        meta: Meta {
            version: 1,
            ..Meta::default()
        },
        value,
    }
}

pub fn written() -> Response<'static> {
    Response::Written {
        token: token(1),
        existed: None,
    }
}
