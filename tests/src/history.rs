//! What clients asked, when, and what they were told: the evidence that [`crate::check`] judges.
//!
//! A history is kept in memory and can be written as JSON lines, one operation or watch a line, so
//! that a failure can be looked at (and judged again by a better checker) later.
//!
//! Times are nanoseconds since one moment of the recording process: all its clients share a clock.

use std::fmt;
use std::io::{BufRead, Write};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Everything that was recorded of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
pub struct History {
    /// The calls of all clients, in any order.
    pub operations: Vec<Operation>,
    /// The watches of all clients, in any order; one that reconnects is one watch a connection.
    pub watches: Vec<Watch>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
pub struct Operation {
    /// Who called. After an unknown outcome a client goes on under a new number, because the old
    /// call may still take effect at any time.
    pub client: u32,
    /// The member that was asked.
    pub member: usize,
    /// Just before the request was sent.
    pub called: u64,
    /// Just after the answer was read; none: no answer that says what happened.
    pub returned: Option<u64>,
    /// What was asked.
    pub request: Request,
    /// What came back.
    pub outcome: Outcome,
}

/// What a client asks. Keys and values are text, for people who read histories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "checkers handle every request")]
pub enum Request {
    /// Write; the answer has the version before.
    Put {
        /// The key.
        key: String,
        /// Unique in the history, so that it names its write.
        value: String,
    },
    /// Delete one key; the answer has the version before.
    Delete {
        /// The key.
        key: String,
    },
    /// Read all of `keys` at one moment.
    Read {
        /// In the order of the answers.
        keys: Vec<String>,
        /// From the member's own state, which may be old.
        serializable: bool,
        /// A past revision; none is the present.
        at: Option<i64>,
    },
    /// If every key of `expect` has the given `mod_revision` (0: absent), write, else read them.
    Swap {
        /// Keys and their expected revisions.
        expect: Vec<(String, i64)>,
        /// Written in one revision.
        puts: Vec<(String, String)>,
    },
}

impl Request {
    /// Whether it never changes anything.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "checkers handle every outcome")]
pub enum Outcome {
    /// An answer.
    Done(Answer),
    /// An error that promises that nothing happened.
    Refused(String),
    /// A timeout or a lost connection: it may have happened, or may yet.
    Unknown(String),
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
pub struct Answer {
    /// The header's revision.
    pub revision: i64,
    /// For [`Request::Swap`]: whether the expectation held.
    pub succeeded: bool,
    /// Versions read, or the version before a write; one entry a key, none where there is none.
    pub versions: Vec<Option<Version>>,
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
pub struct Version {
    /// The value.
    pub value: String,
    /// Revision of the put that created the key.
    pub create: i64,
    /// Revision of this version.
    pub modified: i64,
    /// 1, 2, 3, … since the key was created.
    pub version: i64,
}

/// One watch on one connection: what was asked and all that came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
#[expect(clippy::struct_excessive_bools, reason = "the options of the request")]
pub struct Watch {
    /// The member that was asked.
    pub member: usize,
    /// The watcher of the test that this connection belongs to: a later connection of the same
    /// watcher resumes where the one before ended.
    pub watcher: u32,
    /// Every key that begins with this.
    pub prefix: String,
    /// The revision to start from; 0 is the present.
    pub start: i64,
    /// Whether previous versions were asked for.
    pub prev_kv: bool,
    /// Whether `NOPUT` was asked for.
    pub no_put: bool,
    /// Whether `NODELETE` was asked for.
    pub no_delete: bool,
    /// Whether big answers may come in pieces.
    pub fragment: bool,
    /// What came, in order.
    pub received: Vec<Received>,
}

/// One response of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
pub struct Received {
    /// When it was read.
    pub at: u64,
    /// The header's revision.
    pub revision: i64,
    /// The answer to the request, before all events.
    pub created: bool,
    /// The end of the watch.
    pub canceled: bool,
    /// With `canceled`: the revision up to which history is gone; else 0.
    pub compact_revision: i64,
    /// More pieces of the same answer follow.
    pub fragment: bool,
    /// The changes; none in a progress report.
    pub events: Vec<Change>,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "checkers and tests build it")]
pub struct Change {
    /// The key.
    pub key: String,
    /// The revision of the change.
    pub revision: i64,
    /// The new version; none if the key was deleted.
    pub put: Option<Version>,
    /// The version before, where it was asked for and existed.
    pub prev: Option<Version>,
}

impl History {
    /// Writes one line an operation, then one line a watch.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        for operation in &self.operations {
            serde_json::to_writer(&mut *out, &Line::Operation(operation.clone()))?;
            out.write_all(b"\n")?;
        }
        for watch in &self.watches {
            serde_json::to_writer(&mut *out, &Line::Watch(watch.clone()))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`History::write`] wrote.
    ///
    /// # Errors
    /// Those of `input`, and lines that are neither operation nor watch.
    pub fn read(input: impl BufRead) -> Result<Self> {
        let mut history = Self::default();
        for line in input.lines() {
            match serde_json::from_str(&line?)? {
                Line::Operation(operation) => history.operations.push(operation),
                Line::Watch(watch) => history.watches.push(watch),
            }
        }
        Ok(history)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Operation(Operation),
    Watch(Watch),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000);
        let end = self.returned.map_or_else(|| "?".to_owned(), ms);
        write!(
            f,
            "client {} at member {} [{}..{end} s] {:?} -> {:?}",
            self.client,
            self.member,
            ms(self.called),
            self.request,
            self.outcome
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_reads_back_as_it_was_written() {
        let version = Version {
            value: "1.1".into(),
            create: 2,
            modified: 3,
            version: 2,
        };
        let history = History {
            operations: vec![Operation {
                client: 1,
                member: 2,
                called: 5,
                returned: None,
                request: Request::Put {
                    key: "a".into(),
                    value: "1.1".into(),
                },
                outcome: Outcome::Unknown("timeout".into()),
            }],
            watches: vec![Watch {
                member: 0,
                watcher: 1,
                prefix: "a".into(),
                start: 1,
                prev_kv: true,
                no_put: false,
                no_delete: false,
                fragment: false,
                received: vec![Received {
                    at: 9,
                    revision: 3,
                    created: false,
                    canceled: false,
                    compact_revision: 0,
                    fragment: false,
                    events: vec![Change {
                        key: "a".into(),
                        revision: 3,
                        put: Some(version),
                        prev: None,
                    }],
                }],
            }],
        };
        let mut lines = Vec::new();
        history.write(&mut lines).unwrap();
        assert_eq!(History::read(lines.as_slice()).unwrap(), history);
    }
}
