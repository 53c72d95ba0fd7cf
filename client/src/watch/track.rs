//! Where one watch is: what has been received in full, and what a new stream must begin with.
//!
//! Invariants
//! - `next` never goes back: whatever a server says, nothing is handed over twice;
//! - only whole revisions are handed over: of a response in pieces, all or nothing.

use gonfalon_proto::{etcdserverpb as pb, mvccpb};

use super::Batch;
use crate::types::{Event, Revision, revision_of};

/// The position of one watch.
#[derive(Debug)]
pub(super) struct Track {
    /// The first revision not yet received; 0 until the first creation of a watch from now on.
    next: i64,
    /// The highest revision that the store is known to have had.
    seen: i64,
    /// Events of a response whose last piece has not arrived.
    pieces: Vec<mvccpb::Event>,
    /// Bytes of the namespace before each key.
    hidden: usize,
    cluster: u64,
}

/// What a creation on a new stream shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// All is well.
    Fine,
    /// The member, or the store, is at an earlier revision than this one, which was seen.
    Behind(Revision),
    /// It is another cluster.
    Elsewhere,
}

impl Track {
    /// From `start` on; 0: from the creation on. The client has seen the store at `seen`.
    pub(super) fn new(start: i64, hidden: usize, seen: Revision) -> Self {
        let seen = seen.get();
        Self {
            next: start,
            // Who asks for what comes after a revision has seen that one; who asks for the past need
            // not have seen the present of the same store.
            seen: if start > 0 { seen.min(start - 1) } else { seen },
            pieces: Vec::new(),
            hidden,
            cluster: 0,
        }
    }

    /// What a creation must ask for.
    pub(super) fn start(&self) -> i64 {
        self.next
    }

    /// Everything before `next` has been received.
    pub(super) fn position(&self) -> Revision {
        Revision::new((self.next - 1).max(0))
    }

    /// The highest revision that the store is known to have had.
    pub(super) fn seen(&self) -> Revision {
        Revision::new(self.seen)
    }

    /// The member has created the watch.
    pub(super) fn created(&mut self, header: Option<&pb::ResponseHeader>) -> Created {
        let (cluster, revision) = header.map_or((0, 0), |h| (h.cluster_id, h.revision));
        let is_first = self.cluster == 0;
        if !is_first && cluster != self.cluster {
            return Created::Elsewhere;
        }
        self.cluster = cluster;
        let seen = self.seen;
        self.seen = seen.max(revision);
        if self.next == 0 {
            // "From now on" is the revision after this one, exactly; and only here: a watch of the
            // past has yet to receive what is before the header's revision. A member that lags has
            // yet to apply what this client has seen already: that is not after now.
            self.next = self.seen + 1;
        }
        if revision < seen {
            return Created::Behind(Revision::new(seen));
        }
        Created::Fine
    }

    /// Events have arrived; a batch, if they complete one with something new in it.
    pub(super) fn received(&mut self, response: pb::WatchResponse) -> Option<Batch> {
        self.pieces.extend(response.events);
        if response.fragment {
            return None;
        }
        let next = self.next;
        let events: Vec<Event> = std::mem::take(&mut self.pieces)
            .into_iter()
            .filter_map(|mut event| {
                let kv = event.kv.as_mut().filter(|kv| kv.mod_revision >= next)?;
                kv.key = kv.key.slice(self.hidden.min(kv.key.len())..);
                if let Some(prev) = &mut event.prev_kv {
                    prev.key = prev.key.slice(self.hidden.min(prev.key.len())..);
                }
                Event::from_wire(event)
            })
            .collect();
        let revision = events.last()?.kv.mod_revision;
        self.next = self.next.max(revision.get() + 1);
        self.seen = self.seen.max(revision.get());
        Some(Batch {
            revision,
            events,
            is_coalesced: false,
            is_relisted: false,
        })
    }

    /// The member says that there is nothing to report up to its revision.
    pub(super) fn progressed(&mut self, header: Option<&pb::ResponseHeader>) {
        let revision = revision_of(header).get();
        self.seen = self.seen.max(revision);
        // Not in the middle of a response: its revision is not complete.
        if self.pieces.is_empty() {
            self.next = self.next.max(revision + 1);
        }
    }

    /// The stream broke: what came in pieces comes again.
    pub(super) fn broken(&mut self) {
        self.pieces.clear();
    }
}

