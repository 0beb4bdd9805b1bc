//! Nodes that do not hold a partition, asked by clients that know no better.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::list::KeysBuf;
use ringbolt_wire::message::{
    Condition, ErrorCode, ErrorReply, ReadLevel, ReadOptions, Request, Response, Scan, Ttl, WriteOp,
};
use ringbolt_wire::partition_of;

use super::cluster::{leader_of, led};
use super::network::{Network, Weather, with_placement};
use super::rig::{PARTITIONS, Placement, Rig, limits};
use super::{code, done, get, incr, put, value};
use crate::cluster::NodeId;

const SECOND: Duration = Duration::from_secs(1);
/// Enough that every partition has some.
const KEYS: u32 = 120;

/// Runs a test on five nodes of which three hold each partition, once all are led.
fn with_five<F>(seed: u64, test: impl FnOnce(Rc<Network>) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let cores = [1, 2, 1, 1, 2];
    with_placement(
        seed,
        &cores,
        limits(),
        Placement::Spread,
        |network| async move {
            led(&network, &[1, 2, 3, 4, 5]).await;
            test(network).await;
        },
    );
}

fn key(i: u32) -> String {
    format!("key-{i:03}")
}

/// The first key of a partition.
fn key_in(partition: u16) -> String {
    let mut keys = (0..KEYS).map(key);
    let found = keys.find(|key| partition_of(key.as_bytes(), PARTITIONS) == partition);
    found.unwrap()
}

/// Writes every key where its partition is led.
async fn fill(network: &Network) {
    for i in 0..KEYS {
        let key = key(i);
        let rig = network.node(leader_of(network, key.as_bytes()));
        let conn = rig.connect(0, None).await;
        let put = put(key.as_bytes(), key.as_bytes(), Ttl::Never, Condition::None);
        done(&rig, conn, &put).await;
    }
    // So that every replica has them.
    network.env.sleep(SECOND).await;
}

/// Nothing passes between a node and the others.
fn part(network: &Network, lost: NodeId) -> Vec<NodeId> {
    let others: Vec<NodeId> = network.ids().filter(|&node| node != lost).collect();
    for &other in &others {
        network.sever(lost, other);
    }
    others
}

fn of_level(level: ReadLevel) -> ReadOptions<'static> {
    ReadOptions {
        level,
        ..ReadOptions::default()
    }
}

/// All keys there are, page by page.
async fn scanned(rig: &Rig, conn: u64, level: ReadLevel, reverse: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = Vec::new();
    for _ in 0..KEYS {
        let request = Request::Scan(Scan {
            keyspace: 0,
            read: of_level(level),
            prefix: b"key-",
            start: b"",
            end: b"",
            reverse,
            keys_only: true,
            limit: 7,
            cursor: &cursor,
        });
        cursor = rig
            .call(conn, &request, |reply| match reply {
                Response::Rows {
                    tokens,
                    rows,
                    cursor,
                } => {
                    let mut seen: Vec<u16> = tokens.iter().map(|token| token.partition).collect();
                    seen.sort_unstable();
                    assert!(seen.into_iter().eq(0..PARTITIONS), "each once");
                    let keys = rows.iter().map(|(key, ..)| key.to_vec());
                    found.extend(keys.map(|key| String::from_utf8(key).unwrap()));
                    cursor.to_vec()
                }
                other => panic!("{other:?}"),
            })
            .await;
        if cursor.is_empty() {
            return found;
        }
    }
    panic!("it does not end");
}

