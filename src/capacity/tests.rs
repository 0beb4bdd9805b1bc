use super::*;

fn question() -> Question {
    Question {
        records: 10_000_000_000,
        key_bytes: 24,
        value_bytes: 10_000,
        value_ratio: 1.0,
        replicas: 3,
        puts_per_s: 0,
        gets_per_s: 0,
        cores: 8,
        disk_bytes: 2_000_000_000_000,
        memory_bytes: None,
        network_bytes_per_s: 1_250_000_000,
        copy_share: 0.5,
    }
}

/// Asserts that a formula's result is within some percent of what was measured.
fn near(what: &str, planned: f64, measured: f64, percent: f64) {
    let off = (planned / measured - 1.0) * 100.0;
    assert!(
        off.abs() <= percent,
        "{what}: planned {planned}, measured {measured}: {off:+.0} %"
    );
}

/// One core with 128 MiB, as it was measured for docs/operations.md: about 471 k records of 22 and
/// 1000 bytes, and 400 k random overwrites of them.
fn measured_node() -> (Question, Settings) {
    let question = Question {
        records: 471_000,
        key_bytes: 22,
        value_bytes: 1000,
        replicas: 1,
        cores: 1,
        ..question()
    };
    let settings = memory::settings(1, 128 << 20, 1).unwrap();
    (question, settings)
}

#[test]
fn formulas_are_as_near_to_measurements_as_the_docs_say() {
    let (question, settings) = measured_node();
    let node = Sized::new(&question, &settings);
    let candidate = Candidate::new(&question, &node, 1);
    let amplification = candidate.amplification();
    near("log", amplification.write_log, 1.14, 6.0);
    near("flush", amplification.write_flush, 1.07, 3.0);
    near("writes", amplification.write, 6.85, 15.0);
    near("tables, peak", candidate.tables(), 597e6, 20.0);
    near("index and filters", candidate.meta_per_core(), 6.33e6, 35.0);
    near("reads of a get", candidate.reads_per_get(), 0.93, 10.0);
    near("bytes of a memtable", node.record.memtable, 1102.0, 2.0);
}

#[test]
fn levels_of_the_side_by_side_comparison() {
    // Gates 7 and 8 (200 k records of 16 + 1024 bytes in 48 MiB), as in ARCHITECTURE.md.
    let tree = ringbolt_engine::tree::TreeOptions {
        memory_bytes: 48 << 20,
        ..Default::default()
    };
    let record = RecordSizes::new(16, 1024, 1.0, &tree);
    let levels = Levels::new(200_000.0 * record.table, &tree);
    assert_eq!(levels.count(), 2);
    near(
        "peak",
        levels.space() * record.table / record.plain,
        1.37,
        10.0,
    );
    let tables = 1.0 + levels.l0_writes() + levels.deeper_writes();
    near("written, without the log", tables, 5.8 - 1.1, 35.0);
}

#[test]
fn deep_trees_have_more_levels_and_write_more() {
    let tree = ringbolt_engine::tree::TreeOptions::default();
    let few = Levels::new(1e9, &tree);
    let many = Levels::new(1e12, &tree);
    assert!(many.count() > few.count());
    assert!(many.deeper_writes() > few.deeper_writes());
    assert!(many.space() > 1.1 && many.space() < 1.6, "{}", many.space());
    // Level counts have an end, whatever the data.
    assert!(Levels::new(1e30, &tree).count() <= 7);
    assert!(Levels::new(0.0, &tree).space().is_finite());
}

#[test]
fn nodes_are_as_few_as_hold_the_data() {
    let plan = plan(&question()).unwrap();
    assert_eq!(plan.limited_by, LimitedBy::Disk);
    assert!(plan.disk.total_bytes <= question().disk_bytes);
    let all = 10e9 * 10_024.0 * 3.0;
    let least = all / question().disk_bytes as f64;
    assert!(
        plan.nodes as f64 > least && (plan.nodes as f64) < least * 2.0,
        "{}",
        plan.nodes
    );
    assert!((plan.memory.meta_cached - 1.0).abs() < 1e-9);
    assert!(plan.device.is_none());
    // The sum is the sum of its parts.
    let disk = &plan.disk;
    let parts = disk.tables_bytes + disk.log_bytes + disk.reserve_bytes;
    assert!(parts.abs_diff(disk.total_bytes) <= 3);
}

