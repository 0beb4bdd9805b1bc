//! Meeting the peers before there is a cluster: this node says who it is when it is asked, and asks
//! the others, in rounds ([`crate::cluster::bootstrap`]).
//!
//! The cores do not run yet, so this is plain blocking I/O. One thread answers on the node's port, one
//! connection after the other, each within a second; each round asks all peers at once, one short-lived
//! thread a peer, each within two seconds. A connection carries one question and its answer.
//!
//! A node that belongs to a cluster asks at its start, for as long as a healthy peer needs, whether it is
//! where it belongs, and answers those that do the same.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{ErrorCode, ErrorReply, Response};
use ringbolt_wire::peer::{self, Claim, INTRODUCED_BYTES_MAX, PEER_VERSION};
use ringbolt_wire::{HELLO_FRAME_BYTES_MAX, codec};

use crate::cluster::bootstrap::Answer;
use crate::config::Peer;

/// How long a peer may take to answer, from the first try to connect.
pub(super) const ASK_MAX: Duration = Duration::from_secs(2);
/// The same where the answer is not waited for: nodes that start together do not answer yet.
pub(super) const GLANCE_MAX: Duration = Duration::from_millis(500);
/// How long a connection may take to ask and to take the answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How often the answering thread looks for a connection, and whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a client should wait that comes before the cluster is there, in milliseconds.
const RETRY_AFTER_MS: u32 = 500;
/// The request id of a question.
const ASK_ID: u64 = 1;
/// The stack of a thread that asks one peer.
const ASKING_STACK_BYTES: usize = 256 << 10;

/// This node's wall clock, in milliseconds since the Unix epoch.
pub(super) fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// The thread that answers peers. It has ended, and the port is free, once this is dropped.
pub(super) struct Reception {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reception {
    /// Begins to answer this on the port that is listened on.
    ///
    /// # Errors
    /// The system's.
    pub fn open(port: TcpListener, own: Answer) -> io::Result<Self> {
        port.set_nonblocking(true)?;
        let ending = Arc::new(AtomicBool::new(false));
        let thread = {
            let ending = Arc::clone(&ending);
            let receive = move || receive(&port, &own, &ending);
            thread::Builder::new()
                .name("introduce".into())
                .spawn(receive)?
        };
        Ok(Self {
            ending,
            thread: Some(thread),
        })
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It fails by a panic only, and then it answers no more either.
            let _ended = thread.join();
        }
    }
}

