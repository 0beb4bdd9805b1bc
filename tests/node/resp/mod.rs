//! Redis clients on real sockets: the `redis` crate, raw bytes, and Redis's own tools.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Server, free_address};

mod cluster;
mod doors;
mod eyes;
mod tools;

/// How long a reply may take. Generous: it fails a hang, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a door for Redis clients.
struct Node {
    server: Server,
    resp: SocketAddr,
}

fn start(dir: &Path, more: &[&str]) -> Node {
    let resp = free_address();
    let address = resp.to_string();
    let own = ["--cores", "2", "--memory", "256MiB", "--resp", &address];
    let server = Server::start(dir, &[&own, more].concat());
    Node { server, resp }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes, and reads as many as are expected.
fn exchange(stream: &mut TcpStream, sent: &[u8], expected: &[u8]) {
    stream.write_all(sent).unwrap();
    let mut found = vec![0; expected.len()];
    stream.read_exact(&mut found).unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(shown(&found), shown(expected), "{}", shown(sent));
}

/// Everything until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A server that closes with input unread resets the connection.
    let _reset = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn client(address: SocketAddr, protocol: &str) -> redis::Connection {
    let url = format!("redis://{address}/?protocol={protocol}");
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

/// Runs a command that must succeed; again if its partition has no leader at the moment.
fn run<T: redis::FromRedisValue>(connection: &mut redis::Connection, words: &str) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask(connection, words) {
            Ok(found) => return found,
            Err(error) => {
                let passes = error.to_string().contains("partition");
                assert!(passes && Instant::now() < deadline, "{words}: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn ask<T: redis::FromRedisValue>(
    connection: &mut redis::Connection,
    words: &str,
) -> redis::RedisResult<T> {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(connection)
}

#[test]
fn the_redis_crate_reads_and_writes_in_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    for protocol in ["resp2", "resp3"] {
        let mut c = client(node.resp, protocol);
        assert_eq!(run::<String>(&mut c, "FLUSHDB"), "OK");
        assert_eq!(run::<String>(&mut c, "SET a 1"), "OK");
        assert_eq!(run::<i64>(&mut c, "INCRBY a 41"), 42);
        assert_eq!(run::<Option<String>>(&mut c, "GET b"), None);
        assert_eq!(run::<Option<String>>(&mut c, "SET a 1 NX"), None);
        assert_eq!(run::<i64>(&mut c, "APPEND a 00"), 4);
        assert_eq!(run::<String>(&mut c, "INCRBYFLOAT a 0.5"), "4200.5");
        assert_eq!(run::<String>(&mut c, "SET a x EX 100 GET"), "4200.5");
        assert!((95..=100).contains(&run::<i64>(&mut c, "TTL a")));
        assert_eq!(run::<i64>(&mut c, "PERSIST a"), 1);
        assert_eq!(run::<i64>(&mut c, "TTL a"), -1);
        assert_eq!(run::<String>(&mut c, "MSET b 2 c 3 d 4"), "OK");
        let found: Vec<Option<String>> = run(&mut c, "MGET b x d");
        assert_eq!(found, [Some("2".into()), None, Some("4".into())]);
        assert_eq!(run::<i64>(&mut c, "EXISTS a b x b"), 3);
        assert_eq!(run::<i64>(&mut c, "DEL a b x"), 2);
        assert_eq!(run::<i64>(&mut c, "DBSIZE"), 2);
        assert!(["c", "d"].contains(&run::<String>(&mut c, "RANDOMKEY").as_str()));
        let error = ask::<i64>(&mut c, "SADD c 1").unwrap_err().to_string();
        assert!(error.contains("unknown command 'SADD'"), "{error}");
    }
}

#[test]
fn a_pipeline_is_answered_in_its_order_and_reads_its_own_writes() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    let mut c = client(node.resp, "resp3");
    let mut pipeline = redis::pipe();
    for n in 0..100 {
        // Of one key, and of keys all over the cores.
        pipeline.cmd("SET").arg("one").arg(n).ignore();
        pipeline.cmd("GET").arg("one");
        pipeline.cmd("INCR").arg(format!("other-{n}"));
        pipeline.cmd("APPEND").arg("text").arg("x");
        pipeline.cmd("STRLEN").arg("text");
    }
    let found: Vec<i64> = pipeline.query(&mut c).unwrap();
    let expected: Vec<i64> = (0..100).flat_map(|n| [n, 1, n + 1, n + 1]).collect();
    assert_eq!(found, expected);
    assert_eq!(node.server.ok(&["get", "one"]), "99");
    node.server.ok(&["put", "native", "there"]);
    assert_eq!(run::<String>(&mut c, "GET native"), "there");
}

#[test]
fn many_clients_change_one_key_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut c = client(node.resp, "resp2");
                for _ in 0..25 {
                    run::<i64>(&mut c, "APPEND text x");
                    run::<i64>(&mut c, "INCR number");
                    run::<String>(&mut c, "INCRBYFLOAT fraction 0.5");
                }
            });
        }
    });
    let mut c = client(node.resp, "resp2");
    assert_eq!(run::<i64>(&mut c, "STRLEN text"), 200);
    assert_eq!(run::<i64>(&mut c, "GET number"), 200);
    assert_eq!(run::<i64>(&mut c, "GET fraction"), 100);
}

