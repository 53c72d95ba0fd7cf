//! Lets in clients that say a URL where HTTP/2 wants a host.
//!
//! etcd's own client up to 3.4 asks single members (`endpoint status`, `defrag`, `move-leader`) on
//! connections to the URLs that they advertise, and its gRPC then sends `http://127.0.0.1:2379` as
//! `:authority`. Go's servers do not look; our HTTP/2 library refuses the stream as malformed, as
//! the standard asks it to. Nothing here depends on the name, so the `://` in it is written over,
//! on its way to the library, with letters whose codes are as long: no length and no table changes.
//!
//! Only the first HEADERS frame of a connection is looked at: there the name is spelled out, later
//! frames refer to it. From then on this is the bare connection. A frame that arrives in pieces is
//! looked at piece by piece, and refused as before if the name is cut.
//!
//! Being what the library sees of a connection, this also tells it how to write small answers, and
//! ends one that does not say in time which HTTP it speaks: the library would wait for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take to show which HTTP it speaks: it does so with its first bytes.
const PREFACE_MAX: Duration = Duration::from_secs(10);
/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream of a frame.
const FRAME_HEADER_BYTES: usize = 9;
/// The type of a frame that opens a stream.
const HEADERS: u8 = 1;
/// An HPACK field that is `:authority` and is to be remembered; a length and a text follow.
const AUTHORITY: u8 = 0x41;
/// In front of the length: the text is in Huffman's code.
const HUFFMAN: u8 = 0x80;
/// What is written over, and what with.
const SCHEMES: [(&[u8], &[u8]); 2] = [(b"http://", b"httpB--"), (b"https://", b"httpsB--")];

/// A connection whose first request may name a URL.
#[derive(Debug)]
pub(super) struct Lenient<S> {
    stream: S,
    at: At,
    /// Only once there is something to wait for, and until it is known what is spoken.
    timer: Option<Pin<Box<Sleep>>>,
    has_written: bool,
}

/// How far the reading is.
#[derive(Debug)]
enum At {
    /// So many bytes of the preface were read.
    Preface(usize),
    /// So many bytes of a frame's header were read.
    Header([u8; FRAME_HEADER_BYTES], usize),
    /// In a frame's payload; so many bytes are left.
    Payload { left: usize, is_headers: bool },
    /// Nothing more is looked at.
    Passed,
}

impl<S> Lenient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            at: At::Preface(0),
            timer: None,
            has_written: false,
        }
    }

    /// Waits for the rest of the preface, but not for ever.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(PREFACE_MAX)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "neither HTTP/1 nor HTTP/2 was begun",
        )))
    }
}

impl At {
    /// Looks at what was read, up to the end of the first HEADERS frame.
    fn look(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let used = match self {
                Self::Preface(read) => {
                    let used = bytes.len().min(PREFACE.len() - *read);
                    if bytes[..used] != PREFACE[*read..*read + used] {
                        // HTTP/1, or nonsense.
                        *self = Self::Passed;
                        return;
                    }
                    *read += used;
                    if *read == PREFACE.len() {
                        *self = Self::Header([0; FRAME_HEADER_BYTES], 0);
                    }
                    used
                }
                Self::Header(header, read) => {
                    let used = bytes.len().min(FRAME_HEADER_BYTES - *read);
                    header[*read..*read + used].copy_from_slice(&bytes[..used]);
                    *read += used;
                    if *read == FRAME_HEADER_BYTES {
                        *self = Self::payload(*header);
                    }
                    used
                }
                Self::Payload { left, is_headers } => {
                    let used = bytes.len().min(*left);
                    if *is_headers {
                        mend(&mut bytes[..used]);
                    }
                    *left -= used;
                    if *left == 0 {
                        *self = if *is_headers {
                            Self::Passed
                        } else {
                            Self::Header([0; FRAME_HEADER_BYTES], 0)
                        };
                    }
                    used
                }
                Self::Passed => return,
            };
            bytes = &mut bytes[used..];
        }
    }

    fn payload(header: [u8; FRAME_HEADER_BYTES]) -> Self {
        let left = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        if left == 0 {
            return Self::Header([0; FRAME_HEADER_BYTES], 0);
        }
        let is_headers = header[3] == HEADERS;
        Self::Payload { left, is_headers }
    }
}

/// Writes over the scheme of an authority in a block of header fields.
fn mend(block: &mut [u8]) {
    for at in 0..block.len().saturating_sub(2) {
        if block[at] != AUTHORITY {
            continue;
        }
        let is_coded = block[at + 1] & HUFFMAN != 0;
        let length = usize::from(block[at + 1] & !HUFFMAN);
        let Some(text) = block.get_mut(at + 2..at + 2 + length) else {
            continue;
        };
        for (scheme, instead) in SCHEMES {
            if !is_coded && text.starts_with(scheme) {
                text[..instead.len()].copy_from_slice(instead);
            } else if is_coded {
                replace_coded(text, huffman(scheme), huffman(instead));
            }
        }
    }
}

/// Replaces the first bits of `text`; both are as many.
fn replace_coded(text: &mut [u8], (from, bits): (u64, u32), (to, _): (u64, u32)) {
    let mut first = [0; 8];
    let there = text.len().min(first.len());
    first[..there].copy_from_slice(&text[..there]);
    let first = u64::from_be_bytes(first);
    if there * 8 < bits as usize || (first ^ from) >> (u64::BITS - bits) != 0 {
        return;
    }
    let replaced = (first ^ from ^ to).to_be_bytes();
    text[..there].copy_from_slice(&replaced[..there]);
}

