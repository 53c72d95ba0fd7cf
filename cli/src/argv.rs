//! The command line before clap sees it.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{ArgAction, Command};

use crate::parse;

/// Rewrites `--flag=true` to `--flag` and drops `--flag=false`, for flags that take no value.
///
/// etcdctl's flag parser reads them, so people's scripts have them; clap does not.
pub(crate) fn without_go_booleans(command: &Command, argv: Vec<OsString>) -> Vec<OsString> {
    let mut switches = BTreeSet::new();
    collect(command, &mut switches);
    let mut out = Vec::with_capacity(argv.len());
    let mut argv = argv.into_iter();
    for arg in argv.by_ref() {
        if arg == "--" {
            out.push(arg);
            break;
        }
        match arg.to_str().and_then(|text| switch(text, &switches)) {
            Some((name, true)) => out.push(name.into()),
            Some((_, false)) => {}
            None => out.push(arg),
        }
    }
    out.extend(argv);
    out
}

fn collect(command: &Command, switches: &mut BTreeSet<String>) {
    for arg in command
        .get_arguments()
        .filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue))
    {
        switches.extend(arg.get_long().map(|long| format!("--{long}")));
        switches.extend(arg.get_short().map(|short| format!("-{short}")));
    }
    for inner in command.get_subcommands() {
        collect(inner, switches);
    }
}

fn switch<'a>(arg: &'a str, switches: &BTreeSet<String>) -> Option<(&'a str, bool)> {
    let (name, value) = arg.split_once('=')?;
    let value = parse::go_boolean(value).ok()?;
    switches.contains(name).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn rewritten(line: &str) -> String {
        let argv = line.split(' ').map(OsString::from).collect();
        let argv = without_go_booleans(&args::command(), argv);
        argv.into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn booleans_with_a_value_become_flags_or_vanish() {
        assert_eq!(
            rewritten("g get --prefix=true --keys-only=false a"),
            "g get --prefix a"
        );
        assert_eq!(rewritten("g --hex=1 txn -i=true"), "g --hex txn -i");
    }

    #[test]
    fn everything_else_stays() {
        for line in [
            "g get --limit=1 a",
            "g put a --x=true",
            "g put -- --prefix=true",
            "g get --prefix=maybe",
            "g --insecure-transport=false get a",
        ] {
            assert_eq!(rewritten(line), line);
        }
    }
}
