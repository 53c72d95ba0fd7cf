//! The two servers that are compared: which program, called how.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// The one to compare with.
    Etcd,
    /// Ours.
    Gonfalon,
}

impl Subject {
    /// In the order in which they are measured.
    pub(crate) const BOTH: [Self; 2] = [Self::Etcd, Self::Gonfalon];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Gonfalon => "gonfalon",
        }
    }
}

/// A program that serves etcd's API and takes etcd's flags.
#[derive(Debug, Clone)]
pub(crate) struct Software {
    /// In whose column its numbers go.
    pub(crate) subject: Subject,
    /// What it says of itself.
    pub(crate) version: String,
    program: PathBuf,
    is_called_etcd: bool,
}

impl Software {
    /// Asks the program at `program` for its version.
    ///
    /// A program by the name of etcd is called as etcd is, whatever its column: so etcd can be
    /// measured against itself, or against an older one.
    ///
    /// # Errors
    ///
    /// It cannot be run.
    pub(crate) fn find(subject: Subject, program: &Path) -> Result<Self> {
        let is_called_etcd = program.file_name().is_some_and(|name| name == "etcd");
        let argument = if is_called_etcd {
            "--version"
        } else {
            "version"
        };
        let output = Command::new(program)
            .arg(argument)
            .output()
            .with_context(|| format!("cannot run {} ({})", program.display(), subject.name()))?;
        ensure!(
            output.status.success(),
            "`{} {argument}` failed: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().trim().to_owned();
        Ok(Self {
            subject,
            version,
            program: program.to_owned(),
            is_called_etcd,
        })
    }

    /// The command that serves, without its flags.
    pub(crate) fn serve(&self) -> Command {
        let mut command = Command::new(&self.program);
        if !self.is_called_etcd {
            command.arg("serve");
        }
        command
    }
}
