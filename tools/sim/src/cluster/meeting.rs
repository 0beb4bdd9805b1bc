//! A node without a cluster: it asks its peers and answers them, by the server's rules
//! ([`ringbolt::cluster::bootstrap`]), over the simulated network. Members answer with the very code of
//! their sessions.

use std::collections::{BTreeMap, BTreeSet};

use ringbolt::cluster::NodeId;
use ringbolt::cluster::bootstrap::{Answer, Decision, Introduction, Search};
use ringbolt::cluster::map::ClusterMap;
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::peer::{self, INTRODUCED_BYTES_MAX};

use super::clock::{MILLI, Nanos, SECOND};
use super::net::End;

/// How long a peer may take to answer.
pub const ASK_MAX: Nanos = 2 * SECOND;
/// The pause between two rounds of questions.
pub const PAUSE: Nanos = 100 * MILLI;

/// A connection of a node that meets others.
#[derive(Debug, Default)]
struct Line {
    /// The peer that is asked on it; none where a peer asks.
    asked: Option<u16>,
    input: Vec<u8>,
}

/// What has come of a round, if it is over.
#[derive(Debug)]
pub enum Met {
    /// Answers are awaited.
    NotYet,
    /// The next round follows after a pause.
    AskAgain,
    /// The node has its place in a cluster.
    Placed(ClusterMap, NodeId),
    /// It does not start, in words.
    Refused(String),
}

/// What a node without a cluster is at.
#[derive(Debug)]
pub struct Meeting {
    search: Search,
    /// The round under way, from 1.
    pub round: u64,
    wall_ms: u64,
    began: Nanos,
    /// Whether the round is under way: between two rounds nothing is decided.
    asks: bool,
    waits_for: BTreeSet<u16>,
    answers: BTreeMap<String, Answer>,
    lines: BTreeMap<End, Line>,
}

impl Meeting {
    /// Before the first round.
    #[must_use]
    pub fn new(own: Introduction) -> Self {
        Self {
            search: Search::new(own),
            round: 0,
            wall_ms: 0,
            began: 0,
            asks: false,
            waits_for: BTreeSet::new(),
            answers: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }

    /// Whether it knows that its data is lost.
    #[must_use]
    pub fn claims(&self) -> bool {
        self.search.claim().is_some()
    }

    /// Begins a round of node number `own`: whom to ask.
    pub fn begin(&mut self, own: u16, now: Nanos, wall_ms: u64) -> Vec<u16> {
        self.round += 1;
        self.asks = true;
        (self.began, self.wall_ms) = (now, wall_ms);
        self.answers.clear();
        let peers = self.search.own().peers.len() as u16;
        self.waits_for = (0..peers).filter(|peer| *peer != own).collect();
        self.waits_for.iter().copied().collect()
    }

    /// The question, on a connection that was made to a peer in this round.
    pub fn ask(&mut self, peer: u16, end: End) -> Vec<u8> {
        let mut frame = Vec::new();
        // Names and folders of simulated nodes are short.
        let encoded = peer::encode_introduce(self.round, self.search.claim(), &mut frame);
        debug_assert!(encoded.is_ok());
        let line = Line {
            asked: Some(peer),
            input: Vec::new(),
        };
        self.lines.insert(end, line);
        frame
    }

    /// Nothing will come from a peer in this round.
    pub fn is_silent(&mut self, peer: u16) {
        self.waits_for.remove(&peer);
    }

    /// A connection has ended.
    pub fn ended(&mut self, end: End) {
        if let Some(peer) = self.lines.remove(&end).and_then(|line| line.asked) {
            self.is_silent(peer);
        }
    }

    /// Bytes have come. What to send back, if anything; after it, and after an answer, the connection is
    /// done with.
    pub fn received(
        &mut self,
        end: End,
        bytes: &[u8],
        now: Nanos,
        wall_ms: u64,
    ) -> Option<Vec<u8>> {
        let line = self.lines.entry(end).or_default();
        line.input.extend_from_slice(bytes);
        let Ok(Peek::Frame { len }) = frame::peek(&line.input, INTRODUCED_BYTES_MAX) else {
            return None;
        };
        let line = self.lines.remove(&end)?;
        let view = frame::open(&line.input[..len]).ok()?;
        let Some(peer) = line.asked else {
            peer::decode_introduce(&view).ok()?;
            let own = Introduction {
                wall_ms,
                ..self.search.own().clone()
            };
            let answer = Answer::Empty(own).encode().ok()?;
            let mut out = Vec::new();
            peer::encode_introduced(view.request_id, &answer, &mut out).ok()?;
            return Some(out);
        };
        let answer = peer::decode_introduced(&view).ok().map(Answer::decode);
        if let Some(Ok(answer)) = answer
            && self.waits_for.contains(&peer)
        {
            let passed_ms = (now - self.began) / MILLI;
            let wall_ms = answer.wall_ms().saturating_sub(passed_ms);
            let answer = answer.at(wall_ms);
            let name = self.search.own().peers[usize::from(peer)].name.clone();
            self.answers.insert(name, answer);
        }
        self.is_silent(peer);
        Some(Vec::new())
    }

    /// Ends the round once everybody has answered, or when its time is over.
    pub fn conclude(&mut self, now: Nanos) -> Met {
        if !self.asks || !self.waits_for.is_empty() && now < self.began + ASK_MAX {
            return Met::NotYet;
        }
        self.asks = false;
        self.waits_for.clear();
        let answers = std::mem::take(&mut self.answers);
        match self.search.decide(self.wall_ms, answers) {
            Decision::AskAgain | Decision::Claim(_) | Decision::Heard(_) => Met::AskAgain,
            Decision::Join { map, node } => Met::Placed(map, node),
            Decision::Form(map) => {
                let name = &self.search.own().facts.name;
                let node = map.node_named(name).map_or(1, |node| node.id);
                Met::Placed(map, node)
            }
            Decision::Refuse(words) => Met::Refused(words),
        }
    }
}
