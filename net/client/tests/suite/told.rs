//! Sessions after errors: what one told of is not missed by the reads that follow, and what was lost is
//! forgotten, and nothing else.

use std::sync::{Arc, Mutex};

use ringbolt_client::{Ack, Client, Error, ErrorCode, ReadLevel, ReadOptions, Token, WriteOptions};
use ringbolt_wire::message::*;
use ringbolt_wire::partition_of;

use crate::fake::{Act, Seen};
use crate::fakes::{Fakes, PARTITIONS};

/// Reads as they came: the node, the level, the tokens.
type Log = Arc<Mutex<Vec<(NodeId, ReadLevel, Vec<Token>)>>>;

const HERE: &str = "{here}k";

fn partition(key: &str) -> u16 {
    partition_of(key.as_bytes(), PARTITIONS)
}

/// A key of another partition than [`HERE`].
fn elsewhere() -> String {
    let mut keys = (0..).map(|n| format!("{{{n}}}k"));
    keys.find(|key| partition(key) != partition(HERE)).unwrap()
}

/// What leaders have committed, but for what a script says.
fn committed(partition: u16) -> Token {
    Token {
        partition,
        term: 1,
        index: 9,
    }
}

fn session() -> ReadOptions {
    ReadOptions::new().level(ReadLevel::Session)
}

