//! The text of a transaction, in etcdctl's syntax.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use clap::Parser;
use gonfalon_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use super::words;
use crate::commands::{del, get, put};
use crate::parse;

/// The part of the text that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// What must hold.
    Compares,
    /// What to do if it all does.
    Success,
    /// What to do if not.
    Failure,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Script {
    request: pb::TxnRequest,
    /// Empty lines so far: each ends a section.
    ended: usize,
}

impl Script {
    /// The section that the next line belongs to; `None` when all have ended.
    pub(super) fn section(&self) -> Option<Section> {
        [Section::Compares, Section::Success, Section::Failure]
            .get(self.ended)
            .copied()
    }

    /// Takes the next line; one that is wrong changes nothing.
    pub(super) fn line(&mut self, line: &str) -> Result<(), String> {
        let Some(section) = self.section() else {
            return Ok(());
        };
        if line.trim().is_empty() {
            self.ended += 1;
            return Ok(());
        }
        match section {
            Section::Compares => self.request.compare.push(compare(line.trim())?),
            Section::Success => self.request.success.push(operation(line)?),
            Section::Failure => self.request.failure.push(operation(line)?),
        }
        Ok(())
    }

    /// The transaction.
    pub(super) fn request(self) -> pb::TxnRequest {
        self.request
    }
}

/// `target("key") operator "value"`.
fn compare(line: &str) -> Result<pb::Compare, String> {
    let form = || "write a comparison such as mod(\"key\") > \"0\"".to_owned();
    let (target, rest) = line.split_once('(').ok_or_else(form)?;
    let (key, rest) = words::quoted(rest.trim_start()).map_err(|_| form())?;
    let rest = rest
        .trim_start()
        .strip_prefix(')')
        .ok_or_else(form)?
        .trim_start();
    let end = rest
        .find(|c: char| !matches!(c, '=' | '!' | '<' | '>'))
        .ok_or_else(form)?;
    let (operator, value) = rest.split_at(end);
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        _ => return Err(form()),
    };
    let mut value = words::split(value)?.into_iter();
    let (Some(value), None) = (value.next(), value.next()) else {
        return Err(form());
    };
    let number = || {
        let text = std::str::from_utf8(&value).ok();
        text.and_then(|text| text.parse().ok())
            .ok_or("write a whole number between quotes")
    };
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number()?),
        ),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value))),
        "lease" => {
            let text = String::from_utf8_lossy(&value);
            (
                CompareTarget::Lease,
                TargetUnion::Lease(parse::lease_id(&text)?),
            )
        }
        other => {
            return Err(format!(
                "{other:?} cannot be compared; version, create, mod, value and lease can"
            ));
        }
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Default::default()
    })
}

/// A `get`, `put` or `del` with its flags, as on the command line.
fn operation(line: &str) -> Result<pb::RequestOp, String> {
    let words: Vec<_> = words::split(line)?
        .into_iter()
        .map(OsString::from_vec)
        .collect();
    let refused = |failure: crate::failure::Failure| failure.what().to_owned();
    let request = match words.first().and_then(|word| word.to_str()) {
        Some("get") => Request::RequestRange(read::<get::Get>(&words)?.request().map_err(refused)?),
        Some("put") => Request::RequestPut(read::<put::Put>(&words)?.request().map_err(refused)?),
        Some("del") => {
            Request::RequestDeleteRange(read::<del::Del>(&words)?.request().map_err(refused)?)
        }
        _ => return Err("only get, put and del may be in a transaction".to_owned()),
    };
    Ok(pb::RequestOp {
        request: Some(request),
    })
}

/// Reads words as a command line; an error is its first line.
fn read<T: Parser>(words: &[OsString]) -> Result<T, String> {
    T::try_parse_from(words).map_err(|err| {
        let text = err.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Result<pb::TxnRequest, String> {
        let mut script = Script::default();
        for line in text.lines() {
            script.line(line)?;
        }
        Ok(script.request())
    }

    #[test]
    fn three_sections_make_a_transaction() {
        let request = script(
            "mod(\"a\") > \"5\"\nvalue(\"b\") = \"x y\"\n\n\
             put a \"1 2\" --lease=1f\nget a b --keys-only\n\ndel --prefix c\n\nignored (",
        )
        .unwrap();
        assert_eq!(request.compare.len(), 2);
        assert_eq!(
            request.compare[0].target_union,
            Some(TargetUnion::ModRevision(5))
        );
        assert_eq!(request.compare[0].result(), CompareResult::Greater);
        assert_eq!(
            request.compare[1].target_union,
            Some(TargetUnion::Value(Bytes::from_static(b"x y")))
        );
        let Some(Request::RequestPut(put)) = &request.success[0].request else {
            panic!()
        };
        assert_eq!((&put.value[..], put.lease), (&b"1 2"[..], 0x1f));
        let Some(Request::RequestRange(get)) = &request.success[1].request else {
            panic!()
        };
        assert_eq!((&get.range_end[..], get.keys_only), (&b"b"[..], true));
        let Some(Request::RequestDeleteRange(del)) = &request.failure[0].request else {
            panic!()
        };
        assert_eq!((&del.key[..], &del.range_end[..]), (&b"c"[..], &b"d"[..]));
    }

    #[test]
    fn every_target_and_operator_is_known() {
        for (text, target) in [
            ("ver", CompareTarget::Version),
            ("version", CompareTarget::Version),
            ("c", CompareTarget::Create),
            ("create", CompareTarget::Create),
            ("m", CompareTarget::Mod),
            ("mod", CompareTarget::Mod),
            ("val", CompareTarget::Value),
            ("value", CompareTarget::Value),
            ("lease", CompareTarget::Lease),
        ] {
            for operator in ["=", "!=", "<", ">"] {
                let compare = compare(&format!("{text}(\"k\") {operator} \"1\"")).unwrap();
                assert_eq!(compare.target(), target, "{text}");
            }
        }
        assert!(
            compare("mod(\"k\")=\"1\"").is_ok(),
            "spaces may be left out"
        );
    }

    #[test]
    fn an_empty_text_is_an_empty_transaction() {
        assert_eq!(script("").unwrap(), pb::TxnRequest::default());
        assert_eq!(script("\n\n\n").unwrap(), pb::TxnRequest::default());
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (text, want) in [
            ("mod(a) > \"0\"", "write a comparison"),
            ("mod(\"a\") >= \"0\"", "write a comparison"),
            ("mod(\"a\") > \"x\"", "whole number"),
            ("mod(\"a\") > \"1\" 2", "write a comparison"),
            ("size(\"a\") > \"1\"", "\"size\" cannot be compared"),
            ("\nwatch a", "only get, put and del"),
            ("\nput a", "put needs a value"),
            ("\nput a b --ttl 5s", "--ttl does not go into a transaction"),
            ("\nget --bogus a", "--bogus"),
            ("\nget --prefix --from-key a", "exclude each other"),
            ("\nput \"a b", "not closed"),
        ] {
            let err = script(text).unwrap_err();
            assert!(err.contains(want), "{text:?}: {err}");
        }
    }
}
