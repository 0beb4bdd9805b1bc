use super::*;

const MS: u64 = 1_000_000;

fn token(term: u64, index: u64) -> Token {
    Token {
        partition: 3,
        term,
        index,
    }
}

fn wrote(client: u32, at: u64, value: i64, token: Token) -> Operation {
    wrote_if(client, at, Guard::None, value, token)
}

fn wrote_if(client: u32, at: u64, guard: Guard, value: i64, token: Token) -> Operation {
    Operation {
        client,
        invoked: at * MS,
        completed: at * MS + 5,
        call: Call::Write {
            changes: vec![(0, guard, Change::Put(value))],
            leader_only: false,
        },
        outcome: Outcome::Written {
            token,
            numbers: vec![None],
        },
    }
}

fn read(
    client: u32,
    at: u64,
    level: ReadLevel,
    wanted: Vec<Token>,
    token: Token,
    cell: Option<(i64, u64, u64)>,
) -> Operation {
    Operation {
        client,
        invoked: at * MS,
        completed: at * MS + 5,
        call: Call::Read {
            keys: vec![0],
            level,
            tokens: wanted,
            page: false,
        },
        outcome: Outcome::Seen {
            tokens: vec![token],
            cells: vec![cell.map(|(value, version, updated_ms)| Cell {
                value,
                version,
                updated_ms,
            })],
        },
    }
}

fn verdict(operations: Vec<Operation>) -> Result<(), String> {
    let history = History {
        operations,
        partitions: vec![3],
        groups: vec![None],
    };
    check(&history, 0)
}

fn refused(operations: Vec<Operation>, why: &str) {
    let said = verdict(operations).expect_err("found nothing");
    assert!(said.contains(why), "{said}");
}

const LINEAR: ReadLevel = ReadLevel::Linearizable;

#[test]
fn a_good_history_passes() {
    let operations = vec![
        wrote(1, 1, 10, token(1, 5)),
        read(1, 2, LINEAR, vec![], token(1, 5), Some((10, 5, 100))),
        wrote_if(
            2,
            3,
            Guard::Is {
                value: 10,
                version: 5,
            },
            11,
            token(2, 7),
        ),
        read(
            2,
            4,
            ReadLevel::Session,
            vec![token(2, 7)],
            token(2, 8),
            Some((11, 7, 100)),
        ),
        read(
            3,
            5,
            ReadLevel::Stale { max_age_ms: 3 },
            vec![],
            token(1, 5),
            Some((10, 5, 100)),
        ),
    ];
    assert_eq!(verdict(operations), Ok(()));
}

#[test]
fn an_entry_keeps_its_term_and_its_content() {
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            read(1, 2, LINEAR, vec![], token(2, 5), Some((10, 5, 0))),
        ],
        "of term 1 once",
    );
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            read(1, 2, LINEAR, vec![], token(1, 6), Some((11, 5, 0))),
        ],
        "version 5 of key 0",
    );
    refused(
        vec![wrote(1, 1, 10, token(1, 5)), wrote(2, 1, 11, token(1, 5))],
        "acknowledges two writes",
    );
    refused(
        vec![wrote(1, 1, 10, token(3, 5)), wrote(1, 2, 11, token(2, 6))],
        "before it of term 3",
    );
}

#[test]
fn time_never_goes_back() {
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            read(1, 2, LINEAR, vec![], token(1, 5), Some((10, 5, 100))),
            wrote(1, 3, 11, token(1, 6)),
            read(1, 4, LINEAR, vec![], token(1, 6), Some((11, 6, 99))),
        ],
        "time went back",
    );
}

#[test]
fn a_read_sees_all_its_token_covers_and_nothing_beyond() {
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            wrote(1, 2, 11, token(1, 6)),
            read(2, 3, LINEAR, vec![], token(1, 6), Some((10, 5, 0))),
        ],
        "was not seen at entry 6",
    );
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            read(2, 3, LINEAR, vec![], token(1, 6), None),
        ],
        "was not found",
    );
    refused(
        vec![read(2, 3, LINEAR, vec![], token(1, 6), Some((10, 7, 0)))],
        "beyond the token",
    );
}

