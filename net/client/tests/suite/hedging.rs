//! Reads of which a second replica is asked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringbolt_client::{Client, ReadLevel, ReadOptions};

use crate::fake::{Act, value};
use crate::fakes::Fakes;

/// A cluster of which node 1 can be made to swallow reads, and how many reads came.
async fn start() -> (Fakes, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let swallow = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicUsize::new(0));
    let (swallows, count) = (swallow.clone(), reads.clone());
    let fakes = Fakes::start(move |seen| {
        count.fetch_add(1, Ordering::SeqCst);
        match seen.node {
            1 if swallows.load(Ordering::SeqCst) => Act::Nothing,
            _ => seen.reply(value(b"v")),
        }
    })
    .await;
    (fakes, swallow, reads)
}

async fn connect(fakes: &Fakes, level: ReadLevel) -> Client {
    let client = fakes
        .client()
        .read_options(ReadOptions::new().level(level))
        .connect()
        .await
        .unwrap();
    for n in 0..400 {
        client.get(format!("k{n}")).await.unwrap();
    }
    client
}

#[tokio::test]
async fn a_slow_replica_is_outrun_by_another() {
    let (fakes, swallow, reads) = start().await;
    let client = connect(&fakes, ReadLevel::Session).await;
    swallow.store(true, Ordering::SeqCst);
    reads.store(0, Ordering::SeqCst);
    let started = Instant::now();
    // Where answers were slow from the start none is asked for twice: it is asked for elsewhere after half
    // of this.
    let options = ReadOptions::new()
        .level(ReadLevel::Session)
        .deadline(Duration::from_secs(4));
    let mut answered = 0;
    // Until three were swallowed.
    while reads.load(Ordering::SeqCst) < answered + 3 {
        client
            .get_with(format!("k{answered}"), &options)
            .await
            .unwrap();
        answered += 1;
        assert!(answered < 1000);
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_second_question_is_rare() {
    let took = Arc::new(Mutex::new(0));
    let count = took.clone();
    let fakes = Fakes::start(move |seen| {
        *count.lock().unwrap() += 1;
        seen.reply(value(b"v"))
    })
    .await;
    let client = connect(&fakes, ReadLevel::Session).await;
    for round in 0..10 {
        let reads = (0..100).map(|n| client.get(format!("k{}", round * n)));
        for read in futures_util::future::join_all(reads).await {
            read.unwrap();
        }
    }
    let asked = *took.lock().unwrap();
    assert!((1400..=1400 + 1400 / 50).contains(&asked), "{asked}");
}

#[tokio::test]
async fn linearizable_reads_are_asked_once() {
    let (fakes, swallow, reads) = start().await;
    let client = connect(&fakes, ReadLevel::Linearizable).await;
    swallow.store(true, Ordering::SeqCst);
    reads.store(0, Ordering::SeqCst);
    let options = ReadOptions::new().deadline(Duration::from_millis(300));
    client.get_with("k", &options).await.unwrap_err();
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}
