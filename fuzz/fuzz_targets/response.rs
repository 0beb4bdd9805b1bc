//! Any body of any kind, behind a checksum that is right: what decodes must decode to the same
//! after it was encoded. (Not to the same bytes: an error code that is not known becomes one that
//! is, and long texts are cut.)
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbolt_wire::frame::{self, FrameView};
use ringbolt_wire::message::Response;

fuzz_target!(|bytes: &[u8]| {
    // Texts up to here are never cut.
    if bytes.len() > 1024 {
        return;
    }
    let Some((&kind, body)) = bytes.split_first() else {
        return;
    };
    let view = FrameView {
        kind,
        flags: 0,
        request_id: 1,
        deadline_ms: 0,
        body,
    };
    match Response::decode(&view) {
        Ok(response) => {
            let mut out = Vec::new();
            response.encode(1, &mut out);
            let again = frame::open(&out).expect("it was just encoded");
            assert_eq!(Response::decode(&again), Ok(response));
        }
        Err(error) => assert!(!error.is_fatal()),
    }
});
