use std::sync::{Arc, Mutex};

use ringbolt_client::Error;
use ringbolt_wire::message::*;

use crate::fake::{Act, Fake, Settings, encoded, value, written};

fn one_core() -> Settings {
    Settings {
        cores: 1,
        ..Settings::default()
    }
}

#[tokio::test]
async fn replies_in_any_order_find_their_requests() {
    let held = Mutex::new(Vec::new());
    // Nothing is answered until thirty requests are in flight; then all, backwards.
    let server = Fake::start(one_core(), move |seen| {
        let Request::Get { key, .. } = seen.request else {
            panic!("{:?}", seen.request);
        };
        let mut held = held.lock().unwrap();
        held.push(encoded(seen.id, &value(key)));
        if held.len() < 30 {
            return Act::Nothing;
        }
        held.reverse();
        Act::Send(held.drain(..).flatten().collect())
    })
    .await;
    let client = server.connect().await;
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.get(format!("key {n}")).await })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        let record = task.await.unwrap().unwrap().unwrap();
        assert_eq!(record.value, format!("key {n}"));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_server_allows() {
    let mut settings = one_core();
    // One of them is kept for a ping.
    settings.limits.inflight_requests_max = 4;
    let in_flight = Arc::new(Mutex::new((Vec::new(), 0)));
    let held = in_flight.clone();
    // Answers the oldest when three are there.
    let server = Fake::start(settings, move |seen| {
        let mut held = held.lock().unwrap();
        held.0.push(seen.id);
        held.1 = held.1.max(held.0.len());
        if held.0.len() < 3 {
            return Act::Nothing;
        }
        let id = held.0.remove(0);
        Act::Send(encoded(id, &written()))
    })
    .await;
    let client = server.connect().await;
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.put(format!("k{n}"), "v").await })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        // The last two are never answered: nobody comes after them.
        if done < 38 {
            task.await.unwrap().unwrap();
            done += 1;
        } else {
            task.abort();
        }
    }
    assert_eq!(in_flight.lock().unwrap().1, 3);
}

#[tokio::test]
async fn a_dropped_request_disturbs_nobody() {
    let held = Mutex::new(None);
    // The first request is answered after the second.
    let server = Fake::start(one_core(), move |seen| {
        let Request::Get { key, .. } = seen.request else {
            panic!("{:?}", seen.request);
        };
        let reply = encoded(seen.id, &value(key));
        let mut held = held.lock().unwrap();
        match held.take() {
            None if key == b"first" => {
                *held = Some(reply);
                Act::Nothing
            }
            None => Act::Send(reply),
            Some(first) => Act::Send([first, reply].concat()),
        }
    })
    .await;
    let client = server.connect().await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.get("first").await }
    });
    tokio::task::yield_now().await;
    first.abort();
    for _ in 0..3 {
        assert_eq!(client.get("second").await.unwrap().unwrap().value, "second");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_was_refused_is_sent_again_under_a_new_number() {
    let identities = Arc::new(Mutex::new(Vec::new()));
    let seen_identities = identities.clone();
    let server = Fake::start(one_core(), move |seen| {
        let Request::Write { options, .. } = seen.request else {
            panic!("{:?}", seen.request);
        };
        let mut identities = seen_identities.lock().unwrap();
        identities.push((options.client, options.sequence));
        match identities.len() {
            1 => seen.error(ErrorCode::Overloaded, 1),
            2 => seen.error(ErrorCode::Unavailable, 0),
            3 => seen.error(ErrorCode::NoSpace, 1),
            _ => seen.reply(written()),
        }
    })
    .await;
    let client = server.connect().await;
    for _ in 0..3 {
        client.put("k", "v").await.unwrap();
    }
    let identities = identities.lock().unwrap();
    assert_eq!(identities.len(), 6);
    // The server forgets the results of numbers below; what was surely not done is no repeat.
    let first = identities[0];
    assert!(first.0 != 0 && first.1 != 0);
    let expected: Vec<_> = (0..6).map(|n| (first.0, first.1 + n)).collect();
    assert_eq!(*identities, expected);
}

#[tokio::test]
async fn connections_are_one_for_each_core_needed_or_as_many_as_wanted() {
    let settings = Settings {
        cores: 4,
        ..Settings::default()
    };
    let server = Fake::start(settings.clone(), |seen| seen.reply(written())).await;
    let client = server.connect().await;
    assert_eq!(server.connections(), 1);
    for n in 0..100 {
        client.put(format!("k{n}"), "v").await.unwrap();
    }
    assert_eq!(server.connections(), 4);
    let client = server
        .client()
        .connections_per_core(2)
        .connect()
        .await
        .unwrap();
    for n in 0..100 {
        client.put(format!("k{n}"), "v").await.unwrap();
    }
    assert_eq!(server.connections(), 4 + 8);
}

#[tokio::test]
async fn large_and_small_values_share_a_connection() {
    let mut settings = one_core();
    settings.limits.value_bytes_max = ringbolt_wire::VALUE_BYTES_MAX;
    settings.limits.frame_bytes_max = ringbolt_wire::FRAME_BYTES_MAX;
    let server = Fake::start(settings, |seen| match seen.request {
        Request::Write {
            op: WriteOp::Put { value, .. },
            ..
        } => seen.reply(Response::Counter {
            token: crate::fake::token(1),
            value: value.len() as i64,
        }),
        Request::Get { key, .. } => {
            let length: usize = std::str::from_utf8(key).unwrap().parse().unwrap();
            seen.reply(value(&vec![b'x'; length]))
        }
        request => panic!("{request:?}"),
    })
    .await;
    let client = server.connect().await;
    let lengths = [16 << 20, 1, 100_000, 0, 4096, 3 << 20, 16 << 20];
    let puts = lengths.map(|length| {
        let client = client.clone();
        tokio::spawn(async move { client.put("k", vec![b'x'; length]).await })
    });
    for put in puts {
        // The script answers a put as an increment: who wrote does not know what to make of it.
        assert!(matches!(put.await.unwrap(), Err(Error::InDoubt(_))));
    }
    let gets = lengths.map(|length| {
        let client = client.clone();
        tokio::spawn(async move { client.get(length.to_string()).await })
    });
    for (get, length) in gets.into_iter().zip(lengths) {
        let value = get.await.unwrap().unwrap().unwrap().value;
        assert!(value.len() == length && value.iter().all(|&byte| byte == b'x'));
    }
}
