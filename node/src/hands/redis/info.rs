//! Reading what INFO says.

use baton_runbooks::observe::RedisFacts;

use super::Stream;
use crate::hands::server::ServerId;

/// The facts in a text of INFO lines; `None` if it names no role.
pub(super) fn facts(text: &str, server: ServerId, min_replicas_to_write: u64) -> Option<RedisFacts> {
    let field = |name: &str| field(text, name);
    let primary = is_primary(text)?;
    let follows = || Some(format!("{}:{}", field("master_host")?, field("master_port")?));
    let offset = number(text, if primary { "master_repl_offset" } else { "slave_repl_offset" });
    Some(RedisFacts {
        server: server.to_string(),
        primary,
        loading: field("loading").is_some_and(|value| value != "0"),
        link_up: !primary && field("master_link_status") == Some("up"),
        follows: if primary { None } else { follows() },
        offset: offset.unwrap_or(0),
        keys: text.lines().filter_map(keys_of_database).sum(),
        min_replicas_to_write,
    })
}

/// What a primary has written, or a replica has processed.
pub(super) fn stream(text: &str) -> Option<Stream> {
    let is_primary = is_primary(text)?;
    let offset = number(text, if is_primary { "master_repl_offset" } else { "slave_repl_offset" })?;
    Some(Stream { is_primary, history: field(text, "master_replid")?.to_owned(), offset })
}

fn is_primary(text: &str) -> Option<bool> {
    match field(text, "role")? {
        "master" => Some(true),
        "slave" | "replica" => Some(false),
        _ => None,
    }
}

fn number(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse().ok()
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `db0:keys=12,expires=0,avg_ttl=0`
fn keys_of_database(line: &str) -> Option<u64> {
    let (number, rest) = line.trim().strip_prefix("db")?.split_once(':')?;
    number.parse::<u32>().ok()?;
    rest.split(',').find_map(|part| part.strip_prefix("keys=")).and_then(|keys| keys.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerId = ServerId { pid: 1, started: 2 };

    #[test]
    fn a_primary() {
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:1\r\nmaster_replid:8ab\r\nmaster_repl_offset:4711\r\n\
                    # Persistence\r\nloading:0\r\nasync_loading:0\r\n\
                    # Keyspace\r\ndb0:keys=12,expires=0,avg_ttl=0\r\ndb3:keys=3,expires=1,avg_ttl=5\r\n";
        let facts = facts(text, SERVER, 0).unwrap();
        assert!(facts.primary && !facts.loading && !facts.link_up);
        assert_eq!((facts.offset, facts.keys, facts.follows), (4711, 15, None));
        assert_eq!(facts.server, "1@2");
        let history = "8ab".to_owned();
        assert_eq!(stream(text), Some(Stream { is_primary: true, history, offset: 4711 }));
    }

    #[test]
    fn a_replica_that_loads() {
        let text = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:down\r\n\
                    slave_read_repl_offset:9\r\nslave_repl_offset:8\r\nmaster_replid:8ab\r\nmaster_repl_offset:7\r\nloading:1\r\n";
        let facts = facts(text, SERVER, 99).unwrap();
        assert!(!facts.primary && facts.loading && !facts.link_up);
        assert_eq!((facts.offset, facts.follows.as_deref()), (8, Some("10.0.0.1:6379")));
        assert_eq!(facts.min_replicas_to_write, 99);
        let history = "8ab".to_owned();
        assert_eq!(stream(text), Some(Stream { is_primary: false, history, offset: 8 }));
    }

    #[test]
    fn nothing_without_a_role() {
        assert_eq!(facts("loading:0\r\n", SERVER, 0), None);
    }
}
