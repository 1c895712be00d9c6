//! The keys of the databases: `[mysql]` and `[redis]`.

use super::Occurs::Optional;
use super::Preset::{Nothing, Value};
use super::{Section, key};

/// `[mysql]`
pub(super) const MYSQL: Section = Section {
    name: "mysql",
    occurs: Optional,
    doc: "MySQL or MariaDB on both data nodes. Leave the section out if there is none. The servers must boot read-only.",
    keys: &[
        key(
            "port",
            "port",
            Value("3306"),
            "The port as clients reach it. It is closed on every node without a valid lease.",
        ),
        key(
            "socket",
            "absolute path",
            Value("\"/run/mysqld/mysqld.sock\""),
            "Unix socket over which the agent reaches the local server.",
        ),
        key("user", "account name", Value("\"baton\""), "The agent's account, for local connections."),
        key(
            "password_file",
            "absolute path",
            Nothing("\"/etc/baton/mysql.pw\""),
            "File with the password of `user`, read when the agent starts. Absent: empty password.",
        ),
        key(
            "check_user",
            "account name",
            Nothing("\"baton_check\""),
            "Account with which the witness writes and reads one row through the virtual IP after a change of holder. Absent: it only reads the server's greeting, and says so in the run.",
        ),
        key(
            "check_password_file",
            "absolute path",
            Nothing("\"/etc/baton/check.pw\""),
            "File with the password of `check_user`, on all three nodes, read at each check. Absent: empty password.",
        ),
        key(
            "replication_user",
            "account name",
            Value("\"repl\""),
            "The account with which a replica connects to its primary.",
        ),
        key(
            "replication_password_file",
            "absolute path",
            Nothing("\"/etc/baton/repl.pw\""),
            "File with the password of `replication_user`, read when the agent starts. Absent: empty password.",
        ),
        key(
            "data_dir",
            "absolute path",
            Value("\"/var/lib/mysql\""),
            "The data directory; its disk is watched for space, stalls and read-only mounts.",
        ),
        key(
            "schema",
            "schema name",
            Value("\"baton\""),
            "Schema of the agent's own small tables (write probe and canary).",
        ),
        key(
            "start",
            "list: absolute path, then arguments",
            Nothing("[\"/usr/bin/systemctl\", \"start\", \"mariadb\"]"),
            "Command that starts the server: absolute path and arguments. `baton resync` needs it; nothing else starts or stops the server. `{node}` is the node's name.",
        ),
        key(
            "stop",
            "list: absolute path, then arguments",
            Nothing("[\"/usr/bin/systemctl\", \"stop\", \"mariadb\"]"),
            "Command that stops the server cleanly and returns when it has ended.",
        ),
        key(
            "resync",
            "\"by-hand\" or \"automatic\"",
            Value("\"by-hand\""),
            "Who begins a resync of a node that is in quarantine: an operator with `baton resync`, or the node's agent as soon as its extra transactions are saved. Automatic needs `start` and `stop`.",
        ),
    ],
};

/// `[redis]`
pub(super) const REDIS: Section = Section {
    name: "redis",
    occurs: Optional,
    doc: "Redis on both data nodes. Leave the section out if there is none. The servers must boot as replicas.",
    keys: &[
        key(
            "port",
            "port",
            Value("6379"),
            "The port as clients reach it. It is closed on every node without a valid lease.",
        ),
        key(
            "socket",
            "absolute path",
            Value("\"/run/redis/redis.sock\""),
            "Unix socket over which the agent reaches the local server.",
        ),
        key(
            "user",
            "account name",
            Nothing("\"baton\""),
            "Redis account (ACL) of the agent and of a replica at its primary. Absent: the default account.",
        ),
        key(
            "password_file",
            "absolute path",
            Nothing("\"/etc/baton/redis.pw\""),
            "File with its password, on the data nodes read when the agent starts, on the witness at each check. Absent: no password is sent.",
        ),
    ],
};
