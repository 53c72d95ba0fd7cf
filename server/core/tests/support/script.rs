//! Commands and answers as text, for transcripts and tables.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [keep-value] [keep-lease]
//! del RANGE [prev]
//! get RANGE [rev=N] [limit=N] [sort=TARGET[,asc|,desc]] [keys] [count] [min-mod=N] …
//! txn                             operations and nested transactions are indented
//!   if TARGET(RANGE) = VALUE      version, create, mod, lease, value, unknown; = != < > ?
//!   then
//!     put a 1
//!   else
//!     get a
//! compact N · grant ID TTL · revoke ID · leases · raise MEMBER KIND · clear MEMBER KIND · alarms
//! events FROM · page RANGE limit=N [rev=N] [from=KEY] · status · evict BYTES · sweep · restart
//! ```
//!
//! A range is `a`, `a..c`, `a..` (all from `a` on) or `a*` (a prefix).

use bytes::Bytes;
use gonfalon_core::command::{
    AlarmChange, AlarmKind, Command, Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation,
    SortOrder, SortTarget, Txn,
};
use gonfalon_core::{
    Answer, Changes, DeleteAnswer, Event, EventKind, KeyRange, KeyValue, LeaseId, MemberId,
    OpAnswer, OpResult, PutAnswer, RangeAnswer, Revision, State, TxnAnswer,
};

use crate::recorded::Recorded;

/// A state that is spoken to in text.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) state: State,
    pub(crate) written: Recorded,
    changes: Changes,
}

impl Script {
    pub(crate) fn new() -> Self {
        let (written, changes) = (Recorded::default(), Changes::default());
        Self {
            state: State::new(),
            written,
            changes,
        }
    }

    /// Runs some commands, one after the other; returns the lines of their answers.
    pub(crate) fn run(&mut self, text: &str) -> String {
        let mut lines = Lines {
            rest: text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .collect(),
        };
        let mut answers = Vec::new();
        while let Some(line) = lines.take(0) {
            answers.extend(self.run_one(line.trim(), &mut lines));
            self.state.check();
        }
        answers.join("\n")
    }

    fn run_one(&mut self, line: &str, lines: &mut Lines<'_>) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<i64>().unwrap();
        match words[0] {
            "get" => {
                let query = range(&words[1..]);
                let answer = self.state.range(&query, &self.written).unwrap();
                answer.map_or_else(
                    |error| vec![format!("refused: {error}")],
                    |it| show_range(&it),
                )
            }
            "page" => self.page(&words[1..]),
            "events" => self.events(number(1)),
            "leases" => {
                let show = |(id, lease): (LeaseId, &gonfalon_core::Lease)| {
                    let keys: Vec<String> = lease.keys().map(show_bytes).collect();
                    format!("{} ttl {} [{}]", id.get(), lease.ttl, keys.join(" "))
                };
                self.state.leases().map(show).collect()
            }
            "alarms" => self.state.alarms().map(show_alarm).collect(),
            "status" => {
                let (revision, compacted) = (self.state.revision(), self.state.compacted());
                let keys = self.state.key_count();
                vec![format!(
                    "revision {revision}, compacted {compacted}, {keys} keys"
                )]
            }
            "evict" => {
                self.write();
                self.state.evict(usize::try_from(number(1)).unwrap());
                vec![]
            }
            "sweep" => {
                self.write();
                self.written.sweep();
                vec![]
            }
            "restart" => {
                self.write();
                self.state = self.written.load();
                vec![]
            }
            "txn" => {
                let txn = txn(lines, 1);
                if txn.is_read_only() {
                    let answer = self.state.read_txn(&txn, &self.written).unwrap();
                    answer.map_or_else(
                        |error| vec![format!("refused: {error}")],
                        |it| show_txn(&it),
                    )
                } else {
                    self.apply(&Command::Txn(txn))
                }
            }
            _ => self.apply(&command(&words)),
        }
    }

