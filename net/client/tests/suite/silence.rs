//! Nodes that say nothing, and such that only take long. Times are held against what is promised, half a
//! second with the settings as they are; as a busy machine may add to each, one of several attempts has to
//! keep it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringbolt_client::Client;
use ringbolt_wire::message::*;

use crate::fake::{Act, Fake, Seen, Settings, encoded, own_address, written};
use crate::fakes::{CORES, Fakes, PARTITIONS, topology};

const ATTEMPTS: usize = 8;

/// Far more than any of it takes.
const AT_ONCE: Duration = Duration::from_secs(20);

fn written_by(seen: &Seen<'_>, leader: NodeId) -> Act {
    match seen.node == leader {
        true => seen.reply(written()),
        false => seen.not_leader(leader),
    }
}

fn put(client: &Client, key: &str) -> tokio::task::JoinHandle<()> {
    let (client, key) = (client.clone(), key.to_owned());
    tokio::spawn(async move {
        client.put(key, "v").await.unwrap();
    })
}

/// How long a write takes that is sent to a leader just when it falls silent, on a connection on which
/// something has been asked, and answered, for `busy`.
async fn rerouted_after(busy: Duration) -> Duration {
    let leader = Arc::new(AtomicU32::new(1));
    let leads = leader.clone();
    let fakes = Fakes::start(move |seen| match (seen.node, seen.key()) {
        (1, b"{k}held") => Act::Nothing,
        _ => written_by(seen, leads.load(Ordering::SeqCst)),
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    client.put("{k}", "v").await.unwrap();
    let held = put(&client, "{k}held");
    let started = Instant::now();
    while started.elapsed() < busy {
        client.put("{k}", "v").await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    fakes.mute(1, true);
    leader.store(2, Ordering::SeqCst);
    fakes.lead(2);
    let started = Instant::now();
    client.put("{k}", "v").await.unwrap();
    let took = started.elapsed();
    held.await.unwrap();
    took
}

#[tokio::test]
async fn a_silent_node_is_gone_round_within_half_a_second() {
    // Whenever the silence begins.
    for busy in [430, 480, 530, 580].map(Duration::from_millis) {
        let mut all = Vec::new();
        while all
            .last()
            .is_none_or(|&last| last > Duration::from_millis(500))
        {
            assert!(all.len() < ATTEMPTS, "{busy:?}: {all:?}");
            all.push(rerouted_after(busy).await);
        }
    }
}

#[tokio::test]
async fn a_node_that_takes_no_connection_is_gone_round_sooner() {
    let mut all = Vec::new();
    while all
        .last()
        .is_none_or(|&last| last > Duration::from_millis(350))
    {
        assert!(all.len() < ATTEMPTS, "{all:?}");
        let fakes = Fakes::start(|seen| written_by(seen, 2)).await;
        fakes.mute(1, true);
        // It has heard that node 1 leads.
        let client = fakes.node(2).connect().await;
        let started = Instant::now();
        client.put("k", "v").await.unwrap();
        all.push(started.elapsed());
    }
}

#[tokio::test]
async fn a_leader_with_a_full_pipeline_is_not_silent() {
    let settings = Settings {
        cores: CORES,
        partitions: PARTITIONS,
        // Of one of several nodes: else it would be waited for anyhow.
        cluster: Some(Arc::new(Mutex::new(topology(3)))),
        ..Settings::default()
    };
    let allowed = settings.limits.inflight_requests_max as usize;
    let state = Mutex::new((0, Vec::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let retries = Arc::new(AtomicUsize::new(0));
    let (script_most, script_retries) = (most.clone(), retries.clone());
    let fake = Fake::start_at(own_address(), settings, move |seen| {
        let (pings, held) = &mut *state.lock().unwrap();
        match seen.request {
            Request::Ping => {
                *pings += 1;
                let mut out = encoded(seen.id, &Response::Done);
                // It had no quorum until now.
                if *pings >= 5 {
                    out.extend(held.drain(..).flatten());
                }
                Act::Send(out)
            }
            Request::Write { options, .. } => {
                let retry = usize::from(options.retry);
                script_retries.fetch_add(retry, Ordering::SeqCst);
                if *pings >= 5 {
                    return seen.reply(written());
                }
                held.push(encoded(seen.id, &written()));
                script_most.fetch_max(held.len(), Ordering::SeqCst);
                Act::Nothing
            }
            _ => seen.error(ErrorCode::Unavailable, 0),
        }
    })
    .await;
    let client = fake.client().deadline(AT_ONCE).connect().await.unwrap();
    // More than it allows at a time.
    let puts = (0..2 * allowed).map(|n| put(&client, &format!("{{k}}{n}")));
    let puts: Vec<_> = puts.collect();
    for put in puts {
        put.await.unwrap();
    }
    // The last one is the ping's.
    assert_eq!(most.load(Ordering::SeqCst), allowed - 1);
    assert_eq!(retries.load(Ordering::SeqCst), 0);
}
