//! Rules about what may be named where, held by reading the source (ARCHITECTURE.md, invariants).

use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    let mut todo = vec![root];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "{dir} has no sources");
    found
}

/// Whether a file is all tests.
fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name == "tests.rs" || name == "golden.rs" || path.iter().any(|part| part == "tests")
}

/// Lines of code (not comments, not tests) under `dirs` that contain one of `words`.
fn naming(dirs: &[&str], words: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for path in dirs.iter().flat_map(|dir| sources(dir)) {
        if is_test(&path) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                hits.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    hits
}

#[test]
fn invariant_2_the_world_comes_through_env() {
    let hits = naming(
        &["engine/src", "src/shard", "src/replica"],
        &[
            "glommio",
            "io_uring",
            "Instant::now",
            "SystemTime::now",
            "thread::spawn",
            "thread_rng",
            "rand::rng",
            "std::fs",
            "std::net",
        ],
    );
    assert!(hits.is_empty(), "{}", hits.join("\n"));
}

#[test]
fn invariant_2_the_engine_knows_no_network_and_the_network_no_storage() {
    let up = naming(
        &["engine/src"],
        &["ringbolt_wire", "ringbolt_ring", "ringbolt_client"],
    );
    assert!(up.is_empty(), "{}", up.join("\n"));
    let across = naming(
        &["net/wire/src", "net/ring/src", "net/client/src"],
        &["ringbolt_engine"],
    );
    assert!(across.is_empty(), "{}", across.join("\n"));
}

#[test]
fn the_admin_server_looks_only_down() {
    let up = naming(
        &["src/admin"],
        &[
            "crate::node",
            "crate::cli",
            "crate::runtime",
            "ringbolt_client",
        ],
    );
    assert!(up.is_empty(), "{}", up.join("\n"));
    let shard = naming(
        &["src/shard", "src/replica", "engine/src"],
        &["crate::admin", "hyper", "tokio"],
    );
    assert!(shard.is_empty(), "{}", shard.join("\n"));
}

#[test]
fn the_redis_protocol_knows_no_shard_and_no_world() {
    let hits = naming(
        &["src/resp"],
        &[
            "crate::shard",
            "crate::node",
            "crate::config",
            "ringbolt_engine",
            "glommio",
            "Instant::now",
            "SystemTime::now",
            "std::fs",
        ],
    );
    assert!(hits.is_empty(), "{}", hits.join("\n"));
}

#[test]
fn messages_know_only_settings() {
    let up = naming(
        &["src/messages.rs"],
        &[
            "crate::admin",
            "crate::cli",
            "crate::node",
            "crate::runtime",
            "crate::shard",
        ],
    );
    assert!(up.is_empty(), "{}", up.join("\n"));
}

#[test]
fn the_planner_only_reckons() {
    let hits = naming(
        &["src/capacity"],
        &[
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "Instant",
            "SystemTime",
            "Machine::detect",
            "crate::cli",
            "crate::runtime",
        ],
    );
    assert!(hits.is_empty(), "{}", hits.join("\n"));
}

#[test]
fn unsafe_stands_only_in_the_ring_and_disk_layers() {
    let hits: Vec<_> = naming(
        &[
            "src",
            "engine/src",
            "net/wire/src",
            "net/client/src",
            "tools",
        ],
        &["unsafe {", "unsafe fn", "unsafe impl"],
    )
    .into_iter()
    .filter(|hit| !hit.contains("src/runtime/") && !hit.contains("engine/src/env/buf.rs"))
    .collect();
    assert!(hits.is_empty(), "{}", hits.join("\n"));
}
