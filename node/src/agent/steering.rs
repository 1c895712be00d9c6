//! When a leader gives up its office out of turn (design, 4.10).
//!
//! The ordinary order of preference is kept by consensus itself. Here are the two cases in which waiting for it would cost
//! the holder its lease: this leader's link to the holder is lost while the holder is there (its renewals arrive by way of
//! the other peer), and this leader's own disk does not take its log. A holder that sends no renewals either is no reason:
//! a new leader would only have to wait anew before a takeover.

use std::time::{Duration, Instant};

use baton_consensus::Standing;
use baton_runbooks::model::{NodeId, NodeKind};

use super::Context;

/// After a hand-over that had no effect, the next one.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Starts looking.
pub(super) fn start(context: &Context) {
    let context = context.clone();
    let lease = context.config.timing.lease.duration();
    let mut tick = context.clock.every(context.config.timing.renew.duration(), Duration::ZERO);
    let data: Vec<NodeId> = context
        .config
        .nodes
        .iter()
        .filter(|node| node.kind == NodeKind::Data)
        .map(|node| node.name.clone())
        .collect();
    tokio::spawn(async move {
        let mut handed_at: Option<Instant> = None;
        loop {
            tick.tick().await;
            let now = Instant::now();
            if handed_at.is_some_and(|at| now.duration_since(at) < AGAIN_AFTER) {
                continue;
            }
            let holder = context.consensus.committed().borrow().ledger.holder.clone();
            let standing = context.consensus.standing().borrow().clone();
            let granted_at =
                context.lease.view().borrow().facts.granted_at.map(|at| context.clock.instant(at));
            let look = Look {
                now,
                lease,
                me: &context.config.node,
                holder: holder.as_ref(),
                data: &data,
                granted_at,
            };
            let Some((to, why)) = look.successor(&standing) else { continue };
            handed_at = Some(now);
            tracing::warn!(%to, why, "handing the leadership over");
            match tokio::time::timeout(lease, context.consensus.hand_over(&to)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::info!(%to, error = crate::chain::chain(&error), "not handed over"),
                Err(_) => tracing::info!(%to, "handing over did not end in time"),
            }
        }
    });
}

/// What is weighed.
struct Look<'a> {
    now: Instant,
    lease: Duration,
    me: &'a NodeId,
    holder: Option<&'a NodeId>,
    data: &'a [NodeId],
    /// When the holder was granted a lease last.
    granted_at: Option<Instant>,
}

impl Look<'_> {
    /// To whom this leader hands over now, and why; `None`: it leads on, or does not lead.
    fn successor(&self, standing: &Standing) -> Option<(NodeId, &'static str)> {
        let elected_at = standing.elected_at.filter(|_| standing.is_leader)?;
        let half = self.lease / 2;
        let silent = |node: &NodeId| {
            let heard_at = standing.acked_at.get(node).copied().unwrap_or(elected_at);
            self.now.saturating_duration_since(heard_at.max(elected_at)) >= half
        };
        let stalled = standing
            .own_append_pending_since
            .is_some_and(|since| self.now.saturating_duration_since(since) >= self.lease);
        if stalled {
            let freshest =
                standing.acked_at.iter().filter(|(node, _)| !silent(node)).max_by_key(|(_, at)| **at)?;
            return Some((freshest.0.clone(), "the own log append does not end"));
        }
        let holder = self.holder.filter(|holder| *holder != self.me)?;
        let renews =
            self.granted_at.is_some_and(|at| self.now.saturating_duration_since(at) < self.lease / 4);
        if !renews || !silent(holder) {
            return None;
        }
        let replica = self.data.iter().find(|node| *node != holder && *node != self.me && !silent(node))?;
        Some((replica.clone(), "the holder acknowledges nothing here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(1200);

    fn successor(
        acked_ms_ago: &[(&str, u64)],
        change: impl FnOnce(&mut Standing, Instant),
    ) -> Option<String> {
        successor_granted(100, acked_ms_ago, change)
    }

    fn successor_granted(
        granted_ms_ago: u64,
        acked_ms_ago: &[(&str, u64)],
        change: impl FnOnce(&mut Standing, Instant),
    ) -> Option<String> {
        let now = Instant::now() + Duration::from_secs(60);
        let ago = |ms| now - Duration::from_millis(ms);
        let mut standing = Standing {
            is_leader: true,
            elected_at: Some(ago(30_000)),
            acked_at: acked_ms_ago.iter().map(|(node, ms)| ((*node).into(), ago(*ms))).collect(),
            ..Standing::default()
        };
        change(&mut standing, now);
        let (me, holder, data) = (NodeId::from("mon"), NodeId::from("db1"), ["db1".into(), "db2".into()]);
        let granted_at = Some(ago(granted_ms_ago));
        let look = Look { now, lease: LEASE, me: &me, holder: Some(&holder), data: &data, granted_at };
        look.successor(&standing).map(|(to, _)| to.to_string())
    }

    #[test]
    fn a_leader_that_the_holder_does_not_reach_hands_over_to_the_replica() {
        assert_eq!(successor(&[("db1", 100), ("db2", 100)], |_, _| {}), None);
        assert_eq!(successor(&[("db1", 700), ("db2", 100)], |_, _| {}), Some("db2".to_owned()));
        assert_eq!(successor(&[("db1", 700), ("db2", 700)], |_, _| {}), None, "nobody else is better");
    }

    #[test]
    fn a_holder_that_is_gone_is_no_reason() {
        assert_eq!(successor_granted(700, &[("db1", 700), ("db2", 100)], |_, _| {}), None);
    }

    #[test]
    fn nobody_is_silent_before_he_had_time_to_answer() {
        let elected = |standing: &mut Standing, now: Instant| {
            standing.elected_at = Some(now - Duration::from_millis(300));
        };
        assert_eq!(successor(&[("db2", 100)], elected), None);
    }

    #[test]
    fn a_leader_whose_disk_hangs_hands_over_to_the_freshest_peer() {
        let stalled = |standing: &mut Standing, now: Instant| {
            standing.own_append_pending_since = Some(now - LEASE);
        };
        assert_eq!(successor(&[("db1", 50), ("db2", 100)], stalled), Some("db1".to_owned()));
    }

    #[test]
    fn who_does_not_lead_hands_nothing_over() {
        assert_eq!(successor(&[("db1", 700), ("db2", 100)], |standing, _| standing.is_leader = false), None);
    }
}
