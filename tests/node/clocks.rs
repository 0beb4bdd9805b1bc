//! Nodes whose clocks are far apart.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ringbolt::cluster::bootstrap::Answer;
use ringbolt_wire::{frame, peer};

use super::cluster::{Nodes, PATIENCE, is_led};

/// Reads one frame: its length counts all of it.
fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = length.to_vec();
    bytes.resize(u32::from_le_bytes(length) as usize, 0);
    stream.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}

/// What a node answers to those that ask who it is.
fn answer_of(address: SocketAddr) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut question = Vec::new();
    peer::encode_introduce(1, None, &mut question).unwrap();
    stream.write_all(&question).unwrap();
    let reply = read_frame(&mut stream).unwrap();
    let view = frame::open(&reply).unwrap();
    Answer::decode(peer::decode_introduced(&view).unwrap()).unwrap()
}

/// Answers in the place of a node, with a clock that is an hour ahead, as long as the test lasts.
fn stand_in(address: SocketAddr, answer: Answer) {
    let deadline = Instant::now() + PATIENCE;
    // The port of a server that was killed is in use for another moment.
    let listener = loop {
        match TcpListener::bind(address) {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let reply = move |mut stream: TcpStream| -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let question = read_frame(&mut stream)?;
        let view = frame::open(&question).map_err(std::io::Error::other)?;
        if peer::decode_introduce(&view).is_ok() {
            let now = std::time::SystemTime::now();
            let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
            let answer = answer.clone().at(now.as_millis() as u64 + 3_600_000);
            let mut out = Vec::new();
            peer::encode_introduced(view.request_id, &answer.encode().unwrap(), &mut out).unwrap();
            stream.write_all(&out)?;
        }
        Ok(())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let reply = reply.clone();
            // Whoever asks something else, or goes, gets no answer.
            std::thread::spawn(move || reply(stream).ok());
        }
    });
}

/// One node whose clock is wrong keeps the two others from starting no longer than until they meet, and
/// none of them serves with it alone.
#[test]
fn a_node_that_nobody_agrees_with_waits_for_one_that_does() {
    let mut nodes = Nodes::start();
    nodes.status(0, is_led);
    let third = answer_of(nodes.servers[2].addr);
    for server in &mut nodes.servers {
        server.kill();
    }
    stand_in(nodes.servers[2].addr, third);
    nodes.servers[0].begin_again();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let get = nodes.servers[0].cli(&["get", "--timeout", "1s", "key"]);
        let said = String::from_utf8_lossy(&get.stderr);
        if said.contains("node n1 starts: it asks its peers") {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    nodes.servers[1].begin_again();
    nodes.servers[0].wait_until_ready();
    nodes.servers[1].wait_until_ready();
    nodes.servers[0].ok(&["put", "--timeout", "30s", "key", "value"]);
}
