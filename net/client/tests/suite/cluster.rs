//! Where requests go, and what happens when nodes die, fall silent or change their minds.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringbolt_client::{Error, ErrorCode, ReadLevel, ReadOptions};
use ringbolt_wire::message::*;
use ringbolt_wire::partition_of;

use crate::fake::{Act, Seen, value, written};
use crate::fakes::{Fakes, PARTITIONS};

/// Far more than a reroute takes, far less than the deadline.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What a node that leads answers; another says who does.
fn by_leader(seen: &Seen<'_>, leader: NodeId) -> Act {
    if seen.node != leader {
        return seen.not_leader(leader);
    }
    match seen.request {
        Request::Get { key, .. } => seen.reply(value(key)),
        _ => seen.reply(written()),
    }
}

#[tokio::test]
async fn requests_go_to_the_core_of_the_leader() {
    let seen_by = Arc::new(Mutex::new(Vec::new()));
    let log = seen_by.clone();
    let fakes = Fakes::start(move |seen| {
        assert!(seen.is_at_home());
        let partition = partition_of(seen.key(), PARTITIONS);
        assert_eq!(seen.node, u32::from(partition) % 3 + 1);
        log.lock().unwrap().push(seen.node);
        by_leader(seen, seen.node)
    })
    .await;
    for (partition, replicas) in fakes
        .topology
        .lock()
        .unwrap()
        .replicas
        .iter_mut()
        .enumerate()
    {
        replicas.leader = partition as u32 % 3 + 1;
    }
    // Any node tells of all.
    for node in &fakes.nodes {
        let client = node.connect().await;
        for n in 0..40 {
            client.put(format!("k{n}"), "v").await.unwrap();
            client.get(format!("k{n}")).await.unwrap();
        }
    }
    let seen_by = seen_by.lock().unwrap();
    assert_eq!(seen_by.len(), 240);
    assert!((1..=3).all(|node| seen_by.contains(&node)));
}

