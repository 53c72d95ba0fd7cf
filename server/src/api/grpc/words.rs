//! Errors that tonic makes by itself, in grpc-go's words: clients recognise some by their text.

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};

/// `/package.Service/Method` as its service and method.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.rsplit_once('/')
}

/// The answer to a call that this server does not have.
pub(super) fn unknown(path: &str) -> Status {
    match split(path) {
        Some((service, _)) => Status::unimplemented(format!("unknown service {service}")),
        None => Status::unimplemented(format!("malformed method name: {path:?}")),
    }
}

/// The answer to a call that this server does not have, of a service that it has.
pub(crate) fn unknown_method(service: &str, method: &str) -> Status {
    Status::unimplemented(format!("unknown method {method} for service {service}"))
}

/// The answer to a client that has stopped waiting: Go's text, without etcd's name before it.
pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// Replaces what tonic says in `response` to a call of `path`. Costs nothing if there is no error.
pub(super) fn translate(response: Response<Body>, path: &str) -> Response<Body> {
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let said = response.extensions().get::<Status>();
    let better = match said {
        Some(status) => translation(status),
        // Generated code says no more than the number when it does not know the method.
        None => split(path).map(|(service, method)| unknown_method(service, method)),
    };
    better.map_or(response, Status::into_http)
}

/// A status that tonic may have made, in etcd's words; any other is returned as it is.
pub(crate) fn in_etcds_words(status: Status) -> Status {
    translation(&status).unwrap_or(status)
}

fn translation(status: &Status) -> Option<Status> {
    match status.code() {
        Code::OutOfRange => too_large(status.message()),
        Code::Unimplemented => compressed(status.message()),
        Code::NotFound if status.message() == "service not registered" => {
            Some(Status::not_found("unknown service"))
        }
        _ => None,
    }
}

fn too_large(message: &str) -> Option<Status> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (size, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    let text = format!("grpc: received message larger than max ({size} vs. {limit})");
    Some(Status::resource_exhausted(text))
}

fn compressed(message: &str) -> Option<Status> {
    let rest = message.strip_prefix("Content is compressed with `")?;
    let encoding = rest.strip_suffix("` which isn't supported")?;
    let text = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
    Some(Status::unimplemented(text))
}
