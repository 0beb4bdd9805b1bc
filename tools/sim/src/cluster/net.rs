//! The network: connections as pairs of byte streams, between clients and nodes and between nodes.
//!
//! A stream keeps its order and loses nothing while the connection stands, as TCP does. What a bad
//! network does to it is delay (each chunk takes its time, and none overtakes another), slowness,
//! silence (a direction that is cut holds what was sent until it is mended) and breakage. A broken
//! connection takes with it what was under way, or delivers it late, after its successor has been
//! made: so messages are lost, duplicated by those who send them again, and reordered. In some runs
//! a frame comes twice, as from a sender that forgot that it had sent it.

use std::collections::{BTreeSet, VecDeque};

use ringbolt_engine::env::sim::Rng;
use ringbolt_wire::Kind;
use ringbolt_wire::frame::{self, FrameView, Peek};
use ringbolt_wire::message::Request;
use ringbolt_wire::peer::{self, PeerItem};

use super::clock::{MICRO, MILLI, Nanos};

/// How many bytes the sockets of a connection take before a send has to wait.
const WINDOW_BYTES: usize = 256 << 10;

/// A place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A node.
    Node(u16),
    /// The machine of a client.
    Client(u16),
}

/// Who holds one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A client.
    Client(u16),
    /// A core of a node, in one life of its process.
    Core {
        /// The node.
        node: u16,
        /// The core.
        core: u16,
        /// The life.
        life: u64,
    },
    /// A node without a cluster, in one life of its process.
    Meeting {
        /// The node.
        node: u16,
        /// The life.
        life: u64,
    },
}

impl Owner {
    /// Where it is.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Self::Client(client) => Place::Client(client),
            Self::Core { node, .. } | Self::Meeting { node, .. } => Place::Node(node),
        }
    }
}

/// One end of a connection: the connection's number times two, and one more for the end that was
/// dialed. The shard's handle for it.
pub type End = u64;

/// The end at the other side.
#[must_use]
pub fn other(end: End) -> End {
    end ^ 1
}

/// What arrives.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes.
    Bytes(Vec<u8>),
    /// No more bytes will come.
    End {
        /// The connection is gone in both directions.
        reset: bool,
    },
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<(Nanos, Chunk)>,
    last_due: Nanos,
    bytes: usize,
    /// A send that waits for room.
    waiting: Option<Vec<u8>>,
    /// Whether nothing more is taken.
    closed: bool,
}

#[derive(Debug)]
struct Side {
    owner: Owner,
    /// What this side has sent.
    out: Pipe,
    /// Whether its owner takes nothing in.
    paused: bool,
    /// Whether its owner has let it go.
    gone: bool,
}

/// What became of a send.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// The sockets have it; the buffer is free.
    Taken(Vec<u8>),
    /// It waits for room.
    Waits,
    /// Nobody is there.
    Gone,
}

/// How long messages take.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// The least, in nanoseconds.
    pub least: Nanos,
    /// The usual range above it.
    pub range: Nanos,
    /// One in so many takes up to [`Delays::tail`] longer; 0 for none.
    pub tail_one_in: u64,
    /// How much longer.
    pub tail: Nanos,
}

/// All connections.
pub struct Net {
    sides: Vec<Option<Side>>,
    /// Directions that carry nothing.
    cut: BTreeSet<(Place, Place)>,
    /// Directions that are a hundred times as slow.
    slow: BTreeSet<(Place, Place)>,
    delays: Delays,
    /// One in so many sends has a frame that comes twice; 0 for none.
    doubles_one_in: u64,
    /// Frames that came twice.
    pub doubled: u64,
    rng: Rng,
}

impl Net {
    /// A network without connections.
    #[must_use]
    pub fn new(delays: Delays, doubles_one_in: u64, rng: Rng) -> Self {
        Self {
            sides: Vec::new(),
            cut: BTreeSet::new(),
            slow: BTreeSet::new(),
            delays,
            doubles_one_in,
            doubled: 0,
            rng,
        }
    }

    /// How long one message from `from` to `to` takes.
    pub fn delay(&mut self, from: Place, to: Place) -> Nanos {
        let delays = self.delays;
        let mut delay = self.rng.between(delays.least, delays.least + delays.range);
        if self.rng.one_in(delays.tail_one_in) {
            delay += self.rng.below(delays.tail);
        }
        if self.slow.contains(&(from, to)) {
            delay = delay.saturating_mul(100).min(2_000 * MILLI);
        }
        delay
    }

