//! The codes of the alarms of `baton status` that come from no decision. The others are reasons, [`baton_runbooks::why`].
//!
//! `docs/why.md` is made from this list.

use super::types::Alarm;

/// With these words a step ends in the journal that found another machine with the VIP.
pub(crate) const VIP_ANSWERED: &str = "somebody answers for";

/// What is to be mended, whether a takeover would work or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmCode {
    /// A forced cluster goes on in a higher generation without this node.
    Outranked,
    /// The log has what an older agent does not know.
    NewerLog,
    /// This node's log is not one that may vote.
    NotVoting,
    /// A node that was given up by a force is not back.
    Forced,
    /// The holder is closed, and nothing is under way.
    HolderClosed,
    /// Another machine has the VIP.
    VipTaken,
    /// Another machine answers for the VIP beside its holder.
    VipContested,
    /// The container engine would start what the agent manages.
    ContainerRestartsByItself,
    /// Another agent has read other values.
    ConfigDiffers,
    /// Another agent is of another version.
    VersionDiffers,
    /// Some nodes do not hear another one that the rest hears.
    Unreachable,
    /// A takeover would take longer than promised.
    SlowTakeover,
    /// A takeover would lose what was written into Redis.
    RedisNotFollowing,
    /// A certificate or its authority ends.
    CertificateEnds,
}

impl AlarmCode {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 14] = [
        Self::Outranked,
        Self::NewerLog,
        Self::NotVoting,
        Self::Forced,
        Self::HolderClosed,
        Self::VipTaken,
        Self::VipContested,
        Self::ContainerRestartsByItself,
        Self::ConfigDiffers,
        Self::VersionDiffers,
        Self::Unreachable,
        Self::SlowTakeover,
        Self::RedisNotFollowing,
        Self::CertificateEnds,
    ];

    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outranked => "outranked",
            Self::NewerLog => "newer-log",
            Self::NotVoting => "not-voting",
            Self::Forced => "forced",
            Self::HolderClosed => "holder-closed",
            Self::VipTaken => "vip-taken",
            Self::VipContested => "vip-contested",
            Self::ContainerRestartsByItself => "container-restarts-by-itself",
            Self::ConfigDiffers => "config-differs",
            Self::VersionDiffers => "version-differs",
            Self::Unreachable => "unreachable",
            Self::SlowTakeover => "slow-takeover",
            Self::RedisNotFollowing => "redis-not-following",
            Self::CertificateEnds => "certificate-ends",
        }
    }

    /// What it means and what to do, for the operator's page.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Outranked => {
                "an operator has forced a cluster of a higher generation, and this node was given up: it stays closed. Run \
                 `baton rejoin` on it, or with its name on any node (operating/lost-quorum.md)"
            }
            Self::NewerLog => {
                "the log of Raft has something that an older agent does not know: the asked node's own, or, on the leader, that of \
                 the node in the words. That node takes nothing new into its log: what its own `baton status` says beside is old, it \
                 counts for no decision and cannot take over. It still votes, and a holder keeps its lease. Upgrade its agent, and it \
                 goes on by itself; do not remove its Raft log (operating/upgrade.md)"
            }
            Self::NotVoting => {
                "this node takes no part in elections yet; the words beside the code say why, for instance that its disk is an \
                 older copy. It is taken in again by the leader: wait; if it stays so, look at the agent's log"
            }
            Self::Forced => {
                "the cluster was forced, and nodes that were given up are not back. Start them, and run what \
                 the words say, on any node"
            }
            Self::HolderClosed => {
                "the node that holds the baton turns clients away for more than 5 s, and neither a run nor a pause explains it: for \
                 instance its database does not become writable again after a switchover that was taken back. The words have its own \
                 reason. Look at its log and at its database, and mend that: it opens by itself"
            }
            Self::VipTaken => {
                "the newest takeover stopped before it took the VIP: another machine answers for the address, and the old holder \
                 is fenced. The words have that machine's hardware address: find it, by the switch's table of addresses if need \
                 be, and take the VIP from it. It stays until a takeover has the VIP"
            }
            Self::VipContested => {
                "another machine answers for the VIP beside its holder: clients that ask anew may reach that one, and a takeover would \
                 stop there (`vip-taken`). The words have its hardware address, on a node without the VIP beside the holder's: find \
                 it, by the switch's table of addresses if need be, and take the VIP from it. If it is another interface of the \
                 holder's own host, set `net.ipv4.conf.all.arp_ignore=1` there. Looked at every 5 s, and told after two looks"
            }
            Self::ContainerRestartsByItself => {
                "containers that an agent manages have another restart policy than `no`: the engine may start \
                 them after a boot or a crash, on a node without the baton too. The agent sets `no` when it starts; `docker compose up` \
                 sets what its file says. Run `docker update --restart=no NAME`, and write `restart: \"no\"` into the file. Looked at \
                 once a minute"
            }
            Self::ConfigDiffers => {
                "another agent has read other values than this one. Install the same file on all three, and restart the agents"
            }
            Self::VersionDiffers => "another agent is of another version. Finish the upgrade",
            Self::Unreachable => {
                "the nodes named do not hear another one, and the rest does: it runs, and the network between them is broken, maybe \
                 in one direction only. Look at cable, switch, VLAN and firewall between those"
            }
            Self::SlowTakeover => {
                "the replica has everything, and has not applied it: a takeover now would first have to, for longer than the 20 s \
                 that it has. Look for a long transaction, a table without a primary key, a slow disk, or an applier that somebody \
                 delays"
            }
            Self::RedisNotFollowing => {
                "the Redis of the node that would take over has not been seen to follow the holder's for more than 5 s while that took \
                 writes, or lacks writes that are older. A takeover works and is not held up, but what clients have written into Redis \
                 since is lost with the holder. Look at the log of that Redis, and whether it reaches the holder's; if the holder's \
                 was started anew and is empty, the other one does not follow it, so that its data are not wiped"
            }
            Self::CertificateEnds => {
                "a certificate that an agent uses, or the authority that has signed it, ends within 30 days, or has ended: from then on \
                 agents do not hear each other, and nobody takes over. The words have the date. Make it anew, and start that agent \
                 again: it counts from then on (operating/install.md)"
            }
        }
    }

    pub(crate) fn alarm(self, text: impl Into<String>) -> Alarm {
        Alarm { code: self.as_str().to_owned(), text: text.into() }
    }
}
