//! The options for people: the help of `gonfalon serve`, and `docs/config.md`.

use std::fmt::Write as _;

use super::table::{self, Group, Kind, Standing};
use super::value::format_duration;

/// Columns of the help's text.
const HELP_WIDTH: usize = 96;

/// The help: every option that does something, by group, and a word about the rest.
pub fn help() -> String {
    let mut out = String::new();
    for group in Group::ALL
        .into_iter()
        .filter(|group| *group != Group::Foreign)
    {
        let (title, about) = group.title();
        put(&mut out, format_args!("{title}\n"));
        wrap(&mut out, about, 2);
        for opt in table::all().filter(|opt| opt.group == group) {
            let default = match opt.default {
                "" => String::new(),
                default => format!(" = {default}"),
            };
            put(
                &mut out,
                format_args!("\n  --{} {}{default}\n", opt.flag, shape(opt.kind)),
            );
            wrap(&mut out, opt.help, 8);
        }
        out.push('\n');
    }
    wrap(
        &mut out,
        "Each option is also an environment variable (--data-dir: GONFALON_DATA_DIR; ETCD_DATA_DIR \
         is understood) and a key of the config file. A flag goes before a variable; a config file \
         goes before both. Options of etcd that are not listed here are accepted where ignoring \
         them is harmless, and refused otherwise: docs/config.md has the list.",
        0,
    );
    out
}

/// `docs/config.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Generated from `server/src/config/table.rs`; a test compares. To write it again:\n\
         `UPDATE=1 cargo test -p gonfalon-server config`.\n\n\
         Each option is a flag (`--name x`, `--name=x`, `-name x`), an environment variable (upper\n\
         case, `GONFALON_` in front; with `ETCD_` in front it is understood too), and a key of the\n\
         YAML or JSON file that `--config-file` names. A flag goes before a variable. With a config\n\
         file, flags and other variables are not read at all. A key that means nothing ends the start; a\n\
         program called `etcd` warns of it and goes on.\n\n\
         Durations have units (`300ms`, `10s`, `1h30m`). In a config file a duration without a unit\n\
         counts nanoseconds, as with etcd; `heartbeat-interval` and `election-timeout` are\n\
         milliseconds everywhere.\n",
    );
    for group in Group::ALL {
        let (title, about) = group.title();
        put(&mut out, format_args!("\n## {title}\n\n{about}\n\n"));
        if group == Group::Foreign {
            foreign(&mut out);
            continue;
        }
        out.push_str("| option | value | default | what it does |\n|---|---|---|---|\n");
        for opt in table::all().filter(|opt| opt.group == group) {
            let default = if opt.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", opt.default)
            };
            let also = match opt.also {
                [] => String::new(),
                also => format!(" Also: `{}`.", also.join("`, `")),
            };
            put(
                &mut out,
                format_args!(
                    "| `{}` | {} | {default} | {}{also} |\n",
                    opt.flag,
                    shape(opt.kind).replace('|', "\\|"),
                    opt.help
                ),
            );
        }
    }
    out
}

fn foreign(out: &mut String) {
    out.push_str("| option | default | here |\n|---|---|---|\n");
    for opt in table::all().filter(|opt| opt.group == Group::Foreign) {
        let here = match opt.standing {
            Standing::Used => opt.help.to_owned(),
            Standing::Accepted(why) => format!("changes nothing: {why}"),
            Standing::Refused(why) => format!("refused: {why}"),
        };
        let names: Vec<_> = opt.spellings().map(|name| format!("`{name}`")).collect();
        let default = if opt.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", opt.default)
        };
        put(
            out,
            format_args!("| {} | {default} | {here} |\n", names.join(", ")),
        );
    }
}

/// What a value looks like, in a few signs.
fn shape(kind: Kind) -> String {
    match kind {
        Kind::Text => "TEXT".to_owned(),
        Kind::Bool => "true|false".to_owned(),
        Kind::Number { min, max } if max >= u32::MAX.into() => format!("NUMBER (from {min})"),
        Kind::Number { min, max } => format!("NUMBER ({min} to {max})"),
        Kind::Bytes { min: i64::MIN, .. } => "BYTES".to_owned(),
        Kind::Bytes { min, max } => format!("BYTES ({min} to {max})"),
        Kind::Millis { max, .. } => format!("MILLISECONDS (up to {})", max.as_millis()),
        Kind::Duration { min } if min.is_zero() => "DURATION".to_owned(),
        Kind::Duration { min } => format!("DURATION (from {})", format_duration(min)),
        Kind::Path => "PATH".to_owned(),
        Kind::Urls => "URLS".to_owned(),
        Kind::Cluster => "NAME=URL,...".to_owned(),
        Kind::List => "LIST".to_owned(),
        Kind::Choice(words) => words.join("|"),
    }
}

/// Text in lines of at most [`HELP_WIDTH`] columns, each after `indent` spaces.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.len() > HELP_WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            put(out, format_args!("{:indent$}{word}", ""));
            column = indent + word.len();
        } else {
            put(out, format_args!(" {word}"));
            column += 1 + word.len();
        }
    }
    out.push('\n');
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_options_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == markdown(),
            "docs/config.md is old; run this test with UPDATE=1"
        );
    }

    #[test]
    fn the_help_fits_a_terminal_and_names_every_option_that_works() {
        let help = help();
        for line in help.lines() {
            assert!(line.len() <= 100, "too long: {line}");
        }
        for opt in table::all().filter(|opt| opt.standing == Standing::Used) {
            assert!(
                help.contains(&format!("--{} ", opt.flag)),
                "{} is missing",
                opt.flag
            );
        }
    }
}
