use std::path::Path;

use super::*;
use crate::entry::LogId;
use crate::env::sim::{self, Fault, FaultRule, SimEnv, SimOptions, SimWorld};

fn table(id: u64, level: u8) -> TableRecord {
    TableRecord {
        id,
        level,
        run: if level == 0 { id } else { 0 },
        bytes: 4096 * id,
        raw_bytes: 9000,
        entries: 100,
        tombstones: 3,
        range_deletes: 1,
        version_min: 5,
        version_max: 105,
        expiring: 2,
        expiry_min_ms: 1_700_000_000_000,
        expiry_max_ms: 0,
        smallest: vec![0, 1, 0, 0, 0, 0, b'a'],
        largest: vec![0, 1, 0, 0, 0, 0, b'z'],
        largest_excluded: id.is_multiple_of(2),
        footer_checksum: 0x0123_4567_89ab_cdef,
    }
}

fn edit(n: u64) -> Edit {
    Edit {
        added: vec![table(n, 0)],
        removed: if n > 5 { vec![n - 5] } else { Vec::new() },
        moved: Vec::new(),
        flushed: vec![FlushedRecord {
            partition: 3,
            term: 2,
            index: 10 * n,
            time_ms: 1000 + n,
        }],
        hidden: vec![HideRecord {
            id: n,
            partition: 7,
        }],
        settled: if n > 1 { vec![7] } else { Vec::new() },
        dropped: vec![4],
        pending: vec![PendingRecord {
            partition: 7,
            replacement: n.is_multiple_of(2).then(|| Replacement {
                term: 1,
                index: 2 * n,
                time_ms: 2000 + n,
                tables: vec![table(1000 + n, 6)],
            }),
        }],
    }
}

/// What version 1 of the format had of an edit.
fn edit_v1(n: u64) -> Edit {
    let edit = edit(n);
    Edit {
        added: edit.added,
        removed: edit.removed,
        flushed: edit.flushed,
        ..Edit::default()
    }
}

fn dir() -> &'static Path {
    Path::new("tree")
}

async fn open(env: &SimEnv, rewrite_bytes: u64) -> Result<Manifest<SimEnv>> {
    env.disk().create_dir_all(dir()).await?;
    env.disk().sync_dir(Path::new("")).await?;
    Manifest::open(env, dir(), rewrite_bytes).await
}

/// The state after the first `n` edits.
fn state_after(n: u64) -> State {
    let mut state = State::default();
    for i in 1..=n {
        state.apply(&edit(i)).expect("fits");
    }
    state
}

#[test]
fn what_was_appended_is_found_again_and_rewritten_when_it_grows() {
    sim::run(1, SimOptions::default(), |env| async move {
        for n in 1..40 {
            let mut manifest = open(&env, 32 << 10).await.expect("opens");
            assert_eq!(manifest.state(), &state_after(n - 1));
            manifest.append(&edit(n)).await.expect("appends");
            assert_eq!(manifest.state(), &state_after(n));
        }
        let names = env.disk().list(dir()).await.expect("lists");
        assert_eq!(names.len(), 2, "{names:?}");
        let content = read(&env, dir()).await.expect("reads").expect("is there");
        assert!(content.number > 2);
        assert_eq!(
            content.state.flushed.get(&3),
            Some(&Applied {
                id: LogId {
                    term: 2,
                    index: 390
                },
                time_ms: 1039
            })
        );
    });
}

#[test]
fn an_edit_that_does_not_fit_is_refused_and_changes_nothing() {
    sim::run(1, SimOptions::default(), |env| async move {
        let mut manifest = open(&env, 1 << 20).await.expect("opens");
        manifest.append(&edit(1)).await.expect("appends");
        let twice = edit(1);
        assert!(matches!(
            manifest.append(&twice).await,
            Err(EngineError::Invalid(_))
        ));
        let moved = Edit {
            moved: vec![MoveRecord { id: 9, level: 2 }],
            ..Edit::default()
        };
        assert!(manifest.append(&moved).await.is_err());
        manifest.append(&edit(2)).await.expect("appends");
        drop(manifest);
        let manifest = open(&env, 1 << 20).await.expect("opens");
        assert_eq!(manifest.state(), &state_after(2));
    });
}

