//! One value against what its setting accepts.

use std::net::ToSocketAddrs;
use std::time::Duration;

use figment::value::{Num, Value};

use super::peers::{Peer, parse_peers, show_peers};
use super::schema::{AUTO, Kind, OFF, Setting};
use super::units::{parse_bytes, parse_cpus, parse_span, show_bytes, show_cpus, show_span};

/// A value that its setting accepts, in the unit that [`super::Settings`] is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Words, paths, addresses.
    Text(String),
    /// A count, or bytes.
    Number(u64),
    /// A time span; `None` is `never`.
    Span(Option<Duration>),
    /// CPUs; empty is `none`.
    Cpus(Vec<u16>),
    /// Nodes, sorted by name; empty is `none`.
    Peers(Vec<Peer>),
    /// Names, as they were given.
    Names(Vec<String>),
    /// To be decided from the machine and other settings.
    Auto,
}

impl Parsed {
    /// As `Settings` is deserialised from it: time spans in microseconds.
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::from(text),
            Self::Number(number) => Value::from(number),
            Self::Span(None) => Value::from(0_u64),
            Self::Span(Some(span)) => {
                Value::from(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
            }
            Self::Cpus(cpus) => Value::from(cpus),
            Self::Peers(peers) => {
                let pair = |peer: Peer| vec![peer.name, peer.address];
                Value::from(peers.into_iter().map(pair).collect::<Vec<_>>())
            }
            Self::Names(names) => Value::from(names),
            Self::Auto => Value::from(AUTO),
        }
    }

    /// As one writes it in the file, in TOML.
    pub(super) fn toml(&self, kind: Kind) -> String {
        match self {
            Self::Text(text) => toml::Value::String(text.clone()).to_string(),
            Self::Number(bytes) if matches!(kind, Kind::Bytes { .. }) => {
                format!("\"{}\"", show_bytes(*bytes))
            }
            Self::Number(number) => number.to_string(),
            Self::Span(None) => "\"never\"".to_string(),
            Self::Span(Some(span)) => format!("\"{}\"", show_span(*span)),
            Self::Cpus(cpus) if cpus.is_empty() => "\"none\"".to_string(),
            Self::Cpus(cpus) => format!("\"{}\"", show_cpus(cpus)),
            Self::Peers(peers) if peers.is_empty() => "\"none\"".to_string(),
            Self::Peers(peers) => format!("\"{}\"", show_peers(peers)),
            Self::Names(names) => format!("\"{}\"", names.join(",")),
            Self::Auto => format!("\"{AUTO}\""),
        }
    }
}

impl Setting {
    /// Reads a value as the file, a variable or a flag has it.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub(super) fn parse(&self, value: &Value) -> Result<Parsed, String> {
        let text = written(value)?;
        if self.accepts_auto() && text == AUTO {
            return Ok(match self.kind {
                Kind::Choice(_) => Parsed::Text(text),
                _ => Parsed::Auto,
            });
        }
        match self.kind {
            Kind::Path if text.is_empty() => Err("an empty path".into()),
            Kind::Path => Ok(Parsed::Text(text)),
            Kind::AddressOrOff if text == OFF => Ok(Parsed::Text(text)),
            Kind::Address | Kind::AddressOrOff => address(&text).map(Parsed::Text),
            Kind::Name => name(&text).map(|()| Parsed::Text(text)),
            Kind::Names => names(&text).map(Parsed::Names),
            Kind::Count {
                min,
                max,
                power_of_two,
            } => {
                let count: u64 = text.parse().map_err(|_| "not a whole number".to_string())?;
                within(count, min, max, |count| count.to_string())?;
                power(count, power_of_two).map(Parsed::Number)
            }
            Kind::Bytes {
                min,
                max,
                power_of_two,
            } => {
                let bytes = parse_bytes(&text)?;
                within(bytes, min, max, show_bytes)?;
                power(bytes, power_of_two).map(Parsed::Number)
            }
            Kind::Span { never: true, .. } if text == "never" => Ok(Parsed::Span(None)),
            Kind::Span { min, max, .. } => {
                let span = parse_span(&text)?;
                within(span, min, max, show_span)?;
                Ok(Parsed::Span(Some(span)))
            }
            Kind::Cpus if text == "none" => Ok(Parsed::Cpus(Vec::new())),
            Kind::Cpus => parse_cpus(&text).map(Parsed::Cpus),
            Kind::Peers if text == "none" => Ok(Parsed::Peers(Vec::new())),
            Kind::Peers => parse_peers(&text).map(Parsed::Peers),
            Kind::Choice(words) => match words.contains(&text.as_str()) {
                true => Ok(Parsed::Text(text)),
                false => Err("not one of its words".into()),
            },
        }
    }
}

