//! Measures the floor: answers every `*` it receives with `$3\r\nxxx\r\n`, from a ring alone.
//!
//! ```text
//! cargo run --release -p ringbolt-ring --example echo -- 7401 [defer|coop] [bundle]
//! redis-benchmark -p 7401 -c 50 -n 200000 -t get --csv
//! ```

use std::error::Error;
use std::time::Duration;

use ringbolt_ring::{Event, Mode, Ring, RingConfig};

#[derive(Default)]
struct Client {
    out: Vec<u8>,
    spare: Vec<u8>,
    dirty: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args
        .next()
        .ok_or("usage: echo PORT [defer|coop] [bundle]")?
        .parse()?;
    let rest: Vec<String> = args.collect();
    let has = |word: &str| rest.iter().any(|arg| arg == word);
    let mut ring = Ring::new(&RingConfig {
        mode: if has("coop") { Mode::Coop } else { Mode::Defer },
        bundles: has("bundle"),
        ..RingConfig::default()
    })?;
    ring.listen(std::net::TcpListener::bind(("127.0.0.1", port))?.into());
    let mut clients: Vec<Client> = Vec::new();
    let mut dirty = Vec::new();
    loop {
        ring.wait(Duration::from_secs(1))?;
        while let Some(event) = ring.next_event() {
            match event {
                Event::Accepted { socket, .. } => {
                    if let Ok(conn) = ring.adopt(socket) {
                        if clients.len() <= conn.slot() {
                            clients.resize_with(conn.slot() + 1, Client::default);
                        }
                        clients[conn.slot()] = Client::default();
                    }
                }
                Event::Data { conn, bytes } => {
                    let client = &mut clients[conn.slot()];
                    for _ in bytes.iter().filter(|byte| **byte == b'*') {
                        client.out.extend_from_slice(b"$3\r\nxxx\r\n");
                    }
                    if !client.dirty {
                        client.dirty = true;
                        dirty.push(conn);
                    }
                }
                Event::Sent { conn, mut buf } => {
                    buf.clear();
                    let client = &mut clients[conn.slot()];
                    client.spare = buf;
                    if !client.out.is_empty() && !client.dirty {
                        client.dirty = true;
                        dirty.push(conn);
                    }
                }
                Event::Eof { conn } | Event::Failed { conn, .. } => ring.close(conn),
                _ => {}
            }
        }
        for conn in dirty.drain(..) {
            let client = &mut clients[conn.slot()];
            client.dirty = false;
            if ring.can_send(conn) && !client.out.is_empty() {
                let next = std::mem::take(&mut client.spare);
                let _ = ring.send(conn, std::mem::replace(&mut client.out, next));
            }
        }
    }
}
