//! Alarms that follow from what nodes say of themselves, each for all: on whichever node an operator looks, he sees them.

use baton_runbooks::exposure::{Exposure, UNFOLLOWED_MIN_MS};

use super::super::alarm::AlarmCode;
use super::super::types::{Alarm, NodeRow, Role, Status};

/// Of every node that is heard. What the asked node has to say of itself stands in its status already, in more words.
pub(super) fn alarms(status: &Status) -> Vec<Alarm> {
    let heard = || status.nodes.iter().filter(|row| !row.silent && row.heard_ms_ago.is_some());
    let said = heard().flat_map(|row| row.alarms.iter().filter_map(move |said| of_node(status, row, said)));
    said.chain(heard().filter_map(redis_behind)).collect()
}

fn of_node(status: &Status, row: &NodeRow, said: &str) -> Option<Alarm> {
    let (name, is_asked) = (&row.name, row.name == status.node);
    let (code, evidence) = said.split_once(": ").unwrap_or((said, ""));
    if code == AlarmCode::HolderClosed.as_str() {
        // Its report may be of a moment ago, before a run began.
        let is_so = row.role == Role::Holder && status.run.is_none() && status.paused.is_none();
        return is_so.then(|| {
            AlarmCode::HolderClosed.alarm(format!(
                "{name} holds the baton and turns clients away, {evidence}; its log says what stands in the way"
            ))
        });
    }
    let text = || format!("{name} says {said}; `baton status` on {name} has more");
    (!is_asked).then(|| Alarm { code: code.to_owned(), text: text() })
}

/// A takeover is not held up by it, so nothing else would say it before.
fn redis_behind(row: &NodeRow) -> Option<Alarm> {
    let measured = row.redis_behind.filter(|behind| behind.ms > UNFOLLOWED_MIN_MS);
    let what = match (row.redis_unfollowed_ms, measured) {
        (Some(ms), _) => format!("has not been seen to follow for {} s", ms / 1_000),
        (None, Some(Exposure { bytes, ms })) => {
            format!("lacks {bytes} bytes of what was written up to {} s ago", ms / 1_000)
        }
        (None, None) => return None,
    };
    Some(AlarmCode::RedisNotFollowing.alarm(format!(
        "Redis on {} {what}: what clients have written since would be lost; look at its log, and whether it reaches the holder's",
        row.name
    )))
}

#[cfg(test)]
mod tests {
    use super::super::conclude;
    use super::*;
    use crate::api::sample;

    fn after(change: impl FnOnce(&mut Status)) -> Status {
        let mut status = sample::facts();
        change(&mut status);
        conclude(status)
    }

    fn codes(status: &Status) -> Vec<&str> {
        status.alarms.iter().map(|alarm| alarm.code.as_str()).collect()
    }

    #[test]
    fn what_another_node_says_of_itself_is_an_alarm_here() {
        let said = "container-restarts-by-itself: web";
        let status = after(|s| s.nodes[1].alarms = vec![said.to_owned(), "mysql-hung".to_owned()]);
        assert_eq!(codes(&status), ["container-restarts-by-itself", "mysql-hung"]);
        assert_eq!(
            status.sentence,
            "ATTENTION: db2 can take over now (lag 0.1 s), but db2 says container-restarts-by-itself: web; `baton status` on db2 \
             has more (and 1 more)."
        );
        let own = after(|s| s.nodes[0].alarms = vec![said.to_owned()]);
        assert_eq!(own.alarms, [], "the asked node says it in full by itself");
        let silent = after(|s| {
            s.nodes[1].alarms = vec![said.to_owned()];
            s.nodes[1].silent = true;
        });
        assert_eq!(silent.alarms, [], "what it said is old");
    }

    #[test]
    fn a_holder_that_is_closed_is_not_ok_on_every_node() {
        let closed =
            |s: &mut Status| s.nodes[0].alarms = vec!["holder-closed: for 7 s, mysql-dead".to_owned()];
        for asked in ["db1", "db2", "mon"] {
            let status = after(|s| {
                closed(s);
                s.node = asked.into();
            });
            assert_eq!(codes(&status), ["holder-closed"], "{asked}");
            assert_eq!(
                status.sentence,
                "NOT OK: db1 holds the baton and turns clients away, for 7 s, mysql-dead; its log says what stands in the way."
            );
        }
        let run = sample::under_way().run;
        let during = after(|s| {
            closed(s);
            s.run = run;
        });
        assert_eq!(during.alarms, []);
    }

    #[test]
    fn a_redis_that_does_not_follow_is_told_before_a_takeover_loses_what_it_lacks() {
        let apart = after(|s| s.nodes[1].redis_unfollowed_ms = Some(12_400));
        assert_eq!(codes(&apart), ["redis-not-following"]);
        assert_eq!(
            apart.sentence,
            "ATTENTION: db2 can take over now (lag 0.1 s), but Redis on db2 has not been seen to follow for 12 s: what clients \
             have written since would be lost; look at its log, and whether it reaches the holder's."
        );
        let still = |ms| after(|s| s.nodes[1].redis_behind = Some(Exposure { bytes: 900, ms }));
        assert_eq!(still(UNFOLLOWED_MIN_MS).alarms, []);
        let behind = still(7_000);
        assert_eq!(codes(&behind), ["redis-not-following"]);
        assert!(behind.alarms[0].text.contains("lacks 900 bytes"), "{:?}", behind.alarms);
    }
}
