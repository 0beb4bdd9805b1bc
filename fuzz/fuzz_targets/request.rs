//! Any body of any kind, behind a checksum that is right: what decodes must encode to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbolt_wire::frame::{self, FrameView};
use ringbolt_wire::message::Request;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, body)) = bytes.split_first() else {
        return;
    };
    let view = FrameView {
        kind,
        flags: 0,
        request_id: 1,
        deadline_ms: 2,
        body,
    };
    match Request::decode(&view) {
        Ok(request) => {
            match request {
                Request::MultiGet { keys, .. } => assert_eq!(keys.iter().count(), keys.len()),
                Request::Batch { ops, .. } => assert_eq!(ops.iter().count(), ops.len()),
                _ => {}
            }
            let mut out = Vec::new();
            request.encode(1, 2, &mut out).expect("it was just decoded");
            assert_eq!(frame::open(&out), Ok(view));
        }
        Err(error) => assert!(!error.is_fatal()),
    }
});
