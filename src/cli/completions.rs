//! `ringbolt completions`: scripts for shells.

use clap_complete::Shell;

use super::failure::{Answer, Outcome};
use super::output::Out;

const EXAMPLES: &str = "\
Examples:
  bash, for this user:
    ringbolt completions bash > ~/.local/share/bash-completion/completions/ringbolt

  zsh, into a folder of $fpath:
    ringbolt completions zsh > ~/.zfunc/_ringbolt

  fish:
    ringbolt completions fish > ~/.config/fish/completions/ringbolt.fish";

/// Prints a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let mut command = super::command();
        // Made in memory: the generator panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "ringbolt", &mut script);
        std::io::Write::write_all(out, &script)?;
        Ok(Answer::Yes)
    }
}
