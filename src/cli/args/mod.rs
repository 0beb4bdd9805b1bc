//! Arguments that several commands share, and how each is written.

mod client;
mod data;
mod output;
mod settings;

pub use client::ClientArgs;
pub(crate) use data::check_key;
pub use data::{ConditionArgs, KeyArgs, ReadArgs, WriteArgs, parse_ttl};
pub use output::OutputArgs;
pub use settings::SettingsArgs;
