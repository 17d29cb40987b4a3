//! Lets etcd's own clients of 3.4 through: some of their calls (`etcdctl endpoint status`,
//! `defrag`) name the authority as `http://host:port`. That is no authority, and the HTTP/2
//! library refuses the call. Nothing here reads the authority, so it is made a valid one on
//! its way in.
//!
//! It is changed where it stands, to one of the same length both as text and in HPACK's
//! Huffman code, `http://` to `httpx--`. So no length changes, and the two sides' tables of
//! headers stay the same.
//!
//! ```text
//! socket --> [ held | examined ] --> HTTP/2
//!              a HEADERS frame is held until it is whole; all others pass at once
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Larger frames than HTTP/2 allows unasked are let through, to be refused.
const MAX_HELD_BYTES: usize = 16 << 10;
const READ_BYTES: usize = 16 << 10;

/// A connection whose incoming side is mended.
pub struct Mended<S> {
    inner: S,
    incoming: BytesMut,
    frames: Frames,
    ended: bool,
}

impl<S> Mended<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, incoming: BytesMut::new(), frames: Frames::default(), ended: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.frames.examined == 0 && !this.ended {
            this.incoming.reserve(READ_BYTES);
            let read = {
                let mut pinned = Pin::new(&mut this.inner);
                let future = tokio_util::io::poll_read_buf(pinned.as_mut(), cx, &mut this.incoming);
                ready!(future)?
            };
            this.ended = read == 0;
            this.frames.examine(&mut this.incoming);
        }
        let ready = if this.ended { this.incoming.len() } else { this.frames.examined };
        let taken = ready.min(out.remaining());
        out.put_slice(&this.incoming[..taken]);
        this.incoming.advance(taken);
        this.frames.examined -= taken.min(this.frames.examined);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where one frame ends and the next begins.
#[derive(Default)]
struct Frames {
    greeted: bool,
    /// Not HTTP/2: all passes.
    other: bool,
    /// Of the buffer's beginning, what may be handed on.
    examined: usize,
    /// What is still to come of a frame that passes as it is.
    passing: usize,
}

impl Frames {
    fn examine(&mut self, bytes: &mut [u8]) {
        if !self.greeted {
            let known = bytes.len().min(PREFACE.len());
            self.other = bytes[..known] != PREFACE[..known];
            self.greeted = known == PREFACE.len() || self.other;
            if !self.greeted {
                return;
            }
            self.passing = PREFACE.len();
        }
        if self.other {
            self.examined = bytes.len();
            return;
        }
        loop {
            let passing = self.passing.min(bytes.len() - self.examined);
            self.examined += passing;
            self.passing -= passing;
            let rest = &mut bytes[self.examined..];
            if self.passing > 0 || rest.len() < FRAME_HEADER_BYTES {
                return;
            }
            let length =
                usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            let whole = FRAME_HEADER_BYTES + length;
            if rest[3] == HEADERS && length <= MAX_HELD_BYTES {
                if rest.len() < whole {
                    return;
                }
                let flags = rest[4];
                // Whatever cannot be read stays as it is, for HTTP/2 to refuse.
                let _ = mend_headers(flags, &mut rest[FRAME_HEADER_BYTES..whole]);
            }
            self.passing = whole;
        }
    }
}

fn mend_headers(flags: u8, payload: &mut [u8]) -> Option<()> {
    let padded = if flags & PADDED != 0 { 1 } else { 0 };
    let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
    let mut at = padded + priority;
    loop {
        let first = *payload.get(at)?;
        let name = if first & 0x80 != 0 {
            integer(payload, &mut at, 7)?;
            continue;
        } else if first & 0x40 != 0 {
            integer(payload, &mut at, 6)?
        } else if first & 0x20 != 0 {
            integer(payload, &mut at, 5)?;
            continue;
        } else {
            integer(payload, &mut at, 4)?
        };
        if name == 0 {
            string(payload, &mut at)?;
        }
        let (huffman, value) = string(payload, &mut at)?;
        if name == AUTHORITY {
            mend(huffman, payload.get_mut(value)?);
            return Some(());
        }
    }
}

/// Its place in HPACK's fixed table.
const AUTHORITY: usize = 1;

