//! Settings as TOML with comments: a file to start from, or what is in force.

use std::fmt::Write as _;

use figment::value::Value;

use super::load::Loaded;
use super::parse::Parsed;
use super::schema::{SETTINGS, Setting};

/// Columns that comments are wrapped to.
const COLUMNS: usize = 80;

/// A settings file to start from: every setting at its default, commented out.
#[must_use]
pub fn template() -> String {
    let mut text = String::from(
        "# Ringbolt settings. A line without the leading # takes effect:\n\
         #   ringbolt server --config FILE\n\
         # The environment variable named with each setting overrides the file, and flags\n\
         # override both.\n",
    );
    write_settings(&mut text, |text, setting, name| {
        let default = match setting.parse(&Value::from(setting.default)) {
            Ok(parsed) => parsed,
            Err(_) => Parsed::Text(setting.default.to_string()),
        };
        let _ = writeln!(text, "#{name} = {}", default.toml(setting.kind));
    });
    text
}

/// The settings in force, each with where it came from; it can be loaded as a file.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut text = String::from("# Ringbolt settings in force, and where each came from.\n");
    write_settings(&mut text, |text, setting, name| {
        if let Some((parsed, source)) = loaded.values.get(setting.key) {
            let _ = writeln!(text, "# From: {source}.");
            let _ = writeln!(text, "{name} = {}", parsed.toml(setting.kind));
        }
    });
    text
}

/// Writes each setting's comment and, by `line`, its line, under the headings of its tables.
fn write_settings(text: &mut String, mut line: impl FnMut(&mut String, &Setting, &str)) {
    let mut table = "";
    for setting in SETTINGS {
        let (own_table, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        // Writing to a String cannot fail.
        let _ = writeln!(text);
        if own_table != table {
            table = own_table;
            let _ = writeln!(text, "[{table}]\n");
        }
        comment(text, setting.doc);
        comment(
            text,
            &format!("Takes {}. {}.", setting.accepts(), setting.variable()),
        );
        line(text, setting, name);
    }
}

/// Writes words as comment lines.
fn comment(text: &mut String, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column != 0 && column + 1 + word.len() <= COLUMNS {
            let _ = write!(text, " {word}");
            column += 1 + word.len();
        } else {
            let start = if column == 0 { "" } else { "\n" };
            let _ = write!(text, "{start}# {word}");
            column = 2 + word.len();
        }
    }
    text.push('\n');
}
