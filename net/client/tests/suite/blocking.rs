use ringbolt_client::blocking::Client;
use ringbolt_client::{Batch, Error, KeyspaceOptions, ReadLevel, ReadOptions, Ttl, WriteOptions};

use ringbolt_wire::message::Request;

use crate::fake::{Act, Fake, Seen, Settings, value, written};
use crate::fakes::Fakes;
use crate::memory;

/// A server on a thread of its own, so that these tests have no runtime about them.
struct Server {
    address: String,
    _stop: tokio::sync::oneshot::Sender<()>,
}

fn start() -> Server {
    serve(async {
        let server: Fake = memory::start(Settings::default()).await;
        (server.address.to_string(), server)
    })
}

/// Starts servers; what comes with their addresses keeps them alive.
fn serve<S: 'static>(start: impl Future<Output = (String, S)> + Send + 'static) -> Server {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (address, _servers) = start.await;
            tell.send(address).unwrap();
            let _ = stopped.await;
        });
    });
    Server {
        address: told.recv().unwrap(),
        _stop: stop,
    }
}

#[test]
fn everything_works_without_a_runtime() {
    let server = start();
    let client = Client::connect(&server.address).unwrap();
    client.ping().unwrap();
    let written = client.put("a", "1").unwrap();
    assert_eq!(
        client.get("a").unwrap().unwrap().meta.version,
        written.version()
    );
    client
        .put_with("b", "2", &WriteOptions::new().if_absent())
        .unwrap();
    assert_eq!(client.increment("a", 1).unwrap().value, 2);
    assert!(client.touch("a", Ttl::AtMs(5)).unwrap().is_some());
    assert_eq!(client.stat("a").unwrap().unwrap().meta.expires_ms, 5);
    let read = ReadOptions::new().level(ReadLevel::Session);
    assert!(client.get_with("a", &read).unwrap().is_some());
    assert_eq!(
        client
            .multi_get(["b", "x", "a"])
            .unwrap()
            .iter()
            .flatten()
            .count(),
        2
    );
    let done = client
        .batch(&Batch::new().put("{t}1", "v").increment("{t}2", 3))
        .unwrap();
    assert_eq!(done.counters, [None, Some(3)]);
    let keys: Vec<_> = client
        .scan(|scan| scan.limit(3))
        .map(|row| row.unwrap().key)
        .collect();
    assert_eq!(keys, ["a", "b", "{t}1"]);
    assert!(client.scan_page(|scan| scan).unwrap().cursor.is_some());
    client.delete("a").unwrap();
    assert!(!client.tokens().is_empty());
    let users = client
        .create_keyspace("users", KeyspaceOptions::default())
        .unwrap();
    users.put("k", "v").unwrap();
    assert_eq!(client.keyspace("users").unwrap().id(), users.id());
    assert_eq!(client.keyspaces().unwrap().len(), 2);
    client.drop_keyspace("users").unwrap();
}

#[test]
fn threads_share_a_client() {
    let server = start();
    let client = Client::connect(&server.address).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    let key = format!("{thread}.{n}");
                    client.put(&key, &key).unwrap();
                    assert_eq!(client.get(&key).unwrap().unwrap().value, key);
                }
            });
        }
    });
    assert_eq!(client.scan(|scan| scan).count(), 200);
}

#[test]
fn a_blocking_client_goes_round_dead_nodes_and_retries() {
    let fakes = |seen: &Seen<'_>| match (seen.node, &seen.request) {
        (2, Request::Write { options, .. }) if !options.retry => Act::Close(Vec::new()),
        (_, Request::Write { options, .. }) => {
            assert!(options.retry);
            seen.reply(written())
        }
        _ => seen.reply(value(b"v")),
    };
    let server = serve(async move {
        let fakes = Fakes::start(fakes).await;
        fakes.lead(2);
        fakes.node(1).stop().await;
        (fakes.addresses(), fakes)
    });
    let client = Client::connect(&server.address).unwrap();
    assert_eq!(client.topology().unwrap().nodes.len(), 3);
    client.put("k", "v").unwrap();
    let session = client.export_session();
    let other = client.with_new_session();
    assert!(other.tokens().is_empty());
    other.import_session(&session).unwrap();
    assert_eq!(other.tokens(), client.tokens());
    let read = ReadOptions::new().level(ReadLevel::Session);
    assert_eq!(other.get_with("k", &read).unwrap().unwrap().value, "v");
}

#[tokio::test]
async fn within_a_runtime_it_refuses_instead_of_blocking() {
    match Client::connect("127.0.0.1:1") {
        Err(Error::Invalid(reason)) => assert!(reason.message.contains("async runtime")),
        other => panic!("{other:?}"),
    }
}
