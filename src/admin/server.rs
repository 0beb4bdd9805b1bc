//! The HTTP server: `GET` and `HEAD` of a handful of paths, nothing else.
//!
//! Everything is bounded: connections, the size and time of a request's head, the time of an answer,
//! the life of a connection. Bodies are not read. Served from loopback, a request must name this
//! machine by an address or as `localhost`: a page of another site whose name was made to mean
//! 127.0.0.1 in the operator's browser gets nothing.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::look::Sample;
use super::{State, api, exposition, health, requests, series};
use crate::shard::view::Depth;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, and a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The longest life of a connection.
const CONNECTION_WITHIN: Duration = Duration::from_secs(300);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after accepting has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much further back the thread stands than the cores, from 1 to 19.
const NICENESS: i32 = 10;

/// The page, whole: it loads nothing but the JSON of this server.
const PAGE: &str = include_str!("page.html");

/// The version of the text format for Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves on a thread of its own.
pub(super) fn start(listener: TcpListener, state: Arc<State>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let is_local = listener.local_addr()?.ip().is_loopback();
    let run = move || {
        // A scrape never competes with a core.
        let _unchanged = rustix::process::setpriority_process(None, NICENESS);
        runtime.block_on(async {
            tokio::spawn(series::keep(Arc::clone(&state)));
            serve(listener, state, is_local).await;
        });
    };
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(run)?;
    Ok(())
}

async fn serve(listener: TcpListener, state: Arc<State>, is_local: bool) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics and the page are not served"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(answer(&state, &request, is_local).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // Whoever left, or took too long, has nobody to be told.
            let _ended = tokio::time::timeout(CONNECTION_WITHIN, connection).await;
            drop(place);
        });
    }
}

async fn answer(
    state: &Arc<State>,
    request: &Request<Incoming>,
    is_local: bool,
) -> Response<Full<Bytes>> {
    if is_local && !names_this_machine(request.headers().get(HOST)) {
        let text = "ask for this server by an address, or as localhost\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => body(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/metrics" => {
            let sample = Sample::take(state, Depth::All).await;
            body(StatusCode::OK, METRICS_TYPE, exposition::summary(&sample))
        }
        "/metrics/detail" => {
            let sample = Sample::take(state, Depth::All).await;
            body(
                StatusCode::OK,
                METRICS_TYPE,
                exposition::detail(state, &sample),
            )
        }
        "/livez" => of_health(&health::live(&Sample::take(state, Depth::Counters).await)),
        "/readyz" => of_health(&health::ready(
            state,
            &Sample::take(state, Depth::All).await,
        )),
        "/api/status" => {
            let sample = Sample::take(state, Depth::All).await;
            json(StatusCode::OK, &api::status(state, &sample))
        }
        "/api/series" => {
            let query = request.uri().query().unwrap_or_default();
            let after = query.strip_prefix("after=").and_then(|ms| ms.parse().ok());
            json(StatusCode::OK, &state.series.json(after.unwrap_or(0)))
        }
        "/api/slow" => {
            let sample = Sample::take(state, Depth::Requests).await;
            json(StatusCode::OK, &requests::slow(state, &sample))
        }
        "/api/hot" => {
            let sample = Sample::take(state, Depth::Counters).await;
            json(StatusCode::OK, &requests::hot(state, &sample))
        }
        _ => plain(StatusCode::NOT_FOUND, "nothing is here\n"),
    }
}

/// Whether a request's host is an address, or `localhost`; none is fine, for no browser leaves it
/// out.
fn names_this_machine(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn of_health(health: &health::Health) -> Response<Full<Bytes>> {
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &health.body)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    body(status, "application/json", format!("{value}\n"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", text)
}

fn body(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(bytes.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The page carries all it needs and asks only this server.
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             img-src data:; connect-src 'self'; frame-ancestors 'none'",
        ),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_served_on_loopback() {
        for (host, is_own) in [
            ("127.0.0.1:7402", true),
            ("localhost:7402", true),
            ("LOCALHOST", true),
            ("[::1]:7402", true),
            ("[::1]", true),
            ("evil.example:7402", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let host = HeaderValue::from_static(host);
            assert_eq!(names_this_machine(Some(&host)), is_own, "{host:?}");
        }
        assert!(names_this_machine(None));
    }
}
