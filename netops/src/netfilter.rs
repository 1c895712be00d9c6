//! A netlink socket to nf_tables: one transaction per call, and dumps of sets and rules.
//!
//! This is the path of every lease renewal: no fork, no async, no allocation after the first use. The kernel
//! works through a batch inside `send`, so its answers wait in the receive buffer when `send` returns; the
//! receive limit only guards against a kernel that does not answer at all.
//!
//! ```text
//! BATCH_BEGIN · flush permit_k · flush ticket_k · add ticket_k {timeout} (ACK) · BATCH_END
//!      either all of it takes effect between two packets, or an error comes back and nothing has changed
//! ```

use std::{
    io::{self, Read},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::sys::socket::{NetlinkAddr, bind, getsockname};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    beside::Beside,
    wire::{self, Writer},
};

/// `NFPROTO_INET`.
pub(crate) const FAMILY_INET: u8 = 1;
/// `NFPROTO_NETDEV`.
pub(crate) const FAMILY_NETDEV: u8 = 5;

/// High byte of every nf_tables message type.
pub(crate) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const GET_TABLE: u16 = 1;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;

/// First attribute of tables, rules and element lists alike: the table's name.
pub(crate) const TABLE_NAME: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const DATA_VALUE: u16 = 1;
/// Length of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

/// The kernel answers within `send`; this much later it never will.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);
/// A dump that a commit interrupts is repeated this often; with renewals each 50 ms one retry is plenty.
const DUMP_ATTEMPTS: usize = 5;
/// The kernel's dumps come in pieces of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// No netfilter socket: netlink or the capability is missing.
    #[error("cannot open a netfilter netlink socket")]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("cannot send to netfilter")]
    Send(#[source] io::Error),
    /// The answer could not be read, or did not come within 250 ms.
    #[error("netfilter did not answer")]
    Receive(#[source] io::Error),
    /// The table or set does not exist: another program removed it.
    #[error("the table or set does not exist")]
    Gone,
    /// The kernel refused the transaction; nothing of it took effect.
    #[error("netfilter refused the transaction")]
    Refused(#[source] io::Error),
    /// Each attempt at a dump was interrupted by changes.
    #[error("the set changed during each attempt to read it")]
    Unsteady,
}

/// An element that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// Milliseconds left; `None` if it never expires.
    pub(crate) left_ms: Option<u64>,
}

/// A set, by its table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetName<'a> {
    pub(crate) family: u8,
    pub(crate) table: &'a str,
    pub(crate) set: &'a str,
}

/// The operations of one transaction.
pub(crate) struct Batch<'a> {
    writer: &'a mut Writer,
    seq: u32,
}

impl Batch<'_> {
    /// Removes every element of the set; an empty set is no error.
    pub(crate) fn flush(&mut self, set: SetName<'_>) {
        self.begin(DELETE_ELEMENT, wire::REQUEST, set);
        self.writer.finish();
    }

    /// Adds an element; `timeout_ms` `None` means for ever. On its own it does not extend one that is there.
    pub(crate) fn add(&mut self, set: SetName<'_>, key: &[u8], timeout_ms: Option<u64>) {
        self.element(NEW_ELEMENT, wire::CREATE, set, key, timeout_ms);
    }

    /// Removes an element that exists.
    pub(crate) fn delete(&mut self, set: SetName<'_>, key: &[u8]) {
        self.element(DELETE_ELEMENT, 0, set, key, None);
    }

    fn element(&mut self, kind: u16, flags: u16, set: SetName<'_>, key: &[u8], timeout_ms: Option<u64>) {
        self.begin(kind, wire::REQUEST | flags, set);
        self.writer.nested(LIST_ELEMENTS, |list| {
            list.nested(LIST_ITEM, |item| {
                item.nested(ELEMENT_KEY, |data| data.attribute(DATA_VALUE, key));
                if let Some(ms) = timeout_ms {
                    item.attribute(ELEMENT_TIMEOUT, &ms.to_be_bytes());
                }
            });
        });
        self.writer.finish();
    }

    fn begin(&mut self, kind: u16, flags: u16, set: SetName<'_>) {
        self.seq = self.seq.wrapping_add(1);
        self.writer.begin(SUBSYSTEM << 8 | kind, flags, self.seq);
        self.writer.raw(&[set.family, 0, 0, 0]);
        self.writer.string(TABLE_NAME, set.table);
        self.writer.string(LIST_SET, set.set);
    }
}

