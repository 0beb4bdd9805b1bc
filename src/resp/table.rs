//! Every command that is understood: what it takes, and what is told of it.

use super::syntax::Fault;

/// Where a command's keys stand among its arguments, as `COMMAND` tells it: counted from the command's
/// name; a last one below zero is counted from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyPlaces {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) step: i64,
}

/// One command, or one subcommand.
#[derive(Debug)]
pub(crate) struct Spec {
    /// In lower case; a subcommand's behind a `|`.
    pub(crate) name: &'static str,
    /// How many arguments it takes, its name (and its command's) among them; at least as many if it is
    /// below zero.
    pub(crate) arity: i64,
    /// As Redis names them.
    pub(crate) flags: &'static [&'static str],
    pub(crate) keys: KeyPlaces,
    /// The access-control category beside those that follow from the flags; documentation's group too.
    pub(crate) group: &'static str,
    /// Since which version Redis has it.
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
}

impl Spec {
    /// Whether a command of this many arguments, its name among them, may be one of these.
    pub(crate) fn takes(&self, arguments: usize) -> bool {
        let arguments = arguments as i64;
        if self.arity < 0 {
            arguments >= -self.arity
        } else {
            arguments == self.arity
        }
    }

    /// The name without that of the command it belongs to.
    pub(crate) fn own_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }

    /// Whether it belongs to another command.
    pub(crate) fn is_sub(&self) -> bool {
        self.name.contains('|')
    }

    pub(crate) fn subcommands(&self) -> impl Iterator<Item = &'static Self> {
        let of = self.name;
        SPECS.iter().filter(move |spec| {
            let behind = spec.name.strip_prefix(of);
            behind.is_some_and(|rest| rest.starts_with('|'))
        })
    }
}

const NO_KEYS: KeyPlaces = KeyPlaces {
    first: 0,
    last: 0,
    step: 0,
};
const ONE_KEY: KeyPlaces = KeyPlaces {
    first: 1,
    last: 1,
    step: 1,
};
const ALL_KEYS: KeyPlaces = KeyPlaces {
    first: 1,
    last: -1,
    step: 1,
};
const KEYS_AND_VALUES: KeyPlaces = KeyPlaces {
    first: 1,
    last: -1,
    step: 2,
};

const READ_FAST: &[&str] = &["readonly", "fast"];
const READ: &[&str] = &["readonly"];
const WRITE_FAST: &[&str] = &["write", "fast"];
const WRITE: &[&str] = &["write"];
const PUT_FAST: &[&str] = &["write", "denyoom", "fast"];
const PUT: &[&str] = &["write", "denyoom"];
const TALK: &[&str] = &["noscript", "loading", "stale", "fast"];
const TALK_FIRST: &[&str] = &[
    "noscript",
    "loading",
    "stale",
    "fast",
    "no_auth",
    "allow_busy",
];
const TELL: &[&str] = &["loading", "stale"];
const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];

macro_rules! specs {
    ($($name:literal $arity:literal $flags:ident $keys:ident $group:literal $since:literal $summary:literal;)*) => {
        /// Every command, those of more than one word behind the one they belong to.
        pub(crate) const SPECS: &[Spec] = &[$(Spec {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            group: $group,
            since: $since,
            summary: $summary,
        },)*];
    };
}

