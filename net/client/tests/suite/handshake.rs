use ringbolt_client::{Client, Error};
use ringbolt_wire::message::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::{Fake, Settings, encoded};

/// Connects to a server that answers a `Hello` with these bytes, and closes.
async fn connect_to(answer: Vec<u8>) -> Result<Client, Error> {
    let server = Fake::listen("127.0.0.1:0".parse().unwrap(), move |mut stream, _| {
        let answer = answer.clone();
        async move {
            let mut hello = [0; 64];
            let _ = stream.read(&mut hello).await;
            let _ = stream.write_all(&answer).await;
        }
    })
    .await;
    server.client().connect().await
}

fn error(code: ErrorCode) -> Vec<u8> {
    let error = Response::Error(ErrorReply {
        code,
        retry_after_ms: 0,
        detail: 0,
        message: "no",
    });
    encoded(1, &error)
}

#[tokio::test]
async fn a_server_of_another_version_is_a_protocol_error() {
    let mut other_frame = encoded(1, &Settings::default().welcome(0));
    other_frame[8] = 2;
    let mut other_version = Settings::default().welcome(0);
    if let Response::Welcome { version, .. } = &mut other_version {
        *version = 2;
    }
    for answer in [
        other_frame,
        encoded(1, &other_version),
        error(ErrorCode::Unsupported),
        error(ErrorCode::Handshake),
        encoded(1, &Response::Done),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"-ERR unknown command\r\n+many more bytes".to_vec(),
    ] {
        match connect_to(answer.clone()).await {
            Err(Error::Protocol(_)) => {}
            other => panic!("{}: {other:?}", String::from_utf8_lossy(&answer)),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_unreachable() {
    for answer in [
        error(ErrorCode::Unavailable),
        error(ErrorCode::Overloaded),
        Vec::new(),
        encoded(1, &Settings::default().welcome(0))[..40].to_vec(),
    ] {
        match connect_to(answer.clone()).await {
            Err(Error::Unreachable { .. }) => {}
            other => panic!("{}: {other:?}", String::from_utf8_lossy(&answer)),
        }
    }
}

#[tokio::test]
async fn a_welcome_that_never_ends_is_not_gathered() {
    let mut answer = encoded(1, &Settings::default().welcome(0));
    answer[..4].copy_from_slice(&(1u32 << 20).to_le_bytes());
    match connect_to(answer).await {
        Err(Error::Protocol(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_largest_topology_is_understood() {
    let settings = Settings {
        cores: 256,
        partitions: 16384,
        ..Settings::default()
    };
    let server = crate::memory::start(settings).await;
    let client = server.connect().await;
    client.put("k", "v").await.unwrap();
}
