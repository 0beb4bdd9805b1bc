use std::sync::{Arc, Mutex};

use ringbolt_client::{ReadLevel, ReadOptions, Token};
use ringbolt_wire::message::*;

use crate::fake::{Fake, Settings};

fn token(partition: u16, index: u64) -> Token {
    Token {
        partition,
        term: 1,
        index,
    }
}

#[tokio::test]
async fn session_reads_carry_the_tokens_of_what_they_read() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let settings = Settings::default();
    let partitions = settings.partitions;
    let server = Fake::start(settings, move |seen| {
        let tokens = |read: ReadOptionsSeen<'_>| {
            let tokens: Vec<Token> = read.tokens.iter().collect();
            log.lock().unwrap().push((read.level, tokens));
        };
        match seen.request {
            Request::Write { op, .. } => seen.reply(Response::Written {
                token: token(ringbolt_wire::partition_of(op.key(), partitions), seen.id),
                existed: None,
            }),
            Request::Get { read, .. } => {
                tokens(read);
                seen.reply(Response::NotFound { token: token(0, 1) })
            }
            Request::MultiGet { read, keys, .. } => {
                tokens(read);
                seen.reply(Response::Values {
                    tokens: vec![],
                    values: vec![None; keys.len()],
                })
            }
            Request::Scan(scan) => {
                tokens(scan.read);
                seen.reply(Response::Rows {
                    tokens: vec![],
                    rows: vec![],
                    cursor: b"",
                })
            }
            request => panic!("{request:?}"),
        }
    })
    .await;
    let client = server.connect().await;
    let last = || asked.lock().unwrap().last().cloned().unwrap();
    let of = |key: &str| ringbolt_wire::partition_of(key.as_bytes(), partitions);
    let (one, two) = ("one", "{x}two");
    assert_ne!(of(one), of(two));

    let written = client.put(one, "v").await.unwrap();
    client.put(two, "v").await.unwrap();
    // Linearizable reads need no token.
    client.get(one).await.unwrap();
    assert_eq!(last(), (ReadLevel::Linearizable, vec![]));
    let session = ReadOptions::new().level(ReadLevel::Session);
    client.get_with(one, &session).await.unwrap();
    assert_eq!(last(), (ReadLevel::Session, vec![written.token]));
    client.multi_get_with([one, one], &session).await.unwrap();
    assert_eq!(last(), (ReadLevel::Session, vec![written.token]));
    client.scan().options(session).rows().next().await.unwrap();
    assert_eq!(last(), (ReadLevel::Session, client.tokens()));
    assert!(client.tokens().len() >= 2);
    client
        .scan()
        .prefix("{x}")
        .options(session)
        .rows()
        .next()
        .await
        .unwrap();
    assert_eq!(last().1.len(), 1);
    assert_eq!(last().1[0].partition, of(two));

    // Another client takes over.
    let other = server.connect().await;
    other.get_with(one, &session).await.unwrap();
    assert_eq!(last(), (ReadLevel::Session, vec![]));
    other.import_tokens(client.tokens());
    assert_eq!(other.tokens(), client.tokens());
    other.get_with(one, &session).await.unwrap();
    assert_eq!(last(), (ReadLevel::Session, vec![written.token]));
    // Nothing of it was lost.
    other.forget_tokens();
    assert_eq!(other.tokens(), client.tokens());
    let stale = ReadOptions::new().level(ReadLevel::Stale { max_age_ms: 5 });
    other.with_read_options(stale).get(one).await.unwrap();
    assert_eq!(last(), (ReadLevel::Stale { max_age_ms: 5 }, vec![]));
}

type ReadOptionsSeen<'a> = ringbolt_wire::message::ReadOptions<'a>;

#[tokio::test]
async fn a_scan_that_goes_nowhere_is_a_protocol_error() {
    let server = Fake::start(Settings::default(), |seen| {
        seen.reply(Response::Rows {
            tokens: vec![],
            rows: vec![],
            cursor: b"here",
        })
    })
    .await;
    let client = server.connect().await;
    match client.scan().rows().next().await {
        Err(ringbolt_client::Error::Protocol(_)) => {}
        other => panic!("{other:?}"),
    }
}
