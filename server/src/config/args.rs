//! The command line, in Go's flag syntax: `-x`, `--x`, `--x=value`, `--x value`, booleans alone.

use super::Options;
use super::error::{ConfigError, Origin};
use super::table::{self, Kind};

/// What a command line asks for.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// Serve with these options.
    Run(Options),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// Reads flags; the last of one given twice counts.
pub(super) fn parse(args: &[String]) -> Result<Invocation, ConfigError> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let positional = || ConfigError::Positional { word: arg.clone() };
        let body = arg
            .strip_prefix("--")
            .or_else(|| arg.strip_prefix('-'))
            .ok_or_else(positional)?;
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(positional());
        }
        let (flag, value) = match body.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (body, None),
        };
        match flag {
            "help" | "h" => return Ok(Invocation::Help),
            "version" => return Ok(Invocation::Version),
            _ => {}
        }
        let opt = table::find(flag).ok_or_else(|| ConfigError::unknown_flag(flag))?;
        let text = match value {
            Some(value) => value,
            None if opt.kind == Kind::Bool => "true".to_owned(),
            None => {
                let missing = || ConfigError::MissingValue {
                    flag: flag.to_owned(),
                };
                args.next().ok_or_else(missing)?.clone()
            }
        };
        options.put(opt, text, Origin::Flag(flag.to_owned()));
    }
    Ok(Invocation::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Options, ConfigError> {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&args)? {
            Invocation::Run(options) => Ok(options),
            other => panic!("{line} asks for {other:?}"),
        }
    }

    fn text(options: &Options, flag: &str) -> String {
        options.given[flag].text.clone()
    }

    #[test]
    fn go_flags_have_one_dash_or_two_and_their_value_beside_or_behind() {
        for line in [
            "-name a",
            "--name a",
            "-name=a",
            "--name=a",
            "--name b --name a",
        ] {
            assert_eq!(text(&run(line).unwrap(), "name"), "a", "{line}");
        }
    }

    #[test]
    fn booleans_stand_alone_or_take_an_equals_sign() {
        assert_eq!(text(&run("--pre-vote").unwrap(), "pre-vote"), "true");
        assert_eq!(text(&run("--pre-vote=false").unwrap(), "pre-vote"), "false");
        let err = run("--pre-vote false").unwrap_err();
        assert_eq!(
            err,
            ConfigError::Positional {
                word: "false".to_owned()
            }
        );
    }

    #[test]
    fn a_flag_nobody_knows_is_named_in_the_words_of_go() {
        let err = run("--data-dirr x").unwrap_err();
        assert_eq!(
            err.to_string(),
            "flag provided but not defined: -data-dirr (did you mean --data-dir?)"
        );
        assert_eq!(err.exit_code(), 2);
        assert_eq!(
            run("-bogus-thing").unwrap_err().to_string(),
            "flag provided but not defined: -bogus-thing"
        );
    }

    #[test]
    fn a_value_that_is_missing_is_asked_for() {
        let err = run("--name").unwrap_err();
        assert_eq!(err.to_string(), "flag needs an argument: -name");
    }

    #[test]
    fn words_that_belong_to_no_flag_are_refused() {
        for line in ["gateway", "--name a b", "--", "-", "--=x", "---name a"] {
            assert!(
                matches!(run(line), Err(ConfigError::Positional { .. })),
                "{line}"
            );
        }
    }

    #[test]
    fn an_older_spelling_means_the_same_option() {
        let options = run("--experimental-watch-progress-notify-interval=5s").unwrap();
        assert_eq!(text(&options, "watch-progress-notify-interval"), "5s");
    }

    #[test]
    fn help_and_version_are_answered_whatever_else_is_there() {
        for (word, help) in [
            ("--help", true),
            ("-h", true),
            ("--version", false),
            ("-version", false),
        ] {
            let args = [
                "--name".to_owned(),
                "a".to_owned(),
                word.to_owned(),
                "x".to_owned(),
            ];
            let asked = parse(&args).unwrap();
            assert_eq!(matches!(asked, Invocation::Help), help, "{word}");
            assert_eq!(matches!(asked, Invocation::Version), !help, "{word}");
        }
    }
}
