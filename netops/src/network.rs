//! The connection to the kernel's addresses, links and routes. Cheap to clone; the last clone ends its task.
//!
//! Every request has a deadline: the kernel answers in well under a millisecond, but an await without an end
//! would make a lost answer a hung agent.

use std::{future::Future, io, sync::Arc, time::Duration};

use rtnetlink::Handle;
use tokio::{task::AbortHandle, time::timeout};

/// Answers take 40 to 300 µs; this only ends a wait for one that was lost.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_millis(500);

/// Why a request to the kernel's routing netlink failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No routing netlink socket.
    #[error("cannot open a routing netlink socket")]
    Open(#[source] io::Error),
    /// No answer within 500 ms.
    #[error("the kernel did not answer within 500 ms")]
    Late,
    /// The kernel refused.
    #[error("the kernel refused")]
    Refused(#[source] rtnetlink::Error),
}

impl NetworkError {
    /// The kernel's positive errno, if that is what failed.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(rtnetlink::Error::NetlinkError(message)) => {
                message.code.map(|code| code.get().saturating_neg())
            }
            Self::Refused(_) | Self::Open(_) | Self::Late => None,
        }
    }
}

/// Addresses, links, probes and announcements of the namespace in which it was opened.
#[derive(Debug, Clone)]
pub struct Network {
    pub(crate) handle: Handle,
    _task: Arc<Connection>,
}

#[derive(Debug)]
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Network {
    /// Opens a connection; its task runs on the current tokio runtime (with I/O and time enabled).
    ///
    /// # Errors
    /// [`NetworkError::Open`].
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Open)?;
        let task = tokio::spawn(connection);
        Ok(Self { handle, _task: Arc::new(Connection(task.abort_handle())) })
    }
}

/// Awaits one request, or all of one dump, within the limit.
pub(crate) async fn ask<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetworkError> {
    timeout(REQUEST_LIMIT, request).await.map_err(|_| NetworkError::Late)?.map_err(NetworkError::Refused)
}
