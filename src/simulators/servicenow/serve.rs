//! The HTTP server: connections that can be reset without a response, and the dispatch of paths to ServiceNow's
//! interfaces and to the simulator's own endpoints.

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

/// A flag of a connection. Once set, the response is discarded and the connection is reset.
#[derive(Debug, Clone, Default)]
pub(super) struct ResetFlag(Arc<AtomicBool>);

pub(super) struct ResettableListener {
    listener: TcpListener,
    stop: CancellationToken,
}

impl ResettableListener {
    pub fn new(listener: TcpListener, stop: CancellationToken) -> Self {
        Self { listener, stop }
    }
}

impl Listener for ResettableListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Small responses must not wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let stopped = Box::pin(self.stop.clone().cancelled_owned());
                    return (Connection { stream, reset_flag: ResetFlag::default(), stopped }, address);
                }
                // Out of file descriptors, or the peer disconnected: wait instead of spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, ResettableListener>> for ResetFlag {
    fn connect_info(stream: IncomingStream<'_, ResettableListener>) -> Self {
        stream.io().reset_flag.clone()
    }
}

/// A TCP connection with a [`ResetFlag`]. It also ends when the instance stops.
pub(super) struct Connection {
    stream: TcpStream,
    reset_flag: ResetFlag,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn check(&self) -> io::Result<()> {
        if self.reset_flag.0.load(Ordering::Relaxed) {
            // A reset instead of a close, so that the peer sees no orderly end.
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
    let accepting = ResettableListener::new(listener, stop.clone());
    let router = axum::Router::new().fallback(handle).with_state(instance);
    let service = router.into_make_service_with_connect_info::<ResetFlag>();
    // It ends only when `stop` is canceled, without an error.
    let _ = axum::serve(accepting, service).with_graceful_shutdown(stop.cancelled_owned()).await;
}

async fn handle(
    State(instance): State<Arc<Instance>>,
    ConnectInfo(reset_flag): ConnectInfo<ResetFlag>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = router::read_body(&parts.headers, body).await;
    let path = parts.uri.path();
    let reply = if path == "/" && parts.method == Method::GET && !instance.faults().hibernating {
        page::page()
    } else if path.starts_with("/simulator/") {
        match body {
            Ok(body) => control::handle(&instance, &parts.method, path, parts.uri.query().unwrap_or(""), &body),
            Err(reply) => reply,
        }
    } else {
        router::handle(&instance, &parts, body).await
    };
    into_http(&instance, &reset_flag, reply)
}

fn into_http(instance: &Instance, reset_flag: &ResetFlag, reply: Reply) -> Response<Body> {
    if reply.reset_connection {
        reset_flag.0.store(true, Ordering::Relaxed);
    }
    let offset = instance.options.settings.clock_offset_seconds;
    let date = (offset != 0).then(|| time::http_date(lock(&instance.database).now()));
    reply.into_response(&instance.transaction_id(), date)
}
