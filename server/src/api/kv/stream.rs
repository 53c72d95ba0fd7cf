//! A range answered in pieces; merged, they are the answer of a plain Range.
//!
//! All pieces are of one revision; header, count and `more` come with the last. Their size is found
//! as etcd finds it: from ten keys on, twice as many while a piece is small, half as many when it
//! is large.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use gonfalon_core::command::Range;
use gonfalon_core::{KeyValue, RangeAnswer, Revision};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::render;
use prost::Message as _;
use tonic::Status;

use super::pages::Pager;
use crate::api::Api;
use crate::api::status::Refusal;

/// Keys of the first piece.
const KEYS_FIRST: usize = 10;

type Piece = Result<pb::RangeStreamResponse, Status>;

/// The answer to `query`, piece by piece.
pub(super) fn pieces(api: Api, query: &Range) -> Result<BoxStream<'static, Piece>, Refusal> {
    if query.count_only {
        let (revision, answer) = api.read_range(query)?;
        let whole = render::range(answer, api.header(revision));
        return Ok(stream::iter([Ok(piece(whole))]).boxed());
    }
    let (revision, pager, kvs) = Pager::begin(&api, query, KEYS_FIRST)?;
    let pieces = Pieces {
        api,
        pager,
        revision,
        kvs,
        sent: 0,
        keys_max: KEYS_FIRST,
    };
    let pieces = stream::unfold(Some(pieces), |pieces| async {
        match pieces?.take() {
            Ok((piece, rest)) => Some((Ok(piece), rest)),
            Err(refusal) => Some((Err(refusal.into()), None)),
        }
    });
    Ok(pieces.boxed())
}

/// What is still to be sent.
struct Pieces {
    api: Api,
    pager: Pager,
    /// The store's revision when the stream began, for the header.
    revision: Revision,
    /// The next piece.
    kvs: Vec<KeyValue>,
    /// Keys sent so far.
    sent: usize,
    /// Keys of the next piece to be read.
    keys_max: usize,
}

impl Pieces {
    /// The next piece, and what comes after it.
    fn take(mut self) -> Result<(pb::RangeStreamResponse, Option<Self>), Refusal> {
        self.sent += self.kvs.len();
        let kvs = std::mem::take(&mut self.kvs);
        if self.pager.is_done() {
            let rest = self.pager.count_rest(&self.api)?;
            let answer = RangeAnswer {
                kvs,
                more: rest > 0,
                count: self.sent + rest,
            };
            return Ok((
                piece(render::range(answer, self.api.header(self.revision))),
                None,
            ));
        }
        let kvs = render::kvs(kvs);
        let piece = piece(pb::RangeResponse {
            kvs,
            ..Default::default()
        });
        self.keys_max = next_size(
            self.keys_max,
            piece.encoded_len(),
            self.api.limits.request_bytes,
        );
        // A page may be empty although there are more keys.
        while self.kvs.is_empty() && !self.pager.is_done() {
            self.kvs = self.pager.next(&self.api, self.keys_max)?;
        }
        Ok((piece, Some(self)))
    }
}

fn piece(range: pb::RangeResponse) -> pb::RangeStreamResponse {
    pb::RangeStreamResponse {
        range_response: Some(range),
    }
}

/// How many keys to read when `keys` of them took `bytes` and a piece should have about `target`.
fn next_size(keys: usize, bytes: usize, target: usize) -> usize {
    if bytes < target / 2 {
        keys.saturating_mul(2)
    } else if bytes > target.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_and_shrink_towards_the_target() {
        for (keys, bytes, next) in [
            (10, 100, 20),
            (10, 499, 20),
            (10, 500, 10),
            (10, 2000, 10),
            (10, 2001, 5),
            (1, 9999, 1),
        ] {
            assert_eq!(
                next_size(keys, bytes, 1000),
                next,
                "{keys} keys of {bytes} bytes"
            );
        }
    }
}