    /// Cuts or mends a direction.
    pub fn set_cut(&mut self, from: Place, to: Place, cut: bool) {
        match cut {
            true => self.cut.insert((from, to)),
            false => self.cut.remove(&(from, to)),
        };
    }

    /// Makes a direction slow, or usual again.
    pub fn set_slow(&mut self, from: Place, to: Place, slow: bool) {
        match slow {
            true => self.slow.insert((from, to)),
            false => self.slow.remove(&(from, to)),
        };
    }

    /// From now on no message takes longer than usual.
    pub fn calm(&mut self) {
        self.delays.tail_one_in = 0;
    }

    /// Mends all directions; nothing comes twice any more.
    pub fn mend(&mut self) {
        self.cut.clear();
        self.slow.clear();
        self.doubles_one_in = 0;
    }

    /// Whether a direction carries nothing.
    #[must_use]
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Makes a connection; returns the dialing end.
    pub fn connect(&mut self, dialing: Owner, dialed: Owner) -> End {
        let end = self.sides.len() as End;
        for owner in [dialing, dialed] {
            self.sides.push(Some(Side {
                owner,
                out: Pipe::default(),
                paused: false,
                gone: false,
            }));
        }
        end
    }

    fn side(&self, end: End) -> Option<&Side> {
        self.sides.get(end as usize)?.as_ref()
    }

    fn side_mut(&mut self, end: End) -> Option<&mut Side> {
        self.sides.get_mut(end as usize)?.as_mut()
    }

    /// Who holds an end; `None` once it is let go.
    #[must_use]
    pub fn owner(&self, end: End) -> Option<Owner> {
        self.side(end)
            .filter(|side| !side.gone)
            .map(|side| side.owner)
    }

    /// Gives an end to another core.
    pub fn hand_over(&mut self, end: End, owner: Owner) {
        if let Some(side) = self.side_mut(end) {
            side.owner = owner;
        }
    }

    /// Both places of the direction in which `end` sends.
    fn places(&self, end: End) -> Option<(Place, Place)> {
        let from = self.side(end)?.owner.place();
        let to = self.side(other(end))?.owner.place();
        Some((from, to))
    }

    /// Sends bytes. Returns what became of them, and when the other end should look.
    pub fn send(&mut self, end: End, now: Nanos, bytes: Vec<u8>) -> (Sent, Option<Nanos>) {
        let Some(side) = self.side_mut(end).filter(|side| !side.out.closed) else {
            return (Sent::Gone, None);
        };
        if side.out.bytes > WINDOW_BYTES {
            side.out.waiting = Some(bytes);
            return (Sent::Waits, None);
        }
        let buf = bytes.clone();
        let bytes = match self.rng.one_in(self.doubles_one_in) {
            true => self.with_a_double(bytes),
            false => bytes,
        };
        let due = self.push(end, now, Chunk::Bytes(bytes));
        (Sent::Taken(buf), due)
    }

    /// One of the frames again, behind itself or behind all that were sent with it.
    fn with_a_double(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut frames = Vec::new();
        let mut at = 0;
        while let Ok(Peek::Frame { len }) = frame::peek(&bytes[at..], u32::MAX) {
            if frame::open(&bytes[at..at + len]).is_ok_and(|frame| may_come_twice(&frame)) {
                frames.push(at..at + len);
            }
            at += len;
        }
        if frames.is_empty() || at < bytes.len() {
            return bytes;
        }
        let again = frames.swap_remove(self.rng.index(frames.len()));
        let at = match self.rng.one_in(2) {
            true => again.end,
            false => bytes.len(),
        };
        let copy = bytes[again].to_vec();
        bytes.splice(at..at, copy);
        self.doubled += 1;
        bytes
    }

    fn push(&mut self, end: End, now: Nanos, chunk: Chunk) -> Option<Nanos> {
        let (from, to) = self.places(end)?;
        let delay = self.delay(from, to);
        let side = self.side_mut(end)?;
        let due = (now + delay).max(side.out.last_due + MICRO);
        side.out.last_due = due;
        if let Chunk::Bytes(bytes) = &chunk {
            side.out.bytes += bytes.len();
        }
        side.out.chunks.push_back((due, chunk));
        Some(due)
    }

