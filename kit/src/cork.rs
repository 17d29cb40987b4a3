//! Holds back what a connection writes until it has nothing more to say for now.
//!
//! HTTP/2 flushes behind every frame that carries data, so an answer (headers, data, trailers)
//! would leave in two or three TLS records and as many system calls, each of which wakes the
//! client. Here a flush is only noted; what has gathered leaves in one piece when the
//! connection has been polled, together with the answers to others that were ready as well.
//!
//! ```text
//! h2 --write, flush--> Corked --when the poll is over--> TLS --> socket
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What gathers at most: a full TLS record. Larger writes, such as a list's, are not copied.
const LIMIT_BYTES: usize = 16 << 10;

/// The stream as the connection sees it.
pub struct Corked<S>(Arc<Mutex<Shared<S>>>);

/// Where what is held back leaves.
pub struct Outlet<S>(Arc<Mutex<Shared<S>>>);

/// Runs a connection, and lets out what each poll has gathered.
pub struct Uncork<S, C> {
    outlet: Outlet<S>,
    connection: Pin<Box<C>>,
}

pub fn cork<S>(stream: S) -> (Corked<S>, Outlet<S>) {
    let shared = Arc::new(Mutex::new(Shared { stream, held: Vec::new(), written: 0 }));
    (Corked(shared.clone()), Outlet(shared))
}

struct Shared<S> {
    stream: S,
    held: Vec<u8>,
    /// How much of `held` has been written.
    written: usize,
}

/// Both ends belong to one task, so nobody ever waits for the lock.
fn lock<S>(shared: &Mutex<Shared<S>>) -> MutexGuard<'_, Shared<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Outlet<S> {
    /// `connection` runs over the stream that was made with this.
    pub fn run<C>(self, connection: C) -> Uncork<S, C> {
        Uncork { outlet: self, connection: Box::pin(connection) }
    }
}

impl<S, C> Uncork<S, C> {
    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<S, C, E> Future for Uncork<S, C>
where
    S: AsyncWrite + Unpin,
    C: Future<Output = Result<(), E>>,
    E: From<io::Error>,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = self.connection.as_mut().poll(context);
        match (ended, lock(&self.outlet.0).let_out(context)) {
            // Who ends a connection in order has shut the stream down, so nothing is left.
            (Poll::Ready(result), _) => Poll::Ready(result),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            (Poll::Pending, _) => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn let_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let rest = &self.held[self.written..];
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
        }
        self.held.clear();
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        let bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if shared.held.len() + bytes > LIMIT_BYTES {
            ready!(shared.let_out(context))?;
        }
        if bytes > LIMIT_BYTES {
            return Pin::new(&mut shared.stream).poll_write_vectored(context, slices);
        }
        slices.iter().for_each(|slice| shared.held.extend_from_slice(slice));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).stream.is_write_vectored()
    }

    /// Comes when the poll is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.let_out(context))?;
        Pin::new(&mut shared.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts the writes that reach it.
    #[derive(Default)]
    struct Counted {
        writes: Vec<usize>,
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_one_poll_writes_leaves_in_one_piece() {
        let (mut stream, outlet) = cork(Counted::default());
        let shared = outlet.0.clone();
        outlet
            .run(async move {
                for _ in 0..3 {
                    stream.write_all(b"frame").await?;
                    stream.flush().await?;
                }
                tokio::task::yield_now().await;
                stream.write_all(&vec![0; LIMIT_BYTES]).await?;
                stream.write_all(b"frame").await?;
                stream.write_all(&vec![0; LIMIT_BYTES + 1]).await?;
                stream.write_all(b"last").await?;
                stream.shutdown().await
            })
            .await
            .expect("written");
        assert_eq!(lock(&shared).stream.writes, [15, LIMIT_BYTES, 5, LIMIT_BYTES + 1, 4]);
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_the_writer_up_and_gets_everything() {
        let (near, mut far) = tokio::io::duplex(64);
        let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let (mut stream, outlet) = cork(near);
        let writer = outlet.run(async move {
            for piece in sent.chunks(777) {
                stream.write_all(piece).await?;
                stream.flush().await?;
            }
            stream.shutdown().await
        });
        let mut received = Vec::new();
        let (written, read) = tokio::join!(writer, far.read_to_end(&mut received));
        written.expect("written");
        read.expect("read");
        assert!(received == expected);
    }

    #[tokio::test]
    async fn an_error_of_the_stream_ends_the_connection() {
        let (near, far) = tokio::io::duplex(64);
        drop(far);
        let (mut stream, outlet) = cork(near);
        let writer = outlet.run(async move {
            stream.write_all(b"frame").await?;
            std::future::pending::<io::Result<()>>().await
        });
        assert_eq!(writer.await.map_err(|e: io::Error| e.kind()), Err(io::ErrorKind::BrokenPipe));
    }
}
