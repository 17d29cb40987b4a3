//! Just enough HTTP/2 to send unary gRPC calls: so little work that two shared cores are the
//! server's, not the generator's.
//!
//! One task drives a connection with a number of calls open at a time; an answer makes the
//! next request. A call has succeeded when it had a message: a refusal has trailers only.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEADER: usize = 9;
/// So much more than any run receives that it is never given out again.
const WINDOW: u32 = (1 << 31) - 1 - 65_535;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the calls of one run did.
#[derive(Default)]
pub struct Calls {
    pub times: Vec<Duration>,
    pub refused: u64,
}

struct Open {
    stream: u32,
    begun: Instant,
    bytes: usize,
}

pub struct Connection {
    socket: TcpStream,
    path: &'static str,
    out: Vec<u8>,
    open: Vec<Open>,
    next_stream: u32,
    /// What the server still takes; it says when it takes more.
    window: i64,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header the server shall remember: by the number of its name, or by its name.
fn remembered(block: &mut Vec<u8>, name: Result<u8, &str>, value: &str) {
    match name {
        Ok(number) => block.push(0x40 | number),
        Err(name) => {
            block.extend_from_slice(&[0x40, name.len() as u8]);
            block.extend_from_slice(name.as_bytes());
        }
    }
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}

impl Connection {
    pub async fn open(port: u16, path: &'static str) -> Result<Self, Failure> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let mut out = PREFACE.to_vec();
        // The window of each stream: a large answer must not wait.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&WINDOW.to_be_bytes());
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        Ok(Self { socket, path, out, open: Vec::new(), next_stream: 1, window: 65_535 })
    }

    /// POST and http are numbers of their own; the rest is told once, then by number.
    fn headers(&self) -> Vec<u8> {
        if self.next_stream > 1 {
            return vec![0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
        }
        let mut block = vec![0x83, 0x86];
        remembered(&mut block, Ok(4), self.path);
        remembered(&mut block, Ok(1), "127.0.0.1");
        remembered(&mut block, Err("te"), "trailers");
        remembered(&mut block, Ok(31), "application/grpc");
        block
    }

    fn request(&mut self, message: &[u8]) {
        let stream = self.next_stream;
        let headers = self.headers();
        self.next_stream += 2;
        frame(&mut self.out, HEADERS, END_HEADERS, stream, &headers);
        let mut data = vec![0];
        data.extend_from_slice(&(message.len() as u32).to_be_bytes());
        data.extend_from_slice(message);
        self.window -= data.len() as i64;
        frame(&mut self.out, DATA, END_STREAM, stream, &data);
        self.open.push(Open { stream, begun: Instant::now(), bytes: 0 });
    }

    /// Keeps `depth` calls open until there is no next message, then waits for the last ones.
    /// An answer smaller than `least_bytes` counts as refused.
    pub async fn drive(
        mut self,
        depth: usize,
        least_bytes: usize,
        mut next: impl FnMut() -> Option<Vec<u8>>,
    ) -> Result<Calls, Failure> {
        let mut calls = Calls::default();
        let mut input = Vec::with_capacity(64 << 10);
        let mut more = true;
        loop {
            while more && self.open.len() < depth && self.window > 0 {
                match next() {
                    Some(message) => self.request(&message),
                    None => more = false,
                }
            }
            if !self.out.is_empty() {
                self.socket.write_all(&self.out).await?;
                self.out.clear();
            }
            if !more && self.open.is_empty() {
                return Ok(calls);
            }
            if self.socket.read_buf(&mut input).await? == 0 {
                return Err("the server closed the connection".into());
            }
            let used = self.take_frames(&input, least_bytes, &mut calls)?;
            input.drain(..used);
        }
    }

    fn take_frames(
        &mut self,
        input: &[u8],
        least_bytes: usize,
        calls: &mut Calls,
    ) -> Result<usize, Failure> {
        let mut at = 0;
        while let Some(header) = input.get(at..at + FRAME_HEADER) {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some(payload) = input.get(at + FRAME_HEADER..at + FRAME_HEADER + len) else {
                break;
            };
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            self.frame(header[3], header[4], stream, payload, least_bytes, calls)?;
            at += FRAME_HEADER + len;
        }
        Ok(at)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        least_bytes: usize,
        calls: &mut Calls,
    ) -> Result<(), Failure> {
        let place = self.open.iter().position(|open| open.stream == stream);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            GOAWAY => return Err("the server goes away".into()),
            WINDOW_UPDATE if stream == 0 => {
                let bytes: [u8; 4] = payload.try_into()?;
                self.window += i64::from(u32::from_be_bytes(bytes));
            }
            DATA => {
                if let Some(place) = place {
                    self.open[place].bytes += payload.len();
                }
            }
            _ => {}
        }
        let ended = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if let Some(place) = place
            && (ended || kind == RST_STREAM)
        {
            let call = self.open.swap_remove(place);
            if ended && call.bytes >= least_bytes {
                calls.times.push(call.begun.elapsed());
            } else {
                calls.refused += 1;
            }
        }
        Ok(())
    }
}
