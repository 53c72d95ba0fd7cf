//! Transcripts of what the state is told and what it answers: `tests/cases/*.txt`.
//!
//! Each file begins with an empty state. A case is some lines of commands, `----`, the answer, and
//! an empty line; lines with `#` are for the reader. With `UPDATE=1` the answers are written anew.
//! The same cases are run a second time by a state that keeps no history in memory.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/recorded.rs"]
mod recorded;
#[path = "support/script.rs"]
mod script;

use std::path::{Path, PathBuf};

use script::Script;

const SEPARATOR: &str = "----";

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "there are transcripts in {}",
        folder.display()
    );
    files
}

/// The text of a file with the answers that a new state gives.
fn replay(text: &str, is_forgetful: bool) -> String {
    let mut script = Script::new();
    let mut out = Vec::new();
    for case in text.trim_end().split("\n\n") {
        let is_note = |line: &&str| line.starts_with('#');
        let lines: Vec<&str> = case.lines().collect();
        let asked = lines.split(|line| *line == SEPARATOR).next().unwrap();
        let commands: Vec<&str> = asked
            .iter()
            .filter(|line| !is_note(line))
            .copied()
            .collect();
        let mut shown = asked.join("\n");
        if !commands.is_empty() {
            let answer = script.run(&commands.join("\n"));
            shown.push_str(format!("\n{SEPARATOR}\n{answer}").trim_end());
        }
        if is_forgetful {
            script.write();
            script.written.sweep();
            script.state.evict(0);
        }
        out.push(shown);
    }
    out.join("\n\n") + "\n"
}

#[test]
fn every_transcript_is_answered_as_it_says() {
    let is_update = std::env::var_os("UPDATE").is_some();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let answered = replay(&text, false);
        if is_update {
            std::fs::write(&file, &answered).unwrap();
        }
        let want = if is_update { &answered } else { &text };
        assert_eq!(&answered, want, "{file:?} differs; UPDATE=1 writes it anew");
        assert_eq!(
            &replay(&text, true),
            want,
            "{file:?}, answered from history"
        );
    }
}
