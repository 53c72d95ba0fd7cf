//! A serde deserializer of keys: folders are structs and maps, keys are their fields.
//!
//! How the bytes of a key are read depends on the field: numbers and booleans are JSON, texts are
//! what they are unless they are a JSON string, and a struct, map or list in a single key is JSON.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess,
    SeqAccess, Visitor,
};

use super::super::snapshot::Snapshot;

/// Keys with more segments belong to no struct: reading them would need a stack as deep.
const SEGMENTS_MAX: usize = 64;

/// What is wrong, and with which key.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Empty until the key is known.
    pub(super) key: String,
    pub(super) why: String,
}

impl Wrong {
    /// Something with all that is below `prefix`.
    pub(super) fn whole(prefix: &[u8], why: String) -> Self {
        let key = String::from_utf8_lossy(prefix).into_owned();
        Self { key, why }
    }

    fn at(mut self, key: &str) -> Self {
        if self.key.is_empty() {
            key.clone_into(&mut self.key);
        }
        self
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: Display>(why: T) -> Self {
        Self {
            key: String::new(),
            why: why.to_string(),
        }
    }
}

impl From<serde_json::Error> for Wrong {
    fn from(error: serde_json::Error) -> Self {
        de::Error::custom(error)
    }
}

/// Reads the keys below `prefix` as a `T`.
pub(super) fn read<T: DeserializeOwned>(
    snapshot: &Snapshot,
    prefix: &[u8],
    refuses_unknown: bool,
) -> Result<T, Wrong> {
    let unknown: RefCell<Vec<String>> = RefCell::default();
    let mut root = Node::default();
    for kv in snapshot.prefix(prefix) {
        let path = std::str::from_utf8(&kv.key[prefix.len()..]).ok();
        let segments: Option<Vec<&str>> = path.map(|path| path.split('/').collect());
        match segments {
            Some(segments) if segments != [""] && segments.len() <= SEGMENTS_MAX => {
                let node = segments.into_iter().fold(&mut root, |node, segment| {
                    node.below.entry(segment).or_default()
                });
                node.value = Some(&kv.value);
            }
            // The prefix itself, or what cannot be the path of a field.
            _ => unknown
                .borrow_mut()
                .push(String::from_utf8_lossy(&kv.key).into_owned()),
        }
    }
    let key = String::from_utf8_lossy(prefix).into_owned();
    let whole = At {
        node: &root,
        key: &key,
        unknown: &unknown,
    };
    let value = T::deserialize(whole).map_err(|wrong| wrong.at(&key))?;
    let unknown = unknown.into_inner();
    match unknown.into_iter().next() {
        Some(first) if refuses_unknown => Err(Wrong {
            key: first,
            why: "no field is called so".into(),
        }),
        _ => Ok(value),
    }
}

/// A key, a folder, or both.
#[derive(Debug, Default)]
struct Node<'a> {
    value: Option<&'a [u8]>,
    below: BTreeMap<&'a str, Node<'a>>,
}

/// A node, and where it is.
#[derive(Debug, Clone, Copy)]
struct At<'de, 'k> {
    node: &'de Node<'de>,
    key: &'k str,
    /// Keys that nothing was read from.
    unknown: &'k RefCell<Vec<String>>,
}

impl<'de, 'k> At<'de, 'k> {
    /// The bytes of a field that is one key.
    fn bytes(self) -> Result<&'de [u8], Wrong> {
        let Some(value) = self.node.value else {
            return Err(de::Error::custom("a key is wanted, and there is a folder"));
        };
        if !self.node.below.is_empty() {
            self.pass_over(&format!("{}/", self.key));
        }
        Ok(value)
    }

    fn text(self) -> Result<&'de str, Wrong> {
        std::str::from_utf8(self.bytes()?).map_err(de::Error::custom)
    }

    /// The bytes of a field that may be a folder, if it is a single key instead.
    fn single(self) -> Option<&'de [u8]> {
        if self.node.below.is_empty() {
            return self.node.value;
        }
        if self.node.value.is_some() {
            self.pass_over(self.key);
        }
        None
    }

    fn pass_over(self, key: &str) {
        self.unknown.borrow_mut().push(key.to_owned());
    }

    fn children(self) -> Children<'de, 'k> {
        Children {
            rest: self.node.below.iter(),
            value: None,
            at: self,
        }
    }
}

/// Reads `bytes`, all of them, as JSON.
fn json<'a, V>(
    bytes: &'a [u8],
    read: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::SliceRead<'a>>,
    ) -> Result<V, serde_json::Error>,
) -> Result<V, Wrong> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = read(&mut json)?;
    json.end()?;
    Ok(value)
}

/// A JSON string, or the text as it is.
fn unquoted(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

macro_rules! as_json {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            json(self.bytes()?, |json| json.$method(visitor))
        }
    )*};
}

