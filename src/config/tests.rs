use std::ffi::OsString;
use std::io::Write as _;

use super::*;

fn machine() -> Machine {
    Machine {
        cpus: vec![0, 1, 2, 3],
        memory: 8 << 30,
    }
}

fn inputs() -> Inputs {
    Inputs {
        file: None,
        environment: Vec::new(),
        flags: Vec::new(),
        machine: machine(),
    }
}

fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag {
        name: name.into(),
        key: key.into(),
        value: value.into(),
    }
}

fn variable(name: &str, value: &str) -> (OsString, OsString) {
    (name.into(), value.into())
}

struct File(tempfile::NamedTempFile);

impl File {
    fn new(text: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Self(file)
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            file: Some(self.0.path().into()),
            ..inputs()
        }
    }
}

fn error_of_file(text: &str) -> String {
    let file = File::new(text);
    let error = load(&file.inputs()).unwrap_err().to_string();
    error.replace(&file.0.path().display().to_string(), "FILE")
}

#[test]
fn defaults_follow_the_machine() {
    let settings = load(&inputs()).unwrap().settings;
    assert_eq!(settings.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(settings.data.to_str(), Some("ringbolt-data"));
    assert_eq!((settings.cores, settings.partitions), (4, 128));
    assert_eq!(settings.cpus, [0, 1, 2, 3], "pinned: every CPU is used");
    assert_eq!(settings.memory, 2 << 30, "a quarter");
    assert_eq!(settings.memory_per_core(), 512 << 20);
    assert_eq!(settings.limits.core_bytes_max, 64 << 20);
    assert_eq!(settings.limits.idle_timeout, Duration::ZERO);
    assert_eq!(settings.limits.deadline_default, Duration::from_secs(5));
    assert_eq!(settings.core.spin, Duration::from_micros(20));
    assert_eq!(settings.log.durability, Durability::Auto);
    assert_eq!(settings.tree.compression, Compression::Lz4);
}

#[test]
fn default_memory_is_bounded() {
    let with = |memory, cpus: u16| {
        let machine = Machine {
            cpus: (0..cpus).collect(),
            memory,
        };
        let inputs = Inputs {
            machine,
            ..inputs()
        };
        load(&inputs).unwrap().settings.memory
    };
    assert_eq!(with(1 << 40, 4), 64 << 30);
    assert_eq!(with(256 << 20, 2), 128 << 20);
}

#[test]
fn file_then_environment_then_flags() {
    let file = File::new(
        "cores = 1\nmemory = \"1GiB\"\nlisten = \"127.0.0.1:1\"\n[limits]\nscan_rows_max = 7\n",
    );
    let mut inputs = file.inputs();
    inputs.environment = vec![
        variable("RINGBOLT_MEMORY", "2GiB"),
        variable("RINGBOLT_LISTEN", "127.0.0.1:2"),
        variable("PATH", "/bin"),
    ];
    inputs.flags = vec![flag("--listen", "listen", "127.0.0.1:3")];
    let loaded = load(&inputs).unwrap();
    assert_eq!(loaded.settings.cores, 1);
    assert_eq!(loaded.settings.memory, 2 << 30);
    assert_eq!(loaded.settings.listen.port(), 3);
    assert_eq!(loaded.settings.limits.scan_rows_max, 7);
    assert_eq!(
        loaded.settings.cpus, [0u16; 0],
        "not pinned: one core of four CPUs"
    );
    assert_eq!(
        loaded.source("cores"),
        Some(&Source::File(file.0.path().into()))
    );
    assert_eq!(
        loaded.source("memory"),
        Some(&Source::Environment("RINGBOLT_MEMORY".into()))
    );
    assert_eq!(
        loaded.source("listen"),
        Some(&Source::Flag("--listen".into()))
    );
    assert_eq!(loaded.source("cpus"), Some(&Source::Auto));
    assert_eq!(loaded.source("partitions"), Some(&Source::Default));
}

#[test]
fn a_node_is_one_of_its_peers_and_listens_there() {
    let mut with = inputs();
    with.flags = vec![
        flag("--node", "name", "b"),
        flag("--peers", "peers", "b=127.0.0.1:7410,a=127.0.0.1:7400"),
    ];
    let settings = load(&with).unwrap().settings;
    assert_eq!(
        show_peers(&settings.peers),
        "a=127.0.0.1:7400,b=127.0.0.1:7410"
    );
    assert_eq!(settings.listen.to_string(), "127.0.0.1:7410");
    assert_eq!((settings.zone.as_str(), settings.weight), ("default", 100));
    assert_eq!(settings.replication, 3);
    with.flags
        .push(flag("--listen", "listen", "127.0.0.1:7499"));
    assert_eq!(load(&with).unwrap().settings.listen.port(), 7499);
    with.flags.push(flag("--node", "name", "d"));
    assert_eq!(
        load(&with).unwrap_err().to_string(),
        "`name` (flag --node) is d, but `peers` (flag --peers) lists a, b: name one of them with \
         --node, or add this node to the list on every node"
    );
    let twice = error_of_file("peers = \"a=h:1,a=h:2\"");
    assert!(twice.contains("a is listed twice"), "{twice}");
    assert_eq!(load(&inputs()).unwrap().settings.peers, []);
}

#[test]
fn cpus_decide_cores() {
    for cpus in ["\"0,2-3\"", "[0, 2, 3]"] {
        let settings = load(&File::new(&format!("cpus = {cpus}")).inputs())
            .unwrap()
            .settings;
        assert_eq!((settings.cores, settings.cpu_of(1)), (3, Some(2)));
    }
    let settings = load(&File::new("cpus = \"none\"").inputs())
        .unwrap()
        .settings;
    assert_eq!((settings.cores, settings.cpu_of(1)), (4, None));
}

#[test]
fn unknown_keys_are_refused_wherever_they_stand() {
    assert_eq!(
        error_of_file("[limits]\nconections_max = 3\n"),
        "unknown setting `limits.conections_max` (file FILE); did you mean \
         `limits.connections_max`?"
    );
    assert_eq!(
        error_of_file("scan_rows_max = 3\n"),
        "unknown setting `scan_rows_max` (file FILE); did you mean `limits.scan_rows_max`?"
    );
    assert_eq!(
        error_of_file("[telepathy]\nx = 3\n"),
        "unknown setting `telepathy` (file FILE); `ringbolt config print` lists the settings"
    );
    let mut with = inputs();
    with.environment = vec![variable("RINGBOLT_MEMROY", "1GiB")];
    assert_eq!(
        load(&with).unwrap_err().to_string(),
        "unknown setting `RINGBOLT_MEMROY` (environment variable RINGBOLT_MEMROY); did you mean \
         `RINGBOLT_MEMORY`?"
    );
    let mut with = inputs();
    with.flags = vec![flag("--set", "limits.x", "1")];
    assert!(matches!(load(&with), Err(ConfigError::Unknown { .. })));
}

#[test]
fn other_variables_of_ours_are_passed_over() {
    let mut with = inputs();
    with.environment = vec![
        variable("RINGBOLT_ADDR", "127.0.0.1:7400"),
        variable("RINGBOLT_SERVICE_HOST", "10.0.0.1"),
        variable("RINGBOLT_PORT_7400_TCP", "tcp://10.0.0.1:7400"),
    ];
    assert!(load(&with).is_ok());
}

#[test]
fn wrong_values_name_key_value_source_and_what_is_valid() {
    assert_eq!(
        error_of_file("memory = \"4 parsecs\"\n"),
        "`memory` = \"4 parsecs\" (file FILE): not a size: write a number and a unit, such as \
         512MiB or 4GiB. It takes a size from 64MiB to 64TiB, or auto."
    );
    let mut with = inputs();
    with.environment = vec![variable("RINGBOLT_PARTITIONS", "100")];
    assert_eq!(
        load(&with).unwrap_err().to_string(),
        "`partitions` = \"100\" (environment variable RINGBOLT_PARTITIONS): not a power of two. \
         It takes a power of two from 1 to 16384."
    );
    let mut with = inputs();
    with.flags = vec![flag("--listen", "listen", "127.0.0.1")];
    assert_eq!(
        load(&with).unwrap_err().to_string(),
        "`listen` = \"127.0.0.1\" (flag --listen): the port is missing. It takes an address and \
         port such as 127.0.0.1:7400."
    );
    for (text, part) in [
        ("cores = 0", "less than 1"),
        ("cores = -3", "not a whole number"),
        ("cores = 1.5", "a number with a fraction"),
        ("cores = true", "`cores` = true"),
        ("limits = 3", "unknown setting `limits`"),
        ("memory = \"1MiB\"", "less than 64MiB"),
        ("cpus = \"0,0\"", "CPU 0 is listed twice"),
        ("name = \"a b\"", "not a name"),
        ("data = \"\"", "an empty path"),
        ("data = {}", "a table where a value is expected"),
        ("[limits]\nstall_timeout = 5", "not a time span"),
        ("[limits]\nidle_timeout = \"1ms\"", "less than 100ms"),
        (
            "[tree]\ncompression = \"gzip\"",
            "It takes one of lz4, none.",
        ),
        ("[log]\nsegment_bytes = \"65MiB\"", "not a power of two"),
    ] {
        let error = error_of_file(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn contradictions_are_refused() {
    for (text, part) in [
        ("cores = 2\ncpus = \"0\"", "names 1 CPUs"),
        ("cores = 4\nmemory = \"64MiB\"", "256MiB in all"),
        ("cores = 4\npartitions = 2", "at least one partition"),
        (
            "name = \"a\"\npeers = \"a=127.0.0.1:7400,b=127.0.0.1:7410\"\n[log]\nsegment_bytes = \"16MiB\"",
            "give it 32MiB or more",
        ),
        (
            "[limits]\nconnection_bytes_max = \"1MiB\"",
            "could never be written",
        ),
    ] {
        let error = error_of_file(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let mut with = inputs();
    with.file = Some("/nonexistent/ringbolt.toml".into());
    assert!(matches!(load(&with), Err(ConfigError::Unreadable { .. })));
    let error = error_of_file("cores = \n");
    assert!(error.contains("not valid TOML"), "{error}");
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn the_template_is_the_defaults() {
    let template = template();
    let commented = load(&File::new(&template).inputs()).unwrap().settings;
    let defaults = load(&inputs()).unwrap().settings;
    assert_eq!(commented, defaults);
    let mut live = String::new();
    for line in template.lines() {
        let is_setting = line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        live.push_str(if is_setting { &line[1..] } else { line });
        live.push('\n');
    }
    assert_eq!(load(&File::new(&live).inputs()).unwrap().settings, defaults);
    assert_eq!(live.matches(" = ").count(), SETTINGS.len());
}

#[test]
fn what_is_in_force_loads_as_itself() {
    let mut with = inputs();
    with.flags = vec![
        flag("--cpus", "cpus", "1,3"),
        flag("--set", "limits.idle_timeout", "90s"),
        flag("--set", "data", "a \"quoted\" \\ folder"),
    ];
    let loaded = load(&with).unwrap();
    let printed = effective(&loaded);
    assert!(
        printed.contains("# From: flag --cpus.\ncpus = \"1,3\"\n"),
        "{printed}"
    );
    let again = load(&File::new(&printed).inputs()).unwrap();
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn keys_and_variables_are_distinct() {
    let mut keys: Vec<_> = SETTINGS.iter().map(|s| s.key).collect();
    let mut variables: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
    keys.sort_unstable();
    keys.dedup();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(
        (keys.len(), variables.len()),
        (SETTINGS.len(), SETTINGS.len())
    );
    assert_eq!(
        Setting::find("limits.value_bytes_max").unwrap().variable(),
        "RINGBOLT_LIMITS_VALUE_BYTES_MAX"
    );
}
