//! Runs a seed against both systems, and makes a failure small enough to be read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use gonfalon_proto::etcdserverpb::{LeaseTimeToLiveRequest, RangeRequest, WatchCreateRequest};

use super::call::{Answer, Call, Script, Step, WatchStep};
use super::generate::{Generator, LEASES};
use super::known::{Past, expected};
use super::target::Target;
use crate::binaries::Server;

/// How long is spent on making a failure small.
const MINIMISE_WITHIN: Duration = Duration::from_secs(90);

/// What to compare.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "tests build it")]
pub struct Plan {
    /// The server that is believed.
    pub reference: Server,
    /// The server that is tested.
    pub subject: Server,
    /// Members of either.
    pub members: usize,
    /// Which calls.
    pub seed: u64,
    /// How many.
    pub calls: usize,
}

/// What a run without a difference has to tell.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Calls whose answers were equal, those inside scripts too.
    pub calls: usize,
    /// Of those, answers that were errors.
    pub errors: usize,
    /// How often each known difference was the expected one.
    pub known: BTreeMap<&'static str, usize>,
}

/// An answer that is not the expected one.
#[derive(Debug, Clone)]
struct Mismatch {
    expected: Answer,
    got: Answer,
}

struct Pair {
    reference: Target,
    subject: Target,
}

impl Pair {
    async fn start(plan: &Plan) -> Result<Self> {
        let (reference, subject) = tokio::try_join!(
            Target::start(plan.reference, plan.members),
            Target::start(plan.subject, plan.members)
        )?;
        Ok(Self { reference, subject })
    }

    /// Sends one call to both; gives the reference's answer if the other is as expected.
    async fn send(&self, step: &Step, summary: &mut Summary) -> Result<Answer, Box<Mismatch>> {
        let (reference, got) =
            tokio::join!(self.reference.execute(step), self.subject.execute(step));
        // It would be no comparison any more; what came before has ended the reference.
        assert!(
            !reference.is_gone(),
            "the reference does not answer any more:\n{}",
            self.reference.logs()
        );
        let revision = match step.call {
            Call::Alarms | Call::HashKv(_) => self.reference.revision().await,
            // No difference needs it.
            _ => 0,
        };
        let past = Past {
            revision,
            memory: self.reference.memory(),
        };
        let (reference_is, subject_is) = (self.reference.server(), self.subject.server());
        let (expected, used) = expected(reference_is, subject_is, &step.call, &reference, &past);
        if expected != got {
            return Err(Box::new(Mismatch { expected, got }));
        }
        for name in used {
            *summary.known.entry(name).or_default() += 1;
        }
        let answers = match &got {
            Answer::Watch(seen) => seen.answers.as_slice(),
            other => std::slice::from_ref(other),
        };
        let is_error = |answer: &&Answer| matches!(answer, Answer::Error { .. });
        summary.calls += answers.len().max(1);
        summary.errors += answers.iter().filter(is_error).count();
        Ok(reference)
    }
}

impl Pair {
    /// What a watch of everything, open all the time, was told by both.
    async fn compare_live_events(&self, command: &str) {
        let revision = self.reference.revision().await;
        let mut told = Vec::new();
        for target in [&self.reference, &self.subject] {
            let complete = target.memory().reaches(revision).await;
            complete.unwrap_or_else(|late| panic!("{late}\nrepeat with: {command}"));
            told.push(target.memory().all());
        }
        let first = told[0].iter().zip(&told[1]).position(|(a, b)| a != b);
        let same = first.unwrap_or(told[0].len().min(told[1].len()));
        assert!(
            told[0] == told[1],
            "event {same} of a watch of everything\n--- expected\n{:#?}\n--- got\n{:#?}\n\
             repeat with: {command}",
            told[0].get(same),
            told[1].get(same)
        );
    }
}

/// Runs a plan.
///
/// # Errors
/// A system does not start. A difference is a panic that reads like a bug report.
///
/// # Panics
/// If an answer is not the expected one.
pub async fn run(plan: Plan, command: &str) -> Result<Summary> {
    let pair = Pair::start(&plan).await?;
    let mut generator = Generator::new(plan.seed, plan.members, plan.reference);
    let mut summary = Summary::default();
    let mut sent: Vec<Step> = Vec::new();
    let mut failed = None;
    for number in 0..=plan.calls {
        let batch = if number < plan.calls {
            vec![generator.draw(|revision| pair.reference.memory().has_deleted_at(revision))]
        } else {
            audit(generator.compacted())
        };
        for step in batch {
            sent.push(step.clone());
            match pair.send(&step, &mut summary).await {
                Ok(answer) => generator.learn(&step.call, &answer),
                Err(mismatch) => failed = Some((mismatch, step)),
            }
            if failed.is_some() {
                break;
            }
        }
        if failed.is_some() {
            break;
        }
    }
    let Some((mismatch, step)) = failed else {
        pair.compare_live_events(command).await;
        return Ok(summary);
    };
    drop(pair);
    let small = minimise(&plan, &sent).await;
    panic!(
        "call {} of seed {} is answered differently\n{step}\n{mismatch}\n{}\nrepeat with: {command}",
        sent.len(),
        plan.seed,
        Tail(small.as_ref()),
    );
}

