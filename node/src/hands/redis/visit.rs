//! One visit to a Redis over the network, as a client makes it: write a key, read it back.
//!
//! It holds no connection and knows nothing of roles; the local server is the business of [`super::Redis`].

use std::net::SocketAddr;
use std::time::Duration;

use super::{RedisError, remote};

/// Keys of visits live this long: nobody reads them afterwards.
const EXPIRE_S: u64 = 60;

/// Writes `value` to `key` at `addr` with an expiry of a minute, and reads it back, all within `deadline`.
///
/// # Errors
/// [`RedisError`]; [`RedisError::Answer`] if another value is read than was written.
pub async fn write_and_read(
    addr: SocketAddr,
    (user, password): (Option<&str>, &str),
    (key, value): (&str, &str),
    deadline: Duration,
) -> Result<(), RedisError> {
    let what = "write and read";
    let after_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let work = async {
        let mut conn = remote::dial(addr, (user, password), what).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(key).arg(value).arg("EX").arg(EXPIRE_S).ignore();
        pipe.cmd("GET").arg(key);
        let (read,): (Option<String>,) =
            pipe.query_async(&mut conn).await.map_err(|source| RedisError::Command { what, source })?;
        if read.as_deref() == Some(value) {
            Ok(())
        } else {
            Err(RedisError::Answer { what, detail: format!("{key} reads {read:?}, written was {value:?}") })
        }
    };
    tokio::time::timeout(deadline, work).await.map_err(|_| RedisError::Timeout { what, after_ms })?
}
