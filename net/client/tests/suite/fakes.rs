//! Several fake nodes of one cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ringbolt_client::Builder;
use ringbolt_wire::message::*;
use ringbolt_wire::partition_of;

use crate::fake::{Act, Fake, Seen, Settings, own_address};

pub const PARTITIONS: u16 = 8;
pub const CORES: u16 = 2;

/// Nodes 1, 2, 3; each holds every partition.
pub struct Fakes {
    pub nodes: Vec<Fake>,
    pub topology: Arc<Mutex<Topology>>,
    mute: Vec<Arc<AtomicBool>>,
}

/// Node 1 leads everything.
pub fn topology(nodes: u32) -> Topology {
    let ids: Vec<NodeId> = (1..=nodes).collect();
    Topology {
        cluster: 77,
        version: 2,
        here: 1,
        nodes: ids
            .iter()
            .map(|&id| NodeInfo {
                id,
                name: format!("n{id}"),
                address: String::new(),
                cores: CORES,
                zone: String::new(),
            })
            .collect(),
        replicas: vec![
            Replicas {
                leader: 1,
                nodes: ids,
            };
            usize::from(PARTITIONS)
        ],
    }
}

impl Fakes {
    /// Starts three nodes that tell of the cluster and answer pings by themselves and leave the
    /// rest to the script.
    pub async fn start(script: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static) -> Fakes {
        let told = Arc::new(Mutex::new(topology(3)));
        let script = Arc::new(script);
        let (mut nodes, mut mute) = (Vec::new(), Vec::new());
        for node in 1..=3 {
            let settings = Settings {
                cores: CORES,
                partitions: PARTITIONS,
                node,
                cluster: Some(told.clone()),
                ..Settings::default()
            };
            mute.push(settings.mute.clone());
            let (script, own) = (script.clone(), settings.clone());
            let fake = Fake::start_at(own_address(), settings, move |seen| match seen.request {
                Request::Ping => seen.reply(Response::Done),
                Request::Topology => seen.reply(Response::Topology(own.topology())),
                _ => script(seen),
            })
            .await;
            let at = node as usize - 1;
            told.lock().unwrap().nodes[at].address = fake.address.to_string();
            nodes.push(fake);
        }
        Fakes {
            nodes,
            topology: told,
            mute,
        }
    }

    pub fn node(&self, id: NodeId) -> &Fake {
        &self.nodes[id as usize - 1]
    }

    pub fn mute(&self, id: NodeId, mute: bool) {
        self.mute[id as usize - 1].store(mute, Ordering::SeqCst);
    }

    pub fn lead(&self, leader: NodeId) {
        for replicas in &mut self.topology.lock().unwrap().replicas {
            replicas.leader = leader;
        }
    }

    pub fn addresses(&self) -> String {
        let addresses = self.nodes.iter().map(|node| node.address.to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    pub fn client(&self) -> Builder {
        ringbolt_client::Client::builder()
            .addresses(self.addresses())
            .deadline(std::time::Duration::from_secs(60))
    }
}

impl Seen<'_> {
    /// Whether the request came to the core that owns its key.
    pub fn is_at_home(&self) -> bool {
        let partition = partition_of(self.key(), PARTITIONS);
        self.core == ringbolt_wire::slot::core_of(partition, PARTITIONS, CORES)
    }

    pub fn key(&self) -> &[u8] {
        match &self.request {
            Request::Get { key, .. } => key,
            Request::Write { op, .. } => op.key(),
            request => panic!("{request:?}"),
        }
    }

    pub fn not_leader(&self, leader: NodeId) -> Act {
        self.reply(Response::Error(ErrorReply {
            code: ErrorCode::NotLeader,
            retry_after_ms: 0,
            detail: leader.into(),
            message: "another node leads",
        }))
    }
}
