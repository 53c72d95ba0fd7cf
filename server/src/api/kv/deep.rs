//! Transactions within transactions, deeper than prost reads them.
//!
//! prost stops after 100 messages in each other: 50 transactions. etcd takes as many as fit into
//! the limit of operations, 127 by default. To lift prost's bound would lift it from every message,
//! and one that is crafted could overflow the stack; so what is that deep is taken apart here, each
//! transaction on its own and within a bound.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use gonfalon_core::command::NESTING_MAX;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::Refusal;
use http::{Request, Response};
use pb::kv_server::Kv as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::UnaryService;
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::api::Api;

/// `KV.Txn` with a reader of its own.
#[derive(Debug, Clone)]
pub(in crate::api) struct TxnMethod {
    api: Arc<Api>,
    message_bytes_max: usize,
}

impl TxnMethod {
    /// Where it is called.
    pub(in crate::api) const PATH: &str = "/etcdserverpb.KV/Txn";

    pub(in crate::api) fn new(api: Arc<Api>, message_bytes_max: usize) -> Self {
        Self {
            api,
            message_bytes_max,
        }
    }

    pub(in crate::api) async fn call<B>(self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let mut server =
            tonic::server::Grpc::new(TxnCodec).max_decoding_message_size(self.message_bytes_max);
        server.unary(self, request).await
    }
}

impl UnaryService<pb::TxnRequest> for TxnMethod {
    type Response = pb::TxnResponse;
    type Future =
        Pin<Box<dyn Future<Output = Result<tonic::Response<pb::TxnResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<pb::TxnRequest>) -> Self::Future {
        let api = self.api.clone();
        Box::pin(async move { api.txn(request).await })
    }
}

#[derive(Debug, Clone, Copy)]
struct TxnCodec;

#[derive(Debug, Clone, Copy)]
struct TxnDecoder;

impl Codec for TxnCodec {
    type Encode = pb::TxnResponse;
    type Decode = pb::TxnRequest;
    type Encoder = ProstEncoder<pb::TxnResponse>;
    type Decoder = TxnDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<pb::TxnResponse, pb::TxnRequest>::default().encoder()
    }

    fn decoder(&mut self) -> TxnDecoder {
        TxnDecoder
    }
}

impl Decoder for TxnDecoder {
    type Item = pb::TxnRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<pb::TxnRequest>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        decode(bytes).map(Some)
    }
}

/// Reads a transaction as prost does, unless it is too deep for that.
fn decode(bytes: Bytes) -> Result<pb::TxnRequest, Status> {
    match pb::TxnRequest::decode(bytes.clone()) {
        Ok(request) => Ok(request),
        Err(error) if is_too_deep(&error) => Ok(txn(bytes, 1)?),
        Err(error) => Err(Failure::Malformed(error).into()),
    }
}

/// prost has no code for it.
fn is_too_deep(error: &DecodeError) -> bool {
    error.to_string().ends_with("recursion limit reached")
}

enum Failure {
    TooDeep,
    Malformed(DecodeError),
    /// A length goes beyond the end.
    Short,
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            // Each of them is an operation of the one around it.
            Failure::TooDeep => Refusal::TooManyOps.into(),
            // As tonic says it.
            Failure::Malformed(error) => Self::internal(error.to_string()),
            Failure::Short => Self::internal("failed to decode Protobuf message: buffer underflow"),
        }
    }
}

fn txn(mut bytes: Bytes, depth: usize) -> Result<pb::TxnRequest, Failure> {
    if depth > NESTING_MAX {
        return Err(Failure::TooDeep);
    }
    let mut request = pb::TxnRequest::default();
    while let Some((field, contents)) = next(&mut bytes)? {
        match field {
            1 => request.compare.push(pb::Compare::decode(contents)?),
            2 => request.success.push(op(contents, depth)?),
            3 => request.failure.push(op(contents, depth)?),
            _ => {}
        }
    }
    Ok(request)
}

fn op(mut bytes: Bytes, depth: usize) -> Result<pb::RequestOp, Failure> {
    use pb::request_op::Request;
    let mut request = None;
    // The last one counts.
    while let Some((field, contents)) = next(&mut bytes)? {
        request = Some(match field {
            1 => Request::RequestRange(pb::RangeRequest::decode(contents)?),
            2 => Request::RequestPut(pb::PutRequest::decode(contents)?),
            3 => Request::RequestDeleteRange(pb::DeleteRangeRequest::decode(contents)?),
            4 => Request::RequestTxn(txn(contents, depth + 1)?),
            _ => continue,
        });
    }
    Ok(pb::RequestOp { request })
}

/// The next field that has a length, and its contents.
fn next(bytes: &mut Bytes) -> Result<Option<(u32, Bytes)>, Failure> {
    while bytes.has_remaining() {
        let (field, kind) = decode_key(bytes)?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, field, bytes, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(bytes)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes.len());
        let length = length.ok_or(Failure::Short)?;
        return Ok(Some((field, bytes.split_to(length))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> pb::RequestOp {
        let put = pb::PutRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put)),
        }
    }

    /// A transaction with `depth - 1` in each other, and something beside each.
    fn nested(depth: usize) -> pb::TxnRequest {
        let mut request = pb::TxnRequest::default();
        for level in 0..depth {
            let compare = pb::Compare {
                key: format!("compared {level}").into(),
                ..Default::default()
            };
            let within = pb::RequestOp {
                request: Some(pb::request_op::Request::RequestTxn(request)),
            };
            request = pb::TxnRequest {
                compare: vec![compare],
                success: vec![put("before"), within, put("after")],
                failure: vec![put("otherwise")],
            };
        }
        request
    }

    #[test]
    fn a_transaction_is_read_however_deep_it_is() {
        // Each has one more within, which is empty.
        for depth in [0, 1, 48, 49, 50, 51, NESTING_MAX - 1] {
            let request = nested(depth);
            let read = decode(request.encode_to_vec().into());
            assert!(read.is_ok_and(|read| read == request), "{depth} deep");
        }
        let bytes = nested(49).encode_to_vec();
        let (as_prost, as_here) = (decode(bytes.clone().into()), txn(bytes.into(), 1));
        assert_eq!(as_prost.unwrap(), as_here.ok().unwrap());
    }

    #[test]
    fn what_is_deeper_than_the_log_takes_has_too_many_operations() {
        let field = |number: u8, contents: &[u8]| {
            let mut bytes = vec![number << 3 | 2];
            prost::encode_length_delimiter(contents.len(), &mut bytes).unwrap();
            [bytes, contents.to_vec()].concat()
        };
        for depth in [NESTING_MAX + 1, 5_000] {
            let mut bytes = Vec::new();
            for _ in 1..depth {
                bytes = field(2, &field(4, &bytes));
            }
            let status = decode(bytes.into()).unwrap_err();
            let want = (tonic::Code::InvalidArgument, Refusal::TooManyOps.text());
            assert_eq!((status.code(), status.message()), want, "{depth} deep");
        }
    }

    #[test]
    fn what_is_malformed_far_within_is_refused() {
        let mut bytes = nested(60).encode_to_vec();
        bytes.truncate(bytes.len() - 1);
        let status = decode(bytes.into()).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal);
    }
}
