//! A change on its way to many clients, encoded once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gonfalon_core::{Event, EventKind, KeyValue};
use gonfalon_proto::mvccpb;
use prost::Message as _;

/// An event and its bytes on the wire, which all watchers of a member share.
#[derive(Debug)]
pub struct SharedEvent {
    event: Arc<Event>,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

impl SharedEvent {
    /// Wraps an event; it is encoded when first asked for.
    pub fn new(event: Arc<Event>) -> Self {
        Self {
            event,
            plain: OnceLock::new(),
            with_prev: OnceLock::new(),
        }
    }

    /// The event.
    pub fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// An `mvccpb.Event` with its length before it, with or without the version before.
    pub fn encoded(&self, with_prev: bool) -> &Bytes {
        if with_prev && self.event.prev.is_some() {
            self.with_prev.get_or_init(|| encode(&self.event, true))
        } else {
            self.plain.get_or_init(|| encode(&self.event, false))
        }
    }

    /// About how much memory the event takes.
    pub fn size_bytes(&self) -> usize {
        let content = |kv: &KeyValue| kv.key.len() + kv.value.len();
        size_of::<Self>() + content(&self.event.kv) + self.event.prev.as_ref().map_or(0, content)
    }
}

fn encode(event: &Event, with_prev: bool) -> Bytes {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev = event.prev.as_ref().filter(|_| with_prev);
    let message = mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(&event.kv)),
        prev_kv: prev.map(key_value),
    };
    message.encode_length_delimited_to_vec().into()
}

fn key_value(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision.get(),
        mod_revision: kv.mod_revision.get(),
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease.get(),
    }
}

#[cfg(test)]
mod tests {
    use gonfalon_core::{LeaseId, Revision};

    use super::*;

    fn version(value: &'static str, revision: i64) -> KeyValue {
        KeyValue {
            key: "key".into(),
            value: value.into(),
            create_revision: Revision::new(2),
            mod_revision: Revision::new(revision),
            version: revision - 1,
            lease: LeaseId::new(-5),
        }
    }

    #[test]
    fn the_bytes_are_the_wires_event_with_or_without_the_version_before() {
        let (kv, before) = (version("new", 9), version("old", 8));
        let event = Arc::new(Event {
            kind: EventKind::Put,
            kv: kv.clone(),
            prev: Some(before.clone()),
        });
        let shared = SharedEvent::new(event);
        for (with_prev, prev_kv) in [(false, None), (true, Some(key_value(&before)))] {
            let decoded =
                mvccpb::Event::decode_length_delimited(shared.encoded(with_prev).clone()).unwrap();
            let put = mvccpb::event::EventType::Put.into();
            assert_eq!(
                decoded,
                mvccpb::Event {
                    r#type: put,
                    kv: Some(key_value(&kv)),
                    prev_kv
                },
                "with_prev: {with_prev}",
            );
        }
        let decoded = mvccpb::Event::decode_length_delimited(shared.encoded(true).clone()).unwrap();
        let kv = decoded.kv.unwrap();
        assert_eq!(
            (kv.lease, kv.create_revision, kv.mod_revision, kv.version),
            (-5, 2, 9, 8)
        );
    }

    #[test]
    fn without_a_version_before_both_forms_are_one() {
        let kv = KeyValue {
            key: "key".into(),
            ..KeyValue::default()
        };
        let event = Arc::new(Event {
            kind: EventKind::Delete,
            kv,
            prev: None,
        });
        let shared = SharedEvent::new(event);
        assert_eq!(
            shared.encoded(true).as_ptr(),
            shared.encoded(false).as_ptr()
        );
    }
}