/// Asks a node for everything, as a client does that knows no other node and tries nothing again.
async fn serves_all(network: &Network, node: NodeId) {
    let rig = network.node(node);
    let conn = rig.connect(0, None).await;
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    for level in [ReadLevel::Linearizable, ReadLevel::Session] {
        let mut wanted = KeysBuf::new();
        for key in &keys {
            wanted.push(key.as_bytes()).unwrap();
        }
        let request = Request::MultiGet {
            keyspace: 0,
            read: of_level(level),
            keys: wanted.as_keys(),
        };
        rig.call(conn, &request, |reply| match reply {
            Response::Values { values, .. } => {
                let values = values.iter().map(|value| value.map(|(_, value)| value));
                let expected = keys.iter().map(|key| Some(key.as_bytes()));
                assert!(values.eq(expected), "node {node}");
            }
            other => panic!("node {node}: {other:?}"),
        })
        .await;
        assert_eq!(scanned(&rig, conn, level, false).await, keys);
        let mut backwards = scanned(&rig, conn, level, true).await;
        backwards.reverse();
        assert_eq!(backwards, keys);
    }
    for key in &keys {
        let key = key.as_bytes();
        assert_eq!(value(&rig, conn, key).await.as_deref(), Some(key));
        done(&rig, conn, &put(key, key, Ttl::Never, Condition::None)).await;
    }
    let counter = |i: u32| format!("count-{node}-{i}");
    for i in 0..KEYS {
        let count = rig
            .call(conn, &incr(counter(i).as_bytes(), 1), |reply| match reply {
                Response::Counter { value, .. } => value,
                other => panic!("node {node}: {other:?}"),
            })
            .await;
        assert_eq!(count, 1, "once");
    }
    // It believes of every partition what is so.
    let topology = rig
        .call(conn, &Request::Topology, |reply| match reply {
            Response::Topology(topology) => topology,
            other => panic!("{other:?}"),
        })
        .await;
    let cluster = &rig.shards[0].0.config.cluster;
    for key in &keys {
        let partition = partition_of(key.as_bytes(), PARTITIONS);
        let leader = leader_of(network, key.as_bytes());
        assert_eq!(cluster.leader(partition), leader, "at node {node}");
        let told = topology.leader(partition);
        assert!(told.is_none_or(|told| told == leader), "{told:?}");
    }
}

#[test]
fn a_dead_first_holder_costs_nobody_its_partitions() {
    for seed in 0..3 {
        with_five(seed, move |network| async move {
            fill(&network).await;
            let others = part(&network, 1 + seed as u32);
            led(&network, &others).await;
            network.env.sleep(SECOND).await;
            for &node in &others {
                serves_all(&network, node).await;
            }
        });
    }
}

/// The first request of all to be asked of a node, whichever it is, meets a dead leader unawares.
#[test]
fn each_kind_of_request_finds_the_leader_by_itself() {
    for seed in 0..4 {
        with_five(seed, move |network| async move {
            fill(&network).await;
            let others = part(&network, 3);
            led(&network, &others).await;
            network.env.sleep(SECOND).await;
            // Held by 3, 4 and 5.
            let key = key_in(2);
            for node in [1, 2] {
                let rig = network.node(node);
                let conn = rig.connect(0, None).await;
                match seed {
                    0 => {
                        let found = value(&rig, conn, key.as_bytes()).await;
                        assert_eq!(found.as_deref(), Some(key.as_bytes()));
                    }
                    1 => {
                        let put = put(key.as_bytes(), b"v", Ttl::Never, Condition::None);
                        done(&rig, conn, &put).await;
                    }
                    2 => {
                        let all = scanned(&rig, conn, ReadLevel::Linearizable, false).await;
                        assert_eq!(all.len(), KEYS as usize);
                    }
                    _ => {
                        let all = scanned(&rig, conn, ReadLevel::Session, false).await;
                        assert_eq!(all.len(), KEYS as usize);
                    }
                }
            }
        });
    }
}

