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

    /// The kernel said no for a reason that does not pass by itself.
    pub(crate) fn is_refusal(&self) -> bool {
        let passes = [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOBUFS, libc::ENOMEM];
        self.errno().is_some_and(|errno| !passes.contains(&errno))
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use netlink_packet_core::ErrorMessage;

    use super::*;

    #[test]
    fn a_late_answer_is_no_refusal() {
        let said = |errno: i32| {
            let mut message = ErrorMessage::default();
            message.code = NonZeroI32::new(-errno);
            NetworkError::Refused(rtnetlink::Error::NetlinkError(message))
        };
        for errno in [libc::EPERM, libc::ENODEV, libc::EINVAL] {
            assert!(said(errno).is_refusal(), "{errno}");
        }
        for errno in [libc::EBUSY, libc::ENOBUFS] {
            assert!(!said(errno).is_refusal(), "{errno}");
        }
        assert!(!NetworkError::Late.is_refusal());
        assert!(!NetworkError::Refused(rtnetlink::Error::RequestFailed).is_refusal());
    }
}
