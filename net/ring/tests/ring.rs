//! Real sockets and real files through real rings.
#![allow(clippy::unwrap_used)] // helpers of tests too may stop at what is not expected

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringbolt_ring::{
    ConnId, Event, FileBuf, FileOp, FileOutcome, Mode, Ring, RingConfig, SendError,
};

const TICK: Duration = Duration::from_millis(5);

fn config() -> RingConfig {
    RingConfig {
        entries: 64,
        cq_entries: 4096,
        buffers: 64,
        buffer_bytes: 1024,
        ..RingConfig::default()
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Runs the ring until `done` says so of an event.
fn until(ring: &mut Ring, mut done: impl FnMut(&mut Ring, Event) -> bool) {
    loop {
        ring.wait(TICK).unwrap();
        while let Some(event) = ring.next_event() {
            if done(ring, event) {
                return;
            }
        }
    }
}

/// Echoes everything on every connection until `stop` has been sent.
struct Echo {
    ring: Ring,
    out: HashMap<ConnId, Vec<u8>>,
}

impl Echo {
    fn turn(&mut self) {
        self.ring.wait(TICK).unwrap();
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Accepted { socket, .. } => {
                    let conn = self.ring.adopt(socket).unwrap();
                    self.out.insert(conn, Vec::new());
                }
                Event::Data { conn, bytes } => {
                    self.out.get_mut(&conn).unwrap().extend_from_slice(&bytes);
                }
                Event::Sent { .. } => {}
                Event::Eof { conn } => {
                    if self.out[&conn].is_empty() {
                        self.ring.finish(conn);
                    }
                }
                Event::Failed { conn, errno } => panic!("{conn:?} failed: {errno}"),
                Event::Closed { conn } => {
                    self.out.remove(&conn);
                }
                Event::Woken => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        for (conn, out) in &mut self.out {
            if !out.is_empty() && self.ring.can_send(*conn) {
                self.ring.send(*conn, std::mem::take(out)).unwrap();
            }
        }
    }
}

fn echo_server(
    config: RingConfig,
) -> (
    std::net::SocketAddr,
    mpsc::Sender<()>,
    thread::JoinHandle<ringbolt_ring::RingStats>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut ring = Ring::new(&config).unwrap();
        ring.listen(listener.into());
        let mut echo = Echo {
            ring,
            out: HashMap::new(),
        };
        while stopped.try_recv().is_err() {
            echo.turn();
        }
        echo.ring.stats()
    });
    (addr, stop, server)
}

#[test]
fn a_thousand_connections_are_echoed_with_few_buffers() {
    for (mode, bundles) in [
        (Mode::Defer, false),
        (Mode::Coop, false),
        (Mode::Defer, true),
    ] {
        let (addr, stop, server) = echo_server(RingConfig {
            mode,
            bundles,
            ..config()
        });
        let mut clients: Vec<TcpStream> = (0..1000)
            .map(|_| TcpStream::connect(addr).unwrap())
            .collect();
        for round in 0..3u8 {
            for (i, client) in clients.iter_mut().enumerate() {
                client.write_all(&[round, i as u8, (i >> 8) as u8]).unwrap();
            }
            for (i, client) in clients.iter_mut().enumerate() {
                let mut reply = [0; 3];
                client.read_exact(&mut reply).unwrap();
                assert_eq!(reply, [round, i as u8, (i >> 8) as u8]);
            }
        }
        drop(clients);
        stop.send(()).unwrap();
        let stats = server.join().unwrap();
        assert_eq!(
            (stats.accepted, stats.strays, stats.overflows),
            (1000, 0, 0)
        );
    }
}

#[test]
fn a_mebibyte_comes_back_whole_and_in_order() {
    for bundles in [false, true] {
        let (addr, stop, server) = echo_server(RingConfig {
            bundles,
            ..config()
        });
        let mut client = TcpStream::connect(addr).unwrap();
        let message: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
        let mut writer = client.try_clone().unwrap();
        let sent = message.clone();
        let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut reply = vec![0; message.len()];
        client.read_exact(&mut reply).unwrap();
        assert!(reply == message, "the bytes differ");
        writing.join().unwrap();
        stop.send(()).unwrap();
        assert_eq!(server.join().unwrap().strays, 0);
    }
}

