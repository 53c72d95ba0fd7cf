//! The environment: `GONFALON_X`, and `ETCD_X` where that is not set.

use super::Options;
use super::error::Origin;
use super::table::{self, variable};

const PREFIXES: [&str; 2] = ["GONFALON_", "ETCD_"];

/// Fills in what the command line left open.
pub(super) fn fill(options: &mut Options, vars: &[(String, String)]) {
    // etcd takes an empty variable for one that is not set.
    let vars = || vars.iter().filter(|(_, value)| !value.is_empty());
    for opt in table::all() {
        let names = PREFIXES
            .iter()
            .flat_map(|prefix| opt.spellings().map(move |flag| variable(prefix, flag)));
        let set: Vec<_> = names
            .filter_map(|name| vars().find(|(var, _)| *var == name))
            .collect();
        let Some((name, value)) = set.first() else {
            continue;
        };
        if let Some(given) = options.given.get(opt.flag) {
            options
                .notes
                .push(format!("{} is given, so {name} is ignored", given.origin));
        } else {
            options.put(opt, value.clone(), Origin::Variable(name.clone()));
        }
    }
    for (name, _) in vars() {
        options.notes.extend(slip(name));
    }
}

/// A note if the variable looks like one of ours with a slip. Others with our prefixes are not
/// ours to judge: the client's commands have some, and so have people's scripts.
fn slip(name: &str) -> Option<String> {
    let prefix = PREFIXES.iter().find(|prefix| name.starts_with(**prefix))?;
    let flag = name
        .strip_prefix(prefix)?
        .to_ascii_lowercase()
        .replace('_', "-");
    if table::find(&flag).is_some() {
        return None;
    }
    let meant = variable(prefix, table::nearest(&flag)?);
    Some(format!(
        "the variable {name} means nothing; did you mean {meant}?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill_from(vars: &[(&str, &str)]) -> Options {
        let vars: Vec<_> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mut options = Options::default();
        options.set("snapshot-count", "7").unwrap();
        fill(&mut options, &vars);
        options
    }

    #[test]
    fn our_prefix_goes_before_etcds() {
        let options = fill_from(&[("ETCD_NAME", "theirs"), ("GONFALON_NAME", "ours")]);
        assert_eq!(options.given["name"].text, "ours");
        assert_eq!(
            fill_from(&[("ETCD_NAME", "theirs")]).given["name"].text,
            "theirs"
        );
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_a_note_says_so() {
        let options = fill_from(&[("ETCD_SNAPSHOT_COUNT", "9")]);
        assert_eq!(options.given["snapshot-count"].text, "7");
        assert_eq!(
            options.notes,
            ["--snapshot-count is given, so ETCD_SNAPSHOT_COUNT is ignored"]
        );
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert!(!fill_from(&[("ETCD_NAME", "")]).given.contains_key("name"));
    }

    #[test]
    fn a_slip_is_noted_and_a_stranger_is_not() {
        let options = fill_from(&[("GONFALON_DATADIR", "x"), ("ETCD_VER", "3.4")]);
        assert_eq!(
            options.notes,
            ["the variable GONFALON_DATADIR means nothing; did you mean GONFALON_DATA_DIR?"]
        );
    }
}
