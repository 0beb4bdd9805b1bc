//! Measures the core loop without a store in it: answers every `*` it receives with
//! `$3\r\nxxx\r\n`, from a whole core (executor, ring, handler).
//!
//! ```text
//! cargo run --release --example core_echo -- 7402 [SPIN_US]
//! redis-benchmark -p 7402 -c 50 -n 200000 -t get --csv
//! ```

use std::cell::RefCell;
use std::error::Error;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use ringbolt::runtime::{CoreOptions, Handler, LaunchOptions, RealEnv, Turn, launch};
use ringbolt_engine::env::Env;
use ringbolt_ring::{ConnId, Event, Ring};

#[derive(Default)]
struct Client {
    out: Vec<u8>,
    spare: Vec<u8>,
    dirty: bool,
}

#[derive(Default)]
struct Echo {
    clients: Vec<Client>,
    dirty: Vec<ConnId>,
}

impl Echo {
    fn touch(&mut self, conn: ConnId) {
        let client = &mut self.clients[conn.slot()];
        if !client.dirty && !client.out.is_empty() {
            client.dirty = true;
            self.dirty.push(conn);
        }
    }
}

impl Handler for Echo {
    fn on_event(&mut self, ring: &mut Ring, event: Event) {
        match event {
            Event::Accepted { socket, .. } => {
                if let Ok(conn) = ring.adopt(socket) {
                    if self.clients.len() <= conn.slot() {
                        self.clients.resize_with(conn.slot() + 1, Client::default);
                    }
                    self.clients[conn.slot()] = Client::default();
                }
            }
            Event::Data { conn, bytes } => {
                let client = &mut self.clients[conn.slot()];
                for _ in bytes.iter().filter(|byte| **byte == b'*') {
                    client.out.extend_from_slice(b"$3\r\nxxx\r\n");
                }
                self.touch(conn);
            }
            Event::Sent { conn, mut buf } => {
                buf.clear();
                self.clients[conn.slot()].spare = buf;
                self.touch(conn);
            }
            Event::Eof { conn } | Event::Failed { conn, .. } => ring.close(conn),
            _ => {}
        }
    }

    fn turn_end(&mut self, ring: &mut Ring) -> Turn {
        for conn in self.dirty.drain(..) {
            let client = &mut self.clients[conn.slot()];
            client.dirty = false;
            if ring.can_send(conn) && !client.out.is_empty() {
                let next = std::mem::take(&mut client.spare);
                // Cannot fail: checked just above.
                let _ = ring.send(conn, std::mem::replace(&mut client.out, next));
            }
        }
        Turn::Idle
    }

    fn has_mail(&self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args
        .next()
        .ok_or("usage: core_echo PORT [SPIN_US]")?
        .parse()?;
    let spin = args.next().map_or(Ok(0), |us| us.parse())?;
    let options = LaunchOptions {
        cpus: vec![Some(0)],
        core: CoreOptions {
            spin: Duration::from_micros(spin),
            ..CoreOptions::default()
        },
    };
    let cores = launch(&options, move |env: RealEnv| async move {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        env.install(Rc::new(RefCell::new(Echo::default())));
        env.with_ring(|ring| ring.listen(listener.into()));
        loop {
            env.sleep(Duration::from_secs(5)).await;
            println!("{:?}", env.stats());
        }
        #[allow(unreachable_code)] // gives the task its type
        Ok::<(), std::io::Error>(())
    })?;
    for outcome in cores.join() {
        outcome??;
    }
    Ok(())
}
