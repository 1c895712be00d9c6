//! The keys of `[timing]`.

use super::Occurs::Once;
use super::{Section, span};

/// `[timing]`
pub(super) const TIMING: Section = Section {
    name: "timing",
    occurs: Once,
    doc: "Overrides of the profile's timings, equal on all nodes. The inequalities between them are checked when the file is read.",
    keys: &[
        span("lease", "Length of the holder's lease. A lost holder is replaced after this plus `margin`."),
        span("renew", "Time between two renewals of the lease."),
        span(
            "age_max",
            "Largest age of the leader's quorum acknowledgement with which it still grants. The kernel's timer is shorter than `lease` by this.",
        ),
        span(
            "margin",
            "Added to the end of a lease before anybody else may take over; covers clock rates and scheduling.",
        ),
        span("heartbeat", "Time between two Raft heartbeats, and the deadline of one."),
        span("election_min", "Shortest draw of the election timeout."),
        span(
            "election_max",
            "Longest draw of the election timeout; also the time for which a follower protects its leader. It counts twice when the leader is lost, so keep it close to `election_min`.",
        ),
        span(
            "sync_patience",
            "For how long the replica may owe acknowledgements before the holder declares it out of sync and goes on alone. Commits wait as long.",
        ),
        span(
            "probe",
            "Time between two probes of the local databases. The deadline of one is twice this, 400 ms at least.",
        ),
        span("report", "Time between two reports to the other nodes."),
        span(
            "address_lifetime",
            "Lifetime of the VIP's address in the kernel, in whole seconds. The second net below the lease.",
        ),
        span(
            "anti_flap",
            "After repeated failed takeovers to one node the next automatic attempt waits this long.",
        ),
        span(
            "cold_start_patience",
            "After a start of all agents the last holder is waited for so long before another node may take over.",
        ),
        span(
            "rtt",
            "Assumed longest network round trip between two agents; the inequalities between the timings use it.",
        ),
        span("fsync", "Assumed longest synced write of the Raft log."),
    ],
};