macro_rules! as_text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            visitor.visit_string(unquoted(self.text()?))
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'de, '_> {
    type Error = Wrong;

    as_json! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_unit
    }

    as_text! { deserialize_char deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Some(bytes) = self.single() else {
            return visitor.visit_map(self.children());
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return visitor.visit_bytes(bytes);
        };
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) => Ok(value.deserialize_any(visitor)?),
            Err(_) => visitor.visit_str(text),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_byte_buf(self.bytes()?.to_vec())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let is_null = self.node.value.is_some_and(|value| value == b"null");
        if is_null && self.node.below.is_empty() {
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.single() {
            Some(bytes) => json(bytes, |json| json.deserialize_seq(visitor)),
            None => visitor.visit_seq(self.children()),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.single() {
            Some(bytes) => json(bytes, |json| json.deserialize_map(visitor)),
            None => visitor.visit_map(self.children()),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.single() {
            Some(bytes) => json(bytes, |json| json.deserialize_struct(name, fields, visitor)),
            None => visitor.visit_map(self.children()),
        }
    }

    /// A variant's name, JSON, or a folder with the one variant in it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let Some(bytes) = self.single() else {
            if self.node.below.len() != 1 {
                let count = self.node.below.len();
                let why = format!("one variant of {name} is wanted, and there are {count} keys");
                return Err(de::Error::custom(why));
            }
            return visitor.visit_enum(MapAccessDeserializer::new(self.children()));
        };
        if bytes.starts_with(b"{") || bytes.starts_with(b"\"") {
            return json(bytes, |json| json.deserialize_enum(name, variants, visitor));
        }
        let text: StrDeserializer<'_, Wrong> = self.text()?.into_deserializer();
        visitor.visit_enum(text)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.pass_over(self.key);
        visitor.visit_unit()
    }
}

/// The fields of a folder, in the order of their names.
#[derive(Debug)]
struct Children<'de, 'k> {
    at: At<'de, 'k>,
    rest: std::collections::btree_map::Iter<'de, &'de str, Node<'de>>,
    /// The field whose name was read last.
    value: Option<(&'de str, &'de Node<'de>)>,
}

impl<'de> Children<'de, '_> {
    fn read<S: DeserializeSeed<'de>>(
        &self,
        (name, node): (&'de str, &'de Node<'de>),
        seed: S,
    ) -> Result<S::Value, Wrong> {
        let folder = self.at.key;
        let separator = match folder {
            "" => "",
            folder if folder.ends_with('/') => "",
            _ => "/",
        };
        let key = format!("{folder}{separator}{name}");
        let child = At {
            node,
            key: &key,
            unknown: self.at.unknown,
        };
        seed.deserialize(child).map_err(|wrong| wrong.at(&key))
    }
}

impl<'de> MapAccess<'de> for Children<'de, '_> {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Wrong> {
        self.value = self.rest.next().map(|(name, node)| (*name, node));
        let name = self.value.map(|(name, _)| seed.deserialize(Name(name)));
        name.transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let value = self.value.take();
        self.read(value.expect("serde asks for the name first"), seed)
    }
}

impl<'de> SeqAccess<'de> for Children<'de, '_> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Wrong> {
        let next = self.rest.next().map(|(name, node)| (*name, node));
        next.map(|child| self.read(child, seed)).transpose()
    }
}

/// The name of a field, or the key of a map: of any type that has a text.
struct Name<'de>(&'de str);

