//! Writing at a rate, and the times that the writes took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use gonfalon_proto::etcdserverpb as pb;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::connection::{self, Connection};
use crate::failure::Failure;

/// Connections that the clients share: more would measure the sockets.
const CONNECTIONS_MAX: usize = 50;
/// Bytes of a value, as etcdctl has them.
const VALUE_LEN: usize = 1024;

/// What to write.
pub(super) struct Load {
    pub(super) rate: u32,
    pub(super) clients: usize,
    pub(super) duration: Duration,
    pub(super) prefix: Bytes,
}

/// What it took.
pub(super) struct Measured {
    /// From the shortest to the longest.
    times: Vec<Duration>,
    elapsed: Duration,
    pub(super) errors: u64,
    /// One of the errors.
    pub(super) error: Option<String>,
}

/// What one client saw.
struct Client {
    times: Vec<Duration>,
    errors: u64,
    error: Option<String>,
}

impl Load {
    /// Each client takes the next number, waits until it is that number's turn, and writes. A
    /// cluster that is too slow makes the turns late, and the rate falls.
    pub(super) async fn run(self, connection: &Connection) -> Result<Measured, Failure> {
        let mut channels = Vec::new();
        for _ in 0..self.clients.min(CONNECTIONS_MAX) {
            channels.push(connection.separate().await?);
        }
        let turns = Arc::new(Turns {
            start: Instant::now(),
            end: Instant::now() + self.duration,
            apart: Duration::from_secs(1) / self.rate,
            next: AtomicU64::new(0),
        });
        let value = Bytes::from(vec![b'x'; VALUE_LEN]);
        let mut clients = JoinSet::new();
        for at in 0..self.clients {
            let channel = channels[at % channels.len()].clone();
            let (turns, prefix, value) = (turns.clone(), self.prefix.clone(), value.clone());
            clients.spawn(write(channel, turns, prefix, value));
        }
        let mut times = Vec::new();
        let (mut errors, mut error) = (0, None);
        while let Some(client) = clients.join_next().await {
            let client = client.map_err(|err| Failure::failed(format!("a client broke: {err}")))?;
            times.extend(client.times);
            errors += client.errors;
            error = error.or(client.error);
        }
        let measured = Measured::of(times, turns.start.elapsed(), errors);
        Ok(Measured { error, ..measured })
    }
}

/// Who writes when.
struct Turns {
    start: Instant,
    end: Instant,
    apart: Duration,
    next: AtomicU64,
}

impl Turns {
    /// Waits for the next turn; `None` when the time is over.
    async fn take(&self) -> Option<u64> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(self.apart.as_nanos()).unwrap_or(u64::MAX);
        let at = self.start + Duration::from_nanos(nanos.saturating_mul(turn));
        if at >= self.end || Instant::now() >= self.end {
            return None;
        }
        tokio::time::sleep_until(at).await;
        Some(turn)
    }
}

async fn write(channel: Channel, turns: Arc<Turns>, prefix: Bytes, value: Bytes) -> Client {
    let mut kv = connection::kv(channel);
    let mut client = Client {
        times: Vec::new(),
        errors: 0,
        error: None,
    };
    while let Some(turn) = turns.take().await {
        let mut key = BytesMut::from(&prefix[..]);
        // Scattered over the keyspace, and never the same twice: an odd number has an inverse.
        key.put_slice(format!("{:016x}", turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)).as_bytes());
        let request = pb::PutRequest {
            key: key.freeze(),
            value: value.clone(),
            ..Default::default()
        };
        let start = Instant::now();
        match kv.put(request).await {
            Ok(_) => client.times.push(start.elapsed()),
            Err(status) => {
                client.errors += 1;
                client.error = Some(status.message().to_owned());
            }
        }
    }
    client
}

impl Measured {
    pub(super) fn of(mut times: Vec<Duration>, elapsed: Duration, errors: u64) -> Self {
        times.sort_unstable();
        Self {
            times,
            elapsed,
            errors,
            error: None,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.times.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    pub(super) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(super) fn slowest(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }

    /// The time within which `percent` of the writes were done.
    pub(super) fn quantile(&self, percent: usize) -> Duration {
        let at = (self.times.len() * percent).div_ceil(100).saturating_sub(1);
        self.times.get(at).copied().unwrap_or_default()
    }

    /// The standard deviation.
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    pub(super) fn deviation(&self) -> Duration {
        if self.times.is_empty() {
            return Duration::ZERO;
        }
        let count = self.times.len() as f64;
        let mean = self.times.iter().map(Duration::as_secs_f64).sum::<f64>() / count;
        let squares = self
            .times
            .iter()
            .map(|time| (time.as_secs_f64() - mean).powi(2));
        Duration::from_secs_f64((squares.sum::<f64>() / count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let times = (1..=100).map(Duration::from_millis).collect();
        let measured = Measured::of(times, Duration::from_secs(2), 0);
        assert!((measured.per_second() - 50.0).abs() < 1e-9);
        assert_eq!(measured.quantile(50), Duration::from_millis(50));
        assert_eq!(measured.quantile(99), Duration::from_millis(99));
        assert_eq!(measured.slowest(), Duration::from_millis(100));
        let deviation = measured.deviation().as_secs_f64();
        assert!((deviation - 0.028_866).abs() < 1e-5, "{deviation}");
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        let measured = Measured::of(Vec::new(), Duration::from_secs(1), 0);
        assert_eq!(
            (measured.quantile(99), measured.deviation()),
            (Duration::ZERO, Duration::ZERO)
        );
    }
}
