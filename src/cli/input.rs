//! Values and lines from standard input and files, within limits.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// The largest value read, in bytes: a server takes no larger one.
const VALUE_BYTES_MAX: u64 = ringbolt_wire::VALUE_BYTES_MAX as u64;

/// Where bytes come from: a file, or standard input.
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// A file, or standard input for none.
    #[must_use]
    pub fn new(file: Option<&Path>) -> Self {
        match file {
            Some(path) if path != Path::new("-") => Self::File(path.into()),
            _ => Self::Stdin,
        }
    }

    /// How messages name it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn open(&self) -> Result<Box<dyn Read>, Failure> {
        match self {
            Self::Stdin => {
                if io::stdin().is_terminal() {
                    eprintln!("reading standard input; end it with Ctrl-D");
                }
                Ok(Box::new(io::stdin().lock()))
            }
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(self.failed(&error)),
            },
        }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::usage(format!("cannot read {}: {error}", self.name()))
    }

    /// All of it, as one value.
    ///
    /// # Errors
    /// It cannot be read, or is larger than any value may be.
    pub fn value(&self) -> Result<Vec<u8>, Failure> {
        let mut value = Vec::new();
        let mut from = self.open()?.take(VALUE_BYTES_MAX + 1);
        from.read_to_end(&mut value)
            .map_err(|error| self.failed(&error))?;
        match value.len() as u64 > VALUE_BYTES_MAX {
            true => Err(Failure::usage(format!(
                "{} has more than 16MiB: that is the largest value",
                self.name()
            ))),
            false => Ok(value),
        }
    }

    /// Its lines, as text, in one go; at most `bytes_max` in all.
    ///
    /// # Errors
    /// It cannot be read, is no UTF-8, or is too long.
    pub fn lines(&self, bytes_max: u64) -> Result<Vec<String>, Failure> {
        let from = io::BufReader::new(self.open()?.take(bytes_max + 1));
        let mut lines = Vec::new();
        let mut bytes = 0;
        for line in from.lines() {
            let line = line.map_err(|error| self.failed(&error))?;
            bytes += line.len() as u64 + 1;
            if bytes > bytes_max {
                return Err(Failure::usage(format!(
                    "{} has more than {} bytes: split it",
                    self.name(),
                    bytes_max
                )));
            }
            lines.push(line);
        }
        Ok(lines)
    }
}