impl Kind {
    /// What it accepts, in words.
    pub(super) fn accepts(self) -> String {
        match self {
            Self::Path => "a path".into(),
            Self::Address => "an address and port such as 127.0.0.1:7400".into(),
            Self::AddressOrOff => "an address and port such as 127.0.0.1:7402, or off".into(),
            Self::Names => "names with commas between them".into(),
            Self::Name => "1 to 64 characters of A-Z, a-z, 0-9, '_', '.' and '-'".into(),
            Self::Count {
                min,
                max,
                power_of_two: true,
            } => format!("a power of two from {min} to {max}"),
            Self::Count { min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Bytes {
                min,
                max,
                power_of_two,
            } => {
                let what = if power_of_two {
                    "a size that is a power of two"
                } else {
                    "a size"
                };
                format!("{what} from {} to {}", show_bytes(min), show_bytes(max))
            }
            Self::Span { min, max, never } => {
                let or_never = if never { ", or never" } else { "" };
                format!(
                    "a time span from {} to {}{or_never}",
                    show_span(min),
                    show_span(max)
                )
            }
            Self::Cpus => "a list of CPUs such as 0,2-3, or none".into(),
            Self::Peers => {
                "NAME=HOST:PORT for each node, such as a=10.0.0.1:7400,b=10.0.0.2:7400, or none"
                    .into()
            }
            Self::Choice(words) => format!("one of {}", words.join(", ")),
        }
    }
}

/// The value as one would write it in a flag.
fn written(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.trim().to_string()),
        Value::Num(_, Num::F32(_) | Num::F64(_)) => Err("a number with a fraction".into()),
        Value::Num(_, number) => match (number.to_u128(), number.to_i128()) {
            (Some(number), _) => Ok(number.to_string()),
            (None, Some(number)) => Ok(number.to_string()),
            (None, None) => Err("a number beyond its range".into()),
        },
        Value::Array(_, items) => {
            let items: Result<Vec<_>, _> = items.iter().map(written).collect();
            Ok(items?.join(","))
        }
        Value::Dict(..) => Err("a table where a value is expected".into()),
        Value::Bool(..) => Err("a truth value".into()),
        Value::Char(_, c) => Ok(c.to_string()),
        Value::Empty(..) => Err("no value".into()),
    }
}

/// The value as messages show it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => "a number".into(),
        },
        Value::Dict(..) => "a table".into(),
        value => format!("{:?}", written(value).unwrap_or_default()),
    }
}

pub(super) fn address(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Ok(address.to_string());
    }
    if !text.contains(':') {
        return Err("the port is missing".into());
    }
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("not an address ({error})"))?;
    match found.next() {
        Some(address) => Ok(address.to_string()),
        None => Err("the name has no address".into()),
    }
}

/// Names with commas between them, each once.
fn names(text: &str) -> Result<Vec<String>, String> {
    let mut all: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        name(part).map_err(|_| format!("{part:?} is not a name"))?;
        if all.iter().any(|other| other == part) {
            return Err(format!("{part} is listed twice"));
        }
        all.push(part.to_owned());
    }
    Ok(all)
}

/// Whether text is a name.
pub(super) fn name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match (1..=64).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(()),
        false => Err("not a name".into()),
    }
}

fn within<T: PartialOrd>(
    value: T,
    min: T,
    max: T,
    show: impl Fn(T) -> String,
) -> Result<(), String> {
    if value < min {
        return Err(format!("less than {}", show(min)));
    }
    if value > max {
        return Err(format!("more than {}", show(max)));
    }
    Ok(())
}

fn power(value: u64, required: bool) -> Result<u64, String> {
    match required && !value.is_power_of_two() {
        true => Err("not a power of two".into()),
        false => Ok(value),
    }
}
