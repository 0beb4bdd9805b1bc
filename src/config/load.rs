//! Reads settings: defaults, then the file, then the environment, then flags; the last wins.
//!
//! figment merges the sources and remembers which one each value came from. Every value is then
//! checked against its row of the table in [`super::schema`]; what is `auto` is decided; and only
//! the checked values are deserialised.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{ConfigError, Source};
use super::machine::Machine;
use super::parse::{Parsed, address, shown};
use super::schema::{SETTINGS, Setting};
use super::units::{show_bytes, show_cpus};
use super::{MEMORY_PER_CORE_MIN, Settings};

/// What every variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "RINGBOLT_";

/// Variables that begin so and are no settings: of the command line, and those that Kubernetes
/// sets for a service named `ringbolt`.
const OTHER_VARIABLES: [&str; 4] = [
    "RINGBOLT_CONFIG",
    "RINGBOLT_ADDR",
    "RINGBOLT_TIMEOUT",
    "RINGBOLT_PORT",
];
const OTHER_PREFIXES: [&str; 3] = ["RINGBOLT_SERVICE_", "RINGBOLT_PORT_", "RINGBOLT_TEST_"];

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as messages show it: `--memory`.
    pub name: String,
    /// The setting's key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Everything that settings are made of.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The settings file.
    pub file: Option<PathBuf>,
    /// The environment; variables without our prefix are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags.
    pub flags: Vec<Flag>,
    /// The machine that `auto` follows.
    pub machine: Machine,
}

/// Settings, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    pub(super) values: BTreeMap<&'static str, (Parsed, Source)>,
}

impl Loaded {
    /// Where the value of a setting came from; `None` for a key that does not exist.
    #[must_use]
    pub fn source(&self, key: &str) -> Option<&Source> {
        self.values.get(key).map(|(_, source)| source)
    }
}

/// Reads and checks settings.
///
/// # Errors
/// The first that cannot be used, named with its source.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigError> {
    let mut figment = Figment::new();
    if let Some(path) = &inputs.file {
        figment = figment.merge(file(path)?);
    }
    for given in environment(&inputs.environment)? {
        figment = figment.merge(given);
    }
    for flag in &inputs.flags {
        figment = figment.merge(Given {
            source: Source::Flag(flag.name.clone()),
            key: flag.key.clone(),
            value: Value::from(flag.value.as_str()),
        });
    }
    let mut values = check(&figment, inputs.file.as_deref())?;
    for setting in SETTINGS {
        if !values.contains_key(setting.key) {
            let parsed = setting
                .parse(&Value::from(setting.default))
                .map_err(|reason| {
                    invalid(setting, setting.default.into(), Source::Default, reason)
                })?;
            values.insert(setting.key, (parsed, Source::Default));
        }
    }
    decide(&mut values, &inputs.machine)?;
    let settings = extract(&values)?;
    Ok(Loaded { settings, values })
}

/// One value with its source, as a provider of figment.
struct Given {
    source: Source,
    key: String,
    value: Value,
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = match figment::util::nest(&self.key, self.value.clone()) {
            Value::Dict(_, dict) => dict,
            _ => Dict::new(),
        };
        Ok(Profile::Default.collect(dict))
    }
}

fn file(path: &Path) -> Result<figment::providers::Data<Toml>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.into(),
        detail: error.to_string(),
    })?;
    // figment reports syntax by key; the parser's own message has the line.
    if let Err(error) = text.parse::<toml::Table>() {
        return Err(ConfigError::Syntax {
            path: path.into(),
            detail: error.to_string().trim_end().to_string(),
        });
    }
    Ok(Toml::string(&text))
}

fn environment(variables: &[(OsString, OsString)]) -> Result<Vec<Given>, ConfigError> {
    let mut given = Vec::new();
    for (name, value) in variables {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
        else {
            continue;
        };
        if OTHER_VARIABLES.contains(&name)
            || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        {
            continue;
        }
        let source = Source::Environment(name.to_string());
        let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) else {
            let names = SETTINGS.iter().map(Setting::variable).collect::<Vec<_>>();
            return Err(ConfigError::Unknown {
                name: name.to_string(),
                origin: source,
                suggestion: nearest(
                    name,
                    names.iter().map(|name| (name.as_str(), name.as_str())),
                ),
            });
        };
        let Some(value) = value.to_str() else {
            let shown = value.to_string_lossy().into_owned();
            return Err(invalid(setting, shown, source, "not valid UTF-8".into()));
        };
        given.push(Given {
            source,
            key: setting.key.to_string(),
            value: Value::from(value),
        });
    }
    Ok(given)
}

