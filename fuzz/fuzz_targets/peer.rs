//! Any body of any kind that nodes send each other: what decodes must encode to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbolt_wire::Kind;
use ringbolt_wire::frame::{self, FrameView};
use ringbolt_wire::peer::{self, PeerHello, PeerItem, PeerWelcome};

fuzz_target!(|bytes: &[u8]| {
    let view = |kind, body| FrameView {
        kind,
        flags: 0,
        request_id: 1,
        deadline_ms: 0,
        body,
    };
    let batch = view(Kind::PeerBatch as u8, bytes);
    for item in peer::items(&batch).expect("its kind and flags are right") {
        match item {
            Ok(item) => {
                if let PeerItem::Raft { entries, .. } = item {
                    assert_eq!(entries.iter().count(), entries.len());
                }
                let mut out = Vec::new();
                item.encode(&mut out).expect("it was just decoded");
                assert_eq!(out.len(), item.encoded_bytes());
                assert!(bytes.windows(out.len()).any(|part| part == out));
            }
            Err(error) => assert!(!error.is_fatal()),
        }
    }
    let hello = view(Kind::PeerHello as u8, bytes);
    if let Ok(found) = PeerHello::decode(&hello) {
        let mut out = Vec::new();
        found.encode(1, &mut out).expect("it was just decoded");
        let body = frame::open(&out).expect("it was just encoded").body;
        assert!(bytes.starts_with(body));
    }
    let welcome = view(Kind::PeerWelcome as u8, bytes);
    if let Ok(found) = PeerWelcome::decode(&welcome) {
        let mut out = Vec::new();
        found.encode(1, &mut out);
        assert_eq!(frame::open(&out), Ok(welcome));
    }
    match peer::decode_introduce(&view(Kind::Introduce as u8, bytes)) {
        Ok((peer::PEER_VERSION, claim)) => {
            let mut out = Vec::new();
            peer::encode_introduce(1, claim, &mut out).expect("it was just decoded");
            assert_eq!(frame::open(&out).expect("it was just encoded").body, bytes);
        }
        Ok(_) => {}
        Err(error) => assert!(!error.is_fatal()),
    }
    let introduced = view(Kind::Introduced as u8, bytes);
    if let Ok(answer) = peer::decode_introduced(&introduced) {
        let mut out = Vec::new();
        peer::encode_introduced(1, answer, &mut out).expect("it is short");
        assert_eq!(frame::open(&out), Ok(introduced));
    }
});