/// Cuts the power at each disk operation of a few appends: each acknowledged edit must be there.
#[test]
fn acknowledged_edits_survive_power_cuts() {
    let first: u32 = rand::random();
    println!("seed {first}");
    for seed in (0..300).map(|n| u64::from(first) + n) {
        let mut world = SimWorld::new(seed, SimOptions::default());
        let acknowledged = std::rc::Rc::new(std::cell::Cell::new(0));
        for _ in 0..4 {
            let seen = std::rc::Rc::clone(&acknowledged);
            let ended = world.run(|env| async move {
                let mut manifest = open(&env, 16 << 10).await.expect("opens");
                let index = manifest.state().flushed.get(&3).map_or(0, |a| a.id.index);
                let found = index / 10;
                assert!(found >= seen.get(), "seed {seed}: lost an edit");
                assert_eq!(manifest.state(), &state_after(found), "seed {seed}");
                seen.set(found);
                env.crash_after_steps(env.random() % 120);
                for n in found + 1..found + 8 {
                    manifest.append(&edit(n)).await.expect("appends");
                    seen.set(n);
                }
            });
            assert!(matches!(ended, Ok(()) | Err(sim::Stop::Crashed)));
            world.crash();
        }
    }
}

/// A bit flipped anywhere in the acknowledged part is found, or lies in padding and changes nothing.
#[test]
fn damage_is_refused_and_never_believed() {
    for at in (0..6 * 4096).step_by(97) {
        let mut world = SimWorld::new(7, SimOptions::default());
        let path = Path::new("tree/MANIFEST-000001");
        let run = world.run(|env| async move {
            let mut manifest = open(&env, 1 << 20).await.expect("opens");
            for n in 1..5 {
                manifest.append(&edit(n)).await.expect("appends");
            }
        });
        run.expect("runs");
        assert!(world.store().flip_bit(path, at, (at % 8) as u32));
        let found = world.restart(|env| async move { read(&env, dir()).await });
        match found.expect("runs") {
            Ok(content) => {
                let content = content.expect("is there");
                assert_eq!(content.state, state_after(4), "byte {at}");
            }
            Err(EngineError::Corrupt { file, .. }) => assert_eq!(file, path),
            Err(EngineError::WrongFormat { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_full_disk_changes_nothing_and_can_be_tried_again() {
    sim::run(3, SimOptions::default(), |env| async move {
        let mut manifest = open(&env, 16 << 10).await.expect("opens");
        let mut n = 1;
        let mut refused = 0;
        while n < 60 {
            if n % 3 == 0 {
                env.store()
                    .set_faults(vec![FaultRule::new(Fault::NoSpace, 2)]);
            }
            match manifest.append(&edit(n)).await {
                Ok(()) => n += 1,
                Err(EngineError::NoSpace(_)) => {
                    refused += 1;
                    env.store().set_faults(Vec::new());
                }
                Err(e) => panic!("{e}"),
            }
        }
        env.store().set_faults(Vec::new());
        assert!(refused > 0);
        drop(manifest);
        let manifest = open(&env, 16 << 10).await.expect("opens");
        assert_eq!(manifest.state(), &state_after(59));
    });
}

#[test]
fn a_missing_current_with_tables_is_damage() {
    sim::run(1, SimOptions::default(), |env| async move {
        drop(open(&env, 1 << 20).await.expect("opens"));
        env.disk()
            .create(&dir().join("0000000001.table"), FileClass::Table)
            .await
            .expect("creates");
        env.disk()
            .remove(&dir().join(CURRENT))
            .await
            .expect("removes");
        assert!(matches!(
            open(&env, 1 << 20).await,
            Err(EngineError::Corrupt { .. })
        ));
    });
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| -> String { line.iter().map(|b| format!("{b:02x}")).collect() };
    let lines: Vec<_> = bytes.chunks(32).map(line).collect();
    lines.join("\n") + "\n"
}

/// The format, byte by byte. If this must change, so must `frame::VERSION`.
#[test]
fn the_format_is_the_one_that_was_published() {
    let frame = frame::encode(Some(&edit(6)), 1, 4, 8192).expect("encodes");
    let found = hex(&frame[..frame.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)]);
    assert_eq!(found, include_str!("golden.txt"), "found:\n{found}");
    let decoded = frame::decode(&frame, 1, 8192).expect("decodes");
    assert_eq!(decoded.edit(), Ok(edit(6)));
    assert!(frame::decode(&frame, 1, 4096).is_err(), "misplaced");
    assert!(
        frame::decode(&frame, 2, 8192).is_err(),
        "another manifest's"
    );
    assert_eq!(current_text(12), "MANIFEST-000012 7e214209\n");
    assert_eq!(parse_current(b"MANIFEST-000012 7e214209\n\0\0"), Some(12));
    assert_eq!(parse_current(b"MANIFEST-000013 7e214209\n"), None);
}

#[test]
fn version_1_is_read_as_well() {
    let text: String = include_str!("golden_v1.txt").split_whitespace().collect();
    let digit = |c: u8| char::from(c).to_digit(16).expect("a digit") as u8;
    let pairs = text.as_bytes().chunks(2);
    let frame: Vec<u8> = pairs.map(|c| digit(c[0]) << 4 | digit(c[1])).collect();
    let decoded = frame::decode(&frame, 1, 8192).expect("decodes");
    assert_eq!(decoded.edit(), Ok(edit_v1(6)));
}
