//! Roles: names for sets of permissions.

use bytes::Bytes;
use gonfalon_proto::authpb;
use gonfalon_proto::etcdserverpb as pb;

use super::{Auth, ask, named};
use crate::call::{Call, Repeat};
use crate::error::Error;
use crate::types::KeyRange;

/// What may be done with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reading and watching.
    Read,
    /// Writing and deleting.
    Write,
    /// Both.
    ReadWrite,
}

/// What a role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permission {
    /// What.
    pub access: Access,
    /// With which keys.
    pub range: KeyRange,
}

impl Access {
    fn to_wire(self) -> authpb::permission::Type {
        match self {
            Self::Read => authpb::permission::Type::Read,
            Self::Write => authpb::permission::Type::Write,
            Self::ReadWrite => authpb::permission::Type::Readwrite,
        }
    }

    fn from_wire(access: authpb::permission::Type) -> Self {
        match access {
            authpb::permission::Type::Read => Self::Read,
            authpb::permission::Type::Write => Self::Write,
            authpb::permission::Type::Readwrite => Self::ReadWrite,
        }
    }
}

impl Auth {
    /// Every role, by name.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn roles(&self) -> Result<Vec<String>, Error> {
        let call = Call::reads("roles");
        Ok(ask!(self, call, role_list, pb::AuthRoleListRequest::default()).roles)
    }

    /// A role's permissions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is no such role.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn role(&self, name: impl Into<String>) -> Result<Vec<Permission>, Error> {
        let call = Call::reads("role");
        let request = pb::AuthRoleGetRequest {
            role: named(call.name, name.into())?,
        };
        let answer = ask!(self, call, role_get, request);
        let permissions = answer.perm.into_iter().map(|permission| Permission {
            access: Access::from_wire(permission.perm_type()),
            range: KeyRange::from_wire(permission.key, permission.range_end),
        });
        Ok(permissions.collect())
    }

    /// Adds a role, which may do nothing yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the role may be there or not.
    pub async fn add_role(&self, name: impl Into<String>) -> Result<(), Error> {
        let call = Call::writes("add role");
        let request = pb::AuthRoleAddRequest {
            name: named(call.name, name.into())?,
        };
        ask!(self, call, role_add, request);
        Ok(())
    }

    /// Deletes a role; who had it has it no more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the role may be there or not.
    pub async fn delete_role(&self, name: impl Into<String>) -> Result<(), Error> {
        let call = Call::writes("delete role");
        let request = pb::AuthRoleDeleteRequest {
            role: named(call.name, name.into())?,
        };
        ask!(self, call, role_delete, request);
        Ok(())
    }

    /// Lets a role do something with a key, or with a [`KeyRange`]. What it could do with exactly
    /// these keys before is replaced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is no such role.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the role may have the permission or not.
    pub async fn grant_permission(
        &self,
        role: impl Into<String>,
        access: Access,
        range: impl Into<KeyRange>,
    ) -> Result<(), Error> {
        let call = Call::new("grant permission", Repeat::Safe);
        let (key, range_end) = range.into().to_wire(&Bytes::new());
        let request = pb::AuthRoleGrantPermissionRequest {
            name: named(call.name, role.into())?,
            perm: Some(authpb::Permission {
                perm_type: access.to_wire().into(),
                key,
                range_end,
            }),
        };
        ask!(self, call, role_grant_permission, request);
        Ok(())
    }

    /// Takes a permission back: the one that was granted for exactly these keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is no such role, or it has no such
    /// permission.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the role may have the permission or not.
    pub async fn revoke_permission(
        &self,
        role: impl Into<String>,
        range: impl Into<KeyRange>,
    ) -> Result<(), Error> {
        let call = Call::writes("revoke permission");
        let (key, range_end) = range.into().to_wire(&Bytes::new());
        let request = pb::AuthRoleRevokePermissionRequest {
            role: named(call.name, role.into())?,
            key,
            range_end,
        };
        ask!(self, call, role_revoke_permission, request);
        Ok(())
    }
}
