//! What can be wrong with settings. Each says which key, where it came from and what is valid.

use std::fmt;
use std::path::PathBuf;

use super::schema::Setting;

/// Where a setting's value came from. Later ones win: defaults, file, environment, flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// Built in, and it follows the machine or other settings.
    Auto,
    /// The settings file.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, by name: `--memory`.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Auto => f.write_str("default for this machine"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Settings that cannot be used. The remedy is always to correct what is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("cannot read the settings file {}: {detail}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// The settings file is no TOML.
    #[error("the settings file {} is not valid TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
    /// There is no such setting.
    #[error("unknown setting `{name}` ({origin}){}", suggest(suggestion.as_deref()))]
    Unknown {
        /// The key, or the variable's name.
        name: String,
        /// Where it was found.
        origin: Source,
        /// The nearest there is.
        suggestion: Option<String>,
    },
    /// A value that the setting does not accept.
    #[error("`{}` = {value} ({origin}): {reason}. It takes {}.", setting.key, setting.accepts())]
    Invalid {
        /// The setting, which knows what is valid.
        setting: &'static Setting,
        /// Its value as written.
        value: String,
        /// Where it was found.
        origin: Source,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings that contradict each other.
    #[error("{0}")]
    Conflict(String),
}

fn suggest(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; `ringbolt config print` lists the settings".to_string(),
    }
}
