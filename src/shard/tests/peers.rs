//! Links between nodes, and requests that pass them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringbolt_engine::entry::PartitionId;
use ringbolt_engine::env::Env;
use ringbolt_engine::env::sim::{self, SimOptions};
use ringbolt_wire::frame::{self, HEADER_BYTES, Peek};
use ringbolt_wire::message::{ErrorCode, ErrorReply, Request, Response, Ttl};
use ringbolt_wire::peer::{
    self, PEER_VERSION, PeerHello, PeerItem, PeerWelcome, RaftEntries, RaftMessage, Reach,
    raft_kind,
};

use super::network::{Network, Weather, with_nodes};
use super::rig::{PARTITIONS, Rig, limits};
use super::{code, get, incr, put, value};
use crate::cluster::addresses::LOOK_UP_EVERY;
use crate::cluster::bootstrap::Answer;
use crate::cluster::{ClusterView, Identity, NodeInfo};
use crate::replica::replica_id;
use crate::shard::limits::ShardLimits;
use crate::shard::mail::{Origin, Scope, SessionKey, Ticket};
use crate::shard::trace::Trace;
use crate::shard::view::Depth;

/// A client of node `from` whose request is to be forwarded: what it is told comes by
/// [`Asked::answer`].
struct Asked {
    core: usize,
    conn: u64,
}

impl Asked {
    /// Has a core of `from` forward a request to `to`'s core `to_core` for a connection of its own.
    async fn new(rig: &Rig, core: usize) -> Self {
        let conn = rig.connect(core, Some(core as u16)).await;
        Self { core, conn }
    }

