//! A user's token: fetched with the first call, and again when it is no longer accepted.
//!
//! Tokens that say themselves when they end (JWT) are fetched again when four fifths of their time
//! are over, so that no call needs to be refused first. Of others only a refusal tells.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::auth_client::AuthClient;
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Outcome, Verdict, classify};

/// After so much of its time a token is fetched again.
const USED_MAX: f64 = 0.8;

/// How long a token that could not be fetched again, and is not over, is used before the next try.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// How long a member may take to give out a token. All calls wait for the one that fetches it,
/// whatever its own deadline is; then the next tries, at another member if there is one. A password
/// is checked within a tenth of a second.
const FETCH_MAX: Duration = Duration::from_secs(3);

type Token = MetadataValue<Ascii>;

/// Who asks, and the token that proves it.
pub(crate) struct Credentials {
    name: String,
    password: String,
    state: Mutex<State>,
    /// One fetch at a time: the others wait for its token.
    fetching: tokio::sync::Mutex<()>,
}

/// Which token a request carries: the number of its fetch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Proof(u64);

#[derive(Default)]
struct State {
    fetched: Proof,
    known: Known,
}

#[derive(Clone, Default)]
enum Known {
    #[default]
    Nothing,
    /// The cluster knows no users.
    NotEnabled,
    Token {
        token: Token,
        fetch_again: Option<Moment>,
    },
}

impl Credentials {
    pub(crate) fn new(name: String, password: String) -> Self {
        Self {
            name,
            password,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The token, fetched over `channel` if there is none; none if the cluster knows no users.
    pub(crate) async fn token(&self, channel: Channel) -> Result<(Option<Token>, Proof), Verdict> {
        let (known, proof) = self.current();
        if known.is_fresh() {
            return Ok((known.token(), proof));
        }
        let _fetching = match self.fetching.try_lock() {
            Ok(fetching) => fetching,
            // Good enough for everybody but the one who fetches the next.
            Err(_) if known.is_usable() => return Ok((known.token(), proof)),
            Err(_) => self.fetching.lock().await,
        };
        let (known, proof) = self.current();
        if known.is_fresh() {
            return Ok((known.token(), proof));
        }
        match self.fetch(channel).await {
            Ok(known) => {
                let mut state = self.lock();
                state.fetched = Proof(state.fetched.0 + 1);
                state.known = known;
                Ok((state.known.token(), state.fetched))
            }
            Err(verdict)
                if known.is_usable() && *verdict.error.kind() != ErrorKind::Unauthenticated =>
            {
                self.use_longer(Moment::now() + KEPT_FOR);
                Ok((known.token(), proof))
            }
            Err(verdict) => Err(verdict),
        }
    }

    async fn fetch(&self, channel: Channel) -> Result<Known, Verdict> {
        let request = pb::AuthenticateRequest {
            name: self.name.clone(),
            password: self.password.clone(),
        };
        let mut client = AuthClient::new(channel);
        let late = |_| Err(Status::deadline_exceeded("no token in time"));
        let answer = timeout(FETCH_MAX, client.authenticate(request)).await;
        let answer = match answer.unwrap_or_else(late) {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let mut verdict = classify("authenticate", status);
                if *verdict.error.kind() == ErrorKind::AuthNotEnabled {
                    return Ok(Known::NotEnabled);
                }
                // Whatever the call was for, it was not sent; and no token helps to get one.
                verdict.error = verdict.error.outcome_is(Outcome::NotApplied);
                verdict.wants_token = false;
                return Err(verdict);
            }
        };
        let mut token: Token = answer.token.parse().map_err(|_| {
            let message = "the server sent a token that is no text";
            Verdict::refuse(Error::new(ErrorKind::Internal, "authenticate", message))
        })?;
        // Neither shown, nor kept in the tables of compressed headers.
        token.set_sensitive(true);
        let left = time_left(&answer.token, SystemTime::now());
        Ok(Known::Token {
            token,
            fetch_again: left.map(|left| Moment::now() + left.mul_f64(USED_MAX)),
        })
    }

    /// The token was refused: the next call fetches another, unless that has happened already.
    pub(crate) fn forget(&self, refused: Proof) {
        let mut state = self.lock();
        if state.fetched == refused {
            state.known = Known::Nothing;
        }
    }

    fn current(&self) -> (Known, Proof) {
        let state = self.lock();
        (state.known.clone(), state.fetched)
    }

    fn use_longer(&self, until: Moment) {
        if let Known::Token { fetch_again, .. } = &mut self.lock().known {
            *fetch_again = Some(until);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

impl Known {
    /// Whether it need not be fetched again.
    fn is_fresh(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::NotEnabled => true,
            Self::Token { fetch_again, .. } => fetch_again.is_none_or(|at| Moment::now() < at),
        }
    }

    fn is_usable(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    fn token(&self) -> Option<Token> {
        match self {
            Self::Nothing | Self::NotEnabled => None,
            Self::Token { token, .. } => Some(token.clone()),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the password nor the token.
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How long a token is good, if it says so: a JWT's `exp`, in seconds since 1970. It is not verified:
/// whoever lies to us about it has given us the token.
fn time_left(token: &str, now: SystemTime) -> Option<Duration> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let end = SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(claims.exp).ok()?;
    // One that seems to be over already: the clocks differ, and only a refusal can tell.
    end.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_token_that_says_when_it_ends_is_believed_and_others_are_not_guessed_at() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (token, want) in [
            (jwt(r#"{"exp":1300,"username":"root"}"#), Some(300)),
            (jwt(r#"{"exp":1300.0}"#), Some(300)),
            (jwt(r#"{"exp":999}"#), None),
            (jwt(r#"{"exp":-1}"#), None),
            (jwt(r#"{"exp":1e300}"#), None),
            (jwt(r#"{"username":"root"}"#), None),
            ("PkwcLefdosbGkXcB.58".into(), None),
            ("a.!.b".into(), None),
            (String::new(), None),
        ] {
            let want = want.map(Duration::from_secs);
            assert_eq!(time_left(&token, now), want, "{token}");
        }
    }

    #[test]
    fn a_refusal_of_an_old_token_does_not_cost_the_new_one() {
        let credentials = Credentials::new("root".into(), "secret".into());
        let token = Known::Token {
            token: Token::from_static("new"),
            fetch_again: None,
        };
        *credentials.lock() = State {
            fetched: Proof(2),
            known: token,
        };
        credentials.forget(Proof(1));
        assert!(credentials.current().0.is_usable());
        credentials.forget(Proof(2));
        assert!(!credentials.current().0.is_usable());
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
