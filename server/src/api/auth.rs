//! The Auth service: users and roles, which this server does not have yet.
//!
//! Auth is off, and says so; the calls that would change that are answered as a server answers that
//! does not know them, which is what clients take as "not supported".

use gonfalon_proto::etcdserverpb as pb;
use pb::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::{Api, grpc};

/// etcd counts changes of users and roles from 1.
const AUTH_REVISION_FIRST: u64 = 1;

macro_rules! service {
    ($($method:ident $name:literal: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Auth for Api {
            async fn auth_status(
                &self,
                _request: Request<pb::AuthStatusRequest>,
            ) -> Result<Response<pb::AuthStatusResponse>, Status> {
                Ok(Response::new(pb::AuthStatusResponse {
                    header: Some(self.header(self.revision())),
                    enabled: false,
                    auth_revision: AUTH_REVISION_FIRST,
                }))
            }

            $(
                async fn $method(
                    &self,
                    _request: Request<pb::$request>,
                ) -> Result<Response<pb::$response>, Status> {
                    Err(grpc::unknown_method(pb::auth_server::SERVICE_NAME, $name))
                }
            )*
        }
    };
}

service! {
    auth_enable "AuthEnable": AuthEnableRequest -> AuthEnableResponse;
    auth_disable "AuthDisable": AuthDisableRequest -> AuthDisableResponse;
    authenticate "Authenticate": AuthenticateRequest -> AuthenticateResponse;
    user_add "UserAdd": AuthUserAddRequest -> AuthUserAddResponse;
    user_get "UserGet": AuthUserGetRequest -> AuthUserGetResponse;
    user_list "UserList": AuthUserListRequest -> AuthUserListResponse;
    user_delete "UserDelete": AuthUserDeleteRequest -> AuthUserDeleteResponse;
    user_change_password "UserChangePassword":
        AuthUserChangePasswordRequest -> AuthUserChangePasswordResponse;
    user_grant_role "UserGrantRole": AuthUserGrantRoleRequest -> AuthUserGrantRoleResponse;
    user_revoke_role "UserRevokeRole": AuthUserRevokeRoleRequest -> AuthUserRevokeRoleResponse;
    role_add "RoleAdd": AuthRoleAddRequest -> AuthRoleAddResponse;
    role_get "RoleGet": AuthRoleGetRequest -> AuthRoleGetResponse;
    role_list "RoleList": AuthRoleListRequest -> AuthRoleListResponse;
    role_delete "RoleDelete": AuthRoleDeleteRequest -> AuthRoleDeleteResponse;
    role_grant_permission "RoleGrantPermission":
        AuthRoleGrantPermissionRequest -> AuthRoleGrantPermissionResponse;
    role_revoke_permission "RoleRevokePermission":
        AuthRoleRevokePermissionRequest -> AuthRoleRevokePermissionResponse;
}