/// A few letters in Huffman's code, from the highest bit down, and how many bits they are.
fn huffman(text: &[u8]) -> (u64, u32) {
    text.iter().fold((0, 0), |(coded, bits), letter| {
        let (code, length) = code(*letter);
        (coded | code << (u64::BITS - bits - length), bits + length)
    })
}

/// The codes of the letters above, from appendix B of RFC 7541.
fn code(letter: u8) -> (u64, u32) {
    match letter {
        b's' => (0b0_1000, 5),
        b't' => (0b0_1001, 5),
        b'-' => (0b01_0110, 6),
        b'/' => (0b01_1000, 6),
        b'h' => (0b10_0111, 6),
        b'p' => (0b10_1011, 6),
        b':' => (0b101_1100, 7),
        b'B' => (0b101_1101, 7),
        other => unreachable!("{other} is in no scheme"),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(self.at, At::Passed) {
            return read;
        }
        let begins = matches!(self.at, At::Preface(_));
        if begins && read.is_pending() {
            return self.poll_late(context);
        }
        ready!(read)?;
        self.at.look(&mut buffer.filled_mut()[before..]);
        if begins && !matches!(self.at, At::Preface(_)) {
            self.timer = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    /// Not before something was written: by what it hears at its beginning our HTTP/2 library decides
    /// whether it copies answers of up to 1 KiB behind each other, or writes each answer above 256
    /// bytes for itself, with a system call.
    fn is_write_vectored(&self) -> bool {
        self.has_written && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// `http://127.0.0.1:2379` in Huffman's code, as Go's client sends it.
    const CODED_URL: [u8; 16] = [
        0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x08, 0x9d, 0x5c, 0x0b, 0x81, 0x70, 0xdc, 0x13, 0x2e, 0xfb,
        0xff,
    ];

    #[tokio::test]
    async fn many_pieces_are_written_at_once_from_the_second_write_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = Lenient::new(tokio::net::TcpStream::connect(address).await.unwrap());
        assert!(!stream.is_write_vectored(), "nothing was written");
        stream.write_all(b"first").await.unwrap();
        assert!(stream.is_write_vectored());
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 4, 0, 0, 0, 1], payload].concat()
    }

    fn authority(flag: u8, text: &[u8]) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        [&[0x83, AUTHORITY, flag | length], text, &[0x86]].concat()
    }

    async fn read(sent: &[u8], piece: usize) -> Vec<u8> {
        let mut stream = Lenient::new(sent);
        let mut read = Vec::new();
        let mut buffer = vec![0; piece];
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                return read;
            }
            read.extend_from_slice(&buffer[..count]);
        }
    }

    #[tokio::test]
    async fn a_url_becomes_a_name_of_the_same_length() {
        let settings = frame(4, &[]);
        let window = frame(8, &[0, 1, 0, 0]);
        let before = [PREFACE, &settings, &window].concat();
        for (flag, sent, wanted) in [
            (0, &b"http://a:1"[..], &b"httpB--a:1"[..]),
            (0, b"https://a:1", b"httpsB--a:1"),
            (0, b"127.0.0.1:2379", b"127.0.0.1:2379"),
        ] {
            let sent = [&before[..], &frame(HEADERS, &authority(flag, sent))].concat();
            let wanted = [&before[..], &frame(HEADERS, &authority(flag, wanted))].concat();
            // The preface is read first, to tell HTTP/1 from HTTP/2.
            for piece in [PREFACE.len(), 4096] {
                assert_eq!(
                    read(&sent, piece).await,
                    wanted,
                    "in pieces of {piece} bytes"
                );
            }
        }
    }

    #[tokio::test]
    async fn the_coded_url_keeps_all_bits_but_those_of_its_scheme() {
        let sent = [PREFACE, &frame(HEADERS, &authority(HUFFMAN, &CODED_URL))].concat();
        let read = read(&sent, 4096).await;
        let changed: Vec<(usize, u8)> = (0..sent.len())
            .filter(|at| sent[*at] != read[*at])
            .map(|at| {
                (
                    at - PREFACE.len() - FRAME_HEADER_BYTES - 3,
                    sent[at] ^ read[at],
                )
            })
            .collect();
        assert_eq!(changed, [(3, 0b0000_1001), (4, 0b1100_0111)]);
        let (wanted, bits) = huffman(b"httpB--");
        let first = u64::from_be_bytes(
            *read[PREFACE.len() + FRAME_HEADER_BYTES + 3..]
                .first_chunk()
                .unwrap(),
        );
        assert_eq!((first ^ wanted) >> (u64::BITS - bits), 0);
    }

    #[tokio::test]
    async fn nothing_else_is_touched() {
        let second = frame(HEADERS, &authority(0, b"http://second"));
        let first = frame(HEADERS, &authority(0, b"host"));
        for sent in [
            b"GET / HTTP/1.1\r\nHost: x\r\nReferer: A\x0ahttp://a:1\r\n\r\n".to_vec(),
            [PREFACE, &first, &second].concat(),
            [PREFACE, &frame(0, &authority(0, b"http://data"))].concat(),
        ] {
            assert_eq!(read(&sent, 7).await, sent);
        }
    }
}
