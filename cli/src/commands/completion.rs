//! `completion`.

use clap_complete::{Shell as Generator, generate};

use crate::args;
use crate::failure::Failure;
use crate::output::Out;

/// Print a script that completes commands in a shell
///
/// bash: `source <(gonfalon completion bash)`. zsh: put the output into a file `_gonfalon` in a
/// directory of `fpath`. fish: `gonfalon completion fish | source`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Completion {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(self, out: &mut Out) -> Result<(), Failure> {
        let shell = match self.shell {
            Shell::Bash => Generator::Bash,
            Shell::Zsh => Generator::Zsh,
            Shell::Fish => Generator::Fish,
        };
        let mut script = Vec::new();
        generate(shell, &mut args::completed(), "gonfalon", &mut script);
        out.write(&script)
    }
}
