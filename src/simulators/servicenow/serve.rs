//! Listening: connections that can be cut without an answer, and the two worlds behind one port (ServiceNow's paths,
//! and the simulator's own).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, Response};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::instance::{Instance, lock};
use super::reply::Reply;
use super::{control, page, router, time};

/// A connection's switch: once set, whatever is written is thrown away and the connection is reset.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

pub(super) struct Accepting {
    listener: TcpListener,
    stop: CancellationToken,
}

impl Accepting {
    pub fn new(listener: TcpListener, stop: CancellationToken) -> Self {
        Self { listener, stop }
    }
}

impl Listener for Accepting {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Small answers must not wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let stopped = Box::pin(self.stop.clone().cancelled_owned());
                    return (Connection { stream, cut: Cut::default(), stopped }, address);
                }
                // Out of file descriptors, or the peer is gone: neither is helped by spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Accepting>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Accepting>) -> Self {
        stream.io().cut.clone()
    }
}

/// A TCP connection with a [`Cut`], which also ends when the instance stops.
pub(super) struct Connection {
    stream: TcpStream,
    cut: Cut,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn check(&self) -> io::Result<()> {
        if self.cut.0.load(Ordering::Relaxed) {
            // Reset rather than closed: the peer must not take it for an orderly end.
            let _ = self.stream.set_zero_linger();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Serves until the instance stops.
pub(super) async fn run(instance: Arc<Instance>, listener: TcpListener) {
    let stop = instance.stop.clone();
    let accepting = Accepting::new(listener, stop.clone());
    let router = axum::Router::new().fallback(handle).with_state(instance);
    let service = router.into_make_service_with_connect_info::<Cut>();
    // With this form it only ends when told to; an error can't come.
    let _ = axum::serve(accepting, service).with_graceful_shutdown(stop.cancelled_owned()).await;
}

async fn handle(
    State(instance): State<Arc<Instance>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = router::read_body(&parts.headers, body).await;
    let path = parts.uri.path();
    let reply = if path == "/" && parts.method == Method::GET && !instance.faults().hibernating {
        page::answer()
    } else if path.starts_with("/simulator/") {
        match body {
            Ok(body) => control::answer(&instance, &parts.method, path, parts.uri.query().unwrap_or(""), &body),
            Err(reply) => reply,
        }
    } else {
        router::answer(&instance, &parts, body).await
    };
    finish(&instance, &cut, reply)
}

fn finish(instance: &Instance, cut: &Cut, reply: Reply) -> Response<Body> {
    if reply.cut {
        cut.0.store(true, Ordering::Relaxed);
    }
    let offset = instance.options.switches.clock_offset_seconds;
    let date = (offset != 0).then(|| time::http_date(lock(&instance.world).now()));
    reply.into_response(&instance.transaction_id(), date)
}
