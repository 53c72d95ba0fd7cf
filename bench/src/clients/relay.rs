//! A relay on loopback whose connections can be cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes between clients and one server.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    /// Counts the cuts; a connection ends with the first after its beginning.
    cuts: Arc<watch::Sender<u64>>,
    accepted: Arc<AtomicU64>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    /// A relay to the server at `url`, an `http://host:port`.
    pub(super) async fn to(url: &str) -> Result<Self> {
        let server = url.strip_prefix("http://").context("an URL of http")?;
        let server: SocketAddr = server.trim_end_matches('/').parse()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let cuts = Arc::new(watch::Sender::new(0));
        let accepted = Arc::new(AtomicU64::new(0));
        let accepting = accept(listener, server, cuts.clone(), accepted.clone());
        let accepting = tokio::spawn(accepting);
        Ok(Self {
            address,
            cuts,
            accepted,
            accepting: Mutex::new(Some(accepting)),
        })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections there have been.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Cuts every connection there is; new ones are welcome.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let accepting = self.accepting.get_mut();
        if let Ok(Some(accepting)) = accepting.map(Option::take) {
            accepting.abort();
        }
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    cuts: Arc<watch::Sender<u64>>,
    accepted: Arc<AtomicU64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        let mut cut = cuts.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = cut.changed() => {}
                // An end is an end, whatever it came of.
                _ = pass(client, server) => {}
            }
        });
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