/// Checks every merged value against its setting.
fn check(
    figment: &Figment,
    file: Option<&Path>,
) -> Result<BTreeMap<&'static str, (Parsed, Source)>, ConfigError> {
    let mut leaves = Vec::new();
    if let Ok(mut profiles) = figment.data()
        && let Some(dict) = profiles.remove(&Profile::Default)
    {
        flatten("", dict, &mut leaves);
    }
    let mut values = BTreeMap::new();
    for (key, value) in leaves {
        let source = source_of(figment, &value, file);
        let Some(setting) = Setting::find(&key) else {
            return Err(unknown(key, source));
        };
        let parsed = setting
            .parse(&value)
            .map_err(|reason| invalid(setting, shown(&value), source.clone(), reason))?;
        values.insert(setting.key, (parsed, source));
    }
    Ok(values)
}

/// The leaves of a tree of tables, with dots between the names. A table that no setting is in is a
/// leaf too, so that it is refused by its own name.
fn flatten(prefix: &str, dict: Dict, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in dict {
        let key = match prefix {
            "" => name,
            prefix => format!("{prefix}.{name}"),
        };
        let table = format!("{key}.");
        match value {
            Value::Dict(_, inner) if SETTINGS.iter().any(|s| s.key.starts_with(&table)) => {
                flatten(&key, inner, leaves);
            }
            value => leaves.push((key, value)),
        }
    }
}

fn source_of(figment: &Figment, value: &Value, file: Option<&Path>) -> Source {
    let name = figment
        .get_metadata(value.tag())
        .map(|metadata| metadata.name.to_string())
        .unwrap_or_default();
    // The names that `Given` chose, read back; figment carries no types of ours.
    if let Some(variable) = name.strip_prefix("environment variable ") {
        Source::Environment(variable.to_string())
    } else if let Some(flag) = name.strip_prefix("flag ") {
        Source::Flag(flag.to_string())
    } else {
        Source::File(file.unwrap_or(Path::new("")).to_path_buf())
    }
}

fn unknown(key: String, origin: Source) -> ConfigError {
    let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
    let own_last = key.rsplit('.').next().unwrap_or(&key).to_string();
    let suggestion = nearest(&key, SETTINGS.iter().map(|s| (s.key, s.key)))
        .or_else(|| nearest(&own_last, SETTINGS.iter().map(|s| (last(s.key), s.key))));
    ConfigError::Unknown {
        name: key,
        origin,
        suggestion,
    }
}

/// Of pairs (what to compare with, what to answer), the answer nearest to a misspelt name.
fn nearest<'a>(name: &str, among: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    among
        .map(|(other, answer)| (strsim::normalized_damerau_levenshtein(name, other), answer))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, answer)| answer.to_string())
}

fn invalid(
    setting: &'static Setting,
    value: String,
    origin: Source,
    reason: String,
) -> ConfigError {
    ConfigError::Invalid {
        setting,
        value,
        origin,
        reason,
    }
}

/// Decides what is `auto`, and refuses settings that contradict each other.
fn decide(
    values: &mut BTreeMap<&'static str, (Parsed, Source)>,
    machine: &Machine,
) -> Result<(), ConfigError> {
    let told = |values: &BTreeMap<_, (Parsed, Source)>, key: &str| match values.get(key) {
        Some((_, source)) => format!("`{key}` ({source})"),
        None => format!("`{key}`"),
    };
    let set = |values: &mut BTreeMap<_, _>, key, parsed| {
        values.insert(key, (parsed, Source::Auto));
    };
    let listed = match values.get("cpus") {
        Some((Parsed::Cpus(cpus), _)) if !cpus.is_empty() => Some(cpus.clone()),
        _ => None,
    };
    let cores = match values.get("cores") {
        Some((Parsed::Number(cores), _)) => *cores,
        _ => {
            let cores = listed.as_ref().map_or(machine.cpus.len(), Vec::len) as u64;
            set(values, "cores", Parsed::Number(cores));
            cores
        }
    };
    if let Some(cpus) = &listed
        && cpus.len() as u64 != cores
    {
        return Err(ConfigError::Conflict(format!(
            "{} is {cores}, but {} names {} CPUs ({}): name one CPU for each core, or leave one \
             of the two settings out",
            told(values, "cores"),
            told(values, "cpus"),
            cpus.len(),
            show_cpus(cpus),
        )));
    }
    if matches!(values.get("cpus"), Some((Parsed::Auto, _))) {
        let every_cpu = cores == machine.cpus.len() as u64;
        let cpus = if every_cpu {
            machine.cpus.clone()
        } else {
            Vec::new()
        };
        set(values, "cpus", Parsed::Cpus(cpus));
    }
    decide_peers(values)?;
    if let Some((Parsed::Number(partitions), _)) = values.get("partitions")
        && *partitions < cores
    {
        return Err(ConfigError::Conflict(format!(
            "{} is {partitions}, but {} is {cores}: each core needs at least one partition",
            told(values, "partitions"),
            told(values, "cores"),
        )));
    }
    let least = MEMORY_PER_CORE_MIN * cores;
    let memory = match values.get("memory") {
        Some((Parsed::Number(memory), _)) if *memory < least => {
            return Err(ConfigError::Conflict(format!(
                "{} is {}, but {} is {cores}: give at least {} a core, {} in all, or use fewer \
                 cores",
                told(values, "memory"),
                show_bytes(*memory),
                told(values, "cores"),
                show_bytes(MEMORY_PER_CORE_MIN),
                show_bytes(least),
            )));
        }
        Some((Parsed::Number(memory), _)) => *memory,
        _ => {
            // Whole MiB, so that it can be read.
            let quarter = (machine.memory / 4).min(64 << 30) & !((1 << 20) - 1);
            let memory = quarter.max(least);
            set(values, "memory", Parsed::Number(memory));
            memory
        }
    };
    if matches!(values.get("limits.core_bytes_max"), Some((Parsed::Auto, _))) {
        let bytes = (memory / cores / 8).clamp(24 << 20, 256 << 20) & !((1 << 20) - 1);
        set(values, "limits.core_bytes_max", Parsed::Number(bytes));
    }
    fits_one_value(values)
}

