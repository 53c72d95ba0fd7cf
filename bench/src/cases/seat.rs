//! Which connections a client uses.

use anyhow::Result;
use tonic::transport::Channel;

use super::Bench;
use crate::cluster::Cluster;
use crate::load::{Connection, connect};

/// The place of one client: its thread, and its connections there or elsewhere.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) thread: usize,
    pub(super) channels: Vec<Channel>,
}

/// Seats for `clients` on the members of `cluster`, each member with the same share.
///
/// Where there are fewer clients than members, each client has a connection to every member, and
/// is meant to use them in turn.
pub(super) async fn seats(bench: &Bench, cluster: &Cluster, clients: usize) -> Result<Vec<Seat>> {
    let endpoints = cluster.endpoints();
    if clients < endpoints.len() {
        let mut seats = Vec::with_capacity(clients);
        for _ in 0..clients {
            let own = connect(&bench.threads, 1, &endpoints, endpoints.len()).await?;
            let channels = own
                .into_iter()
                .map(|connection| connection.channel)
                .collect();
            seats.push(Seat {
                thread: 0,
                channels,
            });
        }
        return Ok(seats);
    }
    let connections = open(bench, &endpoints, clients).await?;
    let taken = connections.iter().cycle().take(clients);
    let seat = |one: &Connection| Seat {
        thread: one.thread,
        channels: vec![one.channel.clone()],
    };
    Ok(taken.map(seat).collect())
}

/// As many connections to `endpoints` as `clients` clients share.
pub(super) async fn open(
    bench: &Bench,
    endpoints: &[String],
    clients: usize,
) -> Result<Vec<Connection>> {
    let count = bench
        .connections
        .next_multiple_of(endpoints.len())
        .min(clients);
    connect(&bench.threads, bench.threads.count(), endpoints, count).await
}
