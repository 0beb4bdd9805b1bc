use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ringbolt_client::{Error, ErrorCode, ReadOptions, WriteOptions};
use ringbolt_wire::message::*;
use tokio::net::TcpListener;

use crate::fake::{Act, Fake, Seen, Settings, encoded, own_address, value, written};

const SOON: Duration = Duration::from_millis(100);

fn one_core() -> Settings {
    Settings {
        cores: 1,
        ..Settings::default()
    }
}

/// Answers of a server that does not remember which writes it has done.
fn forgetful(seen: &Seen<'_>) -> Act {
    match seen.request {
        Request::Write { options, .. } if options.retry => seen.error(ErrorCode::InDoubt, 0),
        _ => seen.reply(written()),
    }
}

#[tokio::test]
async fn a_server_that_dies_leaves_a_write_in_doubt() {
    let server = Fake::start(Settings::default(), |seen| match seen.connection {
        0 | 1 => Act::Close(Vec::new()),
        _ => forgetful(seen),
    })
    .await;
    // Both first connections die by the first request they see.
    let client = server.connect().await;
    let error = client.put("k", "v").await.unwrap_err();
    assert!(error.is_in_doubt() && !error.is_retryable(), "{error:?}");
    let attempts = Arc::new(AtomicUsize::new(0));
    while client.put("k", "v").await.is_err() {
        assert!(attempts.fetch_add(1, Ordering::SeqCst) < 3);
    }
}

#[tokio::test]
async fn a_server_that_dies_is_asked_again_for_a_read() {
    let server = Fake::start(Settings::default(), |seen| match seen.connection {
        0..3 => Act::Close(encoded(seen.id, &value(b"cut short"))[..30].to_vec()),
        _ => seen.reply(value(b"whole")),
    })
    .await;
    let client = server.connect().await;
    let record = client.get("k").await.unwrap().unwrap();
    assert_eq!(&record.value[..], b"whole");
    assert!(server.connections() >= 4);
}