    fn forward(&self, rig: &Rig, to: (u32, u16), request: &Request<'_>, wait: Duration) {
        let mut bytes = Vec::new();
        request.encode(77, 0, &mut bytes).unwrap();
        let inner = &rig.shards[self.core].0;
        let origin = Origin {
            core: self.core as u16,
            ticket: Ticket::Session(rig.key_of(self.conn)),
            request_id: 77,
            cost: 0,
            deadline: rig.env.now() + wait,
            forwarded: false,
            settled: false,
            trace: Trace::default(),
        };
        inner.begin_answer(rig.key_of(self.conn));
        inner.forward(to.0, to.1, origin, Scope::Whole, &bytes);
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// What came of a forwarded increment.
fn counted(reply: &Response<'_>) -> Result<i64, ErrorCode> {
    match reply {
        Response::Counter { value, .. } => Ok(*value),
        Response::Error(ErrorReply { code, .. }) => Err(*code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_forwarded_request_is_answered_over_links_that_it_made() {
    with_nodes(21, &[2, 3], limits(), |network| async move {
        let (a, b) = (network.node(1), network.node(2));
        let asked = Asked::new(&a, 1).await;
        asked.forward(&a, (2, 2), &incr(b"n", 5), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(5));
        // It was done there and only there.
        let there = b.connect(0, None).await;
        let here = a.connect(0, None).await;
        assert_eq!(value(&b, there, b"n").await.as_deref(), Some(&b"5"[..]));
        assert_eq!(value(&a, here, b"n").await, None);
        // One connection each way, however much passes.
        for _ in 0..100 {
            asked.forward(&a, (2, 2), &get(b"n"), SECOND);
            a.reply(asked.conn, |reply| {
                assert!(matches!(reply, Response::Value { .. }), "{reply:?}");
            })
            .await;
        }
        assert_eq!(network.made.get(), 2);
        let stat = |rig: &Rig, core: usize| rig.shards[core].0.counters.peer_links.get();
        assert_eq!((stat(&a, 1), stat(&b, 2)), (1, 1));
    });
}

/// Increments that pass a network which breaks connections are done at most once each, every one is
/// answered by its deadline, and only what may have been done is in doubt.
#[test]
fn whatever_the_network_does_a_forwarded_write_is_done_at_most_once_and_answered_once() {
    for seed in 0..6 {
        with_nodes(seed, &[2, 1, 2], limits(), |network| async move {
            network.weather.set(Weather {
                delay_us_max: 2000,
                breaks_one_in: 20,
                dials_fail_one_in: 4,
            });
            let a = network.node(1);
            let mut clients = Vec::new();
            for core in 0..2 {
                for _ in 0..4 {
                    clients.push(Asked::new(&a, core).await);
                }
            }
            let targets = [(2, 0), (3, 0), (3, 1)];
            let (mut done, mut doubtful, mut not_done) = ([0; 3], [0; 3], 0);
            for round in 0..100 {
                for (number, client) in clients.iter().enumerate() {
                    let to = targets[(round + number) % 3];
                    client.forward(&a, to, &incr(b"n", 1), SECOND / 5);
                }
                if round == 30 {
                    network.cut(2, 1);
                } else if round == 40 {
                    network.heal();
                }
                for (number, client) in clients.iter().enumerate() {
                    let to = (round + number) % 3;
                    match a.reply(client.conn, |reply| counted(&reply)).await {
                        Ok(_) => done[to] += 1,
                        Err(ErrorCode::InDoubt) => doubtful[to] += 1,
                        Err(ErrorCode::Unavailable) => not_done += 1,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            assert!(network.broken.get() > 0, "the network was bad");
            assert!(done.iter().all(|&done| done > 0), "{done:?}");
            assert!(not_done > 0);
            network.weather.set(Weather::default());
            network.env.sleep(SECOND).await;
            // Nodes 2 and 3 have one counter each, whichever core was asked.
            for (node, low, doubt) in [
                (2, done[0], doubtful[0]),
                (3, done[1] + done[2], doubtful[1] + doubtful[2]),
            ] {
                let rig = network.node(node);
                let conn = rig.connect(0, None).await;
                let found = value(&rig, conn, b"n").await.unwrap();
                let found: i64 = String::from_utf8(found).unwrap().parse().unwrap();
                let most = low + doubt;
                assert!((low..=most).contains(&found), "{low} ≤ {found} ≤ {most}");
            }
            assert!(a.shards.iter().all(|shard| shard.0.forwards_waiting() == 0));
        });
    }
}

#[test]
fn a_node_that_takes_nothing_costs_the_others_nothing_and_its_backlog_is_bounded() {
    let limits = ShardLimits {
        peer_backlog_bytes_max: 256 << 10,
        ..limits()
    };
    with_nodes(22, &[1, 1, 1], limits, |network| async move {
        let a = network.node(1);
        let inner = Rc::clone(&a.shards[0].0);
        let asked = Asked::new(&a, 0).await;
        for node in [2, 3] {
            asked.forward(&a, (node, 0), &incr(b"n", 1), SECOND);
            assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(1));
        }
        network.set_reading(2, false);
        let map = vec![7; 32 << 10];
        let item = PeerItem::Map {
            version: 1,
            bytes: &map,
        };
        let mut sent = 0;
        for _ in 0..200 {
            sent += u32::from(inner.peer_send(2, 0, &item));
            network.env.sleep(Duration::from_micros(100)).await;
        }
        assert!((8..=10).contains(&sent), "{sent} of 32 KiB within 256 KiB");
        // A request for it is refused at once; the other node is as it was.
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        let refused = a.reply(asked.conn, |reply| counted(&reply)).await;
        assert_eq!(refused, Err(ErrorCode::Overloaded));
        asked.forward(&a, (3, 0), &incr(b"n", 1), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(2));
        // It goes on before it is given up: so does the link.
        network.set_reading(2, true);
        network.env.sleep(Duration::from_millis(10)).await;
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(2));
        assert_eq!(network.made.get(), 4);
        // It does not go on: the link is cut, and made anew when it is needed.
        network.set_reading(2, false);
        assert!(inner.peer_send(2, 0, &item));
        network.env.sleep(Duration::from_secs(12)).await;
        assert_eq!(inner.counters.peer_links_failed_total.get(), 1);
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(3));
        assert_eq!(network.made.get(), 5);
    });
}

#[test]
fn dials_back_off_and_a_request_is_refused_meanwhile() {
    with_nodes(23, &[1, 1], limits(), |network| async move {
        let a = network.node(1);
        let inner = &a.shards[0].0;
        network.cut(2, 1);
        let asked = Asked::new(&a, 0).await;
        // For five seconds there is always something to send.
        for _ in 0..5000 {
            inner.peer_send(
                2,
                0,
                &PeerItem::Map {
                    version: 1,
                    bytes: b"",
                },
            );
            network.env.sleep(Duration::from_millis(1)).await;
        }
        let failed = inner.counters.peer_links_failed_total.get();
        assert!((6..=14).contains(&failed), "{failed} dials in 5 s");
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        let refused = a.reply(asked.conn, |reply| counted(&reply)).await;
        assert_eq!(refused, Err(ErrorCode::Unavailable));
        network.heal();
        network.env.sleep(SECOND).await;
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(1));
        // There is no such core, no such node, and no link to oneself.
        for (node, core) in [(2, 1), (3, 0), (1, 0)] {
            assert!(!inner.peer_send(
                node,
                core,
                &PeerItem::Map {
                    version: 1,
                    bytes: b""
                }
            ));
        }
    });
}

#[test]
fn a_node_whose_name_stands_for_nothing_is_dialed_once_it_has_an_address() {
    sim::run(29, SimOptions::default(), |env| async move {
        let node = |id, address: &str| NodeInfo {
            id,
            name: format!("node-{id}"),
            address: address.to_owned(),
            cores: 1,
            zone: String::new(),
            weight: 1,
        };
        let identity = Identity {
            cluster: 77,
            node: 1,
            boot: 1,
            start: 1,
        };
        let nodes = vec![node(1, "127.0.0.1:7400"), node(2, "b.example:7400")];
        let placement = vec![vec![1]; usize::from(PARTITIONS)];
        let view = Arc::new(ClusterView::new(identity, nodes, placement));
        assert_eq!(
            view.addresses().due(Instant::now()).len(),
            1,
            "at the start"
        );
        let rig = Rig::open(env.clone(), Arc::clone(&view), limits()).await;
        let inner = &rig.shards[0].0;
        let dials = async || {
            for _ in 0..1000 {
                inner.peer_send(
                    2,
                    0,
                    &PeerItem::Map {
                        version: 1,
                        bytes: b"",
                    },
                );
                env.sleep(Duration::from_millis(1)).await;
            }
            rig.take_dials().len()
        };
        assert_eq!(dials().await, 0);
        assert!(inner.counters.peer_links_failed_total.get() >= 2);
        let address = ([10, 0, 0, 2], 7400).into();
        view.addresses().take(2, Ok(vec![address]));
        env.sleep(SECOND).await;
        assert!(dials().await > 0);
        // It failed before, so the name is to be looked up once more.
        let later = Instant::now() + LOOK_UP_EVERY;
        assert_eq!(view.addresses().due(later).len(), 1);
    });
}

#[test]
fn a_one_way_cut_ends_in_doubt_for_writes_and_by_the_deadline_for_reads() {
    with_nodes(24, &[1, 1], limits(), |network| async move {
        let (a, b) = (network.node(1), network.node(2));
        let asked = Asked::new(&a, 0).await;
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(1));
        // Requests arrive, answers do not.
        network.cut(2, 1);
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND / 10);
        let doubtful = a.reply(asked.conn, |reply| counted(&reply)).await;
        assert_eq!(doubtful, Err(ErrorCode::InDoubt));
        let there = b.connect(0, None).await;
        assert_eq!(value(&b, there, b"n").await.as_deref(), Some(&b"2"[..]));
        asked.forward(&a, (2, 0), &get(b"n"), SECOND / 10);
        a.reply(asked.conn, |reply| match reply {
            Response::Error(error) => assert_eq!(error.code, ErrorCode::DeadlineExceeded),
            other => panic!("{other:?}"),
        })
        .await;
        // The answers come after all, to nobody.
        network.heal();
        network.env.sleep(SECOND / 10).await;
        asked.forward(&a, (2, 0), &incr(b"n", 1), SECOND);
        assert_eq!(a.reply(asked.conn, |reply| counted(&reply)).await, Ok(3));
    });
}

#[test]
fn a_forwarded_request_is_not_forwarded_again() {
    with_nodes(25, &[1, 1], limits(), |network| async move {
        let a = network.node(1);
        let conn = a.connect(0, None).await;
        let inner = &a.shards[0].0;
        let origin = Origin {
            core: 0,
            ticket: Ticket::Session(a.key_of(conn)),
            request_id: 77,
            cost: 0,
            deadline: a.env.now() + SECOND,
            forwarded: true,
            settled: false,
            trace: Trace::default(),
        };
        let mut bytes = Vec::new();
        get(b"n").encode(77, 0, &mut bytes).unwrap();
        inner.forward(2, 0, origin, Scope::Whole, &bytes);
        a.reply(conn, |reply| match reply {
            Response::Error(error) => {
                assert_eq!((error.code, error.detail), (ErrorCode::NotLeader, 2));
            }
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(network.made.get(), 0);
    });
}

#[test]
fn the_table_of_forwarded_requests_is_bounded() {
    let limits = ShardLimits {
        forwards_max: 3,
        ..limits()
    };
    with_nodes(26, &[1, 1], limits, |network| async move {
        let a = network.node(1);
        let asked = Asked::new(&a, 0).await;
        network.cut(2, 1);
        network.cut(1, 2);
        let mut codes = Vec::new();
        for _ in 0..4 {
            asked.forward(&a, (2, 0), &get(b"n"), SECOND / 10);
        }
        for _ in 0..4 {
            let code = a.reply(asked.conn, |reply| counted(&reply)).await;
            codes.push(code.unwrap_err());
        }
        assert_eq!(codes[0], ErrorCode::Overloaded);
        assert_eq!(codes[1..], [ErrorCode::Unavailable; 3]);
    });
}

fn hello() -> PeerHello {
    PeerHello {
        version: PEER_VERSION,
        cluster: 77,
        from_node: 2,
        from_core: 0,
        boot: 5,
        start: 50,
        to_node: 1,
        to_core: 1,
    }
}

/// Says hello to node 1 as a node of no simulation; the connection, and the answer.
async fn say(network: &Network, hello: PeerHello) -> (u64, Result<PeerWelcome, ErrorCode>) {
    let rig = network.node(1);
    let conn = rig.dial(0);
    let mut bytes = Vec::new();
    hello.encode(9, &mut bytes).unwrap();
    rig.send(conn, &bytes);
    network.env.sleep(Duration::from_millis(1)).await;
    let answer = rig.take_sent(conn);
    assert_eq!(
        frame::peek(&answer, 4096),
        Ok(Peek::Frame { len: answer.len() })
    );
    let view = frame::open(&answer).unwrap();
    assert_eq!(view.request_id, 9);
    let answer = match PeerWelcome::decode(&view) {
        Ok(welcome) => Ok(welcome),
        Err(_) => match Response::decode(&view) {
            Ok(Response::Error(error)) => Err(error.code),
            other => panic!("{other:?}"),
        },
    };
    (conn, answer)
}

#[test]
fn a_node_without_a_cluster_is_told_of_this_one() {
    with_nodes(31, &[1, 1], limits(), |network| async move {
        let rig = network.node(1);
        let conn = rig.dial(0);
        let mut bytes = Vec::new();
        peer::encode_introduce(9, None, &mut bytes).unwrap();
        rig.send(conn, &bytes);
        network.env.sleep(Duration::from_millis(1)).await;
        let answer = rig.take_sent(conn);
        let view = frame::open(&answer).unwrap();
        let told = Answer::decode(peer::decode_introduced(&view).unwrap()).unwrap();
        let Answer::Member(member) = told else {
            panic!("{told:?}");
        };
        assert_eq!(member.name, "node-1");
        assert!(member.wall_ms > 0);
    });
}

#[test]
fn a_clock_that_is_far_off_is_seen() {
    with_nodes(32, &[1, 1], limits(), |network| async move {
        let rig = network.node(1);
        let hello = PeerHello {
            to_core: 0,
            ..hello()
        };
        let (conn, welcome) = say(&network, hello).await;
        assert!(welcome.is_ok());
        let mut bytes = Vec::new();
        let start = peer::begin_batch(&mut bytes);
        let wall_ms = rig.env.wall_ms() + 3_600_000;
        PeerItem::Clock { wall_ms }.encode(&mut bytes).unwrap();
        peer::finish_batch(&mut bytes, start).unwrap();
        rig.send(conn, &bytes);
        network.env.sleep(Duration::from_millis(1)).await;
        let clocks = rig.shards[0].view(Depth::Counters).clocks;
        let [(2, ahead_ms)] = clocks[..] else {
            panic!("{clocks:?}");
        };
        assert!((3_599_000..=3_600_000).contains(&ahead_ms), "{ahead_ms}");
        let now = rig.env.now();
        let news = rig.shards[0].0.config.cluster.clocks().news(now);
        assert_eq!(news, [(2, ahead_ms)]);
    });
}

#[test]
fn strangers_are_turned_away_and_say_why() {
    with_nodes(27, &[2, 1], limits(), |network| async move {
        let rig = network.node(1);
        for (hello, why) in [
            (
                PeerHello {
                    cluster: 78,
                    ..hello()
                },
                ErrorCode::WrongCluster,
            ),
            (
                PeerHello {
                    to_node: 2,
                    ..hello()
                },
                ErrorCode::WrongNode,
            ),
            (
                PeerHello {
                    from_node: 1,
                    ..hello()
                },
                ErrorCode::WrongNode,
            ),
            (
                PeerHello {
                    from_node: 3,
                    ..hello()
                },
                ErrorCode::WrongNode,
            ),
            (
                PeerHello {
                    version: PEER_VERSION + 1,
                    ..hello()
                },
                ErrorCode::Unsupported,
            ),
            (
                PeerHello {
                    to_core: 2,
                    ..hello()
                },
                ErrorCode::BadRequest,
            ),
        ] {
            let (conn, answer) = say(&network, hello).await;
            assert_eq!(answer.unwrap_err(), why, "{hello:?}");
            network.env.sleep(Duration::from_millis(1)).await;
            assert!(rig.is_closed(conn));
        }
        let (first, answer) = say(&network, hello()).await;
        assert_eq!(answer.unwrap().cores, 2);
        assert_eq!(rig.core_of(first), 1, "handed to the core that it wants");
        // The same start again replaces it; the same counter of another start does not.
        let (second, answer) = say(&network, hello()).await;
        assert!(answer.is_ok());
        network.env.sleep(Duration::from_millis(1)).await;
        assert!(rig.is_closed(first) && !rig.is_closed(second));
        for reused in [
            PeerHello {
                start: 51,
                ..hello()
            },
            PeerHello { boot: 4, ..hello() },
        ] {
            let (_, answer) = say(&network, reused).await;
            assert_eq!(answer.unwrap_err(), ErrorCode::BootReused);
        }
        let later = PeerHello {
            boot: 6,
            start: 60,
            ..hello()
        };
        assert!(say(&network, later).await.1.is_ok());
    });
}

#[test]
fn a_peer_that_breaks_the_protocol_is_cut_off_and_nobody_else() {
    with_nodes(28, &[2, 1], limits(), |network| async move {
        let rig = network.node(1);
        let good = rig.connect(0, None).await;
        let mut big = Vec::new();
        let start = peer::begin_batch(&mut big);
        big.resize(peer::BATCH_BYTES_MAX as usize + 1, 0);
        peer::finish_batch(&mut big, start).unwrap();
        let mut contradicting = Vec::new();
        let start = peer::begin_batch(&mut contradicting);
        contradicting.extend_from_slice(&[1, 3, 0, 0, 0, 1, 2, 3]);
        peer::finish_batch(&mut contradicting, start).unwrap();
        let mut request = Vec::new();
        get(b"n").encode(1, 0, &mut request).unwrap();
        for bad in [
            big[..HEADER_BYTES].to_vec(),
            contradicting,
            request,
            vec![0xff; 100],
        ] {
            let (conn, answer) = say(&network, hello()).await;
            assert!(answer.is_ok());
            rig.send(conn, &bad);
            network.env.sleep(Duration::from_millis(1)).await;
            assert!(rig.is_closed(conn));
            assert!(rig.take_sent(conn).is_empty(), "nobody reads an answer");
        }
        assert_eq!(value(&rig, good, b"n").await, None);
        // A forwarded frame that is no frame is left to its sender's deadline.
        let (conn, _) = say(&network, hello()).await;
        let mut batch = Vec::new();
        let start = peer::begin_batch(&mut batch);
        PeerItem::Forward {
            id: 1,
            deadline_ms: 100,
            reach: Reach::Whole,
            frame: &[0xff; 40],
        }
        .encode(&mut batch)
        .unwrap();
        peer::finish_batch(&mut batch, start).unwrap();
        rig.send(conn, &batch);
        network.env.sleep(Duration::from_millis(1)).await;
        assert!(!rig.is_closed(conn));
    });
}

#[test]
fn other_nodes_are_let_in_when_there_are_as_many_clients_as_may_be() {
    let limits = ShardLimits {
        sessions_max: 2,
        ..limits()
    };
    with_nodes(29, &[1, 1], limits, |network| async move {
        let rig = network.node(1);
        let first = rig.connect(0, None).await;
        let _second = rig.connect(0, None).await;
        let third = rig.dial(0);
        let hello_client = Request::Hello {
            version_min: 1,
            version_max: 1,
            core: None,
            agent: b"one too many",
        };
        assert_eq!(
            code(&rig, third, &hello_client).await,
            ErrorCode::Overloaded
        );
        let here = PeerHello {
            to_core: 0,
            boot: 1,
            start: network.node(2).start(),
            ..hello()
        };
        assert!(say(&network, here).await.1.is_ok());
        let stored = put(b"k", b"v", Ttl::Default, Default::default());
        super::done(&rig, first, &stored).await;
        let asked = Asked {
            core: 0,
            conn: first,
        };
        asked.forward(&rig, (2, 0), &incr(b"n", 1), SECOND);
        assert_eq!(rig.reply(first, |reply| counted(&reply)).await, Ok(1));
    });
}

impl<E: Env> crate::shard::Inner<E> {
    /// Counts a request of a connection, as admitting one does.
    fn begin_answer(&self, key: SessionKey) {
        if let Some(session) = self.sessions.borrow_mut().get(key) {
            session.inflight += 1;
        }
    }

    fn forwards_waiting(&self) -> usize {
        self.forwards.borrow().len()
    }
}

#[test]
fn a_message_for_a_partition_that_there_is_not_does_no_harm() {
    with_nodes(27, &[1, 1], limits(), |network| async move {
        let (a, b) = (network.node(1), network.node(2));
        let message = RaftMessage {
            kind: raft_kind::HEARTBEAT,
            from: replica_id(1, 1),
            to: replica_id(2, 1),
            term: 7,
            ..RaftMessage::default()
        };
        let item = PeerItem::Raft {
            partition: PartitionId::MAX,
            message,
            entries: RaftEntries::default(),
        };
        let inner = &b.shards[0].0;
        while inner.counters.bad_frames_total.get() == 0 {
            a.shards[0].0.peer_send(2, 0, &item);
            network.env.sleep(Duration::from_millis(10)).await;
        }
        let conn = b.connect(0, None).await;
        assert_eq!(value(&b, conn, b"k").await, None);
    });
}

/// What a node whose tables are damaged waits for: nodes that have nothing else to say to it are heard too.
#[test]
fn a_node_that_wants_to_go_hears_of_all_others() {
    with_nodes(21, &[1, 1, 1], limits(), |network| async move {
        let inner = Rc::clone(&network.node(1).shards[0].0);
        network.env.sleep(Duration::from_secs(3)).await;
        assert!(!inner.could_go(), "nothing was to be said");
        inner.config.cluster.drain(true);
        network.env.sleep(Duration::from_secs(5)).await;
        assert!(inner.could_go());
        network.sever(1, 3);
        network.env.sleep(Duration::from_secs(5)).await;
        assert!(!inner.could_go());
    });
}
