//! What commands write to standard output, as text and as JSON.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringbolt_wire::message::Meta;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The form of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people and shell pipes.
    #[default]
    Text,
    /// One JSON object a line; bytes that are not UTF-8 become {"base64": "..."}.
    Json,
}

/// Where commands write what they found: standard output, buffered. Flushed at the end.
pub struct Out {
    to: BufWriter<Box<dyn Write>>,
    /// Whether a person looks at it.
    pub terminal: bool,
}

impl Out {
    /// Takes standard output.
    #[must_use]
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self::new(stdout, terminal)
    }

    /// Writes elsewhere.
    #[must_use]
    pub fn new(to: impl Write + 'static, terminal: bool) -> Self {
        Self {
            to: BufWriter::with_capacity(64 << 10, Box::new(to)),
            terminal,
        }
    }

    /// How many columns there are to fill.
    #[must_use]
    pub fn width(&self) -> u16 {
        const ELSEWHERE: u16 = 100;
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if self.terminal && size.ws_col >= 40 => size.ws_col,
            _ => ELSEWHERE,
        }
    }

    /// Writes `key TAB value` as a line. On a terminal, what could command it is escaped.
    ///
    /// # Errors
    /// Those of the descriptor.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.text(key)?;
        self.to.write_all(b"\t")?;
        self.text(value)?;
        self.to.write_all(b"\n")
    }

    /// Writes a key as a line, as [`Out::row`] does.
    ///
    /// # Errors
    /// Those of the descriptor.
    pub fn key(&mut self, key: &[u8]) -> io::Result<()> {
        self.text(key)?;
        self.to.write_all(b"\n")
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        let harmless =
            || std::str::from_utf8(bytes).is_ok_and(|t| !t.chars().any(char::is_control));
        match !self.terminal || harmless() {
            true => self.to.write_all(bytes),
            false => write!(self.to, "{}", bytes.escape_ascii()),
        }
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// Those of the descriptor.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, value)?;
        self.to.write_all(b"\n")
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes as JSON: a string where they are UTF-8, else `{"base64": "..."}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonBytes<T>(pub T);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl<T: AsRef<[u8]>> Serialize for JsonBytes<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_ref();
        match std::str::from_utf8(bytes) {
            Ok(text) => text.serialize(to),
            Err(_) => Base64 {
                base64: BASE64.encode(bytes),
            }
            .serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for JsonBytes<Vec<u8>> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a string or {\"base64\": \"...\"}")]
        enum Form {
            Text(String),
            Base64(Base64),
        }
        match Form::deserialize(from)? {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            Form::Base64(Base64 { base64 }) => match BASE64.decode(base64) {
                Ok(bytes) => Ok(Self(bytes)),
                Err(error) => Err(D::Error::custom(format!("not base64: {error}"))),
            },
        }
    }
}

/// Decodes base64 given on the command line.
///
/// # Errors
/// In words.
pub fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text)
        .map_err(|error| format!("{text:?} is not base64: {error}"))
}

/// A record as JSON.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    /// The key.
    pub key: JsonBytes<&'a [u8]>,
    /// The value; absent in a scan of keys only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<JsonBytes<&'a [u8]>>,
    /// The index of the entry that wrote it.
    pub version: u64,
    /// When it was last written, in milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// When it was created; absent where that would have had to be searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_ms: Option<u64>,
    /// When it expires; null for never.
    pub expires_ms: Option<u64>,
    /// What the read saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl<'a> Row<'a> {
    /// A record without its token.
    #[must_use]
    pub fn new(key: &'a [u8], value: Option<&'a [u8]>, meta: &Meta) -> Self {
        let unless_zero = |ms: u64| (ms != 0).then_some(ms);
        Self {
            key: JsonBytes(key),
            value: value.map(JsonBytes),
            version: meta.version,
            updated_ms: meta.updated_ms,
            created_ms: unless_zero(meta.created_ms),
            expires_ms: unless_zero(meta.expires_ms),
            token: None,
        }
    }
}

/// A time for people, in UTC.
#[must_use]
pub fn show_time(unix_ms: u64) -> String {
    // Beyond the year 9999 the formatter gives up; the number still tells.
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    if unix_ms >= YEAR_10000_MS {
        return format!("{unix_ms} ms after 1970");
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_json_and_back() {
        for (bytes, json) in [
            (&b"plain"[..], "\"plain\""),
            (b"quo\"te\n", "\"quo\\\"te\\n\""),
            (b"", "\"\""),
            (b"\xff\x00", "{\"base64\":\"/wA=\"}"),
        ] {
            assert_eq!(serde_json::to_string(&JsonBytes(bytes)).unwrap(), json);
            let back: JsonBytes<Vec<u8>> = serde_json::from_str(json).unwrap();
            assert_eq!(back.0, bytes);
        }
        for wrong in [
            "3",
            "{\"base64\":\"!\"}",
            "{}",
            "{\"base64\":\"\",\"x\":1}",
            "null",
        ] {
            assert!(
                serde_json::from_str::<JsonBytes<Vec<u8>>>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn rows_leave_out_what_is_unknown() {
        let meta = Meta {
            version: 7,
            updated_ms: 5,
            ..Meta::default()
        };
        assert_eq!(
            serde_json::to_string(&Row::new(b"k", None, &meta)).unwrap(),
            "{\"key\":\"k\",\"version\":7,\"updated_ms\":5,\"expires_ms\":null}"
        );
    }

    #[test]
    fn times() {
        assert_eq!(show_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show_time(u64::MAX), "18446744073709551615 ms after 1970");
    }
}