/// A cluster that answers writes as the script says, and reads that there is nothing.
async fn start(write: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static) -> (Fakes, Client, Log) {
    let log = Log::default();
    let reads = log.clone();
    let fakes = Fakes::start(move |seen| {
        let came = |read: ringbolt_wire::message::ReadOptions<'_>| {
            let tokens: Vec<Token> = read.tokens.iter().collect();
            // What no token asks for is not there yet.
            let here = match read.level {
                ReadLevel::Session => tokens.clone(),
                _ => (0..PARTITIONS).map(committed).collect(),
            };
            reads.lock().unwrap().push((seen.node, read.level, tokens));
            here
        };
        let token = |here: Vec<Token>, key: &[u8]| {
            let partition = partition_of(key, PARTITIONS);
            let found = here.into_iter().find(|t| t.partition == partition);
            found.unwrap_or(Token {
                partition,
                term: 1,
                index: 1,
            })
        };
        match seen.request {
            Request::Get { read, key, .. } | Request::Stat { read, key, .. } => {
                seen.reply(Response::NotFound {
                    token: token(came(read), key),
                })
            }
            Request::MultiGet { read, keys, .. } => {
                let here = came(read);
                seen.reply(Response::Values {
                    tokens: keys.iter().map(|key| token(here.clone(), key)).collect(),
                    values: vec![None; keys.len()],
                })
            }
            Request::Scan(scan) => seen.reply(Response::Rows {
                tokens: came(scan.read),
                rows: vec![],
                cursor: b"",
            }),
            _ => write(seen),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    (fakes, client, log)
}

/// Reads in every way that there is.
const READS: [&str; 4] = ["get", "stat", "multi_get", "scan"];

async fn read(client: &Client, way: &str, key: &str) -> Result<(), Error> {
    match way {
        "get" => client.get_with(key, &session()).await.map(|_| ()),
        "stat" => client.stat_with(key, &session()).await.map(|_| ()),
        "multi_get" => client.multi_get_with([key], &session()).await.map(|_| ()),
        _ => {
            let tag = &key[..=key.find('}').unwrap()];
            let scan = client.scan().prefix(tag).options(session());
            scan.rows().next().await.map(|_| ())
        }
    }
}

fn taken(log: &Log) -> Vec<(NodeId, ReadLevel, Vec<Token>)> {
    std::mem::take(&mut *log.lock().unwrap())
}

#[tokio::test]
async fn what_an_error_told_is_not_missed_by_the_next_read() {
    let here = partition(HERE);
    for code in [
        ErrorCode::ConditionFailed,
        ErrorCode::NotANumber,
        ErrorCode::CommittedNotAll,
    ] {
        let (_fakes, client, log) = start(move |seen| seen.error(code, 0)).await;
        for way in READS {
            match way {
                "get" => client.put(HERE, "v").await.map(|_| ()),
                "stat" => client.increment(HERE, 1).await.map(|_| ()),
                "multi_get" => client.touch(HERE, Ttl::Never).await.map(|_| ()),
                _ => {
                    let batch = ringbolt_client::Batch::new().delete(HERE);
                    client.batch(&batch).await.map(|_| ())
                }
            }
            .unwrap_err();
            // Other partitions were not told of.
            read(&client, way, &elsewhere()).await.unwrap();
            assert_eq!(taken(&log)[0].1, ReadLevel::Session, "{code:?} {way}");
            read(&client, way, HERE).await.unwrap();
            assert_eq!(
                taken(&log),
                [(1, ReadLevel::Linearizable, vec![])],
                "{code:?} {way}"
            );
            // Then it is known how far replicas must be.
            read(&client, way, HERE).await.unwrap();
            let [(_, level, tokens)] = &taken(&log)[..] else {
                panic!("{code:?} {way}");
            };
            assert_eq!(
                (*level, &tokens[..]),
                (ReadLevel::Session, &[committed(here)][..])
            );
        }
    }
}

#[tokio::test]
async fn only_what_was_told_of_is_read_from_its_leader() {
    let (_fakes, client, log) = start(|seen| seen.error(ErrorCode::ConditionFailed, 0)).await;
    client.put(HERE, "v").await.unwrap_err();
    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    client.multi_get_with(&keys, &session()).await.unwrap();
    let linearizable: Vec<bool> = taken(&log)
        .iter()
        .map(|(node, level, _)| {
            assert!(*node == 1 || *level == ReadLevel::Session);
            *level == ReadLevel::Linearizable
        })
        .collect();
    assert_eq!(linearizable.iter().filter(|&&it| it).count(), 1);
    assert!(linearizable.len() > 1);
    // A scan of everything covers it as well.
    client.put(HERE, "v").await.unwrap_err();
    for level in [ReadLevel::Linearizable, ReadLevel::Session] {
        client.scan().options(session()).page().await.unwrap();
        assert_eq!(taken(&log)[0].1, level);
    }
}

#[tokio::test]
async fn a_write_that_only_the_leader_has_is_waited_for_all_the_same() {
    let ahead = Token {
        index: 20,
        ..committed(partition(HERE))
    };
    let (_fakes, client, log) = start(move |seen| match seen.request {
        Request::Write { options, .. } if options.ack == Ack::Leader => {
            seen.reply(Response::Written {
                token: ahead,
                existed: None,
            })
        }
        _ => seen.error(ErrorCode::ConditionFailed, 0),
    })
    .await;
    for way in READS {
        let by_leader = WriteOptions::new().ack(Ack::Leader);
        client.put_with(HERE, "v", &by_leader).await.unwrap();
        client.put(HERE, "v").await.unwrap_err();
        read(&client, way, HERE).await.unwrap();
        let [(1, first, _), (_, second, tokens)] = &taken(&log)[..] else {
            panic!("{way}");
        };
        assert_eq!(
            (*first, *second),
            (ReadLevel::Linearizable, ReadLevel::Session)
        );
        assert_eq!(tokens[..], [ahead], "{way}");
    }
}

#[tokio::test]
async fn what_an_error_told_goes_with_an_exported_session() {
    let (fakes, client, log) = start(|seen| seen.error(ErrorCode::ConditionFailed, 0)).await;
    client.put(HERE, "v").await.unwrap_err();
    let other = fakes.client().connect().await.unwrap();
    other.import_session(&client.export_session()).unwrap();
    for level in [ReadLevel::Linearizable, ReadLevel::Session] {
        read(&other, "get", HERE).await.unwrap();
        assert_eq!(taken(&log)[0].1, level);
    }
}

/// Reads at level session with this token are answered `Lost`.
async fn start_with_lost(lost: Token) -> (Fakes, Client) {
    let fakes = Fakes::start(move |seen| {
        let read = match seen.request {
            Request::Get { read, .. } => read,
            Request::Scan(scan) => scan.read,
            _ => panic!("{:?}", seen.request),
        };
        let token = |partition| match read.level {
            ReadLevel::Session => Token {
                index: 1,
                ..committed(partition)
            },
            _ => committed(partition),
        };
        if read.tokens.iter().any(|token| token == lost) {
            return seen.error(ErrorCode::Lost, 0);
        }
        match seen.request {
            Request::Get { key, .. } => seen.reply(Response::NotFound {
                token: token(partition_of(key, PARTITIONS)),
            }),
            _ => seen.reply(Response::Rows {
                tokens: (0..PARTITIONS).map(token).collect(),
                rows: vec![],
                cursor: b"",
            }),
        }
    })
    .await;
    let client = fakes.client().connect().await.unwrap();
    client.import_tokens((0..PARTITIONS).map(|partition| match partition {
        _ if partition == lost.partition => lost,
        _ => Token {
            index: 5,
            ..committed(partition)
        },
    }));
    (fakes, client)
}

#[tokio::test]
async fn only_what_was_lost_is_forgotten() {
    let lost = Token {
        index: 77,
        ..committed(partition(HERE))
    };
    let (_fakes, client) = start_with_lost(lost).await;
    let before = client.tokens();
    // Nothing was lost yet, as far as it is known.
    client.forget_tokens();
    assert_eq!(client.tokens(), before);
    for _ in 0..2 {
        let error = client.get_with(HERE, &session()).await.unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error:?}");
    }
    client.get_with(elsewhere(), &session()).await.unwrap();
    client.forget_tokens();
    let kept: Vec<Token> = before.into_iter().filter(|token| *token != lost).collect();
    assert_eq!(client.tokens(), kept);
    // Not by a replica that is behind what was read there before, and stands.
    client.get_with(HERE, &session()).await.unwrap();
    assert!(client.tokens().contains(&committed(lost.partition)));
}

#[tokio::test]
async fn nothing_is_missed_where_it_is_not_told_which_partition_lost_something() {
    let lost = Token {
        index: 77,
        ..committed(partition(HERE))
    };
    let (_fakes, client) = start_with_lost(lost).await;
    let error = client.scan().options(session()).page().await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    client.forget_tokens();
    assert_eq!(client.tokens(), []);
    client.scan().options(session()).page().await.unwrap();
    let committed: Vec<Token> = (0..PARTITIONS).map(committed).collect();
    assert_eq!(client.tokens(), committed);
}