#[test]
fn one_send_at_a_time_and_a_slow_reader_gets_everything() {
    let mut ring = Ring::new(&config()).unwrap();
    let (mut client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    let message: Vec<u8> = (0..2u32 << 20).flat_map(u32::to_le_bytes).collect();
    ring.send(conn, message.clone()).unwrap();
    assert!(matches!(ring.send(conn, vec![1]), Err(SendError::Busy(buf)) if buf == [1]));
    assert!(matches!(
        ring.send(conn, Vec::new()),
        Err(SendError::Length(_))
    ));
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        let mut chunk = [0; 70_000];
        while got.len() < 8 << 20 {
            thread::sleep(Duration::from_micros(200));
            let n = client.read(&mut chunk).unwrap();
            got.extend_from_slice(&chunk[..n]);
        }
        got
    });
    until(&mut ring, |_, event| match event {
        Event::Sent { conn: c, buf } => {
            assert_eq!((c, buf.len()), (conn, 8 << 20));
            true
        }
        other => panic!("unexpected {other:?}"),
    });
    assert!(reading.join().unwrap() == message);
    assert_eq!(ring.stats().sent_bytes, 8 << 20);
}

#[test]
fn close_sends_fin_though_a_receive_is_armed_and_the_slot_is_reused() {
    let mut ring = Ring::new(&config()).unwrap();
    let (mut client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    ring.submit().unwrap();
    ring.close(conn);
    ring.close(conn);
    until(
        &mut ring,
        |_, event| matches!(event, Event::Closed { conn: c } if c == conn),
    );
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "FIN");
    assert_eq!(ring.connections(), 0);
    assert!(matches!(
        ring.send(conn, vec![1]),
        Err(SendError::Closed(_))
    ));

    let (_client, server) = pair();
    let next = ring.adopt(server.into()).unwrap();
    assert_eq!(next.slot(), conn.slot());
    assert_ne!(next, conn);
    ring.close(conn);
    assert_eq!(ring.connections(), 1, "an old id closes nothing");
}