macro_rules! parsed {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Name<'de> {
    type Error = Wrong;

    parsed! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32
        deserialize_i64 visit_i64 deserialize_i128 visit_i128
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32
        deserialize_u64 visit_u64 deserialize_u128 visit_u128
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let text: StrDeserializer<'_, Wrong> = self.0.into_deserializer();
        visitor.visit_enum(text)
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use bytes::Bytes;
    use serde::Deserialize;

    use super::super::super::snapshot::Listing;
    use super::*;
    use crate::types::{KeyValue, Revision};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Settings {
        name: String,
        limits: Limits,
        #[serde(default)]
        mode: Mode,
        #[serde(default, rename = "log-level")]
        log_level: Option<String>,
        #[serde(default)]
        servers: Vec<Server>,
        #[serde(default)]
        weights: HashMap<u16, f64>,
        #[serde(default)]
        raw: serde_json::Value,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Limits {
        rate: u32,
        #[serde(default = "yes")]
        strict: bool,
        pair: Option<(i64, i64)>,
    }

    fn yes() -> bool {
        true
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Server {
        host: String,
        port: u16,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Off,
        Slow {
            percent: u8,
        },
        Custom(String),
    }

    fn snapshot(pairs: &[(&str, &str)]) -> Snapshot {
        let mut listing = Listing::new(Arc::default());
        for (key, value) in pairs {
            let kv = gonfalon_proto::mvccpb::KeyValue {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::copy_from_slice(value.as_bytes()),
                ..Default::default()
            };
            listing.add(&KeyValue::from_wire(kv));
        }
        listing.end(Revision::new(7))
    }

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, Wrong> {
        read(&snapshot(pairs), b"/c/", false)
    }

    const LEAST: [(&str, &str); 2] = [("/c/name", "n"), ("/c/limits/rate", "10")];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        LEAST.iter().chain(more).copied().collect()
    }

    #[test]
    fn segments_are_fields_and_what_is_not_there_is_as_serde_says() {
        let read = settings(&LEAST).unwrap();
        let want = Settings {
            name: "n".into(),
            limits: Limits {
                rate: 10,
                strict: true,
                pair: None,
            },
            mode: Mode::Off,
            log_level: None,
            servers: Vec::new(),
            weights: HashMap::new(),
            raw: serde_json::Value::Null,
        };
        assert_eq!(read, want);
    }

    #[test]
    fn a_field_is_read_by_its_type() {
        let read = settings(&with(&[
            ("/c/name", "\"in quotes\""),
            ("/c/log-level", "true"),
            ("/c/limits/strict", " false\n"),
            ("/c/limits/pair", "[1, -2]"),
            ("/c/servers/1/host", "a"),
            ("/c/servers/1/port", "1"),
            ("/c/servers/2", r#"{"host": "b", "port": 2}"#),
            ("/c/weights/80", "0.5"),
            ("/c/weights/443", "1e3"),
            ("/c/raw/x", "12"),
            ("/c/raw/y/z", "text"),
        ]))
        .unwrap();
        assert_eq!(read.name, "in quotes");
        assert_eq!(read.log_level.as_deref(), Some("true"), "a text is a text");
        assert_eq!(
            (read.limits.strict, read.limits.pair),
            (false, Some((1, -2)))
        );
        let server = |host: &str, port| Server {
            host: host.into(),
            port,
        };
        assert_eq!(read.servers, [server("a", 1), server("b", 2)]);
        assert_eq!(read.weights, HashMap::from([(80, 0.5), (443, 1000.0)]));
        assert_eq!(read.raw, serde_json::json!({"x": 12, "y": {"z": "text"}}));
    }

    #[test]
    fn a_variant_is_a_name_or_a_folder_or_json() {
        for (pairs, want) in [
            (&[("/c/mode", "off")][..], Mode::Off),
            (&[("/c/mode", "\"off\"")], Mode::Off),
            (&[("/c/mode/slow/percent", "7")], Mode::Slow { percent: 7 }),
            (
                &[("/c/mode", r#"{"slow": {"percent": 7}}"#)],
                Mode::Slow { percent: 7 },
            ),
            (&[("/c/mode/custom", "mine")], Mode::Custom("mine".into())),
        ] {
            assert_eq!(settings(&with(pairs)).unwrap().mode, want, "{pairs:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        for (pairs, key, why) in [
            (
                &[("/c/limits/rate", "ten")][..],
                "/c/limits/rate",
                "expected",
            ),
            (&[("/c/limits/rate", "-1")], "/c/limits/rate", "-1"),
            (&[("/c/limits/rate", "1 2")], "/c/limits/rate", "trailing"),
            (
                &[("/c/servers/1/port", "70000")],
                "/c/servers/1/port",
                "70000",
            ),
            (
                &[("/c/servers/1/port", "1")],
                "/c/servers/1",
                "missing field `host`",
            ),
            (&[("/c/limits", "{}")], "", ""),
            (&[("/c/mode", "fast")], "/c/mode", "fast"),
            (
                &[("/c/mode/a", "1"), ("/c/mode/b", "1")],
                "/c/mode",
                "one variant",
            ),
            (&[("/c/weights/x", "1")], "/c/weights", "x"),
        ] {
            let read = settings(&with(pairs));
            if key.is_empty() {
                assert!(
                    read.is_ok(),
                    "a key beside a folder is passed over: {read:?}"
                );
                continue;
            }
            let wrong = read.unwrap_err();
            assert_eq!(wrong.key, key, "{pairs:?}: {}", wrong.why);
            assert!(wrong.why.contains(why), "{pairs:?}: {}", wrong.why);
        }
        let wrong = settings(&LEAST[..1]).unwrap_err();
        assert_eq!(
            (wrong.key.as_str(), wrong.why.as_str()),
            ("/c/", "missing field `limits`")
        );
    }

    #[test]
    fn keys_of_no_field_are_passed_over_or_refused() {
        let deep = format!("/c/{}", "x/".repeat(100_000));
        for extra in [
            "/c/naem",
            "/c/limits/burst",
            "/c/name/below",
            "/c/limits",
            "/c/",
            &deep,
        ] {
            let mut pairs = with(&[]);
            pairs.push((extra, "1"));
            let all = snapshot(&pairs);
            assert!(read::<Settings>(&all, b"/c/", false).is_ok(), "{extra:.20}");
            let refused = read::<Settings>(&all, b"/c/", true).unwrap_err();
            assert!(
                extra.starts_with(refused.key.trim_end_matches('/')),
                "{}",
                refused.key
            );
            assert!(refused.key.len() > 3 || extra == "/c/", "{}", refused.key);
        }
        let all = snapshot(&LEAST);
        assert!(read::<Settings>(&all, b"/c/", true).is_ok());
    }
}
