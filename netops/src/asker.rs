//! Does an address still answer on its segment? Asked again and again, of a gateway that is watched.
//!
//! The packet socket is kept between the questions: to look the interface up, to open a socket and to close it costs far more
//! than to ask. The kernel lets in only what answers this very question, so between the questions nothing wakes us.
//!
//! ```text
//! kept socket, interface as it was     ask   yes ->  yes
//!                                            silence ->  look the interface up   the same ->  no
//! none, interface made anew, error                                               another  ->  ask once more on a new socket
//! ```

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::{
    link::Mac,
    network::Network,
    packet::{PacketError, PacketSocket},
    probe::ProbeError,
    question::{FRAME_BYTES_MAX, Question},
};

impl Network {
    /// Somebody who asks again and again whether anybody has `ip` on this interface. Opens nothing yet.
    #[must_use]
    pub fn asker(&self, ip: IpAddr, interface: &str) -> Asker {
        Asker { network: self.clone(), ip, interface: interface.to_owned(), kept: None }
    }
}

/// Asks for one address on one interface, over a socket that it keeps.
#[derive(Debug)]
pub struct Asker {
    network: Network,
    ip: IpAddr,
    interface: String,
    kept: Option<Kept>,
}

impl Asker {
    /// Asks whether anybody has the address, and waits for `patience` at most; ends with the first answer. What came late for an
    /// earlier question is no answer. Where the interface was made anew in the meantime, or got another hardware address, it is
    /// asked once more, so that it may take `2 * patience` and the look-up of the interface.
    ///
    /// A caller that gives up closes the socket.
    ///
    /// # Errors
    /// [`ProbeError`]; an error is not 'nobody'. After an error the next question opens a new socket.
    pub async fn is_there(&mut self, patience: Duration) -> Result<bool, ProbeError> {
        let ip = self.ip;
        // Taken out, so that whatever ends early also drops the socket.
        let kept = self.kept.take().filter(Kept::is_current);
        let answer = match &kept {
            Some(kept) => {
                let answer = kept.ask_again(patience).await;
                let note = |error: &PacketError| {
                    tracing::debug!(%ip, error = error as &dyn std::error::Error, "asked on a new socket");
                };
                answer.inspect_err(note).ok()
            }
            None => None,
        };
        if answer == Some(true) {
            self.kept = kept;
            return Ok(true);
        }
        let hardware = self.network.hardware(ip, &self.interface).await?;
        let is_unchanged = kept.as_ref().is_some_and(|kept| (kept.ifindex, kept.mac) == hardware);
        if answer == Some(false) && is_unchanged {
            self.kept = kept;
            return Ok(false);
        }
        drop(kept);
        let (ifindex, mac) = hardware;
        let failed = |source| ProbeError::Packet { ip, source };
        let kept = Kept::open(ip, ifindex, mac).map_err(failed)?;
        let is_there = kept.ask(patience).await.map_err(failed)?;
        self.kept = Some(kept);
        Ok(is_there)
    }
}

/// What stays between two questions.
#[derive(Debug)]
struct Kept {
    socket: PacketSocket,
    question: Question,
    ifindex: u32,
    mac: Mac,
}

impl Kept {
    fn open(ip: IpAddr, ifindex: u32, mac: Mac) -> Result<Self, PacketError> {
        let question = Question::new(ip, mac);
        Ok(Self { socket: question.socket_for_answers(ifindex)?, question, ifindex, mac })
    }

    /// Whether the interface is there and has the hardware address with which we ask. Silence would not tell: an answer to
    /// the old address may reach us all the same, and switches would believe that the old address is still here.
    fn is_current(&self) -> bool {
        self.socket.hardware() == Some(self.mac)
    }

    /// Asks when what is queued is of earlier questions.
    async fn ask_again(&self, patience: Duration) -> Result<bool, PacketError> {
        self.socket.drain()?;
        self.ask(patience).await
    }

    async fn ask(&self, patience: Duration) -> Result<bool, PacketError> {
        self.socket.send(&self.question.frame()).await?;
        let end = Instant::now() + patience;
        let mut buffer = [0; FRAME_BYTES_MAX];
        while let Some(length) = self.socket.receive_until(end, &mut buffer).await? {
            if self.question.claimant(&buffer[..length]).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