#[test]
fn close_drops_a_send_that_nobody_reads() {
    let mut ring = Ring::new(&config()).unwrap();
    let (client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    ring.send(conn, vec![7; 64 << 20]).unwrap();
    for _ in 0..3 {
        ring.wait(TICK).unwrap();
        assert!(ring.next_event().is_none());
    }
    ring.close(conn);
    until(&mut ring, |_, event| matches!(event, Event::Closed { .. }));
    drop(client);
}

#[test]
fn finish_delivers_the_last_reply_to_a_peer_that_is_still_sending() {
    let mut ring = Ring::new(&config()).unwrap();
    let (mut client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    client.write_all(&[1; 100_000]).unwrap();
    let mut said = false;
    let mut peer = Some(client);
    let mut reading = None;
    until(&mut ring, |ring, event| match event {
        Event::Data { .. } if !said => {
            said = true;
            ring.send(conn, b"too long".to_vec()).unwrap();
            ring.finish(conn);
            let mut client = peer.take().unwrap();
            reading = Some(thread::spawn(move || {
                let _ = client.write_all(&[2; 100_000]);
                let mut reply = String::new();
                client.read_to_string(&mut reply).unwrap();
                reply
            }));
            false
        }
        Event::Data { .. } => panic!("data after finish"),
        Event::Closed { .. } => true,
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(reading.unwrap().join().unwrap(), "too long");
}

#[test]
fn pause_holds_bytes_back_and_resume_brings_them() {
    let mut ring = Ring::new(&config()).unwrap();
    let (mut client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    ring.submit().unwrap();
    for round in 0..20u8 {
        ring.pause_recv(conn);
        if round % 2 == 0 {
            ring.wait(TICK).unwrap();
        }
        assert!(ring.next_event().is_none(), "nothing was sent");
        if round % 4 == 0 {
            client.write_all(&[round]).unwrap();
            ring.wait(TICK).unwrap();
            assert!(ring.next_event().is_none(), "paused");
        } else {
            client.write_all(&[round]).unwrap();
        }
        ring.resume_recv(conn);
        until(&mut ring, |_, event| match event {
            Event::Data { bytes, .. } => {
                assert_eq!(&bytes[..], [round]);
                true
            }
            other => panic!("unexpected {other:?}"),
        });
    }
}

#[test]
fn eof_and_reset_are_told_apart() {
    let mut ring = Ring::new(&config()).unwrap();
    let (client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until(&mut ring, |ring, event| match event {
        Event::Eof { conn: c } => {
            assert_eq!(c, conn);
            ring.send(conn, b"still".to_vec()).unwrap();
            false
        }
        Event::Sent { .. } => true,
        other => panic!("unexpected {other:?}"),
    });
    // Unread bytes make the peer's close a reset.
    drop(client);
    let (client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    ring.send(conn, vec![1; 10]).unwrap();
    until(&mut ring, |_, event| matches!(event, Event::Sent { .. }));
    drop(client);
    until(&mut ring, |_, event| match event {
        Event::Failed { conn: c, errno } => {
            assert_eq!((c, errno), (conn, libc::ECONNRESET));
            true
        }
        other => panic!("unexpected {other:?}"),
    });
}

#[test]
fn a_socket_moves_between_rings_without_losing_a_byte() {
    let (to_b, for_b) = mpsc::channel::<(OwnedFd, Vec<u8>)>();
    let (mut client, server) = pair();
    let total = 1usize << 20;
    let sent: Vec<u8> = (0..total as u32 / 4).flat_map(u32::to_le_bytes).collect();
    let message = sent.clone();
    let writing = thread::spawn(move || {
        client.write_all(&message).unwrap();
        client
    });
    let a = thread::spawn(move || {
        let mut ring = Ring::new(&config()).unwrap();
        let conn = ring.adopt(server.into()).unwrap();
        let mut got = Vec::new();
        until(&mut ring, |ring, event| match event {
            Event::Data { bytes, .. } => {
                got.extend_from_slice(&bytes);
                if got.len() > 10_000 {
                    ring.detach(conn);
                }
                false
            }
            Event::Detached {
                socket, leftover, ..
            } => {
                got.extend_from_slice(&leftover);
                to_b.send((socket, std::mem::take(&mut got))).unwrap();
                true
            }
            other => panic!("unexpected {other:?}"),
        });
    });
    let mut ring = Ring::new(&config()).unwrap();
    let (socket, mut got) = for_b.recv().unwrap();
    ring.adopt(socket).unwrap();
    until(&mut ring, |_, event| match event {
        Event::Data { bytes, .. } => {
            got.extend_from_slice(&bytes);
            got.len() >= total
        }
        other => panic!("unexpected {other:?}"),
    });
    a.join().unwrap();
    assert!(got == sent);
    drop(writing.join().unwrap());
}

#[test]
fn a_parked_ring_is_woken_once_by_a_ring_and_by_a_thread() {
    for by_ring in [true, false] {
        for mode in [Mode::Defer, Mode::Coop] {
            let (to_us, from_them) = mpsc::channel();
            let (posted, mailbox) = mpsc::channel();
            let sleeper = thread::spawn(move || {
                let mut ring = Ring::new(&RingConfig { mode, ..config() }).unwrap();
                ring.submit().unwrap();
                to_us.send(ring.waker()).unwrap();
                let mut seen = 0u32;
                while seen < 100 {
                    ring.park();
                    let mail: Vec<u32> = mailbox.try_iter().collect();
                    if mail.is_empty() {
                        ring.wait(Duration::from_secs(60)).unwrap();
                    }
                    ring.unpark();
                    seen += mail.len() as u32;
                    while let Some(event) = ring.next_event() {
                        assert!(matches!(event, Event::Woken));
                    }
                }
                ring.stats().wakes
            });
            let waker = from_them.recv().unwrap();
            let mut own = Ring::new(&config()).unwrap();
            for i in 0..100u32 {
                posted.send(i).unwrap();
                if by_ring {
                    own.wake(&waker);
                    own.submit().unwrap();
                } else {
                    waker.wake();
                }
            }
            let wakes = sleeper.join().unwrap();
            assert!(wakes <= 100, "{wakes} wakes for 100 messages");
            assert_eq!(own.stats().wakes_failed, 0);
        }
    }
}

#[test]
fn a_stopped_listener_closes_and_refuses() {
    let mut ring = Ring::new(&config()).unwrap();
    // An address that no other test listens at.
    let listener = TcpListener::bind("127.0.0.3:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let id = ring.listen(listener.into());
    ring.submit().unwrap();
    ring.stop_listening(id);
    ring.stop_listening(id);
    until(
        &mut ring,
        |_, event| matches!(event, Event::ListenerClosed { listener, errno: 0 } if listener == id),
    );
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn an_outgoing_connection_talks_in_both_directions_over_both_families() {
    let mut ring = Ring::new(&config()).unwrap();
    let mut peers = Vec::new();
    for (token, place) in [(7, "127.0.0.1:0"), (8, "[::1]:0")] {
        let listener = TcpListener::bind(place).unwrap();
        ring.connect(
            token,
            listener.local_addr().unwrap(),
            Duration::from_secs(5),
        );
        let mut conn = None;
        until(&mut ring, |ring, event| match event {
            Event::Connected { token: t, socket } => {
                assert_eq!(t, token);
                let adopted = ring.adopt(socket).unwrap();
                ring.send(adopted, b"hello".to_vec()).unwrap();
                conn = Some(adopted);
                false
            }
            Event::Sent { .. } => true,
            other => panic!("unexpected {other:?}"),
        });
        let (mut peer, _) = listener.accept().unwrap();
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        peer.write_all(b"welcome").unwrap();
        peers.push(peer);
        until(&mut ring, |_, event| match event {
            Event::Data { conn: c, bytes } => {
                assert_eq!((Some(c), &bytes[..]), (conn, &b"welcome"[..]));
                true
            }
            other => panic!("unexpected {other:?}"),
        });
    }
    assert_eq!((ring.stats().connected, ring.stats().strays), (2, 0));
}

#[test]
fn connections_that_cannot_be_made_say_why() {
    let mut ring = Ring::new(&config()).unwrap();
    // An address that no other test listens at.
    let closed = TcpListener::bind("127.0.0.2:0").unwrap();
    let refusing = closed.local_addr().unwrap();
    drop(closed);
    // A full queue of connections: further ones are neither taken nor refused.
    let deaf = full_listener();
    let silent = deaf.0.local_addr().unwrap();
    for round in 0..20 {
        ring.connect(round * 2, refusing, Duration::from_secs(5));
        ring.connect(round * 2 + 1, silent, Duration::from_millis(30));
    }
    let mut failed = HashMap::new();
    until(&mut ring, |_, event| match event {
        Event::ConnectFailed { token, errno } => {
            failed.insert(token, errno);
            failed.len() == 40
        }
        other => panic!("unexpected {other:?}"),
    });
    for round in 0..20 {
        assert_eq!(failed[&(round * 2)], libc::ECONNREFUSED);
        assert_eq!(failed[&(round * 2 + 1)], libc::ETIMEDOUT);
    }
    // The slots are free again, and a late timeout reaches none of their later users.
    ring.wait(TICK).unwrap();
    assert!(ring.next_event().is_none());
    assert_eq!(ring.stats().strays, 0);
    // Dropped while connecting.
    ring.connect(99, silent, Duration::from_secs(60));
    ring.submit().unwrap();
    let begun = std::time::Instant::now();
    drop(ring);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// A listener that takes no more connections, and those that fill it.
fn full_listener() -> (TcpListener, Vec<OwnedFd>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: takes a descriptor that is ours and no memory.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let filling = (0..3)
        .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
        .map(OwnedFd::from)
        .collect();
    (listener, filling)
}

#[test]
fn outgoing_connections_count_against_the_limit() {
    let mut ring = Ring::new(&RingConfig {
        connections_max: 1,
        ..config()
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ring.connect(1, address, Duration::from_secs(5));
    ring.connect(2, address, Duration::from_secs(5));
    let mut ends = Vec::new();
    until(&mut ring, |_, event| {
        ends.push(match event {
            Event::Connected { token, .. } => (token, 0),
            Event::ConnectFailed { token, errno } => (token, errno),
            other => panic!("unexpected {other:?}"),
        });
        ends.len() == 2
    });
    ends.sort_unstable();
    assert_eq!(ends, [(1, 0), (2, libc::EMFILE)]);
}

#[test]
fn a_full_table_gives_the_socket_back() {
    let mut ring = Ring::new(&RingConfig {
        connections_max: 1,
        ..config()
    })
    .unwrap();
    let (_a, first) = pair();
    let (_b, second) = pair();
    ring.adopt(first.into()).unwrap();
    assert!(ring.adopt(second.into()).is_err());
}

#[test]
fn limits_out_of_range_are_refused() {
    for bad in [
        RingConfig {
            buffers: 3,
            ..config()
        },
        RingConfig {
            buffer_bytes: 1,
            ..config()
        },
        RingConfig {
            entries: 0,
            ..config()
        },
        RingConfig {
            cq_entries: 1,
            ..config()
        },
        RingConfig {
            connections_max: 0,
            ..config()
        },
    ] {
        assert!(matches!(
            Ring::new(&bad),
            Err(ringbolt_ring::RingError::Config { .. })
        ));
    }
}

/// Sectors aligned for direct I/O inside a longer vector.
struct Sectors {
    memory: Vec<u8>,
    skip: usize,
}

impl Sectors {
    fn filled(byte: u8) -> Self {
        let memory = vec![byte; 3 * 4096];
        let skip = memory.as_ptr().align_offset(4096);
        Self { memory, skip }
    }
    fn bytes(&self) -> &[u8] {
        &self.memory[self.skip..][..8192]
    }
}

// SAFETY: points into a heap block that does not move and that the value owns alone.
unsafe impl FileBuf for Sectors {
    fn addr(&mut self) -> *mut u8 {
        self.memory[self.skip..].as_mut_ptr()
    }
    fn len(&self) -> usize {
        8192
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

fn file_done(ring: &mut Ring, token: u64) -> (Result<FileOutcome, i32>, Option<Sectors>) {
    let mut answer = None;
    until(ring, |_, event| match event {
        Event::FileDone {
            token: t,
            result,
            buf,
        } => {
            assert_eq!(t, token);
            let buf = buf.map(|buf| *buf.into_any().downcast::<Sectors>().unwrap());
            answer = Some((result, buf));
            true
        }
        other => panic!("unexpected {other:?}"),
    });
    answer.unwrap()
}

#[test]
fn direct_durable_writes_are_read_back() {
    // Not under /tmp, which may be memory without direct I/O.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut ring = Ring::new(&config()).unwrap();
    for (name, extra, datasync) in [("dsync", libc::O_DSYNC, false), ("datasync", 0, true)] {
        let path = dir.path().join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT | extra)
            .open(&path)
            .unwrap();
        let fd = Rc::new(OwnedFd::from(file));
        for i in 0..4u64 {
            ring.file(
                i,
                FileOp::Write {
                    fd: Rc::clone(&fd),
                    offset: i * 8192,
                    buf: Box::new(Sectors::filled(i as u8 + 1)),
                    len: 8192,
                    datasync,
                },
            );
            let (result, buf) = file_done(&mut ring, i);
            assert!(matches!(result, Ok(FileOutcome::Bytes(8192))), "{result:?}");
            assert_eq!(buf.unwrap().bytes()[0], i as u8 + 1);
        }
        for (offset, want, byte) in [
            (8192, 8192, 2u8),
            (3 * 8192 + 4096, 4096, 4),
            (4 * 8192, 0, 0),
        ] {
            ring.file(
                9,
                FileOp::Read {
                    fd: Rc::clone(&fd),
                    offset,
                    buf: Box::new(Sectors::filled(0)),
                    len: 8192,
                },
            );
            let (result, buf) = file_done(&mut ring, 9);
            assert!(
                matches!(result, Ok(FileOutcome::Bytes(n)) if n == want),
                "{result:?}"
            );
            assert!(buf.unwrap().bytes()[..want].iter().all(|b| *b == byte));
        }
        for op in [
            FileOp::Datasync { fd: Rc::clone(&fd) },
            FileOp::Sync { fd: Rc::clone(&fd) },
        ] {
            ring.file(10, op);
            assert!(matches!(file_done(&mut ring, 10).0, Ok(FileOutcome::Done)));
        }
        if ring.can_truncate() {
            ring.file(
                11,
                FileOp::Truncate {
                    fd: Rc::clone(&fd),
                    len: 4096,
                },
            );
            assert!(file_done(&mut ring, 11).0.is_ok());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096);
        }
        // Longer than the buffer, and a descriptor that cannot be written.
        ring.file(
            12,
            FileOp::Read {
                fd: Rc::clone(&fd),
                offset: 0,
                buf: Box::new(Sectors::filled(0)),
                len: 8193,
            },
        );
        assert!(matches!(file_done(&mut ring, 12).0, Err(libc::EINVAL)));
        let read_only = Rc::new(OwnedFd::from(std::fs::File::open(&path).unwrap()));
        ring.file(
            13,
            FileOp::Write {
                fd: read_only,
                offset: 0,
                buf: Box::new(Sectors::filled(0)),
                len: 8192,
                datasync,
            },
        );
        assert!(matches!(file_done(&mut ring, 13).0, Err(libc::EBADF)));
        assert_eq!((ring.stats().strays, ring.files_in_flight()), (0, 0));
    }
}

#[test]
fn files_go_ahead_of_sends_that_were_queued_before() {
    let mut ring = Ring::new(&config()).unwrap();
    let (_client, server) = pair();
    let conn = ring.adopt(server.into()).unwrap();
    let path = std::env::temp_dir().join(format!("ringbolt-ring-{}-order", std::process::id()));
    // In the page cache, so that reading it is done on the spot, as sending is.
    std::fs::write(&path, [7; 8192]).unwrap();
    let fd = Rc::new(OwnedFd::from(std::fs::File::open(&path).unwrap()));
    std::fs::remove_file(&path).unwrap();
    ring.send(conn, vec![1]).unwrap();
    let buf = Box::new(Sectors::filled(0));
    let read = FileOp::Read {
        fd,
        offset: 0,
        buf,
        len: 8192,
    };
    ring.file(1, read);
    let mut order = Vec::new();
    until(&mut ring, |_, event| {
        order.push(match event {
            Event::FileDone { .. } => "file",
            Event::Sent { .. } => "send",
            other => panic!("unexpected {other:?}"),
        });
        order.len() == 2
    });
    assert_eq!(order, ["file", "send"]);
}

#[test]
fn a_durable_write_that_fails_is_one_error_and_no_sync() {
    let mut ring = Ring::new(&config()).unwrap();
    // Always full: the write fails when it is carried out, not when it is prepared.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = Rc::new(OwnedFd::from(full));
    for token in 0..10 {
        let write = FileOp::Write {
            fd: Rc::clone(&full),
            offset: 0,
            buf: Box::new(Sectors::filled(1)),
            len: 8192,
            datasync: true,
        };
        ring.file(token, write);
        let (result, buf) = file_done(&mut ring, token);
        assert!(matches!(result, Err(libc::ENOSPC)), "{result:?}");
        assert!(buf.is_some());
    }
    ring.wait(TICK).unwrap();
    assert!(ring.next_event().is_none());
    assert_eq!((ring.stats().strays, ring.files_in_flight()), (0, 0));
}

#[test]
fn names_are_opened_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        std::ffi::CString::new(dir.path().join(name).into_os_string().into_encoded_bytes()).unwrap()
    };
    let mut ring = Ring::new(&config()).unwrap();
    ring.file(
        1,
        FileOp::Open {
            path: path("a"),
            flags: libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            mode: 0o600,
        },
    );
    assert!(matches!(
        file_done(&mut ring, 1).0,
        Ok(FileOutcome::Opened(_))
    ));
    ring.file(
        2,
        FileOp::Rename {
            from: path("a"),
            to: path("b"),
        },
    );
    assert!(file_done(&mut ring, 2).0.is_ok());
    assert!(dir.path().join("b").exists());
    ring.file(3, FileOp::Unlink { path: path("b") });
    assert!(file_done(&mut ring, 3).0.is_ok());
    ring.file(4, FileOp::Unlink { path: path("b") });
    assert!(matches!(file_done(&mut ring, 4).0, Err(libc::ENOENT)));
}

#[test]
fn dropping_a_busy_ring_closes_its_sockets() {
    let mut ring = Ring::new(&config()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let (client, server) = pair();
        let conn = ring.adopt(server.into()).unwrap();
        ring.send(conn, vec![1; 1 << 20]).unwrap();
        clients.push(client);
    }
    ring.submit().unwrap();
    drop(ring);
    for mut client in clients {
        let mut got = Vec::new();
        // A reset is as good as a FIN here: the point is that nothing stays open.
        let _ = client.read_to_end(&mut got);
        assert!(got.iter().all(|byte| *byte == 1));
    }
}
