//! The house rules that a machine can check: who may use whom, the shape of files, what is absent.
//!
//! A rule that turns out to be noise is deleted here, in a commit that says why.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use gonfalon_tests::binaries::workspace;

/// Which of our crates a crate may use; ARCHITECTURE.md says why.
///
/// The tests and the bench may use everything; nothing may use them, nor the command line.
const MAY_USE: &[(&str, &[&str])] = &[
    ("gonfalon-proto", &[]),
    // A client must not compile RocksDB, nor share a mistake with what it talks to. Only its server
    // in memory, which is off unless asked for, is made of what the real one is made of.
    (
        "gonfalon",
        &["gonfalon-proto", "gonfalon-core", "gonfalon-wire"],
    ),
    ("gonfalon-core", &[]),
    // A function of its arguments: it sees no server, no client and no network.
    ("gonfalon-flags", &[]),
    ("gonfalon-wire", &["gonfalon-proto", "gonfalon-core"]),
    (
        "gonfalon-server",
        &["gonfalon-proto", "gonfalon-core", "gonfalon-wire"],
    ),
    ("gonfalon-cli", &["gonfalon-proto", "gonfalon-server"]),
    ("gonfalon-examples", &["gonfalon"]),
    ("gonfalon-tests", EVERYTHING),
    ("gonfalon-bench", EVERYTHING),
];
const EVERYTHING: &[&str] = &[
    "gonfalon",
    "gonfalon-proto",
    "gonfalon-core",
    "gonfalon-flags",
    "gonfalon-server",
    "gonfalon-wire",
];

/// What the replicated state must not see: it gives the same bytes on every member.
const NOT_IN_CORE: &[&str] = &["tokio", "tonic", "prost", "openraft", "rocksdb", "rand"];

/// Lines of a file that are not tests.
const LINES_MAX: usize = 600;
/// Files that may be longer, each with its reason. The list may only shrink.
const MAY_BE_LONGER: &[(&str, &str)] = &[];

/// Names that say nothing about what is inside.
const BANNED_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "helper", "manager", "misc",
];

/// A text file of the repository.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        std::path::Path::new(&self.path)
            .extension()
            .is_some_and(|end| end == "rs")
    }

    /// Everything before the tests beside the code.
    fn code(&self) -> &str {
        self.text
            .split("\n#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default()
    }

    fn is_only_tests(&self) -> bool {
        self.path.ends_with("/tests.rs")
    }
}

/// All that is under version control, or new and not ignored, as text.
fn files() -> Vec<File> {
    let output = Command::new("git")
        .current_dir(workspace())
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .output()
        .expect("git is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let files: Vec<File> = names
        .split_terminator('\0')
        // A file that is deleted but not yet committed is in the list and not on disk.
        .filter_map(|path| {
            let text = std::fs::read_to_string(workspace().join(path)).ok()?;
            Some(File {
                path: path.to_owned(),
                text,
            })
        })
        .collect();
    assert!(files.len() > 20, "git lists only {} files", files.len());
    files
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{rule}:\n  {}",
        offenders.join("\n  ")
    );
}

/// Normal, build and test dependencies of each crate of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo's JSON");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().expect("dependencies");
            (name(package), used.iter().map(name).collect())
        })
        .collect()
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut offenders = Vec::new();
    for (package, used) in dependencies() {
        let Some(may_use) = allowed.get(package.as_str()) else {
            offenders.push(format!("{package} is not in the table"));
            continue;
        };
        // A crate's tests may have its own features.
        let others = used.iter().filter(|name| **name != package);
        for ours in others.filter(|name| name.starts_with("gonfalon")) {
            if !may_use.contains(&ours.as_str()) {
                offenders.push(format!("{package} -> {ours}"));
            }
        }
    }
    assert_none("edges that MAY_USE does not have", &offenders);
}