specs! {
    "append" 3 PUT_FAST ONE_KEY "string" "2.0.0" "Puts bytes behind a value";
    "asking" 1 TALK NO_KEYS "cluster" "3.0.0" "Accepted; a node of Ringbolt never asks for it";
    "auth" -2 TALK_FIRST NO_KEYS "connection" "1.0.0" "Refused: there is no authentication yet";
    "client" -2 TALK NO_KEYS "connection" "2.4.0" "About this connection";
    "client|getname" 2 TALK NO_KEYS "connection" "2.6.9" "The connection's name";
    "client|id" 2 TALK NO_KEYS "connection" "5.0.0" "The connection's number";
    "client|info" 2 TALK NO_KEYS "connection" "6.2.0" "What is known of the connection";
    "client|list" -2 TALK NO_KEYS "connection" "2.4.0" "The connections of the node that answers";
    "client|no-evict" 3 TALK NO_KEYS "connection" "7.0.0" "Accepted; connections are not evicted";
    "client|setinfo" 4 TALK NO_KEYS "connection" "7.2.0" "Takes the client library's name and version";
    "client|setname" 3 TALK NO_KEYS "connection" "2.6.9" "Names the connection";
    "cluster" -2 TELL NO_KEYS "cluster" "3.0.0" "Slots, nodes and this node";
    "cluster|info" 2 TELL NO_KEYS "cluster" "3.0.0" "Whether every slot is served, in counts";
    "cluster|keyslot" 3 TELL NO_KEYS "cluster" "3.0.0" "The slot of a key";
    "cluster|myid" 2 TELL NO_KEYS "cluster" "3.0.0" "This node's id";
    "cluster|nodes" 2 TELL NO_KEYS "cluster" "3.0.0" "Every node with its slots, one a line";
    "cluster|shards" 2 TELL NO_KEYS "cluster" "7.0.0" "Slots with the nodes that hold them, in full";
    "cluster|slots" 2 TELL NO_KEYS "cluster" "3.0.0" "Ranges of slots with the nodes that hold them";
    "command" -1 TELL NO_KEYS "server" "2.8.13" "Every command and what it takes";
    "command|count" 2 TELL NO_KEYS "server" "2.8.13" "How many commands there are";
    "command|docs" -2 TELL NO_KEYS "server" "7.0.0" "What commands are for";
    "command|getkeys" -4 TELL NO_KEYS "server" "2.8.13" "Which arguments of a command are keys";
    "command|info" -2 TELL NO_KEYS "server" "2.8.13" "What some commands take";
    "command|list" -2 TELL NO_KEYS "server" "7.0.0" "The names of all commands";
    "config" -2 ADMIN NO_KEYS "server" "2.0.0" "Settings, as tools ask for them";
    "config|get" -3 ADMIN NO_KEYS "server" "2.0.0" "Settings whose names match";
    "dbsize" 1 READ_FAST NO_KEYS "server" "1.0.0" "Counts the keys of the database";
    "decr" 2 PUT_FAST ONE_KEY "string" "1.0.0" "Takes one off a number";
    "decrby" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Takes an amount off a number";
    "del" -2 WRITE ALL_KEYS "generic" "1.0.0" "Removes keys";
    "echo" 2 TALK NO_KEYS "connection" "1.0.0" "Answers with its argument";
    "exists" -2 READ_FAST ALL_KEYS "generic" "1.0.0" "Counts which of the keys are there";
    "expire" -3 WRITE_FAST ONE_KEY "generic" "1.0.0" "Lets a key live for some seconds more";
    "expireat" -3 WRITE_FAST ONE_KEY "generic" "1.2.0" "Lets a key live until a second";
    "expiretime" 2 READ_FAST ONE_KEY "generic" "7.0.0" "The second until which a key lives";
    "flushall" -1 WRITE NO_KEYS "server" "1.0.0" "Empties every database";
    "flushdb" -1 WRITE NO_KEYS "server" "1.0.0" "Empties the database";
    "get" 2 READ_FAST ONE_KEY "string" "1.0.0" "A key's value";
    "getdel" 2 WRITE_FAST ONE_KEY "string" "6.2.0" "A key's value, which is removed";
    "getex" -2 WRITE_FAST ONE_KEY "string" "6.2.0" "A key's value, and how long it shall live";
    "getrange" 4 READ ONE_KEY "string" "2.4.0" "A part of a value";
    "getset" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Sets a value and answers with the one before";
    "hello" -1 TALK_FIRST NO_KEYS "connection" "6.0.0" "Chooses the protocol's version and tells of the server";
    "incr" 2 PUT_FAST ONE_KEY "string" "1.0.0" "Adds one to a number";
    "incrby" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Adds an amount to a number";
    "incrbyfloat" 3 PUT_FAST ONE_KEY "string" "2.6.0" "Adds a decimal number to another";
    "info" -1 TELL NO_KEYS "server" "1.0.0" "About the server, in sections";
    "keys" 2 READ NO_KEYS "generic" "1.0.0" "The keys that match a pattern, up to a limit";
    "mget" -2 READ_FAST ALL_KEYS "string" "1.0.0" "The values of several keys";
    "mset" -3 PUT KEYS_AND_VALUES "string" "1.0.1" "Sets several keys";
    "persist" 2 WRITE_FAST ONE_KEY "generic" "2.2.0" "Lets a key live for ever";
    "pexpire" -3 WRITE_FAST ONE_KEY "generic" "2.6.0" "Lets a key live for some milliseconds more";
    "pexpireat" -3 WRITE_FAST ONE_KEY "generic" "2.6.0" "Lets a key live until a millisecond";
    "pexpiretime" 2 READ_FAST ONE_KEY "generic" "7.0.0" "The millisecond until which a key lives";
    "ping" -1 TALK NO_KEYS "connection" "1.0.0" "Answers, so that one knows that the server does";
    "psetex" 4 PUT ONE_KEY "string" "2.6.0" "Sets a value that lives for some milliseconds";
    "pttl" 2 READ_FAST ONE_KEY "generic" "2.6.0" "How many milliseconds a key has left";
    "quit" -1 TALK_FIRST NO_KEYS "connection" "1.0.0" "Ends the connection";
    "randomkey" 1 READ NO_KEYS "generic" "1.0.0" "Any key";
    "readonly" 1 TALK NO_KEYS "cluster" "3.0.0" "Accepted; leaders answer all the same";
    "readwrite" 1 TALK NO_KEYS "cluster" "3.0.0" "Accepted; undoes READONLY";
    "reset" 1 TALK_FIRST NO_KEYS "connection" "6.2.0" "Makes the connection as new";
    "scan" -2 READ NO_KEYS "generic" "2.8.0" "Some keys, and where to go on";
    "select" 2 TALK NO_KEYS "connection" "1.0.0" "Chooses the database";
    "set" -3 PUT ONE_KEY "string" "1.0.0" "Sets a value";
    "setex" 4 PUT ONE_KEY "string" "2.0.0" "Sets a value that lives for some seconds";
    "setnx" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Sets a value where there is none";
    "setrange" 4 PUT ONE_KEY "string" "2.2.0" "Writes over a part of a value";
    "strlen" 2 READ_FAST ONE_KEY "string" "2.2.0" "How long a value is";
    "substr" 4 READ ONE_KEY "string" "1.0.0" "GETRANGE by its old name";
    "time" 1 TELL NO_KEYS "server" "2.6.0" "The server's clock";
    "touch" -2 READ_FAST ALL_KEYS "generic" "3.2.1" "Counts which of the keys are there";
    "ttl" 2 READ_FAST ONE_KEY "generic" "1.0.0" "How many seconds a key has left";
    "type" 2 READ_FAST ONE_KEY "generic" "1.0.0" "What kind of value a key has";
    "unlink" -2 WRITE_FAST ALL_KEYS "generic" "4.0.0" "DEL by another name";
    "wait" 3 TALK NO_KEYS "generic" "3.0.0" "Waits until replicas have this connection's last write";
}