/// HPACK's integer, whose first byte lends it `bits`.
fn integer(bytes: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*bytes.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*bytes.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// HPACK's string: whether it is in Huffman code, and where it is.
fn string(bytes: &[u8], at: &mut usize) -> Option<(bool, std::ops::Range<usize>)> {
    let huffman = bytes.get(*at)? & 0x80 != 0;
    let length = integer(bytes, at, 7)?;
    let range = *at..*at + length;
    *at = range.end;
    Some((huffman, range))
}

/// Bits at the beginning of a value, and what they become.
struct Rule {
    bits: u32,
    from: u64,
    to: u64,
}

/// `http://` to `httpx--`, and the same with an `s`. In Huffman code: h 100111, t 01001,
/// p 101011, s 01000, `:` 1011100, x 1111001, `/` 011000, `-` 010110.
// Grouped by letters.
#[allow(clippy::unusual_byte_groupings)]
const HUFFMAN: [Rule; 2] = [
    Rule {
        bits: 41,
        from: 0b100111_01001_01001_101011_1011100_011000_011000,
        to: 0b100111_01001_01001_101011_1111001_010110_010110,
    },
    Rule {
        bits: 46,
        from: 0b100111_01001_01001_101011_01000_1011100_011000_011000,
        to: 0b100111_01001_01001_101011_01000_1111001_010110_010110,
    },
];

fn mend(huffman: bool, value: &mut [u8]) {
    if !huffman {
        for (from, to) in [(&b"http://"[..], &b"httpx--"[..]), (b"https://", b"httpsx--")] {
            if value.starts_with(from) {
                value[..to.len()].copy_from_slice(to);
            }
        }
        return;
    }
    let Some(start) = value.first_chunk_mut::<8>() else { return };
    let word = u64::from_be_bytes(*start);
    for Rule { bits, from, to } in HUFFMAN {
        if word >> (64 - bits) == from {
            let word = word ^ ((from ^ to) << (64 - bits));
            *start = word.to_be_bytes();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What Debian's etcdctl 3.4 sent: settings and one HEADERS frame, whose authority is
    /// `http://127.0.0.1:` and a port, in Huffman code.
    const SETTINGS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    const VALUE: &[u8] = b"\x9d)\xae\xe3\x0c\x04N\xae\x05\xc0\xb8n6\xf3!o";
    const MENDED: &[u8] = b"\x9d)\xaf\xca\xcb\x04N\xae\x05\xc0\xb8n6\xf3!o";

    fn headers(flags: u8, before: &[u8], value: &[u8], huffman: bool) -> Vec<u8> {
        let mut block = before.to_vec();
        // GET-like fixed headers, a path, then the authority and something behind it.
        block.extend_from_slice(b"\x83\x86\x45\x03/ab");
        block.push(0x41);
        block.push(value.len() as u8 | if huffman { 0x80 } else { 0 });
        block.extend_from_slice(value);
        block.extend_from_slice(b"\x5f\x01x");
        let mut frame = vec![0, 0, block.len() as u8, HEADERS, flags, 0, 0, 0, 1];
        frame.extend_from_slice(&block);
        frame
    }

    fn conversation(frame: &[u8]) -> Vec<u8> {
        [PREFACE, SETTINGS, frame, b"\x00\x00\x03\x00\x01\x00\x00\x00\x01abc", frame].concat()
    }

    async fn through(sent: &[u8], portion: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(portion);
        let sent = sent.to_vec();
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
        });
        let mut got = Vec::new();
        Mended::new(server).read_to_end(&mut got).await.unwrap();
        sending.await.unwrap();
        got
    }

    #[tokio::test]
    async fn an_authority_with_a_scheme_becomes_valid_however_it_is_cut() {
        let sent = conversation(&headers(4, b"", VALUE, true));
        let expect = conversation(&headers(4, b"", MENDED, true));
        for portion in [1, 2, 7, 50, 4096] {
            assert_eq!(through(&sent, portion).await, expect, "{portion} bytes at a time");
        }
    }

    #[tokio::test]
    async fn in_plain_text_with_priority_and_padding() {
        let before = b"\x00\x00\x00\x00\x00\x10";
        let flags = 4 | PRIORITY | PADDED;
        let sent = conversation(&headers(flags, before, b"https://a:1", false));
        let expect = conversation(&headers(flags, before, b"httpsx--a:1", false));
        assert_eq!(through(&sent, 4096).await, expect);
    }

    #[tokio::test]
    async fn everything_else_passes_as_it_is() {
        let good = conversation(&headers(4, b"", b"127.0.0.1:2379", false));
        assert_eq!(through(&good, 4096).await, good);
        let http1 = b"GET /health HTTP/1.1\r\n\r\n";
        assert_eq!(through(http1, 3).await, http1);
        let whole = conversation(&headers(4, b"", VALUE, true));
        for cut in 0..PREFACE.len() + SETTINGS.len() + 12 {
            assert_eq!(through(&whole[..cut], 4096).await, whole[..cut], "cut at {cut}");
        }
    }

    #[test]
    fn headers_that_cannot_be_read_do_no_harm() {
        let frame = headers(4, b"", VALUE, true);
        for at in FRAME_HEADER_BYTES..frame.len() {
            for byte in [0x00, 0x3f, 0x7f, 0xff] {
                let mut payload = frame[FRAME_HEADER_BYTES..].to_vec();
                payload[at - FRAME_HEADER_BYTES] = byte;
                let _ = mend_headers(PADDED, &mut payload);
                let _ = mend_headers(0, &mut payload[..at - FRAME_HEADER_BYTES]);
            }
        }
    }
}
