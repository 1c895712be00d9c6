//! The dialing side: one warm connection per peer and channel, kept up in the background.
//!
//! Any number of questions may be under way on a connection; answers find theirs by number, so one that comes too
//! late is dropped and costs nothing. A connection on which questions stay unanswered is given up and dialed anew.
//! While there is none, a question fails at once instead of waiting: Raft has its own schedule for trying again.
//!
//! ```text
//!  dial ──fails──> pause (50 ms … 250 ms) ──> dial
//!   │ connected
//!  greet: Hello ──> Hello      (both sides compare what they remember, see `memory`)
//!   │ up
//!  serve questions; Hello again from time to time ──silence, error──> dial
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_runbooks::model::NodeId;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::RequestError;
use crate::node::Node;
use crate::transport::{Channel, Link, LinkSender, dial};
use crate::wire::{self, Envelope, Kind};

/// Connecting takes a few round trips; longer means that the peer is not there.
const DIAL_DEADLINE: Duration = Duration::from_millis(300);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Greeting includes reading the peer's answer behind whatever its thread is busy with.
const GREET_DEADLINE: Duration = Duration::from_millis(1000);
/// Questions that wait to be written.
const QUEUE_MAX: usize = 256;
/// Questions under way on one connection.
const PENDING_MAX: usize = 1024;
/// How often a connection is looked after.
const TICK: Duration = Duration::from_millis(500);
/// Greetings are this far apart, which keeps the listener from closing an idle link.
const GREET_EVERY: Duration = Duration::from_secs(1);
/// The same beside [`Channel::Peer`], whose greetings bring the news: a leader's link to a follower has its heartbeats, and one
/// on which nothing is said is found broken by what it does not carry. The listener is more patient than twice this.
const GREET_SELDOM: Duration = Duration::from_secs(4);
/// A connection with a question this old and no sign of life since is given up.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

const fn greet_every(channel: Channel) -> Duration {
    match channel {
        Channel::Peer | Channel::Lease | Channel::Order | Channel::Copy => GREET_EVERY,
        Channel::Raft | Channel::Snapshot => GREET_SELDOM,
    }
}

struct Question {
    kind: Kind,
    payload: Bytes,
    /// `None`: nobody waits, and the peer does not answer.
    reply: Option<oneshot::Sender<Result<Bytes, RequestError>>>,
}

impl Question {
    fn end(self, error: RequestError) {
        if let Some(reply) = self.reply {
            let _ = reply.send(Err(error));
        }
    }
}

/// One peer on one channel.
#[derive(Clone)]
pub struct Peer {
    name: NodeId,
    channel: Channel,
    questions: mpsc::Sender<Question>,
    up: Arc<AtomicBool>,
}

impl Peer {
    /// Starts keeping a connection to `name` up. The task ends with its runtime.
    pub fn keep(node: &Arc<Node>, name: NodeId, addr: SocketAddr, channel: Channel) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE_MAX);
        let up = Arc::new(AtomicBool::new(false));
        let keeper =
            Keeper { node: Arc::clone(node), name: name.clone(), addr, channel, up: Arc::clone(&up) };
        tokio::spawn(keeper.run(queue));
        Self { name, channel, questions, up }
    }

    /// Asks the peer.
    ///
    /// # Errors
    /// [`RequestError`]; only `NotConnected` and `TooLarge` say that the peer has not seen the question.
    pub async fn ask(&self, kind: Kind, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.put(Question { kind, payload, reply: Some(reply) })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestError::Broken { to: self.name.clone() }),
            Err(_) => Err(RequestError::TimedOut { to: self.name.clone() }),
        }
    }

    /// Sends a note. That it is on its way does not say that it arrives.
    ///
    /// # Errors
    /// As for [`Self::ask`]; none says that the peer has seen the note.
    pub fn note(&self, payload: Bytes) -> Result<(), RequestError> {
        self.put(Question { kind: Kind::Note, payload, reply: None })
    }

    fn put(&self, question: Question) -> Result<(), RequestError> {
        let (bytes, max) = (question.payload.len(), self.channel.frame_max() - wire::overhead());
        if bytes > max {
            return Err(RequestError::TooLarge { bytes, max });
        }
        if !self.up.load(Ordering::Acquire) {
            return Err(RequestError::NotConnected { to: self.name.clone() });
        }
        self.questions.try_send(question).map_err(|_| RequestError::NotConnected { to: self.name.clone() })
    }
}

struct Keeper {
    node: Arc<Node>,
    name: NodeId,
    addr: SocketAddr,
    channel: Channel,
    up: Arc<AtomicBool>,
}

/// A question under way.
struct Pending {
    since: Instant,
    /// `None`: a greeting.
    reply: Option<oneshot::Sender<Result<Bytes, RequestError>>>,
}

