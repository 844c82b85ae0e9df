//! The HTTP side, on the control task's thread.

use super::Exposition;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use millrace_storage::env::Env;
use millrace_storage::side::net::TcpListener;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

/// Connections at a time; further ones are closed.
const CONNECTIONS: usize = 64;

/// How long one connection may last: a scraper connects anew.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// Pause after an accept that failed (no descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes over a bound socket. On a thread of [`millrace_storage::side::block_on_local`], as all of this file.
pub fn adopt(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers requests until the thread ends.
pub async fn serve(env: Env, listener: TcpListener, exposition: Exposition) {
    let open = Rc::new(Cell::new(0_usize));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            env.sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.get() >= CONNECTIONS {
            continue;
        }
        open.set(open.get() + 1);
        let (open, exposition, clock) = (open.clone(), exposition.clone(), env.clone());
        env.spawn("admin connection", async move {
            let service = service_fn(|request: Request<_>| {
                let response = answer(request.method(), request.uri().path(), &clock, &exposition);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.max_buf_size(HEAD_BYTES);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let expiry = clock.sleep(CONNECTION_LIFE);
            // Either way the connection is dropped; a client's broken request is its own affair.
            futures::future::select(std::pin::pin!(connection), expiry).await;
            open.set(open.get() - 1);
        });
    }
}

fn answer(method: &Method, path: &str, env: &Env, exposition: &Exposition) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        "/healthz" if exposition.is_healthy(env.now()) => plain(StatusCode::OK, "ok\n"),
        "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "a thread does not answer\n"),
        "/readyz" if exposition.is_ready(env.now()) => plain(StatusCode::OK, "ready\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(exposition.text())));
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
            response
        }
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}
