//! Connections at the level of HTTP/2's frames.

use http_body_util::Full;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Longer than anything here should take, even on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);
const PING: u8 = 6;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, length, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client that says only what a test makes it say.
struct Client {
    stream: TcpStream,
    stop: CancellationToken,
}

impl Client {
    async fn connect(keepalive_interval: Duration) -> Self {
        let mut client = Self::silent(keepalive_interval).await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.stream.write_all(preface).await.unwrap();
        let settings = 4;
        client.send(settings, 0, &[]).await;
        client
    }

    /// One that has said nothing yet.
    async fn silent(keepalive_interval: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            concurrent_streams_max: u32::MAX,
            keepalive_interval,
            keepalive_timeout: PATIENCE,
        };
        let stop = CancellationToken::new();
        let answer = service_fn(async |_| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::default()))
        });
        tokio::spawn(serve(Arc::new(listener), answer, limits, stop.clone()));
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, stop }
    }

    /// Sends a frame about the connection.
    async fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let frame = frame(kind, flags, 0, payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Kind, flags and payload of the next frame.
    async fn receive(&mut self) -> (u8, u8, Vec<u8>) {
        let mut head = [0; 9];
        let read = self.stream.read_exact(&mut head);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("a frame")
            .unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        (head[3], head[4], payload)
    }
}

impl Client {
    /// Whether the server closes the connection within `time`, which passes as fast as it can.
    async fn is_closed_within(&self, time: Duration) -> bool {
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let mut is_closed = false;
        while !is_closed && began.elapsed() < time {
            // What the sockets have is read before more of it passes.
            std::thread::sleep(Duration::from_millis(5));
            tokio::time::advance(time / 50).await;
            is_closed = match self.stream.try_read(&mut [0; 1024]) {
                Ok(read) => read == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
        }
        tokio::time::resume();
        is_closed
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_connection_that_does_not_say_what_it_speaks_is_closed() {
    for said in [&b""[..], b"PRI * HT"] {
        let mut client = Client::silent(Duration::ZERO).await;
        client.stream.write_all(said).await.unwrap();
        let is_closed = client.is_closed_within(Duration::from_mins(1)).await;
        assert!(is_closed, "a minute after {said:?} it is still open");
    }
}

#[tokio::test]
async fn a_connection_that_has_said_so_may_be_silent() {
    let client = Client::connect(Duration::ZERO).await;
    let is_closed = client.is_closed_within(Duration::from_mins(10)).await;
    assert!(!is_closed, "it may speak whenever it likes");
}

#[tokio::test]
async fn an_interval_of_zero_pings_nobody() {
    let mut client = Client::connect(Duration::ZERO).await;
    // Each of these takes a turn of the connection, in which it would ping.
    for turn in 0..50 {
        client.send(PING, 0, &[turn; 8]).await;
        loop {
            match client.receive().await {
                (PING, ACK, _) => break,
                (PING, ..) => panic!("pinged in turn {turn}"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_quiet_connection_is_pinged_at_its_interval() {
    let mut client = Client::connect(Duration::from_millis(10)).await;
    for _ in 0..3 {
        let asked = loop {
            if let (PING, 0, asked) = client.receive().await {
                break asked;
            }
        };
        client.send(PING, ACK, &asked).await;
    }
}

#[tokio::test]
async fn a_client_that_gave_up_many_calls_at_once_keeps_its_connection() {
    let mut client = Client::connect(Duration::ZERO).await;
    let (headers, ends) = (1, 1 | 4);
    let (reset, cancel) = (3, 8);
    // GET http / of authority a, from HPACK's table.
    let request = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let mut frames = Vec::new();
    for stream in (1..).step_by(2).take(2_000) {
        frames.extend(frame(headers, ends, stream, &request));
        frames.extend(frame(reset, 0, stream, &[0, 0, 0, cancel]));
    }
    client.stream.write_all(&frames).await.unwrap();
    client.send(PING, 0, &[7; 8]).await;
    let go_away = 7;
    loop {
        match client.receive().await {
            (PING, ACK, _) => break,
            (kind, ..) => assert_ne!(kind, go_away, "the connection is closed"),
        }
    }
}
