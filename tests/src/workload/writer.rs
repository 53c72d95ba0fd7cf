//! One client that writes and reads, one call at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use super::KEYS;
use super::recorder::Recorder;
use crate::client::Client;
use crate::history::{Answer, Outcome, Request};

/// Between two calls: the history stays small enough to be judged in a second.
const PAUSE: Duration = Duration::from_millis(2);
/// After a failure, so that a cluster without leader is not asked a thousand times.
const PAUSE_FAILED: Duration = Duration::from_millis(20);

/// The key number `at`.
pub(super) fn key(at: usize) -> String {
    format!("{}{at}", super::PREFIX)
}

/// A client, and what it knows.
pub(super) struct Writer {
    recorder: Arc<Recorder>,
    clients: Vec<Client>,
    member: usize,
    caller: u32,
    /// Values are `caller.count`: each names its write.
    count: u32,
    random: StdRng,
    /// The last `mod_revision` it was told of each key; 0: absent.
    known: HashMap<String, i64>,
    revision: i64,
}

impl Writer {
    /// A client that prefers the member number `home`.
    pub(super) fn new(recorder: Arc<Recorder>, clients: Vec<Client>, home: usize) -> Self {
        let caller = recorder.new_caller();
        Self {
            recorder,
            clients,
            member: home,
            caller,
            count: 0,
            random: StdRng::seed_from_u64(caller.into()),
            known: HashMap::new(),
            revision: 1,
        }
    }

    /// Calls until `writing` is false.
    pub(super) async fn run(mut self, writing: watch::Receiver<bool>) {
        while *writing.borrow() {
            let request = self.draw();
            let client = &self.clients[self.member];
            let call = self
                .recorder
                .call(self.caller, self.member, client, request.clone());
            match call.await {
                Outcome::Done(answer) => {
                    self.learn(&request, &answer);
                    tokio::time::sleep(PAUSE).await;
                }
                Outcome::Refused(_) => self.go_elsewhere().await,
                Outcome::Unknown(_) => {
                    // What was asked may still happen: from here on somebody else is calling.
                    self.caller = self.recorder.new_caller();
                    self.go_elsewhere().await;
                }
            }
        }
    }

    async fn go_elsewhere(&mut self) {
        self.member = (self.member + 1) % self.clients.len();
        tokio::time::sleep(PAUSE_FAILED).await;
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        self.revision = self.revision.max(answer.revision);
        match request {
            Request::Put { key, .. } => drop(self.known.insert(key.clone(), answer.revision)),
            Request::Delete { key } => drop(self.known.insert(key.clone(), 0)),
            Request::Swap { puts, .. } if answer.succeeded => {
                for (key, _) in puts {
                    self.known.insert(key.clone(), answer.revision);
                }
            }
            Request::Swap { expect, .. } => {
                for ((key, _), version) in expect.iter().zip(&answer.versions) {
                    let modified = version.as_ref().map_or(0, |version| version.modified);
                    self.known.insert(key.clone(), modified);
                }
            }
            Request::Read { keys, at: None, .. } => {
                for (key, version) in keys.iter().zip(&answer.versions) {
                    let modified = version.as_ref().map_or(0, |version| version.modified);
                    self.known.insert(key.clone(), modified);
                }
            }
            Request::Read { .. } => {}
        }
    }

    fn draw(&mut self) -> Request {
        let first = self.random.random_range(0..KEYS);
        let second = (first + self.random.random_range(1..KEYS)) % KEYS;
        match self.random.random_range(0..100) {
            0..45 => Request::Put {
                key: key(first),
                value: self.value(),
            },
            45..55 => Request::Delete { key: key(first) },
            55..70 => {
                let modified = self.known.get(&key(first)).copied().unwrap_or(0);
                Request::Swap {
                    expect: vec![(key(first), modified)],
                    puts: vec![(key(first), self.value()), (key(second), self.value())],
                }
            }
            70..95 => Request::Read {
                keys: vec![key(first), key(second)],
                serializable: false,
                at: None,
            },
            95..98 => Request::Read {
                keys: vec![key(first), key(second)],
                serializable: true,
                at: None,
            },
            _ => Request::Read {
                keys: vec![key(first), key(second)],
                serializable: false,
                at: Some(self.random.random_range(1..=self.revision)),
            },
        }
    }

    fn value(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.caller, self.count)
    }
}