/// The socket. Not shared: each owner has its own.
#[derive(Debug)]
pub(crate) struct NetfilterSocket {
    socket: Beside,
    writer: Writer,
    received: Box<[u8]>,
    seq: u32,
}

impl NetfilterSocket {
    pub(crate) fn open() -> Result<Self, NetfilterError> {
        let open = || {
            let protocol = Protocol::from(libc::NETLINK_NETFILTER);
            let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(Beside::new(socket))
        };
        Ok(Self {
            socket: open().map_err(NetfilterError::Open)?,
            writer: Writer::default(),
            received: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            seq: 0,
        })
    }

    /// The netlink port of this socket, by which the kernel names it to others. As long as it is open no other socket of its
    /// network namespace has the same one; afterwards any may get it.
    ///
    /// The kernel chooses it with the first request, or here.
    ///
    /// # Errors
    /// The kernel's. There is none to be expected, for a request needs a port as well.
    pub(crate) fn port(&self) -> io::Result<u32> {
        /// In an address: none yet, or any.
        const NONE: u32 = 0;
        let socket = self.socket.as_raw_fd();
        if getsockname::<NetlinkAddr>(socket)?.pid() == NONE {
            bind(socket, &NetlinkAddr::new(NONE, 0))?;
        }
        match getsockname::<NetlinkAddr>(socket)?.pid() {
            NONE => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
            port => Ok(port),
        }
    }

    /// Commits what `fill` writes as one transaction.
    ///
    /// # Errors
    /// Nothing has taken effect on any error but `Receive`, after which the outcome is not known.
    pub(crate) fn commit(&mut self, fill: impl FnOnce(&mut Batch<'_>)) -> Result<(), NetfilterError> {
        self.writer.clear();
        let first = self.seq.wrapping_add(1);
        batch_edge(&mut self.writer, BATCH_BEGIN, first);
        let mut batch = Batch { writer: &mut self.writer, seq: first };
        fill(&mut batch);
        let last = batch.seq;
        if last == first {
            return Ok(());
        }
        self.writer.ask_for_acknowledgement();
        self.seq = last.wrapping_add(1);
        batch_edge(&mut self.writer, BATCH_END, self.seq);
        self.send()?;
        self.await_acknowledgement(first, last)
    }

    /// The last operation asks for its acknowledgement; errors come unasked. The kernel sends all of them in order after
    /// the commit, so the first decides. A failed commit is reported with the sequence number of the batch's begin.
    fn await_acknowledgement(&mut self, first: u32, last: u32) -> Result<(), NetfilterError> {
        loop {
            let length = self.receive()?;
            for message in wire::messages(&self.received[..length]) {
                let ours = message.seq.wrapping_sub(first) <= last.wrapping_sub(first);
                if message.kind != wire::ERROR || !ours {
                    continue;
                }
                match message.errno() {
                    Some(0) if message.seq == last => return Ok(()),
                    Some(0) => {}
                    code => return Err(refusal(code)),
                }
            }
        }
    }

    /// The elements of a set. Expired ones are not listed.
    pub(crate) fn elements(&mut self, set: SetName<'_>) -> Result<Vec<Element>, NetfilterError> {
        self.dump(
            |writer, seq| {
                writer.begin(SUBSYSTEM << 8 | GET_ELEMENT, wire::REQUEST | wire::ACK | wire::DUMP, seq);
                writer.raw(&[set.family, 0, 0, 0]);
                writer.string(TABLE_NAME, set.table);
                writer.string(LIST_SET, set.set);
                writer.finish();
            },
            |kind, body, found: &mut Vec<Element>| {
                if kind == NEW_ELEMENT {
                    let list = wire::attribute(body, LIST_ELEMENTS).unwrap_or_default();
                    found.extend(wire::attributes(list).filter_map(|(_, item)| element(item)));
                }
            },
        )
    }

    /// How many rules a table has; 0 also for a table that does not exist.
    pub(crate) fn rule_count(&mut self, family: u8, table: &str) -> Result<usize, NetfilterError> {
        let found = self.dump(
            |writer, seq| {
                writer.begin(SUBSYSTEM << 8 | GET_RULE, wire::REQUEST | wire::ACK | wire::DUMP, seq);
                writer.raw(&[family, 0, 0, 0]);
                writer.string(TABLE_NAME, table);
                writer.finish();
            },
            |kind, body, found: &mut Vec<()>| {
                // Older kernels ignore the filter of a dump.
                if kind == NEW_RULE && wire::attribute(body, TABLE_NAME).map(wire::text) == Some(table) {
                    found.push(());
                }
            },
        )?;
        Ok(found.len())
    }

    /// Whether the table exists.
    pub(crate) fn has_table(&mut self, family: u8, table: &str) -> Result<bool, NetfilterError> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.writer.clear();
        self.writer.begin(SUBSYSTEM << 8 | GET_TABLE, wire::REQUEST | wire::ACK, seq);
        self.writer.raw(&[family, 0, 0, 0]);
        self.writer.string(TABLE_NAME, table);
        self.writer.finish();
        self.send()?;
        match self.await_acknowledgement(seq, seq) {
            Ok(()) => Ok(true),
            Err(NetfilterError::Gone) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn dump<T>(
        &mut self,
        request: impl Fn(&mut Writer, u32),
        mut read: impl FnMut(u16, &[u8], &mut Vec<T>),
    ) -> Result<Vec<T>, NetfilterError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.seq = self.seq.wrapping_add(1);
            self.writer.clear();
            request(&mut self.writer, self.seq);
            self.send()?;
            let mut found = Vec::new();
            if self.collect(&mut found, &mut read)? {
                return Ok(found);
            }
        }
        Err(NetfilterError::Unsteady)
    }

