//! Who should lead: a leader hands over to a better one as soon as that one can take over.
//!
//! A peer is handed to only when it is a voter, acknowledges heartbeats, has everything, and has done so for a while.
//! The last condition is the hysteresis in one direction; the other is a penalty: a peer that lost the leadership soon
//! after it was handed to it is left alone, twice as long each time. So a peer that can win but not lead costs a few
//! hand-overs per hour, not per second.
//!
//! Pure: time is a parameter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baton_runbooks::model::NodeId;

/// A peer must have been healthy for this many heartbeats.
const STEADY_HEARTBEATS: u32 = 6;
/// An acknowledgement older than this many heartbeats is no sign of health.
const FRESH_HEARTBEATS: u32 = 3;
/// A leadership that ended sooner than this after a hand-over failed.
const FAILED_WITHIN: Duration = Duration::from_secs(10);
const PENALTY_MIN: Duration = Duration::from_secs(10);
const PENALTY_MAX: Duration = Duration::from_secs(320);
/// Pause after a hand-over that had no effect.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What a leader knows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Send time of the newest heartbeat that it acknowledged.
    pub acked_at: Option<Instant>,
    /// It has the leader's last entry.
    pub caught_up: bool,
}

/// Decides when to hand over.
#[derive(Debug, Default)]
pub struct Steering {
    healthy_since: BTreeMap<NodeId, Instant>,
    handed: Option<(NodeId, Instant)>,
    led_before: bool,
    penalties: BTreeMap<NodeId, (Instant, Duration)>,
}

impl Steering {
    /// A look at the cluster while this node does not lead.
    pub fn follow(&mut self) {
        self.healthy_since.clear();
        self.led_before = false;
    }

    /// A look at the cluster while this node leads. `voters` are the peers that vote. Returns whom to hand over to.
    pub fn lead(
        &mut self,
        me: &NodeId,
        order: &[NodeId],
        voters: &BTreeMap<NodeId, Health>,
        heartbeat: Duration,
        now: Instant,
    ) -> Option<NodeId> {
        if !self.led_before {
            self.led_before = true;
            self.penalise_if_it_came_back(now);
        }
        self.healthy_since.retain(|peer, _| voters.contains_key(peer));
        for (peer, health) in voters {
            if is_healthy(*health, heartbeat, now) {
                self.healthy_since.entry(peer.clone()).or_insert(now);
            } else {
                self.healthy_since.remove(peer);
            }
        }
        if self.handed.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) < AGAIN_AFTER) {
            return None;
        }
        let own_rank = order.iter().position(|node| node == me).unwrap_or(order.len());
        let to = order.iter().take(own_rank).find(|peer| self.is_ready(peer, heartbeat, now))?;
        self.handed = Some((to.clone(), now));
        Some(to.clone())
    }

    fn is_ready(&self, peer: &NodeId, heartbeat: Duration, now: Instant) -> bool {
        let steady = self
            .healthy_since
            .get(peer)
            .is_some_and(|since| now.saturating_duration_since(*since) >= heartbeat * STEADY_HEARTBEATS);
        steady && self.penalties.get(peer).is_none_or(|(until, _)| *until <= now)
    }

    /// This node leads again. If it handed over a short while ago, that was no good.
    fn penalise_if_it_came_back(&mut self, now: Instant) {
        let Some((peer, at)) = self.handed.take() else { return };
        if now.saturating_duration_since(at) > FAILED_WITHIN {
            self.penalties.remove(&peer);
            return;
        }
        let last = self.penalties.get(&peer).map(|(_, length)| *length);
        let length = last.map_or(PENALTY_MIN, |length| (length * 2).min(PENALTY_MAX));
        self.penalties.insert(peer, (now + length, length));
    }
}

/// It acknowledges heartbeats and has everything.
pub fn is_healthy(health: Health, heartbeat: Duration, now: Instant) -> bool {
    let limit = heartbeat * FRESH_HEARTBEATS;
    let fresh = health.acked_at.is_some_and(|at| now.saturating_duration_since(at) <= limit);
    fresh && health.caught_up
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(50);

    struct World {
        steering: Steering,
        now: Instant,
        order: Vec<NodeId>,
    }

    impl World {
        fn new() -> Self {
            let order = ["mon", "db2", "db1"].map(NodeId::from).to_vec();
            Self { steering: Steering::default(), now: Instant::now(), order }
        }

        fn lead(&mut self, ms: u64, me: &str, healthy: &[&str]) -> Option<NodeId> {
            self.now += Duration::from_millis(ms);
            let voters = ["mon", "db2", "db1"]
                .into_iter()
                .filter(|name| *name != me)
                .map(|name| {
                    let caught_up = healthy.contains(&name);
                    (NodeId::from(name), Health { acked_at: Some(self.now), caught_up })
                })
                .collect();
            self.steering.lead(&me.into(), &self.order, &voters, BEAT, self.now)
        }
    }

    #[test]
    fn hands_over_to_the_best_that_has_been_healthy_for_a_while() {
        let mut world = World::new();
        assert_eq!(world.lead(0, "db1", &["db2"]), None);
        assert_eq!(world.lead(200, "db1", &["db2", "mon"]), None);
        // db2 has been healthy for 300 ms, mon only for 100.
        assert_eq!(world.lead(100, "db1", &["db2", "mon"]), Some("db2".into()));
        assert_eq!(world.lead(100, "db1", &["db2", "mon"]), None, "one at a time");
    }

    #[test]
    fn the_best_stays_and_worse_ones_are_never_handed_to() {
        let mut world = World::new();
        for _ in 0..100 {
            assert_eq!(world.lead(100, "mon", &["db1", "db2"]), None);
        }
        let mut world = World::new();
        for _ in 0..100 {
            assert_eq!(world.lead(100, "db2", &["db1"]), None);
        }
    }

    #[test]
    fn a_peer_that_loses_the_leadership_at_once_is_left_alone_longer_each_time() {
        let mut world = World::new();
        let mut hand_overs = 0;
        for _ in 0..600_000 / 100 {
            if world.lead(100, "db1", &["mon"]).is_some() {
                hand_overs += 1;
                world.now += Duration::from_millis(400);
                world.steering.follow();
            }
        }
        assert!((4..=7).contains(&hand_overs), "{hand_overs} hand-overs in ten minutes");
    }
}