/// What both systems must agree on in the end: all keys, all leases, and all history.
fn audit(compacted: i64) -> Vec<Step> {
    let everything = b"\0".as_slice();
    let mut calls = vec![
        Call::Range(RangeRequest {
            key: everything.into(),
            range_end: everything.into(),
            ..RangeRequest::default()
        }),
        Call::LeaseLeases,
        Call::Alarms,
        Call::Watch(Script {
            steps: vec![WatchStep::Create(WatchCreateRequest {
                key: everything.into(),
                range_end: everything.into(),
                start_revision: compacted.max(1),
                prev_kv: true,
                watch_id: 1,
                ..WatchCreateRequest::default()
            })],
        }),
    ];
    let with_keys = LEASES.map(|id| LeaseTimeToLiveRequest { id, keys: true });
    calls.extend(with_keys.map(Call::LeaseTimeToLive));
    calls
        .into_iter()
        .map(|call| Step { member: 0, call })
        .collect()
}

/// The fewest calls that were found to end in a difference from empty stores, and that difference.
async fn minimise(plan: &Plan, sent: &[Step]) -> Option<(Vec<Step>, Box<Mismatch>)> {
    let start = Instant::now();
    let mut best: Option<(Vec<Step>, Box<Mismatch>)> = None;
    // A difference mostly needs only what came just before it.
    let mut length = 1;
    while best.is_none() && start.elapsed() < MINIMISE_WITHIN {
        let tail = &sent[sent.len().saturating_sub(length)..];
        best = replay(plan, tail).await;
        if tail.len() == sent.len() {
            break;
        }
        length *= 4;
    }
    let mut chunk = best.as_ref()?.0.len() / 2;
    while chunk > 0 && start.elapsed() < MINIMISE_WITHIN {
        let mut at = 0;
        while let Some((steps, _)) = &best
            && at + chunk < steps.len()
            && start.elapsed() < MINIMISE_WITHIN
        {
            let mut fewer = steps.clone();
            fewer.drain(at..at + chunk);
            match replay(plan, &fewer).await {
                Some(smaller) => best = Some(smaller),
                None => at += chunk,
            }
        }
        chunk /= 2;
    }
    best
}

/// Plays calls against new systems; gives them up to the first difference, if there is one.
async fn replay(plan: &Plan, steps: &[Step]) -> Option<(Vec<Step>, Box<Mismatch>)> {
    let pair = Pair::start(plan).await.ok()?;
    for (at, step) in steps.iter().enumerate() {
        if let Err(mismatch) = pair.send(step, &mut Summary::default()).await {
            return Some((steps[..=at].to_vec(), mismatch));
        }
    }
    None
}

/// Lines of what is equal that are shown before a difference, and lines from there on.
const BEFORE: usize = 6;
const AFTER: usize = 40;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, got) = (format!("{:#?}", self.expected), format!("{:#?}", self.got));
        let (expected, got): (Vec<&str>, Vec<&str>) =
            (expected.lines().collect(), got.lines().collect());
        let same = expected
            .iter()
            .zip(&got)
            .take_while(|(a, b)| a == b)
            .count();
        let from = same.saturating_sub(BEFORE);
        for (title, lines) in [("expected", expected), ("got", got)] {
            writeln!(f, "--- {title}, from line {from} of {}", lines.len())?;
            for line in lines.iter().skip(from).take(BEFORE + AFTER) {
                writeln!(f, "{}", line.chars().take(300).collect::<String>())?;
            }
        }
        Ok(())
    }
}

struct Tail<'a>(Option<&'a (Vec<Step>, Box<Mismatch>)>);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A failure that could not be made smaller is repeated by its seed.
        const SHOWN: usize = 25;
        let Some((steps, mismatch)) = self.0 else {
            return write!(f, "(it did not happen again with fewer calls)");
        };
        writeln!(f, "the same with {} calls to empty stores:", steps.len())?;
        for step in &steps[steps.len().saturating_sub(SHOWN)..] {
            writeln!(f, "  {step}")?;
        }
        write!(f, "{mismatch}")
    }
}