#[tokio::test]
async fn nobody_listening_is_unreachable_at_once() {
    let listener = TcpListener::bind(own_address()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    match ringbolt_client::Client::connect(&address).await {
        Err(Error::Unreachable { addresses, .. }) => assert_eq!(*addresses, *address),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_addresses_are_tried() {
    let listener = TcpListener::bind(own_address()).await.unwrap();
    let dead = listener.local_addr().unwrap().to_string();
    drop(listener);
    let server = Fake::start(Settings::default(), |seen| seen.reply(written())).await;
    let client = ringbolt_client::Client::builder()
        .address(dead)
        .address(server.address.to_string())
        .connect()
        .await
        .unwrap();
    client.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_write_waits_for_a_server_that_comes_back() {
    let server = Fake::start_at(own_address(), one_core(), |seen| seen.reply(written())).await;
    let client = server
        .client()
        .deadline(Duration::from_secs(60))
        .connect()
        .await
        .unwrap();
    client.put("k", "v").await.unwrap();
    let address = server.address;
    server.stop().await;
    // The client has to notice first, or the write would rightly be in doubt.
    while client.ping_within(SOON).await.is_ok() {}
    let write = tokio::spawn({
        let client = client.clone();
        async move { client.put("k", "v").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // It comes back with another number of cores.
    let settings = Settings {
        cores: 3,
        ..Settings::default()
    };
    let check = settings.clone();
    let server = Fake::start_at(address, settings, move |seen| {
        if let Request::Write { op, .. } = seen.request {
            assert_eq!(seen.core, check.core_of(op.key()));
        }
        seen.reply(written())
    })
    .await;
    write.await.unwrap().unwrap();
    for n in 0..20 {
        client.put(format!("k{n}"), "v").await.unwrap();
    }
    assert!(server.connections() >= 3);
}

#[tokio::test]
async fn a_server_that_stays_away_is_unreachable() {
    let server = Fake::start_at(own_address(), one_core(), |seen| seen.reply(written())).await;
    let client = server.client().deadline(SOON).connect().await.unwrap();
    client.ping_within(SOON).await.unwrap_err();
    server.stop().await;
    loop {
        match client.put("k", "v").await {
            Err(Error::Unreachable { .. }) => break,
            // The client had not noticed yet.
            Err(Error::InDoubt(_) | Error::DeadlineExceeded) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(client.get("k").await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn deadlines_are_sent_and_kept() {
    let told = Arc::new(AtomicUsize::new(0));
    let seen_told = told.clone();
    let server = Fake::start(one_core(), move |seen| {
        seen_told.store(seen.deadline_ms as usize, Ordering::SeqCst);
        Act::Nothing
    })
    .await;
    let client = server.connect().await;
    let read = ReadOptions::new().deadline(SOON);
    // On a slow machine the deadline may pass before anything is sent.
    while told.load(Ordering::SeqCst) == 0 {
        match client.get_with("k", &read).await {
            Err(Error::DeadlineExceeded | Error::Unreachable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let told = told.load(Ordering::SeqCst);
    assert!((1..=90).contains(&told), "{told}");
    let write = WriteOptions::new().deadline(SOON);
    loop {
        match client.put_with("k", "v", &write).await {
            Err(Error::InDoubt(_)) => break,
            Err(Error::DeadlineExceeded | Error::Unreachable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // A server that says nothing at all is not asked again on the same connection.
    assert!(server.connections() >= 2);
}

#[tokio::test]
async fn refusals_are_told_by_what_to_do() {
    let code = Arc::new(AtomicUsize::new(0));
    let script_code = code.clone();
    let server = Fake::start(one_core(), move |seen| {
        let code = ErrorCode::from_u16(script_code.load(Ordering::SeqCst) as u16);
        // Longer than the deadline allows: no time to try again.
        seen.error(code, 60_000)
    })
    .await;
    let client = server.connect().await;
    for &wanted in ErrorCode::ALL {
        code.store(wanted as usize, Ordering::SeqCst);
        let error = client.put("k", "v").await.unwrap_err();
        let fits = match wanted {
            ErrorCode::ConditionFailed => matches!(error, Error::ConditionFailed { version: None }),
            ErrorCode::Lost => matches!(error, Error::Lost(_)),
            ErrorCode::Stale => matches!(error, Error::Stale(_)),
            ErrorCode::DeadlineExceeded => matches!(error, Error::DeadlineExceeded),
            ErrorCode::InDoubt => matches!(error, Error::InDoubt(_)),
            ErrorCode::CommittedNotAll => matches!(error, Error::CommittedNotAll),
            _ => match wanted.class() {
                ErrorClass::FixRequest => matches!(error, Error::Invalid(_)),
                ErrorClass::TryAgain => matches!(error, Error::Refused(_)),
                _ => matches!(error, Error::Failed(_)),
            },
        };
        assert!(fits, "{wanted:?}: {error:?}");
        assert_eq!(error.is_in_doubt(), wanted == ErrorCode::InDoubt);
        let read = client.get("k").await.unwrap_err();
        assert!(!read.is_in_doubt(), "{wanted:?}: {read:?}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_when_waiting_does_not_help() {
    let server = Fake::start(Settings::default(), |seen| {
        seen.error(ErrorCode::NoSpace, 0)
    })
    .await;
    let client = server
        .client()
        .deadline(Duration::from_secs(600))
        .connect()
        .await
        .unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoSpace));
}

#[tokio::test]
async fn retries_end() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let server = Fake::start(Settings::default(), move |seen| {
        count.fetch_add(1, Ordering::SeqCst);
        seen.error(ErrorCode::Overloaded, 1)
    })
    .await;
    let client = server
        .client()
        .deadline(Duration::from_secs(600))
        .connect()
        .await
        .unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Overloaded));
    assert_eq!(seen.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn an_oversized_reply_ends_the_connection_and_not_the_client() {
    let server = Fake::start(Settings::default(), |seen| match seen.connection {
        0 => seen.reply(value(&vec![0; 3 << 20])),
        _ => seen.reply(value(b"small")),
    })
    .await;
    let client = server.connect().await;
    // A key of the core that the first connection serves.
    let settings = Settings::default();
    let key = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| settings.core_of(key.as_bytes()) == 0);
    let key = key.unwrap();
    match client.get(&key).await {
        Err(Error::Protocol(what)) => assert!(what.contains("over the limit"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.get(&key).await.unwrap().unwrap().value, "small");
}

#[tokio::test]
async fn garbage_ends_the_connection_and_leaves_writes_in_doubt() {
    let garbage = |seen: &crate::fake::Seen<'_>| match seen.connection {
        0 => {
            let mut reply = encoded(seen.id, &written());
            reply[30] ^= 1;
            Act::Send(reply)
        }
        _ => forgetful(seen),
    };
    let server = Fake::start(one_core(), garbage).await;
    let client = server.connect().await;
    assert!(client.put("k", "v").await.unwrap_err().is_in_doubt());
    client.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_closing_error_is_passed_on() {
    let server = Fake::start(one_core(), |_| {
        let bye = Response::Error(ErrorReply {
            code: ErrorCode::BadRequest,
            retry_after_ms: 0,
            detail: 0,
            message: "I cannot follow you",
        });
        Act::Close(encoded(0, &bye))
    })
    .await;
    let client = server.connect().await;
    match client.get("k").await {
        Err(Error::Protocol(what)) => assert!(what.contains("I cannot follow you"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_silent_server_is_noticed_while_nothing_is_asked() {
    let pinged = Arc::new(AtomicBool::new(false));
    let seen_ping = pinged.clone();
    let server = Fake::start(one_core(), move |seen| match seen.request {
        Request::Ping if seen.connection == 0 => {
            seen_ping.store(true, Ordering::SeqCst);
            Act::Nothing
        }
        Request::Ping => seen.reply(Response::Done),
        // Were it sent by the first connection, it would never be answered.
        _ if seen.connection == 0 => Act::Nothing,
        _ => seen.reply(written()),
    })
    .await;
    let client = server
        .client()
        .keepalive(Duration::from_millis(20))
        .connect()
        .await
        .unwrap();
    while !pinged.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One more tick without an answer, and the connection is given up: until then a read waits in
    // vain, and is then asked again.
    client.get_within(Duration::from_secs(60)).await;
    assert!(server.connections() >= 2);
}

#[tokio::test]
async fn a_server_that_answers_pings_is_left_alone() {
    let pings = Arc::new(AtomicUsize::new(0));
    let count = pings.clone();
    let server = Fake::start(Settings::default(), move |seen| {
        count.fetch_add(1, Ordering::SeqCst);
        seen.reply(Response::Done)
    })
    .await;
    let client = server
        .client()
        .keepalive(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    while pings.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(client);
    assert_eq!(server.connections(), 1);
}

/// What these tests ask of a client again and again.
trait Within {
    async fn ping_within(&self, deadline: Duration) -> Result<(), Error>;
    async fn get_within(&self, deadline: Duration);
}

impl Within for ringbolt_client::Client {
    /// Whether a key of core 0 can be read.
    async fn ping_within(&self, deadline: Duration) -> Result<(), Error> {
        let options = ReadOptions::new().deadline(deadline);
        self.get_with("ping", &options).await.map(|_| ())
    }

    async fn get_within(&self, deadline: Duration) {
        let options = ReadOptions::new().deadline(deadline);
        let _ = self.get_with("k", &options).await;
    }
}