/// Longest name of a command, in bytes.
const NAME_BYTES_MAX: usize = 16;

/// A name in lower case, if it may be one.
fn lower(name: &[u8], buffer: &mut [u8; NAME_BYTES_MAX]) -> Option<usize> {
    let part = buffer.get_mut(..name.len())?;
    part.copy_from_slice(name);
    part.make_ascii_lowercase();
    Some(name.len())
}

/// The command of this name, in whatever case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let length = lower(name, &mut buffer)?;
    let name = &buffer[..length];
    // A subcommand's name has a `|` in it, which no client sends: it would be unknown there.
    let found = SPECS
        .binary_search_by(|spec| spec.name.as_bytes().cmp(name))
        .ok()?;
    Some(&SPECS[found]).filter(|spec| !spec.is_sub())
}

/// The subcommand of this name, in whatever case.
pub(crate) fn find_sub(command: &Spec, name: &[u8]) -> Option<&'static Spec> {
    let mut subcommands = command.subcommands();
    subcommands.find(|spec| spec.own_name().as_bytes().eq_ignore_ascii_case(name))
}

/// The keys of a whole command, by the places that its specification gives.
///
/// # Errors
/// What Redis says if it has none.
pub(crate) fn keys_of<'a>(command: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, Fault> {
    let spec = command.first().and_then(|name| find(name));
    let spec = spec.ok_or(Fault::Borrowed("ERR Invalid command specified"))?;
    if spec.keys.first == 0 {
        return Err("ERR The command has no key arguments".into());
    }
    if !spec.takes(command.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let last = if spec.keys.last < 0 {
        command.len() as i64 + spec.keys.last
    } else {
        spec.keys.last
    };
    let places = (spec.keys.first..=last).step_by(spec.keys.step as usize);
    Ok(places
        .filter_map(|at| command.get(at as usize).copied())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_whatever_case() {
        assert!(SPECS.is_sorted_by(|a, b| a.name < b.name));
        for spec in SPECS.iter().filter(|spec| !spec.is_sub()) {
            let upper = spec.name.to_ascii_uppercase();
            assert_eq!(find(upper.as_bytes()).unwrap().name, spec.name);
        }
        let client = find(b"CLIENT").unwrap();
        assert_eq!(find_sub(client, b"SetName").unwrap().name, "client|setname");
        assert!(find(b"client|setname").is_none());
        assert!(find(b"a name far too long for any command").is_none());
        assert!(find_sub(client, b"kill").is_none());
    }

    #[test]
    fn arities() {
        let get = find(b"get").unwrap();
        assert!(get.takes(2) && !get.takes(1) && !get.takes(3));
        let del = find(b"del").unwrap();
        assert!(del.takes(2) && del.takes(9) && !del.takes(1));
    }
}