    /// Lets an end go; what was sent still arrives, then the end of the stream. Returns when the
    /// other end should look.
    pub fn finish(&mut self, end: End, now: Nanos) -> Option<Nanos> {
        let due = self.close(end, now, false);
        if let Some(side) = self.side_mut(end) {
            side.gone = true;
        }
        self.forget_if_over(end);
        due
    }

    /// The direction from `end` breaks: what is under way is lost, if so wished, and the other side
    /// then finds the connection gone. Returns when it should look.
    pub fn reset(&mut self, end: End, now: Nanos, lost: bool) -> Option<Nanos> {
        if lost && let Some(side) = self.side_mut(end) {
            side.out.chunks.clear();
            side.out.bytes = 0;
            side.out.closed = false;
        }
        self.close(end, now, true)
    }

    fn close(&mut self, end: End, now: Nanos, reset: bool) -> Option<Nanos> {
        let side = self.side_mut(end)?;
        if std::mem::replace(&mut side.out.closed, true) {
            return None;
        }
        side.out.waiting = None;
        self.push(end, now, Chunk::End { reset })
    }

    fn forget_if_over(&mut self, end: End) {
        let over = |side: Option<&Side>| side.is_none_or(|side| side.gone);
        if over(self.side(end)) && over(self.side(other(end))) {
            self.sides[end as usize] = None;
            self.sides[other(end) as usize] = None;
        }
    }

    /// The next chunk that has arrived at `end`, if its owner takes it in; the buffer of a send of
    /// the other end that now has room comes with it. A chunk is cut in two now and then.
    pub fn arrived(&mut self, end: End, now: Nanos) -> Option<Chunk> {
        let from = other(end);
        let (source, target) = self.places(from)?;
        if self.side(end)?.paused || self.side(end)?.gone || self.is_cut(source, target) {
            return None;
        }
        let split = self.rng.one_in(16);
        let point = self.rng.next_u64();
        let side = self.side_mut(from)?;
        if side.out.chunks.front()?.0 > now {
            return None;
        }
        let (due, chunk) = side.out.chunks.pop_front()?;
        let mut bytes = match chunk {
            Chunk::Bytes(bytes) => bytes,
            end @ Chunk::End { .. } => return Some(end),
        };
        if split && bytes.len() > 1 {
            let at = 1 + (point % (bytes.len() as u64 - 1)) as usize;
            let rest = bytes.split_off(at);
            side.out.chunks.push_front((due, Chunk::Bytes(rest)));
        }
        side.out.bytes -= bytes.len();
        Some(Chunk::Bytes(bytes))
    }

    /// Takes up a send of `end` that waited for room, if there is some now: its buffer is free, and
    /// the other end should look at the time returned.
    pub fn relieve(&mut self, end: End, now: Nanos) -> Option<(Vec<u8>, Option<Nanos>)> {
        let side = self.side_mut(end)?;
        if side.out.bytes > WINDOW_BYTES {
            return None;
        }
        let bytes = side.out.waiting.take()?;
        let buf = bytes.clone();
        let due = self.push(end, now, Chunk::Bytes(bytes));
        Some((buf, due))
    }

    /// When `end` should look again, if something is on its way to it.
    #[must_use]
    pub fn next_due(&self, end: End) -> Option<Nanos> {
        let side = self.side(other(end))?;
        side.out.chunks.front().map(|(due, _)| *due)
    }

    /// Whether the owner of an end takes nothing in.
    pub fn set_paused(&mut self, end: End, paused: bool) {
        if let Some(side) = self.side_mut(end) {
            side.paused = paused;
        }
    }

    /// The ends that `which` picks and that are not let go, in order.
    #[must_use]
    pub fn ends(&self, which: impl Fn(Owner) -> bool) -> Vec<End> {
        let sides = self.sides.iter().enumerate();
        sides
            .filter_map(|(end, side)| side.as_ref().map(|side| (end as End, side)))
            .filter(|(_, side)| !side.gone && which(side.owner))
            .map(|(end, _)| end)
            .collect()
    }
}