#[tokio::test]
async fn a_change_of_leader_is_followed_and_remembered() {
    let leader = Arc::new(AtomicU32::new(1));
    let refusals = Arc::new(AtomicUsize::new(0));
    let (leads, refused) = (leader.clone(), refusals.clone());
    let fakes = Fakes::start(move |seen| {
        let leader = leads.load(Ordering::SeqCst);
        refused.fetch_add(usize::from(seen.node != leader), Ordering::SeqCst);
        by_leader(seen, leader)
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    client.put("k", "v").await.unwrap();
    assert_eq!(refusals.load(Ordering::SeqCst), 0);
    // The topology does not know yet.
    leader.store(3, Ordering::SeqCst);
    let started = Instant::now();
    for _ in 0..20 {
        client.put("k", "v").await.unwrap();
    }
    assert!(started.elapsed() < AT_ONCE);
    // A refreshed topology may mislead once more.
    let refusals = refusals.load(Ordering::SeqCst);
    assert!((1..=4).contains(&refusals), "{refusals}");
}

#[tokio::test]
async fn while_nobody_leads_all_are_asked_again_and_again() {
    let asked = Arc::new(Mutex::new([0; 3]));
    let count = asked.clone();
    let fakes = Fakes::start(move |seen| {
        let mut asked = count.lock().unwrap();
        asked[seen.node as usize - 1] += 1;
        match asked.iter().sum::<u32>() {
            0..12 if seen.node == 2 => seen.error(ErrorCode::Unavailable, 1),
            0..12 => seen.not_leader(0),
            _ => seen.reply(written()),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    let started = Instant::now();
    client.put("k", "v").await.unwrap();
    assert!(started.elapsed() < AT_ONCE);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|&asked| asked >= 3), "{asked:?}");
}

#[tokio::test]
async fn a_dead_leader_is_gone_round_and_taken_back() {
    let leader = Arc::new(AtomicU32::new(1));
    let leads = leader.clone();
    let fakes = Fakes::start(move |seen| by_leader(seen, leads.load(Ordering::SeqCst))).await;
    let client = fakes.client().connect().await.unwrap();
    client.put("k", "v").await.unwrap();
    fakes.node(1).stop().await;
    leader.store(2, Ordering::SeqCst);
    fakes.lead(2);
    let started = Instant::now();
    for n in 0..20 {
        client.put(format!("k{n}"), "v").await.unwrap();
        client.get(format!("k{n}")).await.unwrap();
    }
    assert!(started.elapsed() < AT_ONCE);
    // The client that comes later is not stopped by a dead address either.
    fakes
        .client()
        .connect()
        .await
        .unwrap()
        .put("k", "v")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_silent_leader_is_gone_round() {
    let leader = Arc::new(AtomicU32::new(1));
    let leads = leader.clone();
    let fakes = Fakes::start(move |seen| by_leader(seen, leads.load(Ordering::SeqCst))).await;
    let client = fakes
        .client()
        .silence(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    client.put("k", "v").await.unwrap();
    fakes.mute(1, true);
    leader.store(2, Ordering::SeqCst);
    let started = Instant::now();
    let (get, put) = tokio::join!(client.get("k"), client.put("k", "v"));
    get.unwrap();
    put.unwrap();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    // Nobody waits for it now.
    let started = Instant::now();
    for n in 0..20 {
        client.put(format!("k{n}"), "v").await.unwrap();
    }
    assert!(started.elapsed() < AT_ONCE / 4, "{:?}", started.elapsed());
    // It comes back, and is found.
    fakes.mute(1, false);
    leader.store(1, Ordering::SeqCst);
    let started = Instant::now();
    client.put("k", "v").await.unwrap();
    assert!(started.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn a_silent_address_does_not_keep_a_client_from_the_next() {
    let fakes = Fakes::start(|seen| by_leader(seen, 2)).await;
    fakes.mute(1, true);
    fakes.lead(2);
    let started = Instant::now();
    let client = fakes
        .client()
        .connect_timeout(AT_ONCE)
        .connect()
        .await
        .unwrap();
    client.put("k", "v").await.unwrap();
    assert!(started.elapsed() < AT_ONCE / 2);
}

#[tokio::test]
async fn a_server_that_takes_long_over_one_request_is_not_silent() {
    let held = Arc::new(Mutex::new(None));
    let script_held = held.clone();
    let fakes = Fakes::start(move |seen| match seen.key() {
        b"slow" => {
            *script_held.lock().unwrap() = Some(crate::fake::encoded(seen.id, &written()));
            Act::Nothing
        }
        _ => Act::Send(script_held.lock().unwrap().take().unwrap()),
    })
    .await;
    let client = fakes
        .client()
        .silence(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.put("slow", "v").await }
    });
    // Pings are answered all the while.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!slow.is_finished());
    let connections: usize = fakes.nodes.iter().map(|node| node.connections()).sum();
    let release = tokio::spawn({
        let client = client.clone();
        // Of the same core as "slow", so that it goes the same way.
        let core = |key: &str| {
            ringbolt_wire::slot::core_of(partition_of(key.as_bytes(), PARTITIONS), PARTITIONS, 2)
        };
        let key = (0..)
            .map(|n| format!("k{n}"))
            .find(|key| core(key) == core("slow"));
        async move { client.put(key.unwrap(), "v").await }
    });
    slow.await.unwrap().unwrap();
    release.abort();
    let _ = release.await;
    assert!(connections <= 3, "{connections}");
}

#[tokio::test]
async fn an_older_topology_is_not_believed() {
    let fakes = Fakes::start(|seen| {
        assert_ne!(seen.node, 3, "it holds nothing in the newer map");
        by_leader(seen, seen.node)
    })
    .await;
    // The newer map: node 3 has nothing any more.
    let newer = {
        let mut topology = fakes.topology.lock().unwrap();
        for replicas in &mut topology.replicas {
            replicas.nodes = vec![1, 2];
        }
        topology.version = 3;
        topology.clone()
    };
    let client = fakes.client().connect().await.unwrap();
    // From now on the nodes tell an older one.
    {
        let mut topology = fakes.topology.lock().unwrap();
        topology.version = 2;
        for replicas in &mut topology.replicas {
            replicas.nodes = vec![3];
            replicas.leader = 3;
        }
    }
    client.topology().await.unwrap();
    for n in 0..20 {
        client.put(format!("k{n}"), "v").await.unwrap();
    }
    // And then one that is newer still.
    {
        let mut topology = fakes.topology.lock().unwrap();
        *topology = newer;
        topology.version = 4;
        for replicas in &mut topology.replicas {
            replicas.leader = 2;
        }
    }
    assert_eq!(client.topology().await.unwrap().version, 4);
    client.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let fakes = Fakes::start(|seen| by_leader(seen, 1)).await;
    let client = fakes.client().connect().await.unwrap();
    client.put("k", "v").await.unwrap();
    fakes.topology.lock().unwrap().cluster = 78;
    fakes.node(1).stop().await;
    loop {
        match client.put("k", "v").await {
            Err(Error::Protocol(what)) => break assert!(what.contains("another cluster")),
            // The client had not noticed yet that node 1 is gone.
            Err(Error::InDoubt(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn reads_for_any_replica_are_shared_and_others_are_not() {
    let seen_by = Arc::new(Mutex::new([0; 3]));
    let log = seen_by.clone();
    let fakes = Fakes::start(move |seen| {
        assert!(seen.is_at_home());
        log.lock().unwrap()[seen.node as usize - 1] += 1;
        seen.reply(value(b"v"))
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    for n in 0..50 {
        client.get(format!("k{n}")).await.unwrap();
    }
    assert_eq!(*seen_by.lock().unwrap(), [50, 0, 0]);
    let is_shared = || seen_by.lock().unwrap().iter().all(|&reads| reads > 20);
    for level in [ReadLevel::Session, ReadLevel::Stale { max_age_ms: 50 }] {
        *seen_by.lock().unwrap() = [0; 3];
        let options = ReadOptions::new().level(level);
        // Soon, but for a node that answered late at first: it is tried now and then only.
        for n in 0..100_000 {
            client.get_with(format!("k{n}"), &options).await.unwrap();
            if is_shared() {
                break;
            }
        }
        assert!(is_shared(), "{seen_by:?}");
    }
}

#[tokio::test]
async fn keys_of_one_place_are_asked_for_together() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let fakes = Fakes::start(move |seen| {
        count.fetch_add(1, Ordering::SeqCst);
        let Request::MultiGet { keys, read, .. } = seen.request else {
            panic!("{:?}", seen.request);
        };
        for key in keys {
            let partition = partition_of(key, PARTITIONS);
            assert_eq!(
                seen.core,
                ringbolt_wire::slot::core_of(partition, PARTITIONS, 2)
            );
            if read.level == ReadLevel::Linearizable {
                assert_eq!(seen.node, u32::from(partition) % 3 + 1);
            }
        }
        seen.reply(Response::Values {
            tokens: vec![],
            values: vec![None; keys.len()],
        })
    })
    .await;
    for (partition, replicas) in fakes
        .topology
        .lock()
        .unwrap()
        .replicas
        .iter_mut()
        .enumerate()
    {
        replicas.leader = partition as u32 % 3 + 1;
    }
    let client = fakes.client().connect().await.unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    assert_eq!(client.multi_get(&keys).await.unwrap().len(), 100);
    assert_eq!(requests.swap(0, Ordering::SeqCst), 6);
    // One node holds everything: its two cores are enough.
    let session = ReadOptions::new().level(ReadLevel::Session);
    client.multi_get_with(&keys, &session).await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_replica_that_is_not_fresh_enough_leaves_it_to_the_leader() {
    let leader_is_fresh = Arc::new(AtomicU32::new(1));
    let fresh = leader_is_fresh.clone();
    let fakes = Fakes::start(move |seen| {
        if seen.node == fresh.load(Ordering::SeqCst) {
            return seen.reply(value(b"v"));
        }
        seen.error(ErrorCode::Stale, 10)
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    let session = ReadOptions::new().level(ReadLevel::Session);
    for n in 0..50 {
        client.get_with(format!("k{n}"), &session).await.unwrap();
    }
    // Nobody is.
    leader_is_fresh.store(0, Ordering::SeqCst);
    match client.get_with("k", &session).await {
        Err(error @ Error::Stale(_)) => assert!(error.is_retryable()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_lost_is_told() {
    let fakes = Fakes::start(|seen| seen.error(ErrorCode::Lost, 0)).await;
    let client = fakes.client().connect().await.unwrap();
    let session = ReadOptions::new().level(ReadLevel::Session);
    match client.get_with("k", &session).await {
        Err(error @ Error::Lost(_)) => assert!(!error.is_retryable()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sessions_are_exported_to_the_same_cluster_only() {
    let fakes = Fakes::start(|seen| by_leader(seen, 1)).await;
    let client = fakes.client().connect().await.unwrap();
    client.put("k", "v").await.unwrap();
    let exported = client.export_session();
    let other = client.with_new_session();
    assert_eq!(other.tokens(), []);
    other.import_session(&exported).unwrap();
    assert_eq!(other.tokens(), client.tokens());
    let elsewhere = Fakes::start(|seen| by_leader(seen, 1)).await;
    elsewhere.topology.lock().unwrap().cluster = 78;
    let elsewhere = elsewhere.client().connect().await.unwrap();
    let error = elsewhere.import_session(&exported).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadRequest));
}

#[tokio::test]
async fn a_node_that_stays_dead_is_not_besieged() {
    let fakes = Fakes::start(|seen| by_leader(seen, 2)).await;
    fakes.lead(2);
    let client = fakes.client().connect().await.unwrap();
    // Every connection to node 3 is closed as soon as it is there.
    let address = fakes.node(3).address;
    fakes.node(3).stop().await;
    let closing = crate::fake::Fake::listen(address, |_, _| async {}).await;
    let session = ReadOptions::new().level(ReadLevel::Session);
    let started = Instant::now();
    let mut reads = 0;
    while started.elapsed() < Duration::from_secs(2) {
        let calls = (0..20).map(|n| {
            let client = client.clone();
            async move { client.get_with(format!("k{n}"), &session).await }
        });
        for read in futures_util::future::join_all(calls).await {
            read.unwrap_or_else(|error| panic!("{error}"));
            reads += 1;
        }
    }
    // 10, 20, 40, … ms, each between half and all: some ten attempts until 2 s are over, where each
    // of some thousand reads would have liked to make one.
    let attempts = closing.connections();
    assert!((1..=30).contains(&attempts), "{attempts} of {reads}");
}