impl Keeper {
    async fn run(self, mut queue: mpsc::Receiver<Question>) {
        let mut pause = PAUSE_MIN;
        loop {
            match dial(&self.node.tls, &self.name, self.addr, self.channel, DIAL_DEADLINE).await {
                Ok(link) => {
                    let since = Instant::now();
                    let why = self.serve(link, &mut queue).await;
                    self.up.store(false, Ordering::Release);
                    tracing::debug!(peer = %self.name, channel = ?self.channel, why, "link lost");
                    // A peer that takes links and drops them at once is treated like one that is not there.
                    if since.elapsed() > PAUSE_MAX {
                        pause = PAUSE_MIN;
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %self.name, channel = ?self.channel, %error, "no link");
                    self.node.note_dial_error(&self.name, &error);
                }
            }
            // Questions that slipped in while the link broke get their answer now, not after the next dial.
            while let Ok(question) = queue.try_recv() {
                question.end(RequestError::NotConnected { to: self.name.clone() });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Uses the link until it breaks, and says why it did.
    async fn serve(&self, link: Link, queue: &mut mpsc::Receiver<Question>) -> &'static str {
        let (mut sender, mut receiver) = link.split();
        let mut pending: BTreeMap<u64, Pending> = BTreeMap::new();
        let mut next = 0;
        if !self.greet(&mut sender, &mut pending, &mut next).await {
            return "cannot send";
        }
        let mut tick = self.node.every(TICK);
        let mut greet = self.node.every(greet_every(self.channel));
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                // Answers first: they free what questions fill.
                biased;
                received = receiver.recv() => {
                    heard = Instant::now();
                    let Ok(Some(frame)) = received else { return "closed by the peer" };
                    if !self.take_answer(frame, &mut pending) {
                        return "the peer does not speak this protocol, or refused";
                    }
                }
                _ = tick.tick() => {
                    pending.retain(|_, p| p.reply.as_ref().is_none_or(|reply| !reply.is_closed()));
                    let limit = if self.up.load(Ordering::Acquire) { SILENCE_MAX } else { GREET_DEADLINE };
                    let oldest = pending.values().map(|p| p.since).min();
                    if oldest.is_some_and(|since| since.elapsed() > limit && heard.elapsed() > limit) {
                        return "silence";
                    }
                }
                _ = greet.tick() => {
                    if !self.greet(&mut sender, &mut pending, &mut next).await {
                        return "cannot send";
                    }
                }
                question = queue.recv() => {
                    // The other end lives in the node, which this task keeps alive.
                    let Some(question) = question else { return "shut down" };
                    if pending.len() >= PENDING_MAX {
                        question.end(RequestError::NotConnected { to: self.name.clone() });
                        continue;
                    }
                    let frame = wire::frame(next, question.kind, &question.payload);
                    if let Some(reply) = question.reply {
                        pending.insert(next, Pending { since: Instant::now(), reply: Some(reply) });
                    }
                    next += 1;
                    if !send(&mut sender, frame).await {
                        return "cannot send";
                    }
                }
            }
        }
    }

    async fn greet(
        &self,
        sender: &mut LinkSender,
        pending: &mut BTreeMap<u64, Pending>,
        next: &mut u64,
    ) -> bool {
        let payload = self.node.envelope(&wire::Ask::Hello(Box::new(self.node.hello_for(&self.name))));
        pending.insert(*next, Pending { since: Instant::now(), reply: None });
        let frame = wire::frame(*next, Kind::Control, &payload);
        *next += 1;
        send(sender, frame).await
    }

    /// False if the link must be dropped.
    fn take_answer(&self, frame: Bytes, pending: &mut BTreeMap<u64, Pending>) -> bool {
        let Some((id, kind, payload)) = wire::parse(frame) else { return false };
        let answer = match kind {
            Kind::Answer => Ok(payload),
            Kind::Refusal => {
                let reason = String::from_utf8_lossy(&payload).into_owned();
                Err(RequestError::Refused { to: self.name.clone(), reason })
            }
            Kind::Control | Kind::Message | Kind::Note => return false,
        };
        match pending.remove(&id) {
            // The asker has given up; its answer is late.
            None => true,
            Some(Pending { reply: Some(reply), .. }) => {
                let _ = reply.send(answer);
                true
            }
            Some(Pending { reply: None, .. }) => {
                let Ok(payload) = answer else { return false };
                let Ok(hello) = serde_json::from_slice::<Envelope<wire::Hello>>(&payload) else {
                    return false;
                };
                self.node.hear_hello(&self.name, &hello);
                self.up.store(true, Ordering::Release);
                true
            }
        }
    }
}

/// A link whose peer does not read is as good as broken.
async fn send(sender: &mut LinkSender, frame: Bytes) -> bool {
    matches!(tokio::time::timeout(SILENCE_MAX, sender.send(frame)).await, Ok(Ok(())))
}