/// Smallest segment of a node with peers: each has room for the largest write of any other.
const SEGMENT_BYTES_MIN: u64 = 32 << 20;

/// A node must be one of its peers, and listens where they look for it unless told otherwise.
fn decide_peers(values: &mut BTreeMap<&'static str, (Parsed, Source)>) -> Result<(), ConfigError> {
    let (Some((Parsed::Peers(peers), source)), Some((Parsed::Text(name), name_source))) =
        (values.get("peers"), values.get("name"))
    else {
        return Ok(());
    };
    if peers.is_empty() {
        return Ok(());
    }
    if let Some((Parsed::Number(segment), segment_source)) = values.get("log.segment_bytes")
        && *segment < SEGMENT_BYTES_MIN
    {
        return Err(ConfigError::Conflict(format!(
            "`log.segment_bytes` ({segment_source}) is {}, too little for a node with `peers`: what any \
             leader has taken must fit, so give it {} or more",
            show_bytes(*segment),
            show_bytes(SEGMENT_BYTES_MIN),
        )));
    }
    let Some(own) = peers.iter().find(|peer| peer.name == *name) else {
        let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        return Err(ConfigError::Conflict(format!(
            "`name` ({name_source}) is {name}, but `peers` ({source}) lists {}: name one of them \
             with --node, or add this node to the list on every node",
            names.join(", "),
        )));
    };
    if matches!(values.get("listen"), Some((_, Source::Default))) {
        let address = address(&own.address).map_err(|reason| {
            ConfigError::Conflict(format!(
                "`peers` ({source}) gives this node the address {}, which is {reason}",
                own.address
            ))
        })?;
        values.insert("listen", (Parsed::Text(address), Source::Auto));
    }
    Ok(())
}

/// A limit on bytes in flight below the largest value would make that value impossible to write.
fn fits_one_value(values: &BTreeMap<&'static str, (Parsed, Source)>) -> Result<(), ConfigError> {
    let number = |key| match values.get(key) {
        Some((Parsed::Number(number), source)) => Some((*number, source)),
        _ => None,
    };
    let Some((value, value_source)) = number("limits.value_bytes_max") else {
        return Ok(());
    };
    // A key, and the frame around both.
    let least = value + (128 << 10);
    for key in ["limits.connection_bytes_max", "limits.core_bytes_max"] {
        if let Some((bytes, source)) = number(key)
            && bytes < least
        {
            return Err(ConfigError::Conflict(format!(
                "`{key}` ({source}) is {}, but `limits.value_bytes_max` ({value_source}) is {}: \
                 such a value could never be written; raise the first to {} or more, or lower \
                 the second",
                show_bytes(bytes),
                show_bytes(value),
                show_bytes(least),
            )));
        }
    }
    Ok(())
}

fn extract(values: &BTreeMap<&'static str, (Parsed, Source)>) -> Result<Settings, ConfigError> {
    let mut figment = Figment::new();
    for (key, (parsed, source)) in values {
        figment = figment.merge(Given {
            source: source.clone(),
            key: (*key).to_string(),
            value: parsed.clone().into_value(),
        });
    }
    figment
        .extract()
        .map_err(|error| ConfigError::Conflict(error.to_string()))
}
