//! Writes whose outcome is not known: sent again under the same number, and done once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringbolt_client::{Batch, Error, ErrorCode, WriteOptions};
use ringbolt_wire::message::*;

use crate::fake::{Act, Seen, token, written};
use crate::fakes::Fakes;

/// A write as it came: node, key, options.
type Came = (NodeId, Vec<u8>, ringbolt_wire::message::WriteOptions);

fn came(seen: &Seen<'_>) -> Came {
    let Request::Write { options, op, .. } = seen.request else {
        panic!("{:?}", seen.request);
    };
    (seen.node, op.key().to_vec(), options)
}

#[tokio::test]
async fn an_unanswered_write_is_sent_again_as_a_retry_and_done_once() {
    let log = Arc::new(Mutex::new((Vec::new(), HashSet::new(), 0)));
    let script_log = log.clone();
    let fakes = Fakes::start(move |seen| {
        let (node, key, options) = came(seen);
        let (all, done, number) = &mut *script_log.lock().unwrap();
        all.push((node, key, options));
        // What a server does: not again what was done.
        if !options.retry || !done.contains(&(options.client, options.sequence)) {
            assert!(done.insert((options.client, options.sequence)));
            *number += 1;
        }
        match node {
            // Done, but nobody hears of it.
            1 => Act::Close(Vec::new()),
            _ => seen.reply(Response::Counter {
                token: token(1),
                value: *number,
            }),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    let counter = client.increment("n", 1).await.unwrap();
    assert_eq!(counter.value, 1);
    let (all, ..) = &*log.lock().unwrap();
    let [(1, first_key, first), (second_node, second_key, second)] = &all[..] else {
        panic!("{all:?}");
    };
    assert_ne!(*second_node, 1);
    assert_eq!(first_key, second_key);
    assert!(!first.retry && first.client != 0 && first.sequence != 0);
    // The same but for the mark.
    let marked = ringbolt_wire::message::WriteOptions {
        retry: true,
        ..*first
    };
    assert_eq!(*second, marked);
}

#[tokio::test]
async fn what_was_not_sent_is_no_retry() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let script_log = log.clone();
    let fakes = Fakes::start(move |seen| {
        let mut log = script_log.lock().unwrap();
        log.push(came(seen));
        match log.len() {
            1 => seen.error(ErrorCode::Overloaded, 1),
            2 => seen.not_leader(3),
            3 => seen.error(ErrorCode::Unavailable, 1),
            _ => seen.reply(written()),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    client.put("k", "v").await.unwrap();
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 4);
    for (n, (_, _, options)) in (0..).zip(log.iter()) {
        let expected = ringbolt_wire::message::WriteOptions {
            sequence: log[0].2.sequence + n,
            ..log[0].2
        };
        assert_eq!(*options, expected, "numbered anew");
        assert!(!options.retry);
    }
}

/// The outcome of a write whose first attempt is not answered, and whose retries are answered so.
async fn after_a_retry(answer: fn(&Seen<'_>) -> Act) -> (Result<(), Error>, usize) {
    let retries = Arc::new(Mutex::new(0));
    let count = retries.clone();
    let fakes = Fakes::start(move |seen| {
        let (_, _, options) = came(seen);
        if !options.retry {
            return Act::Close(Vec::new());
        }
        *count.lock().unwrap() += 1;
        answer(seen)
    })
    .await;
    let client = fakes
        .client()
        .deadline(Duration::from_secs(2))
        .connect()
        .await
        .unwrap();
    let outcome = client.put("k", "v").await.map(|_| ());
    let retries = *retries.lock().unwrap();
    (outcome, retries)
}

#[tokio::test]
async fn only_an_answer_to_the_write_itself_ends_the_doubt() {
    let (outcome, _) = after_a_retry(|seen| seen.reply(written())).await;
    outcome.unwrap();
    // That this attempt was refused says nothing of the one before, which may still be on its way.
    let refusals = [
        (|seen| seen.error(ErrorCode::ConditionFailed, 0)) as fn(&Seen<'_>) -> Act,
        |seen| seen.error(ErrorCode::Unavailable, 1),
        |seen| seen.error(ErrorCode::Overloaded, 1),
        |seen| seen.error(ErrorCode::DeadlineExceeded, 0),
        |seen| seen.error(ErrorCode::NoSpace, 0),
        |seen| seen.error(ErrorCode::NoSuchKeyspace, 0),
        |seen| seen.error(ErrorCode::ShardFailed, 0),
        |seen| seen.not_leader(0),
        |_| Act::Close(Vec::new()),
        |_| Act::Nothing,
    ];
    let all = refusals.map(after_a_retry);
    for (outcome, retries) in futures_util::future::join_all(all).await {
        assert!(matches!(outcome, Err(Error::InDoubt(_))), "{outcome:?}");
        assert!(retries >= 1);
    }
}

#[tokio::test]
async fn a_server_that_no_longer_remembers_is_asked_once() {
    let started = Instant::now();
    // Node 1 leads: what it says counts.
    let (outcome, retries) = after_a_retry(|seen| match seen.node {
        1 => seen.error(ErrorCode::InDoubt, 0),
        _ => seen.not_leader(1),
    })
    .await;
    assert!(matches!(outcome, Err(Error::InDoubt(_))), "{outcome:?}");
    assert!(retries <= 4, "{retries}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_write_in_doubt_is_asked_about_while_the_server_expects_to_know() {
    let count = Arc::new(Mutex::new(0));
    let script_count = count.clone();
    let fakes = Fakes::start(move |seen| {
        let (_, _, options) = came(seen);
        let mut count = script_count.lock().unwrap();
        *count += 1;
        assert_eq!(options.retry, *count > 1);
        match *count {
            // Nothing is said of when, and yet it is worth one question.
            1 => seen.error(ErrorCode::InDoubt, 0),
            2..5 => seen.error(ErrorCode::InDoubt, 1),
            _ => seen.reply(written()),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    client.put("k", "v").await.unwrap();
    assert_eq!(*count.lock().unwrap(), 5);
}

#[tokio::test]
async fn batches_are_retried_and_keyspaces_are_not() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let script_log = log.clone();
    let fakes = Fakes::start(move |seen| {
        let retry = match seen.request {
            Request::Batch { options, .. } => options.retry,
            _ => false,
        };
        script_log.lock().unwrap().push(seen.request.kind());
        match retry {
            false => Act::Close(Vec::new()),
            true => seen.reply(Response::BatchWritten {
                token: token(1),
                counters: vec![None],
            }),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    client.batch(&Batch::new().put("k", "v")).await.unwrap();
    let batches = std::mem::take(&mut *log.lock().unwrap());
    assert_eq!(batches.len(), 2);
    let error = client.drop_keyspace("k").await.unwrap_err();
    assert!(error.is_in_doubt(), "{error:?}");
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_that_only_passes_on_is_not_waited_for_long() {
    let fakes = Fakes::start(|seen| match (seen.node, came(seen).2.retry) {
        // It passes the write on to a leader that is no more.
        (2 | 3, false) => {
            assert!(seen.deadline_ms <= 500, "{}", seen.deadline_ms);
            Act::Nothing
        }
        _ => seen.reply(written()),
    })
    .await;
    fakes.node(1).stop().await;
    let client = fakes
        .client()
        .silence(Duration::from_secs(30))
        .connect()
        .await
        .unwrap();
    let options = WriteOptions::new().deadline(Duration::from_secs(60));
    let started = Instant::now();
    client.put_with("k", "v", &options).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
}
