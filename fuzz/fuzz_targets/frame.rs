//! Whatever arrives on a connection, cut into frames as a server does it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{Request, Response};

const LIMIT: u32 = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    loop {
        match frame::peek(rest, LIMIT) {
            Ok(Peek::Frame { len }) => {
                assert!(len <= LIMIT as usize);
                let (frame, after) = rest.split_at(len);
                if let Ok(view) = frame::open(frame) {
                    let _ = Request::decode(&view);
                    let _ = Response::decode(&view);
                }
                rest = after;
            }
            Ok(Peek::Incomplete { need }) => {
                assert!(need > rest.len() && need <= LIMIT as usize);
                return;
            }
            Ok(Peek::Oversized { len, .. }) => {
                assert!(len > LIMIT as usize);
                rest = &rest[len.min(rest.len())..];
            }
            Err(error) => {
                assert!(error.is_fatal());
                return;
            }
        }
    }
});