#[test]
fn a_scan_finds_every_key_from_whatever_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    let mut connections: Vec<_> = (0..8).map(|_| client(node.resp, "resp3")).collect();
    let mut pipeline = redis::pipe();
    for n in 0..500 {
        pipeline
            .cmd("SET")
            .arg(format!("key:{n}"))
            .arg("x")
            .ignore();
    }
    pipeline.cmd("SET").arg("other").arg("x").ignore();
    pipeline.query::<()>(&mut connections[0]).unwrap();
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    for step in 0.. {
        // The connections are served by both cores.
        let at = step % connections.len();
        let words = format!("SCAN {cursor} MATCH key:* COUNT 7");
        let (next, keys): (String, Vec<String>) = run(&mut connections[at], &words);
        found.extend(keys);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 500);
    let c = &mut connections[0];
    assert_eq!(run::<Vec<String>>(c, "KEYS key:49?").len(), 10);
    let error = ask::<i64>(c, "SCAN 123456789").unwrap_err().to_string();
    assert!(error.contains("invalid cursor"), "{error}");
}

#[test]
fn databases_are_keyspaces() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &["--set", "resp.databases=default,users,later"]);
    node.server.ok(&["keyspace", "create", "users"]);
    let mut c = client(node.resp, "resp2");
    run::<()>(&mut c, "SET a default");
    run::<()>(&mut c, "SELECT 1");
    assert_eq!(run::<Option<String>>(&mut c, "GET a"), None);
    run::<()>(&mut c, "SET a users");
    assert_eq!(
        node.server.ok(&["get", "--keyspace", "users", "a"]),
        "users"
    );
    let error = ask::<()>(&mut c, "SELECT 2").unwrap_err().to_string();
    assert!(error.contains("there is no keyspace \"later\""), "{error}");
    let error = ask::<()>(&mut c, "SELECT 3").unwrap_err().to_string();
    assert!(error.contains("DB index is out of range"), "{error}");
    run::<()>(&mut c, "FLUSHDB");
    assert_eq!(run::<i64>(&mut c, "DBSIZE"), 0);
    run::<()>(&mut c, "SELECT 0");
    assert_eq!(run::<String>(&mut c, "GET a"), "default");
    run::<()>(&mut c, "FLUSHALL");
    assert_eq!(run::<i64>(&mut c, "DBSIZE"), 0);
}

#[test]
fn the_protocol_is_taken_in_whatever_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    let mut c = connect(node.resp);
    exchange(&mut c, b"PING\r\n", b"+PONG\r\n");
    exchange(
        &mut c,
        b"set \"a b\" 'it\\'s'\nget \"a b\"\n",
        b"+OK\r\n$4\r\nit's\r\n",
    );
    exchange(&mut c, b"\r\n*0\r\n*-1\r\nPING x\r\n", b"$1\r\nx\r\n");
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n\r\n$1\0\r\n" {
        c.write_all(&[*byte]).unwrap();
        c.flush().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    exchange(&mut c, b"", b"+OK\r\n");
    exchange(&mut c, b"*2\r\n$6\r\nSTRLEN\r\n$1\r\nk\r\n", b":5\r\n");
    // A value that comes in many pieces.
    let big = vec![b'x'; 1 << 20];
    let mut set = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", big.len()).into_bytes();
    set.extend_from_slice(&big);
    set.extend_from_slice(b"\r\nSTRLEN big\r\n");
    exchange(&mut c, &set, b"+OK\r\n:1048576\r\n");
    // What stands behind the end of a half-closed connection's input is still done.
    c.write_all(b"SET a 1\r\nGET a\r\nINCR a\r\n").unwrap();
    c.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rest(c), "+OK\r\n$1\r\n1\r\n:2\r\n");
    let mut c = connect(node.resp);
    c.write_all(b"SET a 1\r\nQUIT\r\nPING\r\n").unwrap();
    assert_eq!(rest(c), "+OK\r\n+OK\r\n");
}

#[test]
fn garbage_is_answered_once_and_harms_no_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    let mut neighbour = connect(node.resp);
    exchange(&mut neighbour, b"SET a 1\r\n", b"+OK\r\n");
    let over = format!("*2\r\n$3\r\nGET\r\n${}\r\n", (16 << 20) + 1);
    let long = "x".repeat(70_000);
    let many = format!("*{}\r\n", 1 << 20);
    for (sent, words) in [
        ("*x\r\n", "invalid multibulk length"),
        (&many, "invalid multibulk length"),
        ("*1\r\n+OK\r\n", "expected '$', got '+'"),
        ("*1\r\n$-5\r\n", "invalid bulk length"),
        (&over, "invalid bulk length"),
        (&long, "too big inline request"),
        ("GET \"a\r\n", "unbalanced quotes in request"),
    ] {
        let mut c = connect(node.resp);
        // The write that was asked before is answered before.
        c.write_all(b"SET b 2\r\n").unwrap();
        c.write_all(sent.as_bytes()).unwrap();
        let said = rest(c);
        assert_eq!(said, format!("+OK\r\n-ERR Protocol error: {words}\r\n"));
    }
    let mut c = connect(node.resp);
    c.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 2\r\n")
        .unwrap();
    assert_eq!(rest(c), "");
    exchange(&mut neighbour, b"GET a\r\n", b"$1\r\n1\r\n");
    let stats = node.server.ok(&["stats", "--format", "json"]);
    assert!(!stats.contains("\"bad_frames_total\":0"), "{stats}");
}

#[test]
fn a_port_in_use_is_refused_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let more = ["--cores", "1", "--memory", "64MiB", "--resp", &address];
    let said = crate::support::refused(dir.path(), &more);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn acknowledged_writes_outlive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = start(dir.path(), &[]);
    let mut c = client(node.resp, "resp2");
    run::<()>(&mut c, "SET a 1");
    run::<()>(&mut c, "MSET b 2 c 3");
    run::<i64>(&mut c, "APPEND a 0");
    run::<i64>(&mut c, "DEL b");
    node.server.kill();
    node.server.restart();
    let mut c = client(node.resp, "resp2");
    let found: Vec<Option<String>> = run(&mut c, "MGET a b c");
    assert_eq!(found, [Some("10".into()), None, Some("3".into())]);
}
