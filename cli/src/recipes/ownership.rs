//! Waiting in line for a name: the oldest key below it owns it.

use bytes::{BufMut as _, Bytes, BytesMut};
use gonfalon_proto::{etcdserverpb as pb, mvccpb};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::range::Range;

/// A place in the line.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    /// The revision that made the key: who has the smallest owns the name. It grows with every
    /// owner, so a resource can use it to turn away those who lost theirs.
    pub(crate) revision: i64,
}

/// All places below a name.
pub(crate) fn line(name: &Bytes) -> Bytes {
    let mut prefix = BytesMut::from(&name[..]);
    prefix.put_u8(b'/');
    prefix.freeze()
}

/// Takes a place, or finds the one that this lease has already.
pub(crate) async fn enter(
    connection: &Connection,
    name: &Bytes,
    lease: i64,
    value: &Bytes,
) -> Result<Place, Failure> {
    let mut key = BytesMut::from(&line(name)[..]);
    key.put_slice(format!("{lease:x}").as_bytes());
    let key = key.freeze();
    let request = create_or_get(&key, lease, value);
    // Sent twice it finds its own key: harmless.
    let response = connection
        .call(Repeat::Safe, async |channel| {
            connection::kv(channel).txn(request.clone()).await
        })
        .await?;
    let now = response.header.as_ref().map_or(0, |header| header.revision);
    let existing = response
        .responses
        .into_iter()
        .find_map(|op| match op.response {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
    let revision = match existing {
        Some(kv) if !response.succeeded => kv.create_revision,
        _ => now,
    };
    Ok(Place { key, revision })
}

fn create_or_get(key: &Bytes, lease: i64, value: &Bytes) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let put = pb::PutRequest {
        key: key.clone(),
        value: value.clone(),
        lease,
        ..Default::default()
    };
    let get = pb::RangeRequest {
        key: key.clone(),
        ..Default::default()
    };
    let op = |request| {
        vec![pb::RequestOp {
            request: Some(request),
        }]
    };
    pb::TxnRequest {
        compare: vec![compare],
        success: op(Request::RequestPut(put)),
        failure: op(Request::RequestRange(get)),
    }
}

/// Waits until nobody is before this place.
pub(crate) async fn wait(
    connection: &Connection,
    name: &Bytes,
    place: &Place,
) -> Result<(), Failure> {
    loop {
        let Some((before, read_at)) = predecessor(connection, name, place).await? else {
            return Ok(());
        };
        // A lost watch is no matter: look again who is before us.
        gone(connection, &before.key, read_at + 1).await;
    }
}

/// The place directly before this one, and the revision at which that was so.
async fn predecessor(
    connection: &Connection,
    name: &Bytes,
    place: &Place,
) -> Result<Option<(mvccpb::KeyValue, i64)>, Failure> {
    let range = Range::prefix(&line(name));
    let request = pb::RangeRequest {
        key: range.key,
        range_end: range.end,
        limit: 1,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Create.into(),
        max_create_revision: place.revision - 1,
        ..Default::default()
    };
    let response = read(connection, request).await?;
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    Ok(response.kvs.into_iter().next().map(|kv| (kv, revision)))
}

/// Waits until a key is deleted, or until the watch is lost.
async fn gone(connection: &Connection, key: &Bytes, from: i64) {
    let Ok((_, channel)) = connection.channel().await else {
        // Nobody can be reached; the next look at the line will say so.
        return;
    };
    let create = pb::WatchCreateRequest {
        key: key.clone(),
        start_revision: from,
        filters: vec![pb::watch_create_request::FilterType::Noput.into()],
        ..Default::default()
    };
    let union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let (send, receive) = tokio::sync::mpsc::channel(1);
    // The queue has room for it.
    send.send(pb::WatchRequest {
        request_union: union,
    })
    .await
    .ok();
    let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receive));
    // A member without a leader would leave us waiting for good.
    request.metadata_mut().insert(
        "hasleader",
        tonic::metadata::MetadataValue::from_static("true"),
    );
    let Ok(stream) = connection::watch(channel).watch(request).await else {
        return connection.lost().await;
    };
    let mut stream = stream.into_inner();
    loop {
        match stream.message().await {
            Ok(Some(response)) if response.canceled || !response.events.is_empty() => return,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return connection.lost().await,
        }
    }
}

/// Who owns a name: at most one key.
pub(crate) async fn owner(
    connection: &Connection,
    name: &Bytes,
) -> Result<pb::RangeResponse, Failure> {
    let range = Range::prefix(&line(name));
    let request = pb::RangeRequest {
        key: range.key,
        range_end: range.end,
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..Default::default()
    };
    read(connection, request).await
}

async fn read(
    connection: &Connection,
    request: pb::RangeRequest,
) -> Result<pb::RangeResponse, Failure> {
    connection
        .call(Repeat::Safe, async |channel| {
            connection::kv(channel).range(request.clone()).await
        })
        .await
}
