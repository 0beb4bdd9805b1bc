//! Every command that is understood: what it takes, and what is told of it.

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
    "append" 3 PUT_FAST ONE_KEY "string" "2.0.0" "Append a value to a key";
    "asking" 1 TALK NO_KEYS "cluster" "3.0.0" "Sent by cluster clients after an -ASK redirect";
    "auth" -2 TALK_FIRST NO_KEYS "connection" "1.0.0" "Authenticate to the server";
    "client" -2 TALK NO_KEYS "connection" "2.4.0" "A container for client connection commands";
    "client|getname" 2 TALK NO_KEYS "connection" "2.6.9" "Get the current connection name";
    "client|id" 2 TALK NO_KEYS "connection" "5.0.0" "Returns the client ID for the current connection";
    "client|info" 2 TALK NO_KEYS "connection" "6.2.0" "Returns information about the current client connection.";
    "client|list" -2 TALK NO_KEYS "connection" "2.4.0" "Get the list of client connections";
    "client|no-evict" 3 TALK NO_KEYS "connection" "7.0.0" "Set client eviction mode for the current connection";
    "client|setinfo" 4 TALK NO_KEYS "connection" "7.2.0" "Set client or connection specific info";
    "client|setname" 3 TALK NO_KEYS "connection" "2.6.9" "Set the current connection name";
    "cluster" -2 TELL NO_KEYS "cluster" "3.0.0" "A container for cluster commands";
    "cluster|info" 2 TELL NO_KEYS "cluster" "3.0.0" "Provides info about Redis Cluster node state";
    "cluster|keyslot" 3 TELL NO_KEYS "cluster" "3.0.0" "Returns the hash slot of the specified key";
    "cluster|myid" 2 TELL NO_KEYS "cluster" "3.0.0" "Return the node id";
    "cluster|nodes" 2 TELL NO_KEYS "cluster" "3.0.0" "Get Cluster config for the node";
    "cluster|shards" 2 TELL NO_KEYS "cluster" "7.0.0" "Get array of cluster slots to node mappings";
    "cluster|slots" 2 TELL NO_KEYS "cluster" "3.0.0" "Get array of Cluster slot to node mappings";
    "command" -1 TELL NO_KEYS "server" "2.8.13" "Get array of Redis command details";
    "command|count" 2 TELL NO_KEYS "server" "2.8.13" "Get total number of Redis commands";
    "command|docs" -2 TELL NO_KEYS "server" "7.0.0" "Get array of specific Redis command documentation";
    "command|getkeys" -4 TELL NO_KEYS "server" "2.8.13" "Extract keys given a full Redis command";
    "command|info" -2 TELL NO_KEYS "server" "2.8.13" "Get array of specific Redis command details, or all when no argument is given.";
    "command|list" -2 TELL NO_KEYS "server" "7.0.0" "Get an array of Redis command names";
    "config" -2 ADMIN NO_KEYS "server" "2.0.0" "A container for server configuration commands";
    "config|get" -3 ADMIN NO_KEYS "server" "2.0.0" "Get the values of configuration parameters";
    "dbsize" 1 READ_FAST NO_KEYS "server" "1.0.0" "Return the number of keys in the selected database";
    "decr" 2 PUT_FAST ONE_KEY "string" "1.0.0" "Decrement the integer value of a key by one";
    "decrby" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Decrement the integer value of a key by the given number";
    "del" -2 WRITE ALL_KEYS "generic" "1.0.0" "Delete a key";
    "echo" 2 TALK NO_KEYS "connection" "1.0.0" "Echo the given string";
    "exists" -2 READ_FAST ALL_KEYS "generic" "1.0.0" "Determine if a key exists";
    "expire" -3 WRITE_FAST ONE_KEY "generic" "1.0.0" "Set a key's time to live in seconds";
    "expireat" -3 WRITE_FAST ONE_KEY "generic" "1.2.0" "Set the expiration for a key as a UNIX timestamp";
    "expiretime" 2 READ_FAST ONE_KEY "generic" "7.0.0" "Get the expiration Unix timestamp for a key";
    "flushall" -1 WRITE NO_KEYS "server" "1.0.0" "Remove all keys from all databases";
    "flushdb" -1 WRITE NO_KEYS "server" "1.0.0" "Remove all keys from the current database";
    "get" 2 READ_FAST ONE_KEY "string" "1.0.0" "Get the value of a key";
    "getdel" 2 WRITE_FAST ONE_KEY "string" "6.2.0" "Get the value of a key and delete the key";
    "getex" -2 WRITE_FAST ONE_KEY "string" "6.2.0" "Get the value of a key and optionally set its expiration";
    "getrange" 4 READ ONE_KEY "string" "2.4.0" "Get a substring of the string stored at a key";
    "getset" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Set the string value of a key and return its old value";
    "hello" -1 TALK_FIRST NO_KEYS "connection" "6.0.0" "Handshake with Redis";
    "incr" 2 PUT_FAST ONE_KEY "string" "1.0.0" "Increment the integer value of a key by one";
    "incrby" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Increment the integer value of a key by the given amount";
    "incrbyfloat" 3 PUT_FAST ONE_KEY "string" "2.6.0" "Increment the float value of a key by the given amount";
    "info" -1 TELL NO_KEYS "server" "1.0.0" "Get information and statistics about the server";
    "keys" 2 READ NO_KEYS "generic" "1.0.0" "Find all keys matching the given pattern";
    "mget" -2 READ_FAST ALL_KEYS "string" "1.0.0" "Get the values of all the given keys";
    "mset" -3 PUT KEYS_AND_VALUES "string" "1.0.1" "Set multiple keys to multiple values";
    "persist" 2 WRITE_FAST ONE_KEY "generic" "2.2.0" "Remove the expiration from a key";
    "pexpire" -3 WRITE_FAST ONE_KEY "generic" "2.6.0" "Set a key's time to live in milliseconds";
    "pexpireat" -3 WRITE_FAST ONE_KEY "generic" "2.6.0" "Set the expiration for a key as a UNIX timestamp specified in milliseconds";
    "pexpiretime" 2 READ_FAST ONE_KEY "generic" "7.0.0" "Get the expiration Unix timestamp for a key in milliseconds";
    "ping" -1 TALK NO_KEYS "connection" "1.0.0" "Ping the server";
    "psetex" 4 PUT ONE_KEY "string" "2.6.0" "Set the value and expiration in milliseconds of a key";
    "pttl" 2 READ_FAST ONE_KEY "generic" "2.6.0" "Get the time to live for a key in milliseconds";
    "quit" -1 TALK_FIRST NO_KEYS "connection" "1.0.0" "Close the connection";
    "randomkey" 1 READ NO_KEYS "generic" "1.0.0" "Return a random key from the keyspace";
    "readonly" 1 TALK NO_KEYS "cluster" "3.0.0" "Enables read queries for a connection to a cluster replica node";
    "readwrite" 1 TALK NO_KEYS "cluster" "3.0.0" "Disables read queries for a connection to a cluster replica node";
    "reset" 1 TALK_FIRST NO_KEYS "connection" "6.2.0" "Reset the connection";
    "scan" -2 READ NO_KEYS "generic" "2.8.0" "Incrementally iterate the keys space";
    "select" 2 TALK NO_KEYS "connection" "1.0.0" "Change the selected database for the current connection";
    "set" -3 PUT ONE_KEY "string" "1.0.0" "Set the string value of a key";
    "setex" 4 PUT ONE_KEY "string" "2.0.0" "Set the value and expiration of a key";
    "setnx" 3 PUT_FAST ONE_KEY "string" "1.0.0" "Set the value of a key, only if the key does not exist";
    "setrange" 4 PUT ONE_KEY "string" "2.2.0" "Overwrite part of a string at key starting at the specified offset";
    "strlen" 2 READ_FAST ONE_KEY "string" "2.2.0" "Get the length of the value stored in a key";
    "substr" 4 READ ONE_KEY "string" "1.0.0" "Get a substring of the string stored at a key";
    "time" 1 TELL NO_KEYS "server" "2.6.0" "Return the current server time";
    "touch" -2 READ_FAST ALL_KEYS "generic" "3.2.1" "Alters the last access time of a key(s). Returns the number of existing keys specified.";
    "ttl" 2 READ_FAST ONE_KEY "generic" "1.0.0" "Get the time to live for a key in seconds";
    "type" 2 READ_FAST ONE_KEY "generic" "1.0.0" "Determine the type stored at key";
    "unlink" -2 WRITE_FAST ALL_KEYS "generic" "4.0.0" "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking.";
    "wait" 3 TALK NO_KEYS "generic" "3.0.0" "Wait for the synchronous replication of all the write commands sent in the context of the current connection";
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