    /// Reads one dump to its end; `false` if a change interrupted it.
    fn collect<T>(
        &mut self,
        found: &mut Vec<T>,
        read: &mut impl FnMut(u16, &[u8], &mut Vec<T>),
    ) -> Result<bool, NetfilterError> {
        let mut steady = true;
        loop {
            let length = self.receive()?;
            for message in wire::messages(&self.received[..length]) {
                if message.seq != self.seq {
                    continue;
                }
                steady &= message.flags & wire::DUMP_INTERRUPTED == 0;
                match message.kind {
                    wire::ERROR => return Err(refusal(message.errno())),
                    wire::DONE => {
                        return match message.errno() {
                            Some(0) | None => Ok(steady),
                            Some(libc::EINTR) => Ok(false),
                            code => Err(refusal(code)),
                        };
                    }
                    kind if kind >> 8 == SUBSYSTEM => {
                        let body = message.payload.get(FAMILY_HEADER..).unwrap_or_default();
                        read(kind & 0xff, body, found);
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self) -> Result<(), NetfilterError> {
        loop {
            match self.socket.send(self.writer.as_bytes()) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetfilterError::Send(error)),
            }
        }
    }

    fn receive(&mut self) -> Result<usize, NetfilterError> {
        loop {
            match (&*self.socket).read(&mut self.received) {
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetfilterError::Receive(error)),
            }
        }
    }
}

fn batch_edge(writer: &mut Writer, kind: u16, seq: u32) {
    writer.begin(kind, wire::REQUEST, seq);
    // struct nfgenmsg: family, version, subsystem in network byte order.
    writer.raw(&[0, 0, 0, SUBSYSTEM as u8]);
    writer.finish();
}

fn refusal(code: Option<i32>) -> NetfilterError {
    match code {
        Some(libc::ENOENT) => NetfilterError::Gone,
        Some(code) => NetfilterError::Refused(io::Error::from_raw_os_error(code)),
        None => NetfilterError::Refused(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// An element of a dump, unless it has expired and only waits for the kernel's sweep.
fn element(item: &[u8]) -> Option<Element> {
    let key = wire::attribute(item, ELEMENT_KEY).and_then(|data| wire::attribute(data, DATA_VALUE))?;
    let number = |kind| {
        let bytes = wire::attribute(item, kind)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let left_ms = match number(ELEMENT_TIMEOUT) {
        None | Some(0) => None,
        Some(_) => Some(number(ELEMENT_EXPIRATION).unwrap_or(0)),
    };
    (left_ms != Some(0)).then(|| Element { key: key.to_vec(), left_ms })
}
