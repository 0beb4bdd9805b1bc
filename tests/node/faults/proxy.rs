//! A proxy between nodes, and between clients and nodes, that knows frames.
//!
//! Each node is known by its proxy's address. The first frame of a connection tells who dials: a
//! node, by its hello, or else a client. So each direction between two of them can be cut (what is
//! under way is kept, as a network that is down would, and comes when it is mended), slowed down, or
//! lose whole batches of what nodes say to each other.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringbolt_wire::Kind;
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::peer::PeerHello;

/// How often a direction that is cut is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a pump waits for bytes before it looks whether the test is over.
const READ_FOR: Duration = Duration::from_millis(100);

/// What befalls one direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Nothing comes through.
    pub cut: bool,
    /// Each frame comes so much later.
    pub delay: Duration,
    /// One batch in so many is lost; 0 for none.
    pub lose_one_in: u32,
}

/// The directions between all nodes, and clients as one more place.
#[derive(Debug)]
pub struct Network {
    places: usize,
    weather: Mutex<Vec<Weather>>,
    over: AtomicBool,
}

impl Network {
    /// Between so many nodes; clients are the place behind the last.
    pub fn new(nodes: usize) -> Arc<Self> {
        let places = nodes + 1;
        Arc::new(Self {
            places,
            weather: Mutex::new(vec![Weather::default(); places * places]),
            over: AtomicBool::new(false),
        })
    }

    /// The place of clients.
    pub fn clients(&self) -> usize {
        self.places - 1
    }

    /// Changes one direction.
    pub fn set(&self, from: usize, to: usize, weather: Weather) {
        self.weather.lock().unwrap()[from * self.places + to] = weather;
    }

    /// Everything comes through again.
    pub fn mend(&self) {
        self.weather.lock().unwrap().fill(Weather::default());
    }

    fn between(&self, from: usize, to: usize) -> Weather {
        self.weather.lock().unwrap()[from * self.places + to]
    }

    /// Stands before node `node`, which listens at `behind`; returns where.
    pub fn listen(self: &Arc<Self>, node: usize, behind: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::clone(self);
        thread::spawn(move || {
            for dialer in listener.incoming().map_while(Result::ok) {
                if network.over.load(Ordering::Relaxed) {
                    return;
                }
                let network = Arc::clone(&network);
                thread::spawn(move || network.carry(node, behind, dialer));
            }
        });
        address
    }

    /// One connection, to its end.
    fn carry(self: Arc<Self>, node: usize, behind: SocketAddr, dialer: TcpStream) {
        let Ok(server) = TcpStream::connect(behind) else {
            return;
        };
        let from = Arc::new(Mutex::new(self.clients()));
        let back = {
            let (network, from) = (Arc::clone(&self), Arc::clone(&from));
            let (server, dialer) = (server.try_clone().unwrap(), dialer.try_clone().unwrap());
            thread::spawn(move || {
                network.pump(&server, &dialer, |_| (node, *from.lock().unwrap()));
            })
        };
        self.pump(&dialer, &server, |first| {
            if let Some(hello) = first {
                *from.lock().unwrap() = hello.from_node as usize - 1;
            }
            (*from.lock().unwrap(), node)
        });
        back.join().unwrap();
    }

    /// Carries frames one way until either side ends. `direction` is told of a node's hello.
    fn pump(
        &self,
        source: &TcpStream,
        sink: &TcpStream,
        direction: impl Fn(Option<PeerHello>) -> (usize, usize),
    ) {
        let ended = self.try_pump(source, sink, direction);
        // Whichever way it ended, the other side is to see the end.
        let _ = source.shutdown(Shutdown::Both);
        let _ = sink.shutdown(Shutdown::Both);
        ended.unwrap_or_default();
    }

    fn try_pump(
        &self,
        mut source: &TcpStream,
        mut sink: &TcpStream,
        direction: impl Fn(Option<PeerHello>) -> (usize, usize),
    ) -> std::io::Result<()> {
        source.set_nodelay(true)?;
        sink.set_nodelay(true)?;
        source.set_read_timeout(Some(READ_FOR))?;
        let mut input = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        let mut carried = 0u32;
        loop {
            let mut at = 0;
            while let Ok(Peek::Frame { len }) = frame::peek(&input[at..], u32::MAX) {
                let bytes = &input[at..at + len];
                at += len;
                let view = frame::open(bytes).ok();
                let hello = view
                    .as_ref()
                    .filter(|view| view.kind == Kind::PeerHello as u8)
                    .and_then(|view| PeerHello::decode(view).ok());
                let (from, to) = direction(hello);
                while self.between(from, to).cut {
                    if self.over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    thread::sleep(LOOK_EVERY);
                }
                let weather = self.between(from, to);
                let is_batch = view.is_some_and(|view| view.kind == Kind::PeerBatch as u8);
                carried = carried.wrapping_add(1);
                if is_batch
                    && weather.lose_one_in > 0
                    && carried.is_multiple_of(weather.lose_one_in)
                {
                    continue;
                }
                thread::sleep(weather.delay);
                sink.write_all(bytes)?;
            }
            input.drain(..at);
            match source.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => input.extend_from_slice(&chunk[..n]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) && !self.over.load(Ordering::Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Network {
    /// Ends every connection and takes no more.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