#[test]
fn who_holds_nothing_follows_a_leader_that_moves() {
    with_five(7, |network| async move {
        fill(&network).await;
        let drains =
            |node: NodeId, drains| network.node(node).shards[0].0.config.cluster.drain(drains);
        let leads = |node: NodeId| network.node(node).shards[0].0.config.cluster.led_here();
        for moved in [2, 4, 5] {
            drains(moved, true);
            for _ in 0..5000 {
                if leads(moved) == 0 {
                    break;
                }
                network.env.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(leads(moved), 0);
            network.env.sleep(SECOND).await;
            led(&network, &[1, 2, 3, 4, 5]).await;
            for node in 1..=5 {
                serves_all_anew(&network, node).await;
            }
            drains(moved, false);
            // Whoever should lead does so again.
            network.env.sleep(20 * SECOND).await;
            led(&network, &[1, 2, 3, 4, 5]).await;
        }
        for node in 1..=5 {
            serves_all_anew(&network, node).await;
        }
    });
}

/// The same as [`serves_all`] after its counters are gone.
async fn serves_all_anew(network: &Network, node: NodeId) {
    let rig = network.node(node);
    let conn = rig.connect(0, None).await;
    for i in 0..KEYS {
        let key = format!("count-{node}-{i}");
        let delete = super::write(WriteOp::Delete {
            key: key.as_bytes(),
            condition: Condition::None,
        });
        done(&rig, conn, &delete).await;
    }
    serves_all(network, node).await;
}

#[test]
fn one_that_falls_silent_is_asked_only_until_it_has_not_answered() {
    with_five(8, |network| async move {
        fill(&network).await;
        // Its links are made: what is sent on them goes nowhere, and nothing says so.
        for node in 1..=5 {
            serves_all(&network, node).await;
        }
        // Held by 3, 4 and 5.
        let key = key_in(2);
        let silent = leader_of(&network, key.as_bytes());
        let others: Vec<NodeId> = (1..=5).filter(|&node| node != silent).collect();
        for &node in &others {
            network.cut(silent, node);
            network.cut(node, silent);
        }
        led(&network, &others).await;
        network.env.sleep(SECOND).await;
        for node in [1, 2] {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            let mut bytes = Vec::new();
            get(key.as_bytes()).encode(77, 200, &mut bytes).unwrap();
            rig.send(conn, &bytes);
            rig.reply(conn, |reply| match reply {
                Response::Error(ErrorReply { code, .. }) => {
                    assert_eq!(code, ErrorCode::DeadlineExceeded);
                }
                other => panic!("{other:?}"),
            })
            .await;
            let found = value(&rig, conn, key.as_bytes()).await;
            assert_eq!(found.as_deref(), Some(key.as_bytes()));
        }
    });
}

#[test]
fn a_partition_that_nobody_leads_is_refused_soon() {
    with_five(9, |network| async move {
        fill(&network).await;
        for lost in [3, 4] {
            part(&network, lost);
        }
        network.env.sleep(2 * SECOND).await;
        let key = key_in(2);
        for node in [1, 2, 5] {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            let asked = network.env.now();
            for request in [get(key.as_bytes()), incr(key.as_bytes(), 1)] {
                let code = code(&rig, conn, &request).await;
                let is_right = matches!(code, ErrorCode::Unavailable | ErrorCode::NotLeader);
                assert!(is_right, "{code:?}");
            }
            assert!(network.env.now() - asked < SECOND);
        }
    });
}

/// Whatever breaks on the way, an increment is done at most once, and what is said of it holds.
#[test]
fn a_write_that_is_sent_on_again_is_done_at_most_once() {
    for seed in 0..2 {
        with_five(seed, |network| async move {
            network.weather.set(Weather {
                delay_us_max: 2000,
                breaks_one_in: 60,
                dials_fail_one_in: 4,
            });
            let mut clients = Vec::new();
            for node in 1..=5 {
                let rig = network.node(node);
                let conn = rig.connect(0, None).await;
                clients.push((rig, conn));
            }
            let counters: Vec<String> = (0..5).map(|i| format!("n{i}")).collect();
            let (mut sure, mut doubtful, mut refused) = ([0; 5], [0; 5], 0);
            for round in 0..60 {
                let lost = round / 20 + 2;
                if round % 20 == 5 {
                    part(&network, lost);
                } else if round % 20 == 12 {
                    network.heal();
                }
                for (rig, conn) in &clients {
                    for counter in &counters {
                        let mut bytes = Vec::new();
                        let request = incr(counter.as_bytes(), 1);
                        request.encode(77, 100, &mut bytes).unwrap();
                        rig.send(*conn, &bytes);
                        let at = counters.iter().position(|other| other == counter).unwrap();
                        rig.reply(*conn, |reply| match reply {
                            Response::Counter { .. } => sure[at] += 1,
                            Response::Error(ErrorReply { code, .. }) => match code {
                                ErrorCode::InDoubt => doubtful[at] += 1,
                                ErrorCode::Unavailable
                                | ErrorCode::NotLeader
                                | ErrorCode::DeadlineExceeded => refused += 1,
                                other => panic!("{other:?}"),
                            },
                            other => panic!("{other:?}"),
                        })
                        .await;
                    }
                }
            }
            println!("{sure:?} done, {doubtful:?} in doubt, {refused} refused");
            assert!(sure.iter().all(|&sure| sure > 0));
            network.weather.set(Weather::default());
            network.heal();
            network.env.sleep(3 * SECOND).await;
            led(&network, &[1, 2, 3, 4, 5]).await;
            let (rig, conn) = &clients[0];
            for (at, counter) in counters.iter().enumerate() {
                let found = value(rig, *conn, counter.as_bytes()).await.unwrap();
                let found: i64 = String::from_utf8(found).unwrap().parse().unwrap();
                let most = sure[at] + doubtful[at];
                assert!((sure[at]..=most).contains(&found), "{sure:?} {doubtful:?}");
            }
        });
    }
}
