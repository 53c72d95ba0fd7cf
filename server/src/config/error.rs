//! Why a configuration was refused, in one line.

use std::fmt;
use std::path::PathBuf;

use super::table;

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No option has this flag. The words are those of Go's flag package, which tools look for.
    #[error("flag provided but not defined: -{flag}{}", hint(*.nearest, "--"))]
    UnknownFlag {
        /// The flag, without dashes.
        flag: String,
        /// The known flag that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The command line ended where a value was due.
    #[error("flag needs an argument: -{flag}")]
    MissingValue {
        /// The flag, without dashes.
        flag: String,
    },
    /// A word on the command line that belongs to no flag.
    #[error("{word:?} is neither a flag nor the value of one (booleans are set with --flag=false)")]
    Positional {
        /// The word.
        word: String,
    },
    /// A value that cannot be read or is out of bounds.
    #[error("{origin}: {text:?}: {why}")]
    BadValue {
        /// Where the value was given.
        origin: Origin,
        /// The value as written.
        text: String,
        /// What a good value looks like.
        why: String,
    },
    /// A value that asks for something this server does not do.
    #[error("{origin}: {why}")]
    Unsupported {
        /// Where it was asked for.
        origin: Origin,
        /// What is not done, and what to do instead.
        why: String,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// A config file that cannot be read or understood.
    #[error("config file {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key of the config file that means nothing.
    #[error("config file {}: unknown key {key:?}{}", path.display(), hint(*.nearest, ""))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag, as it was spelled, without dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A key of the config file.
    Key(String),
    /// Nowhere: the default of this flag.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => f.write_str(name),
            Self::Key(key) => write!(f, "key {key:?} of the config file"),
            Self::Default(flag) => write!(f, "default of --{flag}"),
        }
    }
}

impl ConfigError {
    /// The code that a process which refuses to start exits with: 2 for a command line that cannot
    /// be read, as Go programs have it, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownFlag { .. }
            | Self::MissingValue { .. }
            | Self::Positional { .. }
            | Self::BadValue {
                origin: Origin::Flag(_),
                ..
            } => 2,
            Self::BadValue { .. }
            | Self::Unsupported { .. }
            | Self::Conflict(_)
            | Self::File { .. }
            | Self::UnknownKey { .. } => 1,
        }
    }

    pub(super) fn unknown_flag(flag: &str) -> Self {
        Self::UnknownFlag {
            flag: flag.to_owned(),
            nearest: table::nearest(flag),
        }
    }
}

fn hint(nearest: Option<&'static str>, dashes: &str) -> String {
    nearest
        .map(|name| format!(" (did you mean {dashes}{name}?)"))
        .unwrap_or_default()
}