/// What events have of keys and values, in bytes.
pub(super) fn bytes_of(events: &[mvccpb::Event]) -> usize {
    let kv = |kv: &mvccpb::KeyValue| kv.key.len() + kv.value.len();
    let both = |event: &mvccpb::Event| {
        event.kv.as_ref().map_or(0, kv) + event.prev_kv.as_ref().map_or(0, kv)
    };
    events.iter().map(both).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: 7,
            revision,
            ..Default::default()
        }
    }

    fn events(revisions: &[i64], fragment: bool) -> pb::WatchResponse {
        let event = |&revision| mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                key: "k".into(),
                mod_revision: revision,
                ..Default::default()
            }),
            ..Default::default()
        };
        pb::WatchResponse {
            events: revisions.iter().map(event).collect(),
            fragment,
            ..Default::default()
        }
    }

    fn received(track: &mut Track, revisions: &[i64]) -> Vec<i64> {
        let batch = track.received(events(revisions, false));
        let events = batch.map(|batch| batch.events).unwrap_or_default();
        events
            .iter()
            .map(|event| event.kv.mod_revision.get())
            .collect()
    }

    #[test]
    fn a_watch_from_now_on_resumes_after_its_creation_and_not_at_it() {
        let mut track = Track::new(0, 0, Revision::UNKNOWN);
        assert_eq!(track.created(Some(&header(6))), Created::Fine);
        assert_eq!(track.start(), 7);
        assert_eq!(received(&mut track, &[6, 7]), [7], "6 was before it");
    }

    #[test]
    fn a_creation_skips_nothing_of_a_watch_of_the_past() {
        let mut track = Track::new(3, 0, Revision::UNKNOWN);
        track.created(Some(&header(100)));
        assert_eq!(track.start(), 3);
        assert_eq!(received(&mut track, &[3, 4]), [3, 4]);
        assert_eq!(track.start(), 5);
    }

    #[test]
    fn nothing_is_handed_over_twice_and_the_position_never_goes_back() {
        let mut track = Track::new(3, 0, Revision::UNKNOWN);
        assert_eq!(received(&mut track, &[3, 4]), [3, 4]);
        assert_eq!(received(&mut track, &[2, 3, 4, 5]), [5]);
        track.progressed(Some(&header(1)));
        assert_eq!(track.start(), 6);
        track.progressed(Some(&header(9)));
        assert_eq!(track.start(), 10);
    }

    #[test]
    fn a_revision_in_pieces_is_handed_over_whole_or_not_at_all() {
        let mut track = Track::new(3, 0, Revision::UNKNOWN);
        assert_eq!(track.received(events(&[3, 4], true)), None);
        track.progressed(Some(&header(50)));
        track.broken();
        assert_eq!(track.start(), 3, "the first piece comes again");
        assert_eq!(track.received(events(&[3, 4], true)), None);
        assert_eq!(received(&mut track, &[4]), [3, 4, 4]);
    }

    #[test]
    fn a_store_that_went_back_is_noticed() {
        let mut track = Track::new(0, 0, Revision::UNKNOWN);
        track.created(Some(&header(100)));
        assert_eq!(track.created(Some(&header(100))), Created::Fine);
        let behind = Created::Behind(Revision::new(100));
        assert_eq!(track.created(Some(&header(50))), behind);
        let other = pb::ResponseHeader {
            cluster_id: 8,
            ..header(200)
        };
        assert_eq!(track.created(Some(&other)), Created::Elsewhere);
    }

    #[test]
    fn a_watch_of_the_future_is_not_behind_however_often_it_is_created() {
        let mut track = Track::new(1000, 0, Revision::new(5));
        for revision in [5, 5, 7] {
            assert_eq!(track.created(Some(&header(revision))), Created::Fine);
            assert_eq!(track.start(), 1000);
        }
        let behind = Created::Behind(Revision::new(7));
        assert_eq!(track.created(Some(&header(6))), behind);
    }

    #[test]
    fn what_the_client_has_seen_is_before_now_on_a_member_that_lags_too() {
        let mut track = Track::new(0, 0, Revision::new(9));
        let behind = Created::Behind(Revision::new(9));
        assert_eq!(track.created(Some(&header(6))), behind);
        assert_eq!(track.start(), 10);
        assert_eq!(received(&mut track, &[7, 8, 9, 10]), [10]);
    }

    #[test]
    fn one_who_asks_for_what_comes_after_a_revision_has_seen_it() {
        for (start, seen, wanted) in [
            (10, 9, Created::Behind(Revision::new(9))),
            (10, 20, Created::Behind(Revision::new(9))),
            (10, 5, Created::Fine),
            (3, 9, Created::Fine),
        ] {
            let mut track = Track::new(start, 0, Revision::new(seen));
            let created = track.created(Some(&header(6)));
            assert_eq!(created, wanted, "from {start}, seen {seen}");
        }
    }
}