fn receive(port: &TcpListener, own: &Answer, ending: &AtomicBool) {
    while !ending.load(Ordering::Acquire) {
        match port.accept() {
            Ok((mut stream, from)) => {
                if let Err(error) = answer(&mut stream, own) {
                    tracing::debug!(%from, %error, "an introduction was not finished");
                }
            }
            // Nobody is there, or somebody gave up; or there are too many open files for now.
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Takes one question and answers it.
fn answer(stream: &mut TcpStream, own: &Answer) -> io::Result<()> {
    let until = Instant::now() + ANSWER_MAX;
    let question = read_frame(stream, HELLO_FRAME_BYTES_MAX, until)?;
    let view = frame::open(&question).map_err(io::Error::other)?;
    let mut out = Vec::new();
    match peer::decode_introduce(&view) {
        // Only members that serve take anybody in.
        Ok((PEER_VERSION, _)) => {
            let answer = own.clone().at(wall_ms());
            let answer = answer.encode().map_err(io::Error::other)?;
            peer::encode_introduced(view.request_id, &answer, &mut out)
                .map_err(io::Error::other)?;
        }
        Ok((version, _)) => {
            let message = format!(
                "{} speaks peer version {PEER_VERSION}, this node {version}: upgrade the older",
                own.name()
            );
            refuse(&mut out, view.request_id, ErrorCode::Unsupported, &message);
        }
        Err(_) => {
            let name = own.name();
            let message = match own {
                Answer::Empty(_) => {
                    format!("node {name} is not part of a cluster yet: it waits for its peers")
                }
                Answer::Member(_) => format!("node {name} starts: it asks its peers"),
            };
            refuse(&mut out, view.request_id, ErrorCode::Unavailable, &message);
        }
    }
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(&out)
}

fn refuse(out: &mut Vec<u8>, request_id: u64, code: ErrorCode, message: &str) {
    let error = ErrorReply {
        code,
        retry_after_ms: RETRY_AFTER_MS,
        detail: u64::from(PEER_VERSION),
        message,
    };
    codec::encode_error(out, request_id, &error);
}

/// What a round has brought.
pub(super) struct Round {
    /// When it began, by this node's wall clock. The times of the answers are as of then.
    pub wall_ms: u64,
    /// By name.
    pub answers: BTreeMap<String, Answer>,
    /// What was answered at this node's own address, if that was asked.
    pub own: Option<Answer>,
    /// The others, each with the reason in words.
    pub silent: Vec<(String, String)>,
}

/// Asks these peers at once; the one named `own` is this node's own address. A node that has lost its
/// data adds its claim for the others. Returns when each has answered or had its time, `most`.
pub(super) fn ask_all<'p>(
    peers: impl Iterator<Item = &'p Peer>,
    own: &str,
    claim: Option<Claim<'_>>,
    most: Duration,
) -> Round {
    let (begun, begun_wall_ms) = (Instant::now(), wall_ms());
    let peers: Vec<&Peer> = peers.collect();
    let outcomes: Vec<Result<Answer, String>> = thread::scope(|scope| {
        let asking: Vec<_> = peers
            .iter()
            .map(|peer| {
                let ask = || {
                    let claim = claim.filter(|_| peer.name != own);
                    let answer =
                        ask(&peer.address, claim, most).map_err(|error| error.to_string())?;
                    let passed_ms = begun.elapsed().as_millis() as u64;
                    let wall_ms = answer.wall_ms().saturating_sub(passed_ms);
                    Ok(answer.at(wall_ms))
                };
                let builder = thread::Builder::new().stack_size(ASKING_STACK_BYTES);
                builder.spawn_scoped(scope, ask)
            })
            .collect();
        let outcome = |asking: io::Result<thread::ScopedJoinHandle<'_, _>>| match asking {
            Ok(asking) => asking
                .join()
                .unwrap_or_else(|_| Err("asking it failed".into())),
            Err(error) => Err(error.to_string()),
        };
        asking.into_iter().map(outcome).collect()
    });
    let mut round = Round {
        wall_ms: begun_wall_ms,
        answers: BTreeMap::new(),
        own: None,
        silent: Vec::new(),
    };
    for (peer, outcome) in peers.into_iter().zip(outcomes) {
        match outcome {
            // It may well be that nobody reaches its own address from where it is.
            outcome if peer.name == own => round.own = outcome.ok(),
            Ok(answer) => {
                round.answers.insert(peer.name.clone(), answer);
            }
            Err(why) => round.silent.push((peer.name.clone(), why)),
        }
    }
    round
}

/// Asks whoever listens at an address.
fn ask(address: &str, claim: Option<Claim<'_>>, most: Duration) -> io::Result<Answer> {
    let until = Instant::now() + most;
    let mut failure = io::Error::other("its address has no meaning");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(until)?) {
            Ok(mut stream) => return ask_on(&mut stream, claim, until),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn ask_on(stream: &mut TcpStream, claim: Option<Claim<'_>>, until: Instant) -> io::Result<Answer> {
    let mut question = Vec::new();
    peer::encode_introduce(ASK_ID, claim, &mut question).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(&question)?;
    let reply = read_frame(stream, INTRODUCED_BYTES_MAX, until)?;
    let view = frame::open(&reply).map_err(io::Error::other)?;
    match peer::decode_introduced(&view) {
        Ok(answer) => Answer::decode(answer).map_err(io::Error::other),
        Err(error) => Err(match Response::decode(&view) {
            Ok(Response::Error(refusal)) => io::Error::other(refusal.message.to_owned()),
            _ => io::Error::other(error),
        }),
    }
}

/// What is left until a moment.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Reads one frame, and nothing behind it matters.
fn read_frame(stream: &mut TcpStream, limit: u32, until: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        match frame::peek(&bytes, limit).map_err(io::Error::other)? {
            Peek::Frame { len } => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            Peek::Oversized { len, .. } => {
                return Err(io::Error::other(format!("it says {len} bytes")));
            }
            Peek::Incomplete { .. } => {}
        }
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}
