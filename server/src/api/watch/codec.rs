//! Messages whose events are encoded already, on the wire.

use bytes::BufMut;
use gonfalon_proto::etcdserverpb as pb;
use prost::{EncodeError, Message as _};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::frames::Frame;

/// Reads requests as prost does and writes [`Frame`]s.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WatchCodec;

/// Writes [`Frame`]s.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameEncoder;

/// Field 11 (`events`), length-delimited.
const EVENTS_TAG: u8 = (11 << 3) | 2;

impl Codec for WatchCodec {
    type Encode = Frame;
    type Decode = pb::WatchRequest;
    type Encoder = FrameEncoder;
    type Decoder = ProstDecoder<pb::WatchRequest>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<pb::WatchResponse, pb::WatchRequest>::default().decoder()
    }
}

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(frame.size_bytes());
        write(&frame, to).map_err(|error| Status::internal(error.to_string()))
    }
}

fn write(frame: &Frame, to: &mut impl BufMut) -> Result<(), EncodeError> {
    frame.head.encode(to)?;
    for event in &frame.events {
        to.put_u8(EVENTS_TAG);
        to.put_slice(event.encoded(frame.with_prev));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use gonfalon_core::{Event, EventKind, KeyValue, Revision};
    use gonfalon_proto::mvccpb;

    use super::*;
    use crate::watch::SharedEvent;

    #[test]
    fn a_frame_on_the_wire_is_the_response_that_prost_would_write() {
        let kv = |value: &'static str, revision| KeyValue {
            key: "key".into(),
            value: value.into(),
            mod_revision: Revision::new(revision),
            ..KeyValue::default()
        };
        let message = |kv: &KeyValue| mvccpb::KeyValue {
            key: kv.key.clone(),
            value: kv.value.clone(),
            mod_revision: kv.mod_revision.get(),
            ..mvccpb::KeyValue::default()
        };
        let (new, old) = (kv("new", 9), kv("old", 8));
        for with_prev in [false, true] {
            let event = Event {
                kind: EventKind::Put,
                kv: new.clone(),
                prev: Some(old.clone()),
            };
            let event = Arc::new(SharedEvent::new(Arc::new(event)));
            let head = pb::WatchResponse {
                header: Some(pb::ResponseHeader {
                    cluster_id: u64::MAX,
                    member_id: 2,
                    revision: 9,
                    raft_term: 3,
                }),
                watch_id: -4,
                fragment: true,
                ..pb::WatchResponse::default()
            };
            let frame = Frame {
                head: head.clone(),
                events: vec![event.clone(), event],
                with_prev,
            };
            let size = frame.size_bytes();
            let mut bytes = BytesMut::new();
            // What tonic hands to an encoder can only be made by tonic.
            write(&frame, &mut bytes).unwrap();
            let event = mvccpb::Event {
                kv: Some(message(&new)),
                prev_kv: with_prev.then(|| message(&old)),
                ..mvccpb::Event::default()
            };
            let want = pb::WatchResponse {
                events: vec![event.clone(), event],
                ..head
            };
            assert_eq!(bytes, want.encode_to_vec(), "with_prev: {with_prev}");
            assert_eq!(size, bytes.len(), "with_prev: {with_prev}");
        }
    }
}
