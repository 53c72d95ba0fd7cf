//! Messages whose events are encoded already, on the wire.

use bytes::BufMut as _;
use gonfalon_proto::etcdserverpb as pb;
use prost::Message as _;
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
        let written = frame.head.encode(to);
        written.map_err(|error| Status::internal(error.to_string()))?;
        for event in &frame.events {
            to.put_u8(EVENTS_TAG);
            to.put_slice(event.encoded(frame.with_prev));
        }
        Ok(())
    }
}
