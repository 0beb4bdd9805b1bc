//! Asks a node's admin server, which speaks HTTP.

use std::net::{SocketAddr, ToSocketAddrs as _};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

use super::args::ClientArgs;
use super::failure::{Failure, FailureKind};
use crate::config::ADMIN_PORT_STEP;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which node's admin server is asked, and how its answer is shown: of several addresses the first that
/// answers, whose admin server is taken to be 2 ports higher.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    #[command(flatten)]
    pub client: ClientArgs,

    /// The node's admin server, if it is not 2 ports above --addr (of several, the first that answers).
    #[arg(long, value_name = "HOST:PORT", help_heading = "Connection and output")]
    pub admin: Option<String>,
}

impl AdminArgs {
    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let (texts, step) = match &self.admin {
            Some(admin) => (admin.as_str(), 0),
            None => (self.client.addr.as_str(), ADMIN_PORT_STEP),
        };
        let address = |text: &str| {
            let wrong = |why: &str| Failure::usage(format!("{text}: {why}"));
            let mut found = text
                .to_socket_addrs()
                .map_err(|error| wrong(&error.to_string()))?;
            let mut address = found.next().ok_or_else(|| wrong("it has no address"))?;
            let port = address.port().checked_add(step);
            address.set_port(port.ok_or_else(|| wrong("there is no port 2 higher"))?);
            Ok(address)
        };
        texts.split(',').map(|text| address(text.trim())).collect()
    }

    /// The JSON at a path.
    ///
    /// # Errors
    /// The server is not reached, or does not answer with JSON in time.
    pub fn get(&self, path: &str) -> Result<serde_json::Value, Failure> {
        let addresses = self.addresses()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Each has its share of the time.
        let timeout = self.client.timeout / addresses.len().max(1) as u32;
        let mut silent = Vec::new();
        for address in addresses {
            let answer = runtime.block_on(async {
                let answer = tokio::time::timeout(timeout, ask(address, path)).await;
                answer.unwrap_or_else(|_| Err("no answer within --timeout".into()))
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => silent.push(format!("the admin server at {address}: {error}")),
            }
        }
        let message = format!(
            "{}; is the node running, and is it there? (--admin)",
            silent.join("; ")
        );
        Err(Failure::new(FailureKind::Refused, message))
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn ask(address: SocketAddr, path: &str) -> Result<serde_json::Value, Error> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()).into());
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let bytes = body.collect().await?.to_bytes();
    Ok(serde_json::from_slice(&bytes)?)
}
