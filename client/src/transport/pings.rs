//! How often a server is pinged: as often as the client was told to, until the server complains.
//!
//! A server that is pinged too often ends the connection with a frame that says so (GOAWAY with
//! `ENHANCE_YOUR_CALM`), and then the interval doubles, as gRPC's document A8 has it. Neither hyper nor
//! tonic shows that frame: requests that are under way only see the connection end. So we look for it
//! ourselves in what the connection brings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The head of every frame: length (3), type (1), flags (1), stream (4).
const HEAD_BYTES: usize = 9;
const GOAWAY: u8 = 7;
/// The last stream (4), the reason (4).
const GOAWAY_BYTES: usize = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// No server wants less.
const INTERVAL_MAX: Duration = Duration::from_mins(10);

/// The interval of one endpoint, in milliseconds.
#[derive(Debug)]
pub(super) struct Pings(AtomicU64);

impl Pings {
    pub(super) fn every(interval: Duration) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(millis(interval))))
    }

    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// A connection that was pinged every `interval` was ended for it. That several are at once counts
    /// once.
    fn too_often(&self, interval: Duration) {
        let doubled = interval.saturating_mul(2).min(INTERVAL_MAX);
        let (old, new) = (millis(interval), millis(doubled.max(interval)));
        let order = Ordering::Relaxed;
        if self.0.compare_exchange(old, new, order, order).is_ok() && new > old {
            tracing::warn!(?interval, now = ?doubled, "the server wants fewer pings");
        }
    }
}

fn millis(interval: Duration) -> u64 {
    u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
}

/// Follows the frames that one connection brings.
#[derive(Debug)]
pub(super) struct Complaints {
    pings: Arc<Pings>,
    interval: Duration,
    /// The head of a frame, and of a GOAWAY what follows, as far as it has come.
    seen: [u8; HEAD_BYTES + GOAWAY_BYTES],
    len: usize,
    /// What is left of a frame that says nothing about pings.
    skip: usize,
}

impl Complaints {
    /// Of a connection that is pinged every `interval`.
    pub(super) fn of(pings: Arc<Pings>, interval: Duration) -> Self {
        Self {
            pings,
            interval,
            seen: [0; HEAD_BYTES + GOAWAY_BYTES],
            len: 0,
            skip: 0,
        }
    }

    /// The connection has brought `bytes`.
    pub(super) fn look_at(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = self.wanted().min(bytes.len());
            self.seen[self.len..self.len + wanted].copy_from_slice(&bytes[..wanted]);
            self.len += wanted;
            bytes = &bytes[wanted..];
            if self.len >= HEAD_BYTES && self.wanted() == 0 {
                self.judge();
            }
        }
    }

    /// How many more bytes of this frame are looked at.
    fn wanted(&self) -> usize {
        if self.skip > 0 {
            0
        } else if self.len < HEAD_BYTES {
            HEAD_BYTES - self.len
        } else if self.seen[3] == GOAWAY {
            HEAD_BYTES + GOAWAY_BYTES.min(self.payload()) - self.len
        } else {
            0
        }
    }

    fn payload(&self) -> usize {
        let [high, middle, low, ..] = self.seen;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    fn judge(&mut self) {
        if self.len == self.seen.len() {
            let [.., a, b, c, d] = self.seen;
            if u32::from_be_bytes([a, b, c, d]) == ENHANCE_YOUR_CALM {
                self.pings.too_often(self.interval);
            }
        }
        self.skip = HEAD_BYTES + self.payload() - self.len;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, 0, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    fn goaway(reason: u32, text: &str) -> Vec<u8> {
        let mut payload = vec![0, 0, 0, 3];
        payload.extend(reason.to_be_bytes());
        payload.extend(text.bytes());
        frame(GOAWAY, &payload)
    }

    fn follow(pings: &Arc<Pings>) -> Complaints {
        Complaints::of(pings.clone(), pings.interval())
    }

    /// However the bytes are cut.
    fn interval_after(bytes: &[u8]) -> Vec<u64> {
        let sizes = 1..=bytes.len();
        let intervals = sizes.map(|size| {
            let pings = Pings::every(Duration::from_secs(10));
            let mut complaints = follow(&pings);
            bytes
                .chunks(size)
                .for_each(|bytes| complaints.look_at(bytes));
            pings.interval().as_secs()
        });
        let mut intervals: Vec<_> = intervals.collect();
        intervals.dedup();
        intervals
    }

    #[test]
    fn a_server_that_complains_is_pinged_half_as_often() {
        let mut bytes = frame(4, &[0; 12]);
        bytes.extend(frame(0, &[7; 300]));
        bytes.extend(frame(4, &[]));
        let mut other = bytes.clone();
        bytes.extend(goaway(ENHANCE_YOUR_CALM, "too_many_pings"));
        assert_eq!(interval_after(&bytes), [20]);
        other.extend(goaway(0, "too_many_pings"));
        other.extend(frame(0, &goaway(ENHANCE_YOUR_CALM, "")));
        assert_eq!(interval_after(&other), [10], "nobody has complained");
    }

    #[test]
    fn two_connections_that_are_ended_at_once_count_once() {
        let pings = Pings::every(Duration::from_secs(10));
        let (mut one, mut two) = (follow(&pings), follow(&pings));
        let bytes = goaway(ENHANCE_YOUR_CALM, "");
        one.look_at(&bytes);
        two.look_at(&bytes);
        assert_eq!(pings.interval(), Duration::from_secs(20));
        follow(&pings).look_at(&bytes);
        assert_eq!(pings.interval(), Duration::from_secs(40));
    }

    #[test]
    fn the_interval_does_not_grow_for_ever() {
        let pings = Pings::every(Duration::from_secs(10));
        for _ in 0..20 {
            follow(&pings).look_at(&goaway(ENHANCE_YOUR_CALM, ""));
        }
        assert_eq!(pings.interval(), INTERVAL_MAX);
    }
}
