//! Redis RESP2, as much of it as a load needs: GET, SET, DEL and their replies.

use std::io::Write;

use super::{Command, Decoded, Effect, Failure, ProtocolError, Reply};

/// Longest line (type byte, number or text) that is waited for, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Longest bulk string that is waited for, in bytes: Redis's own limit.
const BULK_BYTES_MAX: usize = 512 << 20;

/// The protocol. It has no state.
#[derive(Debug, Clone, Default)]
pub struct RedisCodec;

impl RedisCodec {
    /// Appends one request.
    ///
    /// # Errors
    /// For a scan: there is no ordered one.
    pub fn encode(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match *command {
            Command::Get { key } => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                bulk(out, key);
            }
            Command::Put { key, value } => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                bulk(out, key);
                bulk(out, value);
            }
            Command::Delete { key } => {
                out.extend_from_slice(b"*2\r\n$3\r\nDEL\r\n");
                bulk(out, key);
            }
            Command::Scan { .. } => {
                return Err(ProtocolError("Redis has no ordered scan".into()));
            }
        }
        Ok(())
    }

    /// The first reply in `bytes`; `None` if it is not whole yet.
    ///
    /// # Errors
    /// If `bytes` are no RESP2 reply, or one that no request of ours can have.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<Decoded<'a>>, ProtocolError> {
        let Some(&kind) = bytes.first() else {
            return Ok(None);
        };
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            if bytes.len() > LINE_BYTES_MAX {
                return Err(ProtocolError("a line that does not end".into()));
            }
            return Ok(None);
        };
        let line = bytes[1..end]
            .strip_suffix(b"\r")
            .ok_or_else(|| ProtocolError("a line that does not end in CR LF".into()))?;
        let whole = |reply| {
            Ok(Some(Decoded {
                bytes: end + 1,
                id: None,
                reply,
            }))
        };
        match kind {
            b'+' | b':' => whole(Reply::Written),
            b'-' => whole(Reply::Error(failure(line))),
            b'$' => {
                let len: i64 = std::str::from_utf8(line)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| ProtocolError("a bulk string without a length".into()))?;
                if len < 0 {
                    return whole(Reply::Absent);
                }
                let len = usize::try_from(len)
                    .ok()
                    .filter(|&len| len <= BULK_BYTES_MAX)
                    .ok_or_else(|| ProtocolError(format!("a bulk string of {len} bytes")))?;
                let start = end + 1;
                if bytes.len() < start + len + 2 {
                    return Ok(None);
                }
                if &bytes[start + len..][..2] != b"\r\n" {
                    return Err(ProtocolError("a bulk string longer than it says".into()));
                }
                Ok(Some(Decoded {
                    bytes: start + len + 2,
                    id: None,
                    reply: Reply::Value(&bytes[start..][..len]),
                }))
            }
            _ => Err(ProtocolError(format!(
                "a reply of type {:?}",
                char::from(kind)
            ))),
        }
    }
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    write!(out, "${}\r\n", bytes.len()).expect("writing to a Vec cannot fail");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// An error reply is counted under its first word. Those that come and go may be tried again.
fn failure(line: &[u8]) -> Failure {
    let message = String::from_utf8_lossy(line).into_owned();
    let code = message.split(' ').next().unwrap_or_default().to_string();
    let effect = match code.as_str() {
        "LOADING" | "BUSY" | "OOM" | "MISCONF" | "TRYAGAIN" => Effect::Retry { after_ms: 100 },
        _ => Effect::None,
    };
    Failure {
        code: code.into(),
        effect,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        let codec = RedisCodec;
        codec
            .encode(
                &Command::Put {
                    key: b"k",
                    value: b"value",
                },
                &mut out,
            )
            .unwrap();
        codec.encode(&Command::Get { key: b"k" }, &mut out).unwrap();
        codec
            .encode(&Command::Delete { key: b"k" }, &mut out)
            .unwrap();
        assert_eq!(
            out,
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"
        );
        let scan = Command::Scan {
            start: b"",
            prefix: b"",
            rows: 1,
        };
        assert!(codec.encode(&scan, &mut out).is_err());
    }

    #[test]
    fn replies_are_decoded_once_whole() {
        let codec = RedisCodec;
        for (bytes, reply) in [
            (&b"+OK\r\n"[..], Reply::Written),
            (b":1\r\n", Reply::Written),
            (b"$-1\r\n", Reply::Absent),
            (b"$0\r\n\r\n", Reply::Value(b"")),
            (b"$4\r\na\r\nb\r\n", Reply::Value(b"a\r\nb")),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(codec.decode(&bytes[..cut]), Ok(None));
            }
            let more = [bytes, b"+"].concat();
            let decoded = codec.decode(&more).unwrap().unwrap();
            assert_eq!((decoded.bytes, decoded.reply), (bytes.len(), reply));
        }
        let Ok(Some(decoded)) = codec.decode(b"-OOM command not allowed\r\n") else {
            panic!("an error reply is a reply");
        };
        let Reply::Error(failure) = decoded.reply else {
            panic!("{decoded:?}");
        };
        assert_eq!(failure.code, "OOM");
        assert_eq!(failure.effect, Effect::Retry { after_ms: 100 });
    }

    #[test]
    fn garbage_is_an_error() {
        let codec = RedisCodec;
        for bytes in [
            &b"?\r\n"[..],
            b"$x\r\n",
            b"$99999999999\r\n",
            b"$1\r\nabc",
            b"+OK\n",
        ] {
            assert!(codec.decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
