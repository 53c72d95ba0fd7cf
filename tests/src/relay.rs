//! A relay between a client and a server on loopback, which cuts connections where a test wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Passes bytes on until it is told to cut.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    /// Cancelled to cut every connection there is.
    cut: Mutex<CancellationToken>,
    /// So many bytes may still come from the server; then every connection is cut once.
    allowance: Mutex<Option<u64>>,
    passed: AtomicU64,
    refuses: Mutex<bool>,
    /// How many there are now.
    connections: AtomicU64,
    /// Cancelled to have every connection there is pass nothing on any more.
    hang: Mutex<CancellationToken>,
}

impl Relay {
    /// A relay to the server at `127.0.0.1:port`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            server: SocketAddr::from(([127, 0, 0, 1], port)),
            cut: Mutex::default(),
            allowance: Mutex::default(),
            passed: AtomicU64::new(0),
            refuses: Mutex::default(),
            connections: AtomicU64::new(0),
            hang: Mutex::default(),
        });
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where clients connect to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every connection now; new ones are welcome.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts every connection as soon as the server has sent `bytes` more; those still pass.
    pub fn cut_after(&self, bytes: u64) {
        *lock(&self.shared.allowance) = Some(bytes);
    }

    /// Refuses connections (and cuts those there are), or accepts them again.
    pub fn refuse(&self, refuses: bool) {
        *lock(&self.shared.refuses) = refuses;
        if refuses {
            self.shared.cut();
        }
    }

    /// Passes nothing on any more on the connections there are, in either direction, and tells nobody,
    /// as a network that loses everything does. New connections are fine.
    pub fn hang(&self) {
        std::mem::take(&mut *lock(&self.shared.hang)).cancel();
    }

    /// How many connections there are.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What has come from the server so far, in bytes.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        std::mem::take(&mut *lock(&self.cut)).cancel();
    }

    /// How many of `bytes` may pass; fewer than all: cut after them.
    fn admit(&self, bytes: usize) -> usize {
        let mut allowance = lock(&self.allowance);
        let count = bytes as u64;
        match *allowance {
            Some(left) if left < count => {
                *allowance = None;
                usize::try_from(left).expect("it is less than a length")
            }
            Some(left) => {
                *allowance = Some(left - count);
                bytes
            }
            None => bytes,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *lock(&shared.refuses) {
            continue;
        }
        let cut = lock(&shared.cut).clone();
        let hang = lock(&shared.hang).clone();
        let shared = shared.clone();
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut passing = std::pin::pin!(pass(client, &shared));
            tokio::select! {
                () = cut.cancelled() => {}
                // It is kept, so that both halves stay open, and not looked after any more.
                () = hang.cancelled() => cut.cancelled().await,
                // Whatever ends a connection, both halves are closed: that is what a cut is.
                _ = &mut passing => {}
            }
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn pass(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from_server.read(&mut buffer).await?;
            let passes = shared.admit(count);
            to_client.write_all(&buffer[..passes]).await?;
            shared.passed.fetch_add(passes as u64, Ordering::Relaxed);
            if passes < count {
                shared.cut();
                // Never before `cut` has ended this.
                std::future::pending::<()>().await;
            }
            if count == 0 {
                return std::io::Result::Ok(());
            }
        }
    };
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    tokio::select! {
        ended = down => ended,
        ended = up => ended.map(drop),
    }
}
