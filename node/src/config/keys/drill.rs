//! The keys of `[drill]`.

use super::Occurs::Once;
use super::Preset::{Nothing, Value};
use super::{Section, key};

/// `[drill]`
pub(super) const DRILL: Section = Section {
    name: "drill",
    occurs: Once,
    doc: "What this node lets drills do to it. Each agent holds to its own word, whoever asks, so this section may differ \
          from node to node.",
    keys: &[
        key(
            "allow",
            "\"L0\" to \"L5\"",
            Value("\"L2\""),
            "The deepest level: L1 asks, L2 passes the baton, L3 kills or stops a process, L4 drops packets, L5 fills a disk \
             or, with `power_off`, cuts the power.",
        ),
        key(
            "window",
            "days and times",
            Nothing("\"Mon-Fri 09:00-17:00\""),
            "When faults may be injected, by this node's time zone. Not given: always.",
        ),
        key(
            "cooldown",
            "span, \"90s\" or \"1500ms\"",
            Value("\"60s\""),
            "For so long after a drill no other begins.",
        ),
        key(
            "duration_max",
            "span, \"90s\" or \"1500ms\"",
            Value("\"120s\""),
            "No fault stands longer; 600 s at most.",
        ),
        key(
            "power_off",
            "list: absolute path, then arguments",
            Value("[]"),
            "Cuts this node's own power, for the drill `power-cut`; only with `allow = \"L5\"`. It runs on the node that is struck, \
             with a time limit, and nothing switches the node on again. Empty: no drill cuts it.",
        ),
        key(
            "evidence",
            "absolute path",
            Value("\"/var/lib/baton/drills\""),
            "Directory of the evidence of drills that are run on this node.",
        ),
        key(
            "arp_senders",
            "IPv4 address",
            Nothing("\"10.77.0.200\""),
            "First of 32 unused addresses of the VIP's network. From them a drill asks every 10 ms who answers for the VIP, \
             so that two holders are seen on the wire. No VIP, node or gateway may be among them. Not given: the agents' own word is taken.",
        ),
        key(
            "user",
            "account name",
            Nothing("\"baton_drill\""),
            "The account with which a drill writes through the VIP. Needs SELECT, INSERT, DELETE and CREATE on `schema`. Not \
             given: `mysql.check_user`, which then needs DELETE, too.",
        ),
        key(
            "password_file",
            "absolute path",
            Nothing("\"/etc/baton/drill.password\""),
            "File with its password, on the nodes where drills are run. Not given: `mysql.check_password_file`.",
        ),
        key(
            "schema",
            "schema name",
            Nothing("\"baton\""),
            "Schema of the table `drill_writes`. Not given: `mysql.schema`.",
        ),
    ],
};
