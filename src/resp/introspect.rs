//! `COMMAND`: what clients and `redis-cli` want to know of the commands there are.

use super::reply::{self, Version};
use super::table::{self, SPECS, Spec};

/// All commands, or those named, of which unknown ones are null.
pub(crate) fn commands(out: &mut Vec<u8>, version: Version, names: Option<&[&[u8]]>) {
    let Some(names) = names else {
        reply::array(out, count());
        for spec in top() {
            command(out, version, spec);
        }
        return;
    };
    reply::array(out, names.len());
    for name in names {
        match named(name) {
            Some(spec) => command(out, version, spec),
            None => out.extend_from_slice(reply::null(version)),
        }
    }
}

/// How many there are.
pub(crate) fn count() -> usize {
    top().count()
}

/// Their names.
pub(crate) fn list(out: &mut Vec<u8>) {
    reply::array(out, count());
    for spec in top() {
        reply::bulk(out, spec.name.as_bytes());
    }
}

/// What is to be read about all of them, or about those named that there are.
pub(crate) fn docs(out: &mut Vec<u8>, version: Version, names: &[&[u8]]) {
    let told: Vec<&Spec> = match names {
        [] => top().collect(),
        names => names.iter().filter_map(|name| named(name)).collect(),
    };
    reply::map(out, version, told.len());
    for spec in told {
        doc(out, version, spec);
    }
}

fn top() -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().filter(|spec| !spec.is_sub())
}

/// A command, or a subcommand behind a `|`.
fn named(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|&byte| byte == b'|') {
        Some(bar) => table::find_sub(table::find(&name[..bar])?, &name[bar + 1..]),
        None => table::find(name),
    }
}

fn command(out: &mut Vec<u8>, version: Version, spec: &Spec) {
    reply::array(out, 10);
    reply::bulk(out, spec.name.as_bytes());
    reply::integer(out, spec.arity);
    reply::set(out, version, spec.flags.len());
    for flag in spec.flags {
        reply::simple(out, flag);
    }
    for place in [spec.keys.first, spec.keys.last, spec.keys.step] {
        reply::integer(out, place);
    }
    let categories = categories(spec);
    reply::set(out, version, categories.len());
    for category in categories {
        reply::simple(out, &format!("@{category}"));
    }
    reply::array(out, 0);
    key_specs(out, version, spec);
    let subcommands: Vec<_> = spec.subcommands().collect();
    reply::array(out, subcommands.len());
    for spec in subcommands {
        command(out, version, spec);
    }
}

/// The access-control categories, which follow from the flags.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let has = |flag| spec.flags.contains(&flag);
    let mut categories = Vec::new();
    if has("write") {
        categories.push("write");
    }
    if has("readonly") {
        categories.push("read");
    }
    categories.push(match spec.group {
        "generic" => "keyspace",
        "server" => "dangerous",
        group => group,
    });
    if has("admin") {
        categories.push("admin");
    }
    categories.push(if has("fast") { "fast" } else { "slow" });
    categories
}

fn key_specs(out: &mut Vec<u8>, version: Version, spec: &Spec) {
    if spec.keys.first == 0 {
        return reply::array(out, 0);
    }
    let access = if spec.flags.contains(&"write") {
        "RW"
    } else {
        "RO"
    };
    // Counted from the first key.
    let last = match spec.keys.last {
        last if last < 0 => last,
        last => last - spec.keys.first,
    };
    reply::array(out, 1);
    reply::map(out, version, 3);
    reply::bulk(out, b"flags");
    reply::set(out, version, 2);
    reply::simple(out, access);
    reply::simple(out, "access");
    let mut typed = |name: &str, kind: &str, places: &[(&str, i64)]| {
        reply::bulk(out, name.as_bytes());
        reply::map(out, version, 2);
        reply::bulk(out, b"type");
        reply::bulk(out, kind.as_bytes());
        reply::bulk(out, b"spec");
        reply::map(out, version, places.len());
        for (name, number) in places {
            reply::bulk(out, name.as_bytes());
            reply::integer(out, *number);
        }
    };
    typed("begin_search", "index", &[("index", spec.keys.first)]);
    let places = [("lastkey", last), ("keystep", spec.keys.step), ("limit", 0)];
    typed("find_keys", "range", &places);
}

fn doc(out: &mut Vec<u8>, version: Version, spec: &Spec) {
    reply::bulk(out, spec.name.as_bytes());
    let subcommands: Vec<_> = spec.subcommands().collect();
    reply::map(out, version, 3 + usize::from(!subcommands.is_empty()));
    for (name, text) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group),
    ] {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, text.as_bytes());
    }
    if !subcommands.is_empty() {
        reply::bulk(out, b"subcommands");
        reply::map(out, version, subcommands.len());
        for spec in subcommands {
            doc(out, version, spec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_redis_tells_it() {
        let mut out = Vec::new();
        commands(
            &mut out,
            Version::Two,
            Some(&[b"get", b"nothing", b"client|id"]),
        );
        let text = String::from_utf8(out).unwrap();
        let get = "*3\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n+@read\r\n\
                   +@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO\r\n+access\r\n$12\r\n\
                   begin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n\
                   $9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n\
                   $7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n$-1\r\n*10\r\n$9\r\nclient|id\r\n";
        assert!(text.starts_with(get), "{text}");
    }
}
