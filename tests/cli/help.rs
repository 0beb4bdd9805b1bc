//! The help of every command, word for word. `REWRITE=1 cargo test --test ringbolt cli::help`
//! writes the files anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::run;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden")
}

/// The help of a command and of those below it, by file name, as the binary prints it into a pipe.
fn collect(command: &clap::Command, path: &[&str], pages: &mut Vec<(String, String)>) {
    let ended = run(&[path, &["--help"]].concat());
    assert_eq!(ended.code, 0, "{path:?}: {}", ended.stderr);
    let name = [&["ringbolt"], path].concat().join("-");
    pages.push((format!("{name}.txt"), ended.stdout));
    for below in command.get_subcommands() {
        collect(below, &[path, &[below.get_name()]].concat(), pages);
    }
}

fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    collect(&ringbolt::cli::command(), &[], &mut pages);
    pages
}

#[test]
fn help_is_as_written_down() {
    let rewrite = std::env::var_os("REWRITE").is_some();
    let mut names = BTreeSet::new();
    for (name, page) in pages() {
        let path = folder().join(&name);
        names.insert(name.clone());
        if rewrite {
            fs::write(&path, &page).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == page,
            "{name} has changed; REWRITE=1 takes it over:\n{page}"
        );
    }
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "{name} is no command's help");
    }
}

#[test]
fn every_command_teaches_by_example() {
    for (name, page) in pages() {
        let is_leaf = !page.contains("\nCommands:\n");
        assert!(
            !is_leaf || page.contains("\nExamples:\n"),
            "{name} has no examples"
        );
    }
}

#[test]
fn no_line_is_too_long_for_a_terminal() {
    for (name, page) in pages() {
        for line in page.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
    }
}

/// Every example must be understood by the parser, so that none goes stale.
#[test]
fn examples_are_valid_commands() {
    let mut checked = 0;
    for (name, page) in pages() {
        let Some((_, examples)) = page.split_once("\nExamples:\n") else {
            continue;
        };
        for line in examples
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
        {
            for words in commands(line) {
                let mut command = ringbolt::cli::command();
                let parsed = command.try_get_matches_from_mut(&words);
                if let Err(error) = parsed {
                    panic!("{name}: {line}\n{words:?}\n{error}");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "only {checked} examples were found");
}

/// The words of each `ringbolt` command in a line of shell.
fn commands(line: &str) -> Vec<Vec<String>> {
    // What the shell would put in, and what only the shell reads.
    let line = line
        .replace("\"$token\"", "0:1:7")
        .replace("\"$version\"", "7")
        .replace("$(pidof redis-server)", "1")
        .replace("$(", " ; ")
        .replace([')', '&'], " ; ")
        .replace("<<'END'", " ; ");
    let mut found = Vec::new();
    let mut words: Option<Vec<String>> = None;
    for word in split(&line) {
        match &mut words {
            _ if word == "ringbolt" => words = Some(vec![word]),
            Some(_) if ["|", ">", ";"].contains(&word.as_str()) => found.extend(words.take()),
            Some(words) => words.push(word),
            None => {}
        }
    }
    found.extend(words);
    found
}

/// Words of a line of shell; quotes hold a word together.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') => words.push(String::new()),
            (_, c) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn help_and_version_are_data_and_succeed() {
    for args in [&["--help"][..], &["put", "--help"], &["-h"], &["--version"]] {
        let ended = run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
        assert!(!ended.stdout.is_empty());
        assert!(!ended.stdout.contains('\u{1b}'), "no colours in a pipe");
    }
}
