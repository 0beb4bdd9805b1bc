//! What is asked of the server itself, or of the connection.

use super::super::reply::Version;
use super::super::syntax::{Fault, SYNTAX, integer, is, repeated, unknown_sub, wrong_arity};
use super::super::table::{self, Spec};

/// Longest name of a connection, and of its client library, in bytes.
const CLIENT_NAME_BYTES_MAX: usize = 256;

/// What is asked of the server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Talk<'a> {
    Ping(Option<&'a [u8]>),
    Echo(&'a [u8]),
    Quit,
    Reset,
    Hello {
        version: Option<Version>,
        name: Option<&'a [u8]>,
    },
    Select(i64),
    ClientId,
    ClientGetName,
    ClientSetName(&'a [u8]),
    /// The library's name, or its version.
    ClientSetInfo {
        version: bool,
        text: &'a [u8],
    },
    ClientInfo,
    ClientList,
    Time,
    /// Nothing to do but to say so.
    Acknowledge,
    CommandAll,
    CommandCount,
    CommandDocs(&'a [&'a [u8]]),
    CommandInfo(&'a [&'a [u8]]),
    CommandList,
    CommandGetKeys(&'a [&'a [u8]]),
    ConfigGet(&'a [&'a [u8]]),
    ClusterInfo,
    ClusterKeySlot(&'a [u8]),
    ClusterMyId,
    ClusterNodes,
    ClusterShards,
    ClusterSlots,
    /// Named sections, or those that are told by default.
    Info(&'a [&'a [u8]]),
}

pub(super) fn talk<'a>(name: &str, rest: &'a [&'a [u8]]) -> Result<Talk<'a>, Fault> {
    Ok(match (name, rest) {
        ("ping", []) => Talk::Ping(None),
        ("ping", [text]) => Talk::Ping(Some(text)),
        ("echo", [text]) => Talk::Echo(text),
        ("quit", _) => Talk::Quit,
        ("reset", _) => Talk::Reset,
        ("time", _) => Talk::Time,
        ("asking" | "readonly" | "readwrite", _) => Talk::Acknowledge,
        ("select", [index]) => Talk::Select(integer(index)?),
        ("info", sections) => Talk::Info(sections),
        ("hello", rest) => hello(rest)?,
        ("auth", [_] | [_, _]) => {
            return Err(
                "ERR AUTH <password> called without any password configured for the \
                        default user. Are you sure your configuration is correct?"
                    .into(),
            );
        }
        ("auth", _) => return Err(SYNTAX),
        (name, _) => return Err(wrong_arity(name)),
    })
}

fn hello<'a>(rest: &'a [&'a [u8]]) -> Result<Talk<'a>, Fault> {
    let Some((version, mut options)) = rest.split_first() else {
        return Ok(Talk::Hello {
            version: None,
            name: None,
        });
    };
    let version = match integer(version) {
        Ok(2) => Version::Two,
        Ok(3) => Version::Three,
        Ok(_) => return Err("NOPROTO unsupported protocol version".into()),
        Err(_) => return Err("ERR Protocol version is not an integer or out of range".into()),
    };
    let mut name = None;
    loop {
        match options {
            [] => break,
            [option, _, _, ..] if is(option, "AUTH") => {
                return Err("WRONGPASS there is no authentication: leave AUTH out".into());
            }
            [option, text, behind @ ..] if is(option, "SETNAME") => {
                name = Some(client_name(text)?);
                options = behind;
            }
            [option, ..] => {
                let option = repeated(option);
                return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
            }
        }
    }
    let version = Some(version);
    Ok(Talk::Hello { version, name })
}

/// A connection's name: printable, without spaces, and no longer than what every connection may keep.
fn client_name(text: &[u8]) -> Result<&[u8], Fault> {
    if text.len() > CLIENT_NAME_BYTES_MAX {
        return Err(format!("ERR Client names have up to {CLIENT_NAME_BYTES_MAX} bytes.").into());
    }
    if text.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(text);
    }
    Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
}

pub(super) fn sub<'a>(spec: &Spec, rest: &'a [&'a [u8]]) -> Result<Talk<'a>, Fault> {
    let Some((name, behind)) = rest.split_first() else {
        return match spec.name {
            "command" => Ok(Talk::CommandAll),
            name => Err(wrong_arity(name)),
        };
    };
    let found = table::find_sub(spec, name).ok_or_else(|| unknown_sub(spec.name, name))?;
    if !found.takes(rest.len() + 1) {
        return Err(wrong_arity(found.name));
    }
    Ok(match (found.name, behind) {
        ("client|id", _) => Talk::ClientId,
        ("client|getname", _) => Talk::ClientGetName,
        ("client|setname", [name]) => Talk::ClientSetName(client_name(name)?),
        ("client|setinfo", [option, text]) => {
            let version = is(option, "LIB-VER");
            if !version && !is(option, "LIB-NAME") {
                let option = repeated(option);
                return Err(format!("ERR Unrecognized option '{option}'").into());
            }
            let option = if version { "lib-ver" } else { "lib-name" };
            if text.len() > CLIENT_NAME_BYTES_MAX {
                return Err(
                    format!("ERR {option} has up to {CLIENT_NAME_BYTES_MAX} bytes.").into(),
                );
            }
            let text = client_name(text).map_err(|_| {
                format!("ERR {option} cannot contain spaces, newlines or special characters.")
            })?;
            Talk::ClientSetInfo { version, text }
        }
        ("client|info", _) => Talk::ClientInfo,
        ("client|list", []) => Talk::ClientList,
        ("client|no-evict", [on]) if is(on, "ON") || is(on, "OFF") => Talk::Acknowledge,
        ("command|count", _) => Talk::CommandCount,
        ("command|docs", names) => Talk::CommandDocs(names),
        ("command|info", []) => Talk::CommandAll,
        ("command|info", names) => Talk::CommandInfo(names),
        ("command|list", []) => Talk::CommandList,
        ("command|getkeys", command) => Talk::CommandGetKeys(command),
        ("config|get", patterns) => Talk::ConfigGet(patterns),
        ("cluster|info", _) => Talk::ClusterInfo,
        ("cluster|keyslot", [key]) => Talk::ClusterKeySlot(key),
        ("cluster|myid", _) => Talk::ClusterMyId,
        ("cluster|nodes", _) => Talk::ClusterNodes,
        ("cluster|shards", _) => Talk::ClusterShards,
        ("cluster|slots", _) => Talk::ClusterSlots,
        _ => return Err(SYNTAX),
    })
}
