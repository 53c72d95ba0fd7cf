//! A user's token: fetched with the first call, and again when it is no longer accepted.

use std::sync::Mutex;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::auth_client::AuthClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::error::{Error, ErrorKind, Outcome, Verdict, classify};

/// What a cluster without users says to one who would be one.
const NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

type Token = MetadataValue<Ascii>;

/// Who asks, and the token that proves it.
pub(crate) struct Credentials {
    name: String,
    password: String,
    token: Mutex<Option<Token>>,
    /// One fetch at a time: the others wait for its token.
    fetching: tokio::sync::Mutex<()>,
}

impl Credentials {
    pub(crate) fn new(name: String, password: String) -> Self {
        Self {
            name,
            password,
            token: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The token, fetched over `channel` if there is none; none if the cluster knows no users.
    pub(crate) async fn token(&self, channel: Channel) -> Result<Option<Token>, Verdict> {
        if let Some(token) = self.current() {
            return Ok(Some(token));
        }
        let _fetching = self.fetching.lock().await;
        if let Some(token) = self.current() {
            return Ok(Some(token));
        }
        let request = pb::AuthenticateRequest {
            name: self.name.clone(),
            password: self.password.clone(),
        };
        let answer = AuthClient::new(channel).authenticate(request).await;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.message() == NOT_ENABLED => return Ok(None),
            Err(status) => {
                let mut verdict = classify("authenticate", status);
                // Whatever the call was for, it was not sent.
                verdict.error = verdict.error.outcome_is(Outcome::NotApplied);
                return Err(verdict);
            }
        };
        let token: Token = answer.token.parse().map_err(|_| {
            let message = "the server sent a token that is no text";
            Verdict::refuse(Error::new(ErrorKind::Internal, "authenticate", message))
        })?;
        *self.lock() = Some(token.clone());
        Ok(Some(token))
    }

    /// The token was refused: the next call fetches another.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn current(&self) -> Option<Token> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token
            .lock()
            .expect("nothing panics while it holds this lock")
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
