//! Users, roles and what they may do. The keys of permissions are whole: a client's namespace does
//! not apply to them.
//!
//! Authentication is off until it is enabled, which needs a user `root` who has the role `root`. From
//! then on every call carries a user: [`ClientBuilder::user`](crate::ClientBuilder::user), or the name
//! in a client's certificate.

mod roles;

use gonfalon_proto::authpb;
use gonfalon_proto::etcdserverpb as pb;

use crate::call::{Call, Repeat};
use crate::client::Client;
use crate::error::{Error, ErrorKind};

pub use roles::{Access, Permission};

/// Calls about users and roles. Once authentication is enabled, only those who have the role `root`
/// may make them, but for reading one's own name and roles.
#[derive(Debug, Clone)]
pub struct Auth {
    client: Client,
}

/// Whether users are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthStatus {
    /// Whether authentication is enabled.
    pub enabled: bool,
    /// Counts the changes of users and roles.
    pub revision: u64,
}

/// Sends a request of the service Auth; notes the revision of its answer.
macro_rules! ask {
    ($auth:expr, $call:expr, $method:ident, $request:expr) => {{
        let client = &$auth.client;
        let send = move |channel, request| async move {
            gonfalon_proto::etcdserverpb::auth_client::AuthClient::new(channel)
                .$method(request)
                .await
        };
        let answer = client.unary($call, $request, send).await?;
        client.saw(answer.header.as_ref());
        answer
    }};
}
use ask;

/// A server would take an empty name of a user for a call that carries none.
fn named(call: &'static str, name: String) -> Result<String, Error> {
    if name.is_empty() {
        let message = "a user or role has a name";
        return Err(Error::new(ErrorKind::InvalidArgument, call, message));
    }
    Ok(name)
}

impl Auth {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Enables authentication: from now on, calls need a user. Enabled already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`]: there is no user `root`, or he has not the role `root`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not be enabled.
    pub async fn enable(&self) -> Result<(), Error> {
        let call = Call::new("enable authentication", Repeat::Safe);
        ask!(self, call, auth_enable, pb::AuthEnableRequest::default());
        Ok(())
    }

    /// Disables authentication: everybody may do everything. Disabled already is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not be disabled.
    pub async fn disable(&self) -> Result<(), Error> {
        let call = Call::new("disable authentication", Repeat::Safe);
        ask!(self, call, auth_disable, pb::AuthDisableRequest::default());
        Ok(())
    }

    /// Whether authentication is enabled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unimplemented`]: the server is older than etcd 3.5.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn status(&self) -> Result<AuthStatus, Error> {
        let call = Call::reads("authentication status");
        let answer = ask!(self, call, auth_status, pb::AuthStatusRequest::default());
        Ok(AuthStatus {
            enabled: answer.enabled,
            revision: answer.auth_revision,
        })
    }

    /// Every user, by name.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn users(&self) -> Result<Vec<String>, Error> {
        let call = Call::reads("users");
        Ok(ask!(self, call, user_list, pb::AuthUserListRequest::default()).users)
    }

    /// A user's roles.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: there is no such user.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn user(&self, name: impl Into<String>) -> Result<Vec<String>, Error> {
        let call = Call::reads("user");
        let request = pb::AuthUserGetRequest {
            name: named(call.name, name.into())?,
        };
        Ok(ask!(self, call, user_get, request).roles)
    }

    /// Adds a user who signs in with a password.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the user may be there or not.
    pub async fn add_user(
        &self,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<(), Error> {
        self.add(name.into(), password.into(), false).await
    }

    /// Adds a user who signs in with a client's certificate only, whose common name is `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the user may be there or not.
    pub async fn add_user_without_password(&self, name: impl Into<String>) -> Result<(), Error> {
        self.add(name.into(), String::new(), true).await
    }

    async fn add(&self, name: String, password: String, no_password: bool) -> Result<(), Error> {
        let call = Call::writes("add user");
        let request = pb::AuthUserAddRequest {
            name: named(call.name, name)?,
            password,
            options: Some(authpb::UserAddOptions { no_password }),
            ..pb::AuthUserAddRequest::default()
        };
        ask!(self, call, user_add, request);
        Ok(())
    }

    /// Deletes a user; his tokens are good for nothing any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InvalidArgument`]: `root` stays while authentication is
    /// enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the user may be there or not.
    pub async fn delete_user(&self, name: impl Into<String>) -> Result<(), Error> {
        let call = Call::writes("delete user");
        let request = pb::AuthUserDeleteRequest {
            name: named(call.name, name.into())?,
        };
        ask!(self, call, user_delete, request);
        Ok(())
    }

    /// Changes a user's password; his tokens are good for nothing any more. A client that was made
    /// with the old one must be made anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the password may be the old one or the new one.
    pub async fn change_password(
        &self,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<(), Error> {
        let call = Call::new("change password", Repeat::Safe);
        let request = pb::AuthUserChangePasswordRequest {
            name: named(call.name, name.into())?,
            password: password.into(),
            ..pb::AuthUserChangePasswordRequest::default()
        };
        ask!(self, call, user_change_password, request);
        Ok(())
    }

    /// Gives a user a role; one that he has is no error. The role `root` may do everything, and need
    /// not be added.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: there is no such user, or no such role.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the user may have the role or not.
    pub async fn grant_role(
        &self,
        user: impl Into<String>,
        role: impl Into<String>,
    ) -> Result<(), Error> {
        let call = Call::new("grant role", Repeat::Safe);
        let request = pb::AuthUserGrantRoleRequest {
            user: named(call.name, user.into())?,
            role: named(call.name, role.into())?,
        };
        ask!(self, call, user_grant_role, request);
        Ok(())
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: there is no such user, or he has not the role.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the user may have the role or not.
    pub async fn revoke_role(
        &self,
        user: impl Into<String>,
        role: impl Into<String>,
    ) -> Result<(), Error> {
        let call = Call::writes("revoke role");
        let request = pb::AuthUserRevokeRoleRequest {
            name: named(call.name, user.into())?,
            role: named(call.name, role.into())?,
        };
        ask!(self, call, user_revoke_role, request);
        Ok(())
    }
}
