//! The tasks of a connection: one writes, one reads, one watches for silence.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use ringbolt_wire::FRAME_BYTES_MAX;
use ringbolt_wire::frame::{self, HEADER_BYTES, Peek};
use ringbolt_wire::message::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior};

use super::link::Shared;
use super::{KEEP_BYTES, READ_BYTES, Reply};

/// The writer task: sends what has gathered, until the connection is broken.
pub(super) async fn write(shared: Arc<Shared>, mut socket: OwnedWriteHalf, keepalive: Duration) {
    let mut tick = tokio::time::interval_at(Instant::now() + keepalive, keepalive);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sending = Vec::new();
    let mut frames_read = 0;
    let mut pinged = false;
    loop {
        let permits = {
            let mut state = shared.lock();
            if state.broken.is_some() {
                return;
            }
            std::mem::swap(&mut state.out, &mut sending);
            state.taken = state.queued;
            std::mem::take(&mut state.out_permits)
        };
        if sending.is_empty() {
            tokio::select! {
                () = shared.wake_writer.notified() => continue,
                _ = tick.tick() => {}
            }
            // Nothing was sent for a while, or something is and the server is slow. Whatever
            // arrives shows that it lives.
            let now = shared.frames_read.load(Ordering::Relaxed);
            if now != frames_read {
                frames_read = now;
                pinged = false;
            } else if pinged {
                shared.fail("the server no longer answers".into(), false);
                return;
            }
            let idle = shared.lock().is_idle();
            if idle {
                shared.ping();
            }
            pinged = idle || pinged;
            continue;
        }
        let sent = tokio::select! {
            sent = socket.write_all(&sending) => sent,
            // A server that does not read must not keep a broken connection alive.
            () = broken(&shared) => return,
        };
        if let Err(error) = sent {
            shared.fail(error.to_string().into(), false);
            return;
        }
        shared.room.add_permits(permits);
        sending.clear();
        if sending.capacity() > KEEP_BYTES {
            sending = Vec::new();
        }
    }
}

/// Waits until the connection is broken.
pub(super) async fn broken(shared: &Shared) {
    while !shared.is_broken.load(Ordering::Acquire) {
        shared.wake_writer.notified().await;
    }
}

/// The reader task: splits what arrives into replies, until the connection is broken.
pub(super) async fn read(shared: Arc<Shared>, mut socket: OwnedReadHalf, mut arrived: BytesMut) {
    let limit = shared.limits.frame_bytes_max.min(FRAME_BYTES_MAX);
    let mut replies = Vec::new();
    let mut found = Vec::new();
    loop {
        let missing = match split(&mut arrived, limit, &mut replies) {
            Ok(missing) => missing,
            Err(reason) => {
                shared.deliver(&mut replies, &mut found);
                shared.fail(reason.into(), true);
                return;
            }
        };
        if !replies.is_empty() {
            shared.deliver(&mut replies, &mut found);
        }
        // Room grows with what has arrived, not with what a length promises.
        arrived.reserve(missing.clamp(1, arrived.len().max(READ_BYTES)));
        let read = tokio::select! {
            read = socket.read_buf(&mut arrived) => read,
            () = shared.stop_reader.notified() => return,
        };
        match read {
            Ok(0) => {
                shared.fail("the server closed the connection".into(), false);
                return;
            }
            Ok(bytes) => {
                shared.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
                shared.break_silence();
            }
            Err(error) => {
                shared.fail(error.to_string().into(), false);
                return;
            }
        }
    }
}

/// The watcher task: breaks a connection whose server says nothing for `silence` while something is
/// asked of it. After half the time a `Ping` shows whether it is only one answer that takes long.
///
/// The time counts from the last byte that came, or from when something was asked of an idle connection, not
/// from when this task happens to look. A pause of this process is not the server's: a timer that comes late
/// counts for nothing, and the silence begins anew.
pub(super) async fn watch(shared: Arc<Shared>, silence: Duration) {
    let half = silence / 2;
    let mut pinged: Option<Instant> = None;
    while !shared.is_broken.load(Ordering::Acquire) {
        if shared.lock().is_idle() {
            shared.wake_watcher.notified().await;
            continue;
        }
        let since = shared.silent_since();
        // A ping that was sent before the last sign of life says nothing of this silence.
        pinged = pinged.filter(|&pinged| pinged > since);
        let due = pinged.unwrap_or(since) + half;
        tokio::time::sleep_until(due).await;
        let now = Instant::now();
        if now.saturating_duration_since(due) > half / 2 {
            shared.break_silence();
        } else if shared.silent_since() == since {
            if pinged.is_some() {
                shared.fail("the server says nothing".into(), false);
            } else if shared.ping() {
                pinged = Some(now);
            } else {
                // It cannot be asked whether it lives: only its answer can tell.
                shared.break_silence();
            }
        }
    }
}

/// Takes all whole frames from what has arrived; how many bytes the next one misses.
pub(super) fn split(
    arrived: &mut BytesMut,
    limit: u32,
    replies: &mut Vec<(u64, Reply)>,
) -> Result<usize, String> {
    loop {
        let len = match frame::peek(arrived, limit).map_err(|error| error.to_string())? {
            Peek::Frame { len } => len,
            Peek::Incomplete { need } => {
                return Ok((need - arrived.len()).max(READ_BYTES.saturating_sub(arrived.len())));
            }
            Peek::Oversized { len, .. } => {
                return Err(format!(
                    "a reply of {len} bytes is over the limit of {limit} that the server set"
                ));
            }
        };
        let frame = arrived.split_to(len).freeze();
        let view = frame::open(&frame).map_err(|error| error.to_string())?;
        let (id, kind, flags) = (view.request_id, view.kind, view.flags);
        if id == 0 {
            return Err(match Response::decode(&view) {
                Ok(Response::Error(error)) => closing(&error),
                _ => "a reply to no request".to_owned(),
            });
        }
        let body = frame.slice(HEADER_BYTES..);
        replies.push((id, Reply { kind, flags, body }));
    }
}

pub(super) fn closing(error: &ringbolt_wire::message::ErrorReply<'_>) -> String {
    format!(
        "the server gave the connection up: {} ({:#06x})",
        error.message, error.code as u16
    )
}
