//! Calls whose bytes a test chooses, and pages over plain HTTP.

use anyhow::{Context as _, Result};
use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::{Code, Request, Status};

use crate::client::Client;

/// Sends `body`, which need not be a message, and gives the answer's bytes.
///
/// # Errors
/// The server's status.
pub async fn unary(client: &Client, path: &'static str, body: Bytes) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    Ok(grpc
        .unary(Request::new(body), path, AsItIs)
        .await?
        .into_inner())
}

/// Opens a stream in both directions, sends `bodies`, and keeps it open while the answers are read.
///
/// # Errors
/// The server's status.
pub async fn stream(
    client: &Client,
    path: &'static str,
    bodies: Vec<Bytes>,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    let open = futures::stream::StreamExt::chain(
        futures::stream::iter(bodies),
        futures::stream::pending(),
    );
    Ok(grpc
        .streaming(Request::new(open), path, AsItIs)
        .await?
        .into_inner())
}

/// Status code and body of `GET path`.
///
/// # Errors
/// No answer, or one that is not HTTP.
pub async fn http_get(endpoint: &str, path: &str) -> Result<(u16, String)> {
    let (head, body) = http_ask(endpoint, "GET", path, "").await?;
    let code = head
        .split_whitespace()
        .nth(1)
        .context("no status code")?
        .parse()?;
    Ok((code, body))
}

/// Status line with headers, and body, of one request; `headers` are lines with their ends.
///
/// # Errors
/// No answer, or one that is not HTTP.
pub async fn http_ask(
    endpoint: &str,
    method: &str,
    path: &str,
    headers: &str,
) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("no end of the headers")?;
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if is_chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok((head.to_owned(), body))
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole += rest.get(..size).context("a chunk that is cut off")?;
        body = rest
            .get(size..)
            .context("a chunk that is cut off")?
            .trim_start_matches("\r\n");
    }
}

/// Messages that are any bytes.
#[derive(Debug, Clone, Copy)]
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
