//! A socket, plain or under TLS, as the connection's task uses it: read when something has come, write
//! what can be written, never wait for the one while the other could go on.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::inlet::Inlet;
use crate::tls;

/// A client's socket.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

/// A socket under TLS.
pub struct Encrypted {
    stream: tls::Stream<TcpStream>,
    /// What has been encrypted has not all gone to the socket.
    is_unflushed: bool,
}

/// What a socket is ready for.
pub enum Ready {
    /// So many octets have been read; none are the end.
    Read(usize),
    /// Some more can be written.
    Write,
}

impl Stream {
    pub fn tls(stream: tls::Stream<TcpStream>) -> Stream {
        Stream::Tls(Box::new(Encrypted { stream, is_unflushed: false }))
    }

    /// Waits for what is wanted, and reads. Can be given up at any point.
    pub async fn ready(&mut self, inlet: &mut Inlet, read: bool, write: bool) -> io::Result<Ready> {
        if let Stream::Tls(_) = self {
            // Others want to run, too, if this client never stops talking. A plain socket sees to it itself.
            tokio::task::coop::consume_budget().await;
        }
        poll_fn(|context| self.poll_ready(context, inlet, read, write)).await
    }

    fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        inlet: &mut Inlet,
        read: bool,
        write: bool,
    ) -> Poll<io::Result<Ready>> {
        if read && let Poll::Ready(n) = self.poll_inlet(context, inlet) {
            return Poll::Ready(n.map(Ready::Read));
        }
        match self {
            Stream::Plain(stream) if write => stream.poll_write_ready(context).map_ok(|()| Ready::Write),
            Stream::Tls(tls) if write || tls.is_unflushed => {
                ready!(tls.poll_flush(context))?;
                Poll::Ready(Ok(Ready::Write))
            }
            _ => Poll::Pending,
        }
    }

    fn poll_inlet(&mut self, context: &mut Context<'_>, inlet: &mut Inlet) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(stream) => loop {
                ready!(stream.poll_read_ready(context))?;
                match inlet.fill(|bytes| stream.try_read_buf(bytes)) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            },
            Stream::Tls(tls) => {
                let read = inlet.fill(|bytes| match pin!(tls.stream.read_buf(bytes)).poll(context) {
                    Poll::Ready(read) => read,
                    Poll::Pending => Err(ErrorKind::WouldBlock.into()),
                });
                match read {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
                    // It has hung up without a word. AMQP has words of its own for the end.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                    read => Poll::Ready(read),
                }
            }
        }
    }

    /// Writes what the socket takes at once.
    pub fn try_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.try_write_vectored(slices),
            Stream::Tls(tls) => {
                tls.is_unflushed = true;
                match Pin::new(&mut tls.stream).poll_write_vectored(context, slices) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Sends on what has been encrypted, as far as the socket takes it.
    pub fn try_flush(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self {
            Stream::Tls(tls) if tls.is_unflushed => match tls.poll_flush(context) {
                Poll::Ready(flushed) => flushed,
                Poll::Pending => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The last words go out; then this side is closed, if it is ours to do that first.
    pub async fn finish(&mut self, close: bool, timeout: Duration) -> io::Result<()> {
        let last = async { if close { self.shutdown().await } else { self.flush().await } };
        match tokio::time::timeout(timeout, last).await {
            Ok(done) => done,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }
}

impl Encrypted {
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.is_unflushed = false;
        Poll::Ready(flushed)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(tls) => tls.poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(context),
        }
    }
}
