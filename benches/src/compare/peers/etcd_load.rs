//! A closed-loop load of puts on etcd.
//!
//! etcd speaks gRPC: a call is one HTTP/2 stream, whose body is a flag byte, a length and a protobuf
//! message. The three messages needed have a handful of fields, so they are written and read here by
//! hand, over the `h2` crate: the lightest client there can be, as the load shares the CPUs with the
//! servers.

use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Version};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::compare::gate::Skip;

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub struct Puts {
    /// Puts per second.
    pub per_second: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Puts of as many clients as `connections` times `clients_each`, for `time` after a warm-up: 16-byte
/// keys out of `records`, 100-byte values, as the loads on Ringbolt have them.
pub fn puts(
    port: u16,
    connections: usize,
    clients_each: usize,
    records: u64,
    warmup: Duration,
    time: Duration,
) -> Result<Puts, Skip> {
    let begun = Instant::now() + warmup;
    let latencies = in_runtime(async {
        let mut running = JoinSet::new();
        for connection in 0..connections {
            let sender = connect(port).await?;
            for each in 0..clients_each {
                let seed = (connection * clients_each + each) as u64;
                running.spawn(client(sender.clone(), seed, records, begun, time));
            }
        }
        let mut all = Vec::new();
        while let Some(one) = running.join_next().await {
            all.append(&mut one??);
        }
        Ok(all)
    })?;
    let mut latencies = latencies;
    latencies.sort_unstable();
    let at = |quantile: f64| {
        let last = latencies.len().saturating_sub(1);
        let at = (latencies.len() as f64 * quantile) as usize;
        latencies
            .get(at.min(last))
            .map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    Ok(Puts {
        per_second: latencies.len() as f64 / time.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
    })
}

/// Whether the member on this port leads.
pub fn leads(port: u16) -> bool {
    let status = in_runtime(async {
        let mut sender = connect(port).await?;
        let path = "/etcdserverpb.Maintenance/Status";
        call(&mut sender, path, Bytes::from_static(&[0; 5])).await
    });
    let Ok(status) = status else {
        return false;
    };
    // StatusResponse: header = 1 (member_id = 2), leader = 4.
    let header = field(&status, 1).and_then(Field::bytes).unwrap_or_default();
    let member = field(header, 2).and_then(Field::number);
    let leader = field(&status, 4).and_then(Field::number);
    member.is_some() && member == leader
}

fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Skip> {
    let failed = |what: Failure| Skip::Failed(format!("load on etcd: {what}"));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.into()))?
        .block_on(work)
        .map_err(failed)
}

/// One client's latencies, in nanoseconds, of the puts that ended in the measured time.
async fn client(
    mut sender: SendRequest<Bytes>,
    seed: u64,
    records: u64,
    begun: Instant,
    time: Duration,
) -> Result<Vec<u64>, Failure> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut latencies = Vec::new();
    let mut value = [0; 100];
    loop {
        let key = format!("{:016x}", rng.random_range(0..records));
        rng.fill(&mut value[..]);
        let message = put_request(key.as_bytes(), &value);
        let sent = Instant::now();
        if sent >= begun + time {
            return Ok(latencies);
        }
        call(&mut sender, "/etcdserverpb.KV/Put", message).await?;
        let ended = Instant::now();
        if sent >= begun && ended < begun + time {
            latencies.push((ended - sent).as_nanos() as u64);
        }
    }
}

async fn connect(port: u16) -> Result<SendRequest<Bytes>, Failure> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.ready().await?)
}

/// One unary call; returns the answer's message.
async fn call(
    sender: &mut SendRequest<Bytes>,
    path: &str,
    message: Bytes,
) -> Result<Bytes, Failure> {
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://127.0.0.1{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let mut ready = sender.clone().ready().await?;
    let (answer, mut body) = ready.send_request(request, false)?;
    body.send_data(message, true)?;
    let answer = answer.await?;
    if !answer.status().is_success() {
        return Err(format!("etcd answers {}", answer.status()).into());
    }
    let mut status = grpc_status(answer.headers());
    let mut body = answer.into_body();
    let mut taken = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        taken.put(data);
    }
    if let Some(trailers) = body.trailers().await? {
        status = status.or(grpc_status(&trailers));
    }
    match status.as_deref() {
        Some("0") if taken.len() >= 5 => Ok(taken.freeze().slice(5..)),
        status => Err(format!("etcd answers with gRPC status {status:?}").into()),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?;
    status.to_str().ok().map(str::to_owned)
}

/// PutRequest: key = 1, value = 2; both under 128 bytes, so that their lengths take one byte.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    debug_assert!(key.len() < 128 && value.len() < 128);
    let length = key.len() + value.len() + 4;
    let mut out = BytesMut::with_capacity(length + 5);
    out.put_u8(0);
    out.put_u32(length as u32);
    for (tag, bytes) in [(0x0a, key), (0x12, value)] {
        out.put_u8(tag);
        out.put_u8(bytes.len() as u8);
        out.put_slice(bytes);
    }
    out.freeze()
}

/// A field of a protobuf message.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

/// The first field of this number, of the wire types that etcd's answers have: varints and bytes.
fn field(mut message: &[u8], number: u64) -> Option<Field<'_>> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let found = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            2 => {
                let length = varint(&mut message)? as usize;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if tag >> 3 == number {
            return Some(found);
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if message.is_empty() {
            return None;
        }
        let byte = message.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_wants_it() {
        let message = put_request(b"k", b"vv");
        assert_eq!(&message[..], b"\0\0\0\0\x07\x0a\x01k\x12\x02vv");
    }

    #[test]
    fn fields_are_found_by_number() {
        // header { member_id: 300 }, version: "3", leader: 300
        let message = b"\x0a\x03\x10\xac\x02\x12\x013\x20\xac\x02";
        let header = field(message, 1).and_then(Field::bytes).unwrap();
        assert_eq!(field(header, 2).and_then(Field::number), Some(300));
        assert_eq!(field(message, 4).and_then(Field::number), Some(300));
        assert!(field(message, 3).is_none());
        assert!(field(b"\x0a\x09ab", 1).is_none());
    }
}