    pub(crate) fn write(&mut self) {
        self.written.write(&self.state, &mut self.changes);
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Vec<String> {
        let reply = self
            .state
            .apply(command, &self.written, &mut self.changes)
            .unwrap();
        let mut lines = match reply.result {
            Err(error) => return vec![format!("refused: {error}")],
            Ok(Answer::Put(it)) => show_put(&it),
            Ok(Answer::DeleteRange(it)) => show_delete(&it),
            Ok(Answer::Txn(it)) => show_txn(&it),
            Ok(Answer::LeaseGrant { id, ttl }) => vec![format!("lease {} ttl {ttl}", id.get())],
            Ok(Answer::Alarms(alarms)) => alarms.into_iter().map(show_alarm).collect(),
            Ok(_) => vec![],
        };
        lines.insert(0, format!("r{}", reply.revision));
        lines
    }

    fn page(&self, words: &[&str]) -> Vec<String> {
        let query = range(
            words
                .iter()
                .filter(|word| !word.starts_with("from="))
                .copied(),
        );
        let from = words
            .iter()
            .find_map(|word| word.strip_prefix("from="))
            .map(bytes);
        let at = query.revision.unwrap_or(self.state.revision());
        let keys_only = query.keys_only;
        let page = self
            .state
            .page(
                &query.range,
                at,
                from.as_ref(),
                query.limit,
                keys_only,
                &self.written,
            )
            .unwrap();
        let page = match page {
            Ok(page) => page,
            Err(error) => return vec![format!("refused: {error}")],
        };
        let next = page.next.map_or("the last page".into(), |key| {
            format!("next {}", show_bytes(&key))
        });
        page.kvs.iter().map(show_kv).chain([next]).collect()
    }

    fn events(&self, from: i64) -> Vec<String> {
        let from = Revision::new(from);
        let events = self
            .state
            .events(from, self.state.revision(), 1000, true, &self.written);
        match events.unwrap() {
            Ok(events) => events.iter().map(|event| show_event(event)).collect(),
            Err(error) => vec![format!("refused: {error}")],
        }
    }
}

/// Lines that are still to be run.
struct Lines<'a> {
    rest: std::collections::VecDeque<&'a str>,
}

impl<'a> Lines<'a> {
    /// The next line, without its indent, if it is indented by `depth` steps of two.
    fn take(&mut self, depth: usize) -> Option<&'a str> {
        let indent = " ".repeat(2 * depth);
        let line = self.rest.front()?.strip_prefix(&indent)?;
        assert!(
            !line.starts_with(' '),
            "not expected to be indented: {line:?}"
        );
        self.rest.pop_front();
        Some(line)
    }
}

fn txn(lines: &mut Lines<'_>, depth: usize) -> Txn {
    let mut txn = Txn::default();
    while let Some(line) = lines.take(depth) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("if", condition) => txn.compare.push(compare(condition)),
            ("then", "") => txn.success = ops(lines, depth + 1),
            ("else", "") => txn.failure = ops(lines, depth + 1),
            _ => panic!("no part of a transaction: {line:?}"),
        }
    }
    txn
}

fn ops(lines: &mut Lines<'_>, depth: usize) -> Vec<Op> {
    let mut ops = Vec::new();
    while let Some(line) = lines.take(depth) {
        let words: Vec<&str> = line.split_whitespace().collect();
        ops.push(match words[0] {
            "get" => Op::Range(range(&words[1..])),
            "txn" => Op::Txn(txn(lines, depth + 1)),
            _ => match command(&words) {
                Command::Put(put) => Op::Put(put),
                Command::DeleteRange(delete) => Op::DeleteRange(delete),
                other => panic!("no operation of a transaction: {other:?}"),
            },
        });
    }
    ops
}

fn command(words: &[&str]) -> Command {
    let number = |index: usize| words[index].parse::<i64>().unwrap();
    let has = |option: &str| words.contains(&option);
    match words[0] {
        "put" => {
            let lease = words.iter().find_map(|word| word.strip_prefix("lease="));
            Command::Put(Put {
                key: bytes(words[1]),
                value: bytes(words[2]),
                lease: LeaseId::new(lease.map_or(0, |lease| lease.parse().unwrap())),
                prev_kv: has("prev"),
                ignore_value: has("keep-value"),
                ignore_lease: has("keep-lease"),
            })
        }
        "del" => Command::DeleteRange(DeleteRange {
            range: key_range(words[1]),
            prev_kv: has("prev"),
        }),
        "compact" => Command::Compact {
            revision: Revision::new(number(1)),
        },
        "grant" => Command::LeaseGrant {
            id: LeaseId::new(number(1)),
            ttl: number(2),
        },
        "revoke" => Command::LeaseRevoke {
            id: LeaseId::new(number(1)),
        },
        "raise" | "clear" => Command::Alarm(AlarmChange {
            activate: words[0] == "raise",
            member: MemberId::new(words[1].parse().unwrap()),
            kind: match words[2] {
                "nospace" => AlarmKind::NoSpace,
                "corrupt" => AlarmKind::Corrupt,
                other => panic!("no alarm: {other}"),
            },
        }),
        _ => panic!("no command: {words:?}"),
    }
}

fn range<'a>(words: impl IntoIterator<Item = impl AsRef<str> + 'a>) -> Range {
    let mut words = words.into_iter();
    let mut query = Range::of(key_range(words.next().unwrap().as_ref()));
    for word in words {
        let word = word.as_ref();
        let (name, given) = word.split_once('=').unwrap_or((word, ""));
        let number = || given.parse::<i64>().unwrap();
        match name {
            "rev" => query.revision = Some(Revision::new(number())),
            "limit" => query.limit = given.parse().unwrap(),
            "keys" => query.keys_only = true,
            "count" => query.count_only = true,
            "min-mod" => query.min_mod_revision = number(),
            "max-mod" => query.max_mod_revision = number(),
            "min-create" => query.min_create_revision = number(),
            "max-create" => query.max_create_revision = number(),
            "sort" => {
                let (target, order) = given.split_once(',').unwrap_or((given, ""));
                query.sort.order = match order {
                    "" => SortOrder::None,
                    "asc" => SortOrder::Ascend,
                    "desc" => SortOrder::Descend,
                    other => panic!("no order: {other}"),
                };
                query.sort.target = match target {
                    "key" => SortTarget::Key,
                    "version" => SortTarget::Version,
                    "create" => SortTarget::Create,
                    "mod" => SortTarget::Mod,
                    "value" => SortTarget::Value,
                    other => panic!("nothing to sort by: {other}"),
                };
            }
            other => panic!("no option of a read: {other}"),
        }
    }
    query
}

