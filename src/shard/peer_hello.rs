//! How two nodes greet each other: who they are, what they speak, whether they may meet.

use ringbolt_engine::env::Env;
use ringbolt_wire::frame::FrameView;
use ringbolt_wire::message::ErrorCode;
use ringbolt_wire::peer::{self, BATCH_BYTES_MAX, PEER_VERSION, PeerHello, PeerWelcome};

use super::mail::{Origin, SessionKey};
use super::members::GONE_AFTER;
use super::peers::PeerId;
use super::sessions::Stage;
use super::{Inner, Leaving};
use crate::cluster::bootstrap::{Answer, Member};

impl<E: Env> Inner<E> {
    /// What this core says first to a core of another node.
    pub(super) fn hello(&self, to: PeerId) -> PeerHello {
        let identity = self.config.cluster.identity();
        PeerHello {
            version: PEER_VERSION,
            cluster: identity.cluster,
            from_node: identity.node,
            from_core: self.config.core,
            boot: identity.boot,
            start: identity.start,
            to_node: to.node,
            to_core: to.core,
        }
    }

    /// The first message of a connection from another node, here or handed to the core it wants.
    /// `false` if the rest of the input is not for this shard.
    pub(super) fn greet_peer(
        &self,
        key: SessionKey,
        origin: &Origin,
        view: &FrameView<'_>,
        rest: &[u8],
    ) -> bool {
        let (cluster, cores) = (&self.config.cluster, self.config.map.cores());
        let identity = cluster.identity();
        let hello = match PeerHello::decode(view) {
            Ok(hello) => hello,
            Err(error) => {
                return self.turn_away(key, origin, error.code(), 0, &error.to_string());
            }
        };
        let from = PeerId {
            node: hello.from_node,
            core: hello.from_core,
        };
        if hello.version != PEER_VERSION {
            return self.other_version(key, origin, hello.version);
        }
        if hello.cluster != identity.cluster {
            let message = format!(
                "this node belongs to cluster {:016x}, the dialer to {:016x}: look at --peers and \
                 at the data folders",
                identity.cluster, hello.cluster
            );
            let detail = identity.cluster;
            return self.turn_away(key, origin, ErrorCode::WrongCluster, detail, &message);
        }
        if hello.to_node != identity.node
            || from.node == identity.node
            || cluster.node(from.node).is_none()
        {
            let message = format!(
                "this is node {}; node {} wanted node {}: look at --peers",
                identity.node, from.node, hello.to_node
            );
            let detail = u64::from(identity.node);
            return self.turn_away(key, origin, ErrorCode::WrongNode, detail, &message);
        }
        if hello.to_core >= cores {
            let message = format!("there is no core {}: this node has {cores}", hello.to_core);
            let detail = u64::from(cores);
            return self.turn_away(key, origin, ErrorCode::BadRequest, detail, &message);
        }
        if hello.to_core != self.config.core {
            self.release(origin.cost as usize);
            if let Some(session) = self.forget(key) {
                self.leaving.borrow_mut().push(Leaving {
                    key,
                    handle: session.handle,
                    core: hello.to_core,
                    input: rest.to_vec(),
                });
            }
            return false;
        }
        if let Err(error) = cluster.admit(from.node, hello.boot, hello.start) {
            let detail = error.highest;
            return self.turn_away(
                key,
                origin,
                ErrorCode::BootReused,
                detail,
                &error.to_string(),
            );
        }
        let before = self.peers.borrow_mut().incoming.insert(from, key);
        if let Some(before) = before {
            self.cut(before);
        }
        let limit = self.config.limits.peer_sessions_max;
        if self.peers.borrow().incoming.len() > limit {
            self.peers.borrow_mut().incoming.remove(&from);
            let message = "this core has as many links of other nodes as it may";
            return self.turn_away(key, origin, ErrorCode::Overloaded, limit as u64, message);
        }
        let welcome = PeerWelcome {
            boot: identity.boot,
            start: identity.start,
            cores,
            batch_bytes_max: BATCH_BYTES_MAX,
        };
        self.deliver(origin, |out| welcome.encode(origin.request_id, out));
        self.sessions.borrow_mut().set_stage(key, Stage::Peer(from));
        true
    }

    /// A node that belongs to no cluster yet asks who this one is. `false`: the connection has no
    /// other use.
    pub(super) fn introduce(&self, key: SessionKey, origin: &Origin, view: &FrameView<'_>) -> bool {
        let cluster = &self.config.cluster;
        let (version, claim) = match peer::decode_introduce(view) {
            Ok(question) => question,
            Err(error) => {
                return self.turn_away(key, origin, error.code(), 0, &error.to_string());
            }
        };
        if version != PEER_VERSION {
            return self.other_version(key, origin, version);
        }
        if let Some(claim) = claim {
            cluster.claim(claim.name, claim.folder, self.clock.get().now);
        }
        let answer = Answer::Member(Member {
            name: cluster
                .node(cluster.here())
                .map_or_else(String::new, |node| node.name.clone()),
            map: cluster
                .map()
                .map_or_else(Vec::new, |known| known.encoded.clone()),
            wall_ms: self.clock.get().wall_ms,
            heard: cluster.heard_within(GONE_AFTER, self.clock.get().now),
        });
        let mut frame = Vec::new();
        let encoded = answer.encode().and_then(|answer| {
            peer::encode_introduced(origin.request_id, &answer, &mut frame)
                .map_err(|error| error.to_string())
        });
        match encoded {
            Ok(()) => {
                self.deliver(origin, |out| out.extend_from_slice(&frame));
                self.finish(key);
                false
            }
            Err(error) => self.turn_away(key, origin, ErrorCode::Unavailable, 0, &error),
        }
    }

    fn other_version(&self, key: SessionKey, origin: &Origin, version: u16) -> bool {
        let message = format!(
            "this node speaks peer version {PEER_VERSION}, the dialer {version}: upgrade the older"
        );
        let detail = u64::from(PEER_VERSION);
        self.turn_away(key, origin, ErrorCode::Unsupported, detail, &message)
    }

    fn turn_away(
        &self,
        key: SessionKey,
        origin: &Origin,
        code: ErrorCode,
        detail: u64,
        message: &str,
    ) -> bool {
        self.fail(origin, code, 0, detail, message);
        self.finish(key);
        false
    }
}