#[test]
fn a_client_has_nothing_of_the_servers_unless_its_testkit_is_asked_for() {
    let client = std::fs::read_to_string(workspace().join("client/Cargo.toml"));
    let client = client.expect("the client's manifest");
    let offenders: Vec<String> = client
        .lines()
        .filter(|line| line.starts_with("gonfalon-core") || line.starts_with("gonfalon-wire"))
        .filter(|line| !line.contains("optional = true"))
        .map(str::to_owned)
        .collect();
    assert_none("what client/Cargo.toml must have as optional", &offenders);
}

#[test]
fn the_core_knows_no_network_disk_clock_or_chance() {
    let all = dependencies();
    let core = all
        .get("gonfalon-core")
        .expect("the core is in the workspace");
    let offenders: Vec<String> = NOT_IN_CORE
        .iter()
        .filter(|name| core.contains(**name))
        .map(ToString::to_string)
        .collect();
    assert_none("gonfalon-core depends on", &offenders);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let longer: BTreeMap<&str, &str> = MAY_BE_LONGER.iter().copied().collect();
    let mut offenders = Vec::new();
    for file in files()
        .iter()
        .filter(|file| file.is_rust() && !file.is_only_tests())
    {
        let lines = file.code().lines().count();
        match longer.get(file.path.as_str()) {
            None if lines > LINES_MAX => offenders.push(format!("{}: {lines}", file.path)),
            Some(_) if lines <= LINES_MAX => {
                offenders.push(format!("{} needs no exception any more", file.path));
            }
            _ => {}
        }
    }
    assert_none(
        &format!("files with more than {LINES_MAX} lines before their tests"),
        &offenders,
    );
}

#[test]
fn every_file_begins_by_saying_what_lives_in_it() {
    let offenders: Vec<String> = files()
        .iter()
        .filter(|file| file.is_rust() && !file.text.starts_with("//! "))
        .map(|file| file.path.clone())
        .collect();
    assert_none("Rust files without a //! header", &offenders);
}

#[test]
fn what_is_left_to_do_has_an_issue() {
    // Spelled so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut offenders = Vec::new();
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            let word = words.iter().find(|word| line.contains(**word));
            if word.is_some_and(|word| !line.contains(&format!("{word}(#"))) {
                offenders.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    assert_none(
        "write it as an issue, or name the issue in parentheses",
        &offenders,
    );
}

#[test]
fn names_say_what_is_inside() {
    let mut offenders = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let parts = file.path.trim_end_matches(".rs").split('/');
        for part in parts {
            if part == "mod" || BANNED_NAMES.contains(&part) {
                offenders.push(file.path.clone());
            }
        }
        for name in BANNED_NAMES {
            if file.text.contains(&format!("mod {name} {{")) {
                offenders.push(format!("{}: mod {name}", file.path));
            }
        }
    }
    assert_none(&format!("mod.rs, or one of {BANNED_NAMES:?}"), &offenders);
}

