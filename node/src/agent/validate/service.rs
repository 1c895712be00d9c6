//! A service's own check through the VIP. One request, one look at the status line; bodies are not read.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Check;

/// A status line is shorter.
const STATUS_LINE_MAX: u64 = 256;

/// What the service answered, in words.
pub(super) async fn look(ip: IpAddr, check: &Check) -> anyhow::Result<String> {
    match check {
        Check::Tcp { port } => {
            TcpStream::connect((ip, *port)).await?;
            Ok("accepts connections".to_owned())
        }
        Check::Http { port, path } => {
            let addr = SocketAddr::new(ip, *port);
            let status = get(addr, path).await?;
            ensure!((200..400).contains(&status), "GET {path} is answered with status {status}");
            Ok(format!("status {status}"))
        }
    }
}

async fn get(addr: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(addr).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: baton\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut answer = stream.take(STATUS_LINE_MAX);
    while !line.ends_with(b"\n") {
        line.push(answer.read_u8().await.context("the answer has no status line")?);
    }
    status(&String::from_utf8_lossy(&line)).context("the answer is not HTTP")
}

/// `HTTP/1.1 200 OK`
fn status(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answering(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (port, served)
    }

    async fn visit(answer: &'static str) -> anyhow::Result<String> {
        let (port, served) = answering(answer).await;
        let check = Check::Http { port, path: "/health".to_owned() };
        let seen = look("127.0.0.1".parse().unwrap(), &check).await;
        assert!(served.await.unwrap().starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
        seen
    }

    #[tokio::test]
    async fn the_status_decides() {
        assert_eq!(visit("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap(), "status 204");
        let failed = visit("HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err();
        assert!(failed.to_string().contains("503"), "{failed}");
        assert!(visit("SSH-2.0-x\r\n").await.is_err());
        assert!(visit("").await.is_err());
    }

    #[tokio::test]
    async fn a_closed_port_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ip = "127.0.0.1".parse().unwrap();
        assert_eq!(look(ip, &Check::Tcp { port }).await.unwrap(), "accepts connections");
        drop(listener);
        assert!(look(ip, &Check::Tcp { port }).await.is_err());
    }
}