fn compare(condition: &str) -> Compare {
    let [what, relation, given] = *condition.split(' ').collect::<Vec<_>>() else {
        panic!("no condition: {condition}")
    };
    let (target, range) = what.strip_suffix(')').unwrap().split_once('(').unwrap();
    let number = || given.parse::<i64>().unwrap();
    let target = match target {
        "version" => CompareTarget::Version(number()),
        "create" => CompareTarget::CreateRevision(number()),
        "mod" => CompareTarget::ModRevision(number()),
        "lease" => CompareTarget::Lease(number()),
        "value" => CompareTarget::Value(bytes(given)),
        "unknown" => CompareTarget::Unknown,
        other => panic!("nothing to compare: {other}"),
    };
    let relation = match relation {
        "=" => Relation::Equal,
        "!=" => Relation::NotEqual,
        ">" => Relation::Greater,
        "<" => Relation::Less,
        "?" => Relation::Unknown,
        other => panic!("no relation: {other}"),
    };
    Compare {
        range: key_range(range),
        target,
        relation,
    }
}

fn key_range(text: &str) -> KeyRange {
    if let Some(prefix) = text.strip_suffix('*') {
        return KeyRange::prefix(bytes(prefix));
    }
    match text.split_once("..") {
        None => KeyRange::single(bytes(text)),
        Some((start, "")) => KeyRange::from_wire(bytes(start), "\0".into()),
        Some((start, end)) => KeyRange::from_wire(bytes(start), bytes(end)),
    }
}

/// `""` is empty, `\0` a zero byte.
fn bytes(text: &str) -> Bytes {
    let text = if text == "\"\"" { "" } else { text };
    text.replace("\\0", "\0").into()
}

fn show_bytes(bytes: impl AsRef<[u8]>) -> String {
    let text = bytes.as_ref().escape_ascii().to_string();
    if text.is_empty() { "\"\"".into() } else { text }
}

fn show_kv(kv: &KeyValue) -> String {
    let KeyValue {
        key,
        value,
        create_revision,
        mod_revision,
        version,
        lease,
    } = kv;
    let lease = if lease.is_none() {
        String::new()
    } else {
        format!(" lease {}", lease.get())
    };
    let (key, value) = (show_bytes(key), show_bytes(value));
    format!("{key} = {value}  create {create_revision} mod {mod_revision} version {version}{lease}")
}

fn show_event(event: &Event) -> String {
    let what = match event.kind {
        EventKind::Put => format!("put {}", show_kv(&event.kv)),
        EventKind::Delete => format!("delete {}", show_kv(&event.kv)),
    };
    let prev = event
        .prev
        .as_ref()
        .map_or(String::new(), |prev| format!(", was {}", show_kv(prev)));
    format!("{what}{prev}")
}

fn show_alarm((member, kind): (MemberId, AlarmKind)) -> String {
    format!("alarm of {member}: {kind:?}")
}

fn show_put(answer: &PutAnswer) -> Vec<String> {
    answer
        .prev
        .iter()
        .map(|prev| format!("was {}", show_kv(prev)))
        .collect()
}

fn show_delete(answer: &DeleteAnswer) -> Vec<String> {
    let prev = answer
        .prev
        .iter()
        .map(|prev| format!("was {}", show_kv(prev)));
    [format!("deleted {}", answer.deleted)]
        .into_iter()
        .chain(prev)
        .collect()
}

fn show_range(answer: &RangeAnswer) -> Vec<String> {
    let more = if answer.more { ", more" } else { "" };
    let last = format!("count {}{more}", answer.count);
    answer.kvs.iter().map(show_kv).chain([last]).collect()
}

fn show_txn(answer: &TxnAnswer) -> Vec<String> {
    let mut lines = vec![if answer.succeeded { "then" } else { "else" }.into()];
    for OpAnswer { revision, result } in &answer.responses {
        let (name, inner) = match result {
            OpResult::Range(it) => ("get", show_range(it)),
            OpResult::Put(it) => ("put", show_put(it)),
            OpResult::DeleteRange(it) => ("del", show_delete(it)),
            OpResult::Txn(it) => ("txn", show_txn(it)),
        };
        lines.push(format!("  {name} r{revision}"));
        lines.extend(inner.into_iter().map(|line| format!("    {line}")));
    }
    lines
}