#[test]
fn nothing_depends_on_one_persons_machine() {
    // Spelled so that this file does not find itself.
    let places = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/t", "mp/"),
    ];
    let mut offenders = Vec::new();
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place)) {
                offenders.push(format!("{}:{}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    assert_none("absolute paths of somebody's machine", &offenders);
}

#[test]
fn no_test_is_ignored() {
    let offenders: Vec<String> = files()
        .iter()
        .filter(|file| file.is_rust() && file.text.contains(concat!("#[ign", "ore")))
        .map(|file| file.path.clone())
        .collect();
    assert_none(
        "a test that does not run proves nothing; fix or delete it",
        &offenders,
    );
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`; braces do not nest.
fn expand(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else {
        return vec![word.to_owned()];
    };
    let Some((choices, after)) = rest.split_once('}') else {
        return vec![word.to_owned()];
    };
    choices
        .split(',')
        .map(|choice| format!("{before}{choice}{after}"))
        .collect()
}

#[test]
fn braces_in_the_map_stand_for_each_of_their_names() {
    assert_eq!(expand("api/{kv,watch}.rs"), ["api/kv.rs", "api/watch.rs"]);
    assert_eq!(expand("api/kv.rs"), ["api/kv.rs"]);
}

/// The paths that ARCHITECTURE.md shows; one that ends in `*.rs` stands for all files below.
fn shown(files: &[File]) -> BTreeSet<String> {
    let map = files.iter().find(|file| file.path == "ARCHITECTURE.md");
    let map = &map.expect("ARCHITECTURE.md is the map").text;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./{},*".contains(c);
    map.split(|c: char| !is_part(c))
        .filter(|word| word.contains("src/") && word.contains(".rs"))
        .flat_map(|word| expand(word.trim_end_matches([',', '.'])))
        .collect()
}

/// Whether a path of the map stands for this file.
fn covers(shown: &str, path: &str) -> bool {
    shown
        .strip_suffix("*.rs")
        .map_or(shown == path, |below| path.starts_with(below))
}

#[test]
fn the_map_shows_every_module() {
    let files = files();
    let shown = shown(&files);
    let missing: Vec<String> = files
        .iter()
        .filter(|file| file.is_rust() && file.path.contains("src/") && !file.is_only_tests())
        .filter(|file| !shown.iter().any(|shown| covers(shown, &file.path)))
        .map(|file| file.path.clone())
        .collect();
    assert_none(
        "ARCHITECTURE.md has no line for these (write paths from the root, as in \
         server/src/api/{kv,watch}.rs or server/src/api/*.rs)",
        &missing,
    );
}

#[test]
fn the_map_shows_no_module_that_is_gone() {
    let files = files();
    let gone: Vec<String> = shown(&files)
        .into_iter()
        .filter(|shown| !files.iter().any(|file| covers(shown, &file.path)))
        .collect();
    assert_none("ARCHITECTURE.md shows files that do not exist", &gone);
}

/// What a line of documentation says; none if it is none.
fn documentation(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("///")
}

#[test]
fn every_public_async_function_says_what_happens_when_its_future_is_dropped() {
    let mut offenders = Vec::new();
    for file in files()
        .iter()
        .filter(|file| file.is_rust() && file.path.starts_with("client/src/"))
    {
        let mut documented = false;
        let mut awaited = false;
        for (at, line) in file.code().lines().enumerate() {
            if let Some(text) = documentation(line) {
                documented |= text.trim() == "# Cancel safety";
                continue;
            }
            let line = line.trim_start();
            if line.starts_with("#[") {
                continue;
            }
            awaited |= line.starts_with("pub async fn ");
            if awaited && !documented {
                offenders.push(format!("{}:{}", file.path, at + 1));
            }
            (documented, awaited) = (false, false);
        }
    }
    assert_none("public async functions without # Cancel safety", &offenders);
}

/// The string after each of `starts` in `text`.
fn quoted<'a>(text: &'a str, starts: &[&str]) -> BTreeSet<&'a str> {
    let found = starts.iter().flat_map(|start| {
        text.split(start)
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(name, _)| name)
    });
    found.collect()
}

#[test]
fn every_call_of_the_client_has_its_name_on_the_wire() {
    let files = files();
    let mut calls = BTreeSet::new();
    for file in files.iter().filter(|file| {
        file.is_rust() && file.path.starts_with("client/src/") && file.path != "client/src/call.rs"
    }) {
        calls.extend(quoted(
            file.code(),
            &["Call::reads(\"", "Call::writes(\"", "Call::new(\""],
        ));
    }
    assert!(calls.len() > 10, "only {calls:?}");
    let table = files.iter().find(|file| file.path == "client/src/call.rs");
    let rows = ["    (\"", "    (\n        \""];
    let named = quoted(&table.expect("it is there").text, &rows);
    let missing: Vec<String> = calls.difference(&named).map(ToString::to_string).collect();
    assert_none("client/src/call.rs has no gRPC name for", &missing);
}