#[test]
fn traffic_needs_cores_and_wears_devices() {
    let small = Question {
        records: 1_000_000,
        value_bytes: 100,
        ..question()
    };
    let idle = plan(&small).unwrap();
    assert_eq!((idle.nodes, idle.limited_by), (3, LimitedBy::Replicas));
    let busy = Question {
        puts_per_s: 2_000_000,
        gets_per_s: 5_000_000,
        ..small
    };
    let busy = plan(&busy).unwrap();
    assert_eq!(busy.limited_by, LimitedBy::Cpu);
    assert!(busy.nodes > 3 && busy.requests.cpu_used <= 0.6);
    let device = busy.device.unwrap();
    near(
        "years",
        device.years_at_one_a_day * device.drive_writes_per_day,
        RATED_YEARS,
        0.1,
    );
}

#[test]
fn too_little_memory_costs_reads() {
    let with = |memory| {
        plan(&Question {
            memory_bytes: Some(memory),
            value_bytes: 1000,
            records: 1_000_000_000,
            ..question()
        })
        .unwrap()
    };
    let (little, much) = (with(1 << 30), with(64 << 30));
    assert!(little.memory.meta_cached < 0.5, "{little:?}");
    assert!(little.requests.reads_per_get > 1.5);
    assert!(much.requests.reads_per_get < 1.0);
}

#[test]
fn absurd_questions_are_refused_in_words() {
    let q = question;
    let cases = [
        (Question { records: 0, ..q() }, "number of records is 0"),
        (
            Question {
                records: u64::MAX,
                ..q()
            },
            "number of records",
        ),
        (
            Question { replicas: 8, ..q() },
            "replicas is 8: it must be from 1 to 7",
        ),
        (Question { replicas: 0, ..q() }, "replicas is 0"),
        (
            Question {
                key_bytes: 0,
                ..q()
            },
            "size of a key",
        ),
        (
            Question {
                value_bytes: 17 << 20,
                ..q()
            },
            "size of a value is 17.0 MiB",
        ),
        (Question { cores: 0, ..q() }, "cores of a node is 0"),
        (
            Question {
                disk_bytes: 1 << 20,
                ..q()
            },
            "disk of a node",
        ),
        (
            Question {
                disk_bytes: 2 << 30,
                ..q()
            },
            "has no room for data",
        ),
        (
            Question {
                records: 1_000_000_000_000_000,
                ..q()
            },
            "more than 1024 nodes",
        ),
        (
            Question {
                puts_per_s: u64::MAX,
                ..q()
            },
            "puts a second",
        ),
        (
            Question {
                network_bytes_per_s: 0,
                ..q()
            },
            "the network",
        ),
        (
            Question {
                copy_share: f64::NAN,
                ..q()
            },
            "NaN",
        ),
        (
            Question {
                value_ratio: 1.5,
                ..q()
            },
            "must be from 0.01 to 1",
        ),
        (
            Question {
                memory_bytes: Some(1 << 20),
                ..q()
            },
            "memory",
        ),
    ];
    for (question, words) in cases {
        let error = plan(&question).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_largest_numbers_of_every_kind_make_finite_plans() {
    let most = Question {
        records: 1_000_000_000_000,
        key_bytes: KEY_BYTES_MAX as u64,
        value_bytes: VALUE_BYTES_MAX as u64,
        replicas: 1,
        puts_per_s: 1,
        gets_per_s: 1,
        disk_bytes: 1 << 60,
        cores: 1024,
        ..question()
    };
    for question in [
        Question {
            records: 1,
            value_bytes: 0,
            key_bytes: 1,
            ..most.clone()
        },
        most,
    ] {
        let plan = plan(&question).unwrap();
        let json = serde_json::to_value(&plan).unwrap();
        assert!(!json.to_string().contains("null"), "{json}");
    }
}
