//! Hostile and careless clients on real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringbolt_wire::message::{Condition, ReadOptions, Request, Ttl, WriteOp, WriteOptions};

use crate::support::Server;

const SERVER: &[&str] = &["--cores", "2", "--memory", "256MiB"];

fn hello(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).unwrap();
    let mut bytes = Vec::new();
    Request::Hello {
        version_min: 1,
        version_max: 1,
        core: None,
        agent: b"test",
    }
    .encode(1, 0, &mut bytes)
    .unwrap();
    stream.write_all(&bytes).unwrap();
    let mut header = [0; 24];
    stream.read_exact(&mut header).unwrap();
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let mut body = vec![0; length - header.len()];
    stream.read_exact(&mut body).unwrap();
    stream
}

/// Reads until the server closes; whether it did.
fn is_closed(mut stream: TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn garbage_closes_its_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), SERVER);
    server.ok(&["put", "a", "1"]);
    let neighbour = hello(&server);
    let mut get = Vec::new();
    Request::Get {
        keyspace: 0,
        read: ReadOptions::default(),
        key: b"a",
    }
    .encode(2, 0, &mut get)
    .unwrap();

    let mut corrupt = get.clone();
    corrupt[20] ^= 1;
    let mut version = get.clone();
    version[8] = 99;
    let mut endless = get.clone();
    endless[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut short = get.clone();
    short[..4].copy_from_slice(&3u32.to_le_bytes());
    for bad in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        &corrupt,
        &version,
        &endless,
        &short,
    ] {
        for greeted in [false, true] {
            let mut stream = if greeted {
                hello(&server)
            } else {
                TcpStream::connect(server.addr).unwrap()
            };
            // The server may have closed already, after the first part.
            let _ = stream.write_all(bad);
            assert!(is_closed(stream), "{bad:02x?}");
        }
    }
    // Half a frame, then gone.
    hello(&server).write_all(&get[..10]).unwrap();

    let mut neighbour = neighbour;
    neighbour.write_all(&get).unwrap();
    let mut reply = [0; 24];
    neighbour.read_exact(&mut reply).unwrap();
    assert_eq!(server.ok(&["get", "a"]), "1");
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [SERVER, &["--set", "limits.stall_timeout=1s"]].concat();
    let server = Server::start(dir.path(), &arguments);
    let value = vec![b'x'; 1 << 20];
    let mut deaf = hello(&server);
    let mut bytes = Vec::new();
    Request::Write {
        keyspace: 0,
        options: WriteOptions::default(),
        op: WriteOp::Put {
            key: b"big",
            value: &value,
            ttl: Ttl::Default,
            condition: Condition::None,
        },
    }
    .encode(2, 0, &mut bytes)
    .unwrap();
    deaf.write_all(&bytes).unwrap();
    let mut get = Vec::new();
    for id in 3..20 {
        Request::Get {
            keyspace: 0,
            read: ReadOptions::default(),
            key: b"big",
        }
        .encode(id, 0, &mut get)
        .unwrap();
    }
    // Replies first fill the kernel's buffers, which may hold tens of megabytes: ask on.
    deaf.set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let cut = || {
        let stats = server.ok(&["stats", "--format", "json"]);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        stats["connections_cut_total"].as_u64().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while cut() == 0 {
        // It fails once the server reads no more, and once it has closed.
        let _ = deaf.write_all(&get);
        assert!(Instant::now() < deadline, "it is still served");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.ok(&["get", "big"]).len(), value.len());
    assert!(is_closed(deaf));
}

#[test]
fn a_thousand_idle_connections_cost_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), SERVER);
    let idle: Vec<TcpStream> = (0..1000).map(|_| hello(&server)).collect();
    server.ok(&["put", "a", "1"]);
    assert_eq!(server.ok(&["get", "a"]), "1");
    drop(idle);
    assert_eq!(server.ok(&["get", "a"]), "1");
}
