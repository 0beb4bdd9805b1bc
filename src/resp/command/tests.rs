use super::*;

const NOW_MS: u64 = 1_000_000;

/// What a line of words comes to, or what is wrong with it.
fn check(line: &str, is: impl FnOnce(Result<Command<'_>, Fault>)) {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    is(Command::parse(&words, NOW_MS));
}

fn fault(line: &str) -> String {
    let mut found = String::new();
    check(line, |command| found = command.unwrap_err().into_owned());
    found
}

fn is_put(line: &str, ttl: Ttl, condition: Condition) {
    check(line, |command| {
        let op = WriteOp::Put {
            key: b"k",
            value: b"v",
            ttl,
            condition,
        };
        let want = WriteWant::Ok;
        assert_eq!(command, Ok(Command::Write { op, want }), "{line}");
    });
}

#[test]
fn the_options_of_set() {
    is_put("SET k v", Ttl::Default, Condition::None);
    is_put("set k v nx", Ttl::Default, Condition::Absent);
    is_put("SET k v EX 5 XX", Ttl::AfterMs(5000), Condition::Present);
    is_put("SET k v PXAT 7", Ttl::AtMs(7), Condition::None);
    is_put("SET k v KEEPTTL NX", Ttl::Keep, Condition::Absent);
    check("SET k v GET", |command| {
        let is_set = |modify: &Modify| matches!(modify, Modify::Set { .. });
        assert!(matches!(command, Ok(Command::Modify { modify, .. }) if is_set(&modify)));
    });
    for wrong in [
        "SET k v NX XX",
        "SET k v EX",
        "SET k v EX 5 PX 5",
        "SET k v EX 5 KEEPTTL",
        "SET k v BUT",
    ] {
        assert_eq!(fault(wrong), SYNTAX, "{wrong}");
    }
    let invalid = "ERR invalid expire time in 'set' command";
    for wrong in [
        "SET k v EX 0",
        "SET k v PX -1",
        "SET k v EX 9223372036854775807",
        "SET k v PX 9223372036854775807",
    ] {
        assert_eq!(fault(wrong), invalid, "{wrong}");
    }
}

#[test]
fn expiries_in_the_past_delete() {
    let deletes = |line: &str| {
        check(line, |command| {
            let condition = Condition::Present;
            let op = WriteOp::Delete {
                key: b"k",
                condition,
            };
            let want = WriteWant::Flag;
            assert_eq!(command, Ok(Command::Write { op, want }), "{line}");
        });
    };
    deletes("EXPIRE k 0");
    deletes("PEXPIRE k -5");
    deletes("PEXPIREAT k 1000000");
    deletes("EXPIREAT k -9223372036854775");
    let words = "ERR NX and XX, GT or LT options at the same time are not compatible";
    assert_eq!(fault("EXPIRE k 5 NX LT"), words);
    assert_eq!(fault("EXPIRE k 5 AB"), "ERR Unsupported option AB");
    let overflow = "ERR invalid expire time in 'expire' command";
    assert_eq!(fault("EXPIRE k 9223372036854775807"), overflow);
    check("GETEX k EXAT 1000", |command| {
        let modify = Modify::Delete;
        assert_eq!(command, Ok(Command::Modify { key: b"k", modify }));
    });
}

#[test]
fn cursors_and_options_of_scans() {
    let page = |line: &str| {
        let mut found = None;
        check(line, |command| {
            if let Ok(Command::Scan(page)) = command {
                found = Some((page.cursor, page.pattern.to_vec(), page.count, page.strings));
            }
        });
        found
    };
    assert_eq!(page("SCAN 0"), Some((0, b"*".to_vec(), 10, true)));
    let all = "SCAN 7 MATCH a* COUNT 5 TYPE list";
    assert_eq!(page(all), Some((7, b"a*".to_vec(), 5, false)));
    assert_eq!(page("SCAN -1").unwrap().0, u64::MAX);
    assert_eq!(fault("SCAN x"), "ERR invalid cursor");
    assert_eq!(fault("SCAN 0 COUNT 0"), SYNTAX);
    assert_eq!(fault("SCAN 0 COUNT"), SYNTAX);
}

#[test]
fn what_connections_keep_is_short() {
    let long = "x".repeat(257);
    let name = "ERR Client names have up to 256 bytes.";
    assert_eq!(fault(&format!("CLIENT SETNAME {long}")), name);
    assert_eq!(fault(&format!("HELLO 3 SETNAME {long}")), name);
    let library = "ERR lib-name has up to 256 bytes.";
    let set = format!("CLIENT SETINFO LIB-NAME {long}");
    assert_eq!(fault(&set), library);
    check(&set[..set.len() - 1], |command| assert!(command.is_ok()));
}

#[test]
fn commands_that_are_unknown_or_short_of_arguments() {
    let unknown = "ERR unknown command 'NOPE', with args beginning with: 'a' ";
    assert_eq!(fault("NOPE a"), unknown);
    let short = "ERR wrong number of arguments for 'mset' command";
    assert_eq!(fault("MSET a 1 b"), short);
    assert_eq!(
        fault("CLIENT NOPE"),
        "ERR unknown subcommand 'NOPE'. Try CLIENT HELP."
    );
    assert_eq!(
        fault("DECRBY k -9223372036854775808"),
        "ERR decrement would overflow"
    );
}
