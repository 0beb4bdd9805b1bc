//! The command line: the real binary, alone or against a server that gives prepared answers.

mod fake;
mod folder;
mod help;
mod plan;
mod remote;
mod settings;
mod usage;

use std::io::Write as _;
use std::process::{Command, Stdio};

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The binary, with no settings from this process's environment.
pub fn ringbolt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringbolt"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGBOLT_") {
            command.env_remove(name);
        }
    }
    // The width of help is that of a pipe, whatever the terminal of the tests.
    command.env_remove("COLUMNS").args(args);
    command
}

/// Runs it to its end, with `input` on standard input.
pub fn end(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input closes it early.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().expect("it ended by itself"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs it without input.
pub fn run(args: &[&str]) -> Ended {
    end(ringbolt(args), b"")
}
