//! Keyspaces in clusters: created, used and dropped from anywhere, at once.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringbolt_engine::env::Env;
use ringbolt_engine::row::{ReadAt, keyspace_range};
use ringbolt_wire::message::{
    Condition, ErrorCode, Keyspace, KeyspaceId, KeyspaceOptions, Request, Response, Ttl, WriteOp,
    WriteOptions,
};

use super::cluster::led;
use super::network::{Network, with_placement};
use super::rig::{PARTITIONS, Placement, Rig, limits, with_node};
use super::{code, done};
use crate::cluster::NodeId;

const SECOND: Duration = Duration::from_secs(1);
const KEYS: u32 = 60;

/// Runs a test on three nodes that hold everything, and on five of which three hold each partition.
fn with_clusters<F>(seed: u64, test: impl Fn(Rc<Network>) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let clusters = [
        (&[1, 2, 1][..], Placement::Together),
        (&[1, 2, 1, 1, 2], Placement::Spread),
    ];
    for (cores, placement) in clusters {
        with_placement(seed, cores, limits(), placement, |network| {
            let test = test(Rc::clone(&network));
            async move {
                let ids: Vec<NodeId> = network.ids().collect();
                led(&network, &ids).await;
                test.await;
            }
        });
    }
}

fn put_in(keyspace: KeyspaceId, key: &[u8]) -> Request<'_> {
    Request::Write {
        keyspace,
        options: WriteOptions::default(),
        op: WriteOp::Put {
            key,
            value: b"v",
            ttl: Ttl::Never,
            condition: Condition::None,
        },
    }
}

/// The keyspaces that a request is answered with: none for a drop. One that comes to a node that does not
/// know yet who leads is sent again.
async fn listed(rig: &Rig, conn: u64, request: &Request<'_>) -> Vec<Keyspace> {
    loop {
        let list = |reply: Response<'_>| match reply {
            Response::Keyspaces(list) => Some(list),
            Response::Done => Some(Vec::new()),
            Response::Error(error) if error.code == ErrorCode::NotLeader => None,
            other => panic!("{other:?}"),
        };
        if let Some(list) = rig.call(conn, request, list).await {
            return list;
        }
        rig.env.sleep(SECOND / 20).await;
    }
}

async fn create(network: &Network, on: NodeId, name: &str) -> KeyspaceId {
    let rig = network.node(on);
    let conn = rig.connect(0, None).await;
    let options = KeyspaceOptions::default();
    let request = Request::KeyspaceCreate { name, options };
    listed(&rig, conn, &request).await[0].id
}

async fn drop_it(network: &Network, on: NodeId, name: &str) {
    let rig = network.node(on);
    let conn = rig.connect(0, None).await;
    assert!(
        listed(&rig, conn, &Request::KeyspaceDrop { name })
            .await
            .is_empty()
    );
}

/// Puts keys, each by another node, and as many as there are.
async fn fill(network: &Network, id: KeyspaceId) {
    let nodes = network.ids().count() as u32;
    for i in 0..KEYS {
        let rig = network.node(i % nodes + 1);
        let conn = rig.connect(0, None).await;
        done(&rig, conn, &put_in(id, format!("key-{i}").as_bytes())).await;
    }
}

/// Rows of a keyspace in all trees of a node.
async fn rows_of(rig: &Rig, id: KeyspaceId) -> usize {
    let mut rows = 0;
    for shard in &rig.shards {
        for partition in 0..PARTITIONS {
            let (from, to) = keyspace_range(partition, id, b"", b"");
            let tree = shard.engine().tree();
            let mut cursor = tree.cursor(&from, &to, false, ReadAt::newest(0));
            while cursor.next().await.unwrap().is_some() {
                rows += 1;
            }
        }
    }
    rows
}

#[test]
fn one_can_be_used_anywhere_as_soon_as_it_is_there() {
    with_clusters(51, |network| async move {
        let last = network.ids().last().unwrap();
        let id = create(&network, last, "things").await;
        fill(&network, id).await;
        for node in network.ids() {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            let names = listed(&rig, conn, &Request::KeyspaceList).await;
            let names: Vec<_> = names.iter().map(|one| &one.name[..]).collect();
            assert_eq!(names, ["default", "things"], "node {node}");
            // One that there never was is refused for good.
            let refused = code(&rig, conn, &put_in(id + 7, b"k")).await;
            assert_eq!(refused, ErrorCode::NoSuchKeyspace);
        }
    });
}

#[test]
fn one_that_is_dropped_takes_nothing_more_and_leaves_nothing() {
    with_clusters(52, |network| async move {
        let id = create(&network, 1, "things").await;
        fill(&network, id).await;
        let last = network.ids().last().unwrap();
        drop_it(&network, last, "things").await;
        for node in network.ids() {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            for i in 0..KEYS {
                let key = format!("late-{i}");
                let put = put_in(id, key.as_bytes());
                assert_eq!(code(&rig, conn, &put).await, ErrorCode::NoSuchKeyspace);
            }
        }
        network.env.sleep(SECOND).await;
        for node in network.ids() {
            assert_eq!(rows_of(&network.node(node), id).await, 0, "node {node}");
        }
        assert_ne!(create(&network, 2, "things").await, id);
    });
}

/// As when a drop has only its definition left to remove.
#[test]
fn whoever_asks_nobody_has_all_answers() {
    with_node(54, 1, limits(), |rig| async move {
        let shard = &rig.shards[0].0;
        let (nobody, origin): ([u16; 0], _) = ([], shard.nobody());
        let replies = shard.ask_each(&nobody, &origin, |_, _, _| ());
        let late = rig.env.sleep(SECOND);
        match select(pin!(replies), pin!(late)).await {
            Either::Left((replies, _)) => assert!(replies.is_empty()),
            Either::Right(_) => panic!("it waits for ever"),
        }
    });
}

/// A partition has no leader at the time.
#[test]
fn what_cannot_be_dropped_at_once_is_dropped_later() {
    let limits = limits();
    let placement = Placement::Spread;
    with_placement(53, &[1; 5], limits, placement, |network| async move {
        let ids: Vec<NodeId> = network.ids().collect();
        led(&network, &ids).await;
        let id = create(&network, 1, "things").await;
        fill(&network, id).await;
        // Partition 1 is held by 2, 3 and 4; the home partition by 1, 2 and 3.
        for lost in [2, 4] {
            for other in network.ids().filter(|&other| other != lost) {
                network.sever(lost, other);
            }
        }
        network.env.sleep(3 * SECOND).await;
        drop_it(&network, 1, "things").await;
        let rig = network.node(1);
        let conn = rig.connect(0, None).await;
        let options = KeyspaceOptions::default();
        let name = "things";
        let again = Request::KeyspaceCreate { name, options };
        assert_eq!(code(&rig, conn, &again).await, ErrorCode::Overloaded);
        network.heal();
        network.env.sleep(6 * SECOND).await;
        for node in network.ids() {
            assert_eq!(rows_of(&network.node(node), id).await, 0, "node {node}");
        }
        assert_ne!(create(&network, 5, "things").await, id);
    });
}
