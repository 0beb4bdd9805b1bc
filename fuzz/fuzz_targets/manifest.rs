//! Any bytes where a manifest is read from: as they come, and as the payload of a frame whose header
//! and checksum are right, so that what validates the archive is reached.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringbolt_engine::env::sim::{self, SimOptions};
use ringbolt_engine::env::{AlignedBuf, Disk, DiskFile, Env, FileClass};
use ringbolt_engine::log::format::crc32c;
use ringbolt_engine::manifest::{self, Manifest};

fuzz_target!(|bytes: &[u8]| {
    let bytes = bytes.to_vec();
    sim::run(1, SimOptions::default(), |env| async move {
        let dir = Path::new("/shard");
        env.disk()
            .create_dir_all(dir)
            .await
            .expect("makes the folder");
        // A fresh one, so that CURRENT names what is damaged next.
        drop(
            Manifest::open(&env, dir, u64::MAX)
                .await
                .expect("opens an empty folder"),
        );
        let fresh = manifest::read(&env, dir)
            .await
            .expect("reads")
            .expect("is there");
        for content in [bytes.clone(), framed(&bytes, fresh.number)] {
            let file = env
                .disk()
                .open(&fresh.path, FileClass::Manifest)
                .await
                .expect("opens the file");
            let mut buf = AlignedBuf::zeroed(content.len());
            buf[..content.len()].copy_from_slice(&content);
            file.write_at(0, buf).await.0.expect("writes");
            // An error or a state; anything else is a fault.
            let _ = manifest::read(&env, dir).await;
        }
    });
});

/// The first edit of a manifest, with this payload.
fn framed(payload: &[u8], number: u64) -> Vec<u8> {
    let mut head = b"RBMF".to_vec();
    head.extend(1u16.to_le_bytes());
    head.extend(1u16.to_le_bytes());
    head.extend((payload.len() as u32).to_le_bytes());
    let mut rest = number.to_le_bytes().to_vec();
    rest.extend(0u64.to_le_bytes());
    rest.extend(payload);
    let crc = crc32c(&[&head[..], &rest, &0u64.to_le_bytes()].concat());
    [&head[..], &crc.to_le_bytes(), &rest].concat()
}