#[test]
fn a_conditional_write_overwrites_nothing_unseen() {
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            wrote(2, 2, 11, token(1, 6)),
            wrote_if(
                1,
                3,
                Guard::Is {
                    value: 10,
                    version: 5,
                },
                12,
                token(1, 7),
            ),
        ],
        "was done over version 6",
    );
}

#[test]
fn a_refusal_tells_what_is_there() {
    let is = |version| Guard::Is { value: 1, version };
    let refuses = |guard, version| Operation {
        outcome: Outcome::GuardFailed { version },
        ..wrote_if(2, 30, guard, 9, token(1, 0))
    };
    let history = |operation| {
        vec![
            wrote(1, 10, 1, token(1, 5)),
            wrote(1, 20, 2, token(1, 8)),
            operation,
        ]
    };
    for (guard, version) in [(is(5), 8), (Guard::Absent, 8), (is(8), 11)] {
        assert_eq!(verdict(history(refuses(guard, version))), Ok(()));
    }
    refused(history(refuses(is(8), 8)), "the condition holds");
    refused(history(refuses(Guard::Absent, 0)), "the condition holds");
    refused(history(refuses(Guard::Absent, 5)), "had version 8");
    refused(history(refuses(Guard::Present, 0)), "refused as absent");
}

#[test]
fn later_is_later() {
    refused(
        vec![
            wrote(1, 1, 10, token(1, 5)),
            read(2, 2, LINEAR, vec![], token(1, 4), None),
        ],
        "had to see 5",
    );
    refused(
        vec![wrote(1, 1, 10, token(1, 5)), wrote(2, 2, 11, token(1, 4))],
        "known before it was asked",
    );
}

#[test]
fn sessions_and_stale_reads_keep_their_bounds() {
    let session = |client, wanted| read(client, 2, ReadLevel::Session, wanted, token(1, 4), None);
    let first = || wrote(1, 1, 10, token(1, 5));
    refused(vec![first(), session(1, vec![])], "had to see 5");
    refused(vec![first(), session(2, vec![token(1, 5)])], "had to see 5");
    assert_eq!(verdict(vec![first(), session(2, vec![])]), Ok(()));
    let stale = |max_age_ms| {
        read(
            2,
            9,
            ReadLevel::Stale { max_age_ms },
            vec![],
            token(1, 4),
            None,
        )
    };
    refused(vec![first(), stale(3)], "had to see 5");
    assert_eq!(verdict(vec![first(), stale(8)]), Ok(()));
}

#[test]
fn a_page_shows_a_batch_whole() {
    let seen = |value| {
        Some(Cell {
            value,
            version: 5,
            updated_ms: 1,
        })
    };
    let page = |second| History {
        operations: vec![Operation {
            client: 1,
            invoked: 1,
            completed: 2,
            call: Call::Read {
                keys: vec![0, 1],
                level: LINEAR,
                tokens: vec![],
                page: true,
            },
            outcome: Outcome::Seen {
                tokens: vec![token(1, 6)],
                cells: vec![seen(10), second],
            },
        }],
        partitions: vec![3, 3],
        groups: vec![Some(0), Some(0)],
    };
    assert_eq!(check(&page(seen(10)), 0), Ok(()));
    let said = check(&page(None), 0).expect_err("found nothing");
    assert!(said.contains("half a batch"), "{said}");
}

#[test]
fn a_write_is_done_once() {
    let operations = vec![
        wrote(1, 1, 10, token(1, 5)),
        wrote(2, 3, 11, token(1, 6)),
        read(1, 8, LINEAR, vec![], token(1, 7), Some((10, 7, 1))),
    ];
    refused(operations, "done twice");
}