/// A second greeting ends a connection, answers are told apart by their request already, and what a client has
/// not numbered is done as often as it comes.
fn may_come_twice(frame: &FrameView<'_>) -> bool {
    match Kind::from_u8(frame.kind) {
        Ok(Kind::Get | Kind::MultiGet | Kind::Scan) => true,
        Ok(Kind::Write | Kind::Batch) => match Request::decode(frame) {
            Ok(Request::Write { options, .. } | Request::Batch { options, .. }) => {
                options.client != 0
            }
            _ => false,
        },
        Ok(Kind::PeerBatch) => peer::items(frame).is_ok_and(|mut items| {
            items.all(|item| match item {
                Ok(PeerItem::Forward { frame, .. }) => {
                    frame::open(frame).is_ok_and(|frame| may_come_twice(&frame))
                }
                item => item.is_ok(),
            })
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner::Client(0);
    const B: Owner = Owner::Client(1);

    fn net() -> Net {
        let delays = Delays {
            least: 10,
            range: 1000,
            tail_one_in: 4,
            tail: 100_000,
        };
        Net::new(delays, 0, Rng::new(1))
    }

    fn take_all(net: &mut Net, end: End, now: Nanos) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        loop {
            match net.arrived(end, now) {
                Some(Chunk::Bytes(bytes)) => all.extend(bytes),
                Some(Chunk::End { .. }) => return (all, true),
                None => return (all, false),
            }
        }
    }

    #[test]
    fn a_stream_keeps_its_order_and_ends() {
        let mut net = net();
        let end = net.connect(A, B);
        let mut sent = Vec::new();
        for n in 0..100_u8 {
            sent.extend([n; 7]);
            net.send(end, 0, vec![n; 7]);
        }
        assert_eq!(take_all(&mut net, other(end), 5), (vec![], false));
        net.finish(end, 0);
        let late = 10 * MILLI;
        assert_eq!(take_all(&mut net, other(end), late), (sent, true));
        assert_eq!(net.owner(end), None);
    }

    #[test]
    fn a_cut_direction_holds_what_was_sent() {
        let mut net = net();
        let end = net.connect(A, B);
        net.set_cut(A.place(), B.place(), true);
        net.send(end, 0, vec![1]);
        net.send(other(end), 0, vec![2]);
        let late = 10 * MILLI;
        assert!(take_all(&mut net, other(end), late).0.is_empty());
        assert_eq!(take_all(&mut net, end, late).0, [2]);
        net.mend();
        assert_eq!(take_all(&mut net, other(end), late).0, [1]);
    }

    #[test]
    fn a_full_window_makes_a_send_wait() {
        let mut net = net();
        let end = net.connect(A, B);
        let (first, _) = net.send(end, 0, vec![0; WINDOW_BYTES + 1]);
        assert!(matches!(first, Sent::Taken(_)));
        assert_eq!(net.send(end, 0, vec![1]).0, Sent::Waits);
        assert!(net.relieve(end, 0).is_none());
        let late = 10 * MILLI;
        assert_eq!(
            take_all(&mut net, other(end), late).0.len(),
            WINDOW_BYTES + 1
        );
        assert!(net.relieve(end, late).is_some());
        assert_eq!(take_all(&mut net, other(end), 2 * late).0, [1]);
    }

    #[test]
    fn what_is_lost_does_not_arrive() {
        let mut net = net();
        let end = net.connect(A, B);
        net.send(end, 0, vec![1, 2, 3]);
        net.reset(end, 0, true);
        assert_eq!(take_all(&mut net, other(end), 10 * MILLI), (vec![], true));
    }

    #[test]
    fn a_frame_comes_twice_and_a_part_of_one_does_not() {
        use ringbolt_wire::list::TokensBuf;
        use ringbolt_wire::message::{ReadLevel, ReadOptions, Request};

        let tokens = TokensBuf::new();
        let mut frame = Vec::new();
        let get = Request::Get {
            keyspace: 0,
            read: ReadOptions {
                level: ReadLevel::Linearizable,
                tokens: tokens.as_tokens(),
            },
            key: b"k",
        };
        get.encode(7, 100, &mut frame).unwrap();
        let mut net = net();
        net.doubles_one_in = 1;
        let end = net.connect(A, B);
        let (sent, _) = net.send(end, 0, frame.clone());
        assert_eq!(sent, Sent::Taken(frame.clone()));
        net.send(end, 0, frame[1..].to_vec());
        let expected = [&frame[..], &frame[..], &frame[1..]].concat();
        assert_eq!(take_all(&mut net, other(end), 10 * MILLI).0, expected);
        assert_eq!(net.doubled, 1);
    }
}
