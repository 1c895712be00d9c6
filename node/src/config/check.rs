//! How a service is tried through the VIP: a connection, or one HTTP request.

use std::fmt;
use std::str::FromStr;

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A TCP connection is accepted.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A GET is answered with a status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// Path with query, beginning with a slash.
        path: String,
    },
}

/// The text is neither `tcp:PORT` nor `http://:PORT/PATH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither tcp:PORT nor http://:PORT/PATH")]
pub struct CheckError;

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(text: &str) -> Result<Self, CheckError> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or(CheckError);
        if let Some(rest) = text.strip_prefix("tcp:") {
            return Ok(Self::Tcp { port: port(rest)? });
        }
        let rest = text.strip_prefix("http://:").ok_or(CheckError)?;
        let (digits, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // The path goes into the request as it stands.
        if !path.chars().all(|c| c.is_ascii_graphic()) {
            return Err(CheckError);
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self::Http { port: port(digits)?, path: path.to_owned() })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { port } => write!(f, "tcp:{port}"),
            Self::Http { port, path } => write!(f, "http://:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_forms_and_nothing_else() {
        for (text, shown) in [
            ("tcp:8080", "tcp:8080"),
            ("http://:80", "http://:80/"),
            ("http://:8080/health?all=1", "http://:8080/health?all=1"),
        ] {
            assert_eq!(text.parse::<Check>().unwrap().to_string(), shown);
        }
        for text in [
            "8080",
            "tcp:0",
            "tcp:x",
            "http://web:80/",
            "http://:80/a b",
            "http://:80/a\r\nX: y",
            "https://:1/",
        ] {
            assert_eq!(text.parse::<Check>(), Err(CheckError), "{text}");
        }
    }
}
