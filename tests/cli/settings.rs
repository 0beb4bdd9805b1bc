//! Settings by file, environment and flag, as a process sees them.

use super::{end, ringbolt, run};

#[test]
fn the_last_of_file_environment_and_flag_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringbolt.toml");
    std::fs::write(
        &file,
        "cores = 1\nmemory = \"1GiB\"\n[limits]\nscan_rows_max = 10\nscan_page_bytes = \"8KiB\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let mut command = ringbolt(&["config", "print", "--effective", "--memory", "3GiB"]);
    command
        .env("RINGBOLT_CONFIG", file)
        .env("RINGBOLT_MEMORY", "2GiB")
        .env("RINGBOLT_LIMITS_SCAN_ROWS_MAX", "20");
    let ended = end(command, b"");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for expected in [
        "# From: flag --memory.\nmemory = \"3GiB\"\n".to_string(),
        "# From: environment variable RINGBOLT_LIMITS_SCAN_ROWS_MAX.\nscan_rows_max = 20\n".into(),
        format!("# From: file {file}.\nscan_page_bytes = \"8KiB\"\n"),
        format!("# From: file {file}.\ncores = 1\n"),
        "# From: default.\nlisten = \"127.0.0.1:7400\"\n".into(),
    ] {
        assert!(
            ended.stdout.contains(&expected),
            "{expected}\n{}",
            ended.stdout
        );
    }
}

#[test]
fn the_printed_file_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringbolt.toml");
    std::fs::write(&file, run(&["config", "print"]).stdout).unwrap();
    let ended = run(&[
        "config",
        "print",
        "--effective",
        "--config",
        file.to_str().unwrap(),
    ]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn wrong_settings_end_with_2_and_name_what_is_wrong() {
    let with_variable = |name: &str, value: &str| {
        let mut command = ringbolt(&["config", "print", "--effective"]);
        command.env(name, value);
        end(command, b"")
    };
    for (ended, part) in [
        (
            run(&["server", "--memory", "plenty"]),
            "`memory` = \"plenty\" (flag --memory)",
        ),
        (
            run(&["server", "--set", "limits.conections_max=1"]),
            "did you mean `limits.connections_max`?",
        ),
        (run(&["server", "--set", "cores"]), "write KEY=VALUE"),
        (
            run(&["server", "--config", "/nonexistent.toml"]),
            "cannot read the settings file /nonexistent.toml",
        ),
        (
            with_variable("RINGBOLT_CPUS", "5-1"),
            "(environment variable RINGBOLT_CPUS): the range 5-1 runs backwards",
        ),
        (
            with_variable("RINGBOLT_MEMORIES", "1GiB"),
            "did you mean `RINGBOLT_MEMORY`?",
        ),
    ] {
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{part}");
        assert!(ended.stderr.contains(part), "{part}\n{}", ended.stderr);
    }
}

#[test]
fn check_tells_of_a_memory_file_system() {
    let ended = run(&[
        "check",
        "--data",
        "/dev/shm/ringbolt-check-test",
        "--format",
        "json",
    ]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let checks: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let file_system = checks
        .iter()
        .find(|check| check["condition"] == "file system");
    let file_system = file_system.expect("the file system is checked");
    assert_eq!(file_system["verdict"], "failed");
    assert!(file_system["current"].as_str().unwrap().contains("tmpfs"));
    assert!(!file_system["remedy"].as_str().unwrap().is_empty());
    assert!(!std::path::Path::new("/dev/shm/ringbolt-check-test").exists());
}
