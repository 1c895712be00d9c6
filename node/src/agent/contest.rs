//! Who answers for a VIP beside its holder.
//!
//! A takeover that finds another machine at the address stops before it takes it. So that machine is told as soon as it is there,
//! while the holder still serves. Nothing is decided by it: a takeover looks for itself.
//!
//! | asked by | tells |
//! |---|---|
//! | the node that has the VIP | everybody who answers: it does not hear itself |
//! | any other node | all who answer, if they are more than one: the holder is among them |
//!
//! While the VIP moves the old holder and the new one may be heard in one look, so only who was heard in two looks in a row is
//! told. A node on another segment hears nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_netops::{Mac, Probe};

use super::Context;
use crate::chain::chain;

/// How often each VIP is asked for.
const PERIOD: Duration = Duration::from_secs(5);
/// An answer on the segment takes well under a millisecond; a second probe covers a lost frame.
const PROBES: u32 = 2;
const PROBE_GAP: Duration = Duration::from_millis(40);

/// One look at a VIP.
#[derive(Debug, Clone, Default)]
struct Look {
    heard: Vec<Mac>,
    /// This node had the VIP.
    is_ours: bool,
}

/// The look before the newest one and the newest one, for each VIP.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<BTreeMap<IpAddr, [Look; 2]>>);

/// Another machine than the holder answers for a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contest {
    pub(super) ip: IpAddr,
    /// Who was heard. The holder is among them unless it is this node.
    pub(super) macs: Vec<Mac>,
    /// This node has the VIP.
    pub(super) is_ours: bool,
}

impl Looks {
    fn note(&self, ip: IpAddr, look: Look) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [_, before] = looks.remove(&ip).unwrap_or_default();
        looks.insert(ip, [before, look]);
    }

    fn forget(&self, ip: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&ip);
    }

    /// The VIPs for which another machine answers, as last heard.
    pub(super) fn contests(&self) -> Vec<Contest> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let contest = |(ip, [before, newest]): (&IpAddr, &[Look; 2])| {
            let heard_twice = |mac: &Mac| before.heard.contains(mac);
            let macs: Vec<Mac> = newest.heard.iter().copied().filter(heard_twice).collect();
            let is_ours = newest.is_ours;
            let is_contested = macs.len() > usize::from(!is_ours);
            is_contested.then_some(Contest { ip: *ip, macs, is_ours })
        };
        looks.iter().filter_map(contest).collect()
    }
}

/// Asks for the VIPs for as long as the agent runs.
pub(super) async fn watch(context: Context) {
    let mut tick = context.clock.every(PERIOD, PERIOD);
    loop {
        tick.tick().await;
        for (ip, interface) in context.hands.vips() {
            // Before it asks: whoever takes the VIP meanwhile may still have heard the one who had it.
            let is_ours = has_vips(&context);
            match context.hands.network.probe_address(*ip, interface, PROBES, PROBE_GAP).await {
                Ok(probe) => context.hands.looks.note(*ip, Look { heard: heard(probe), is_ours }),
                // What was heard before says nothing of now.
                Err(error) => {
                    tracing::debug!(error = chain(&error), %ip, "not asked");
                    context.hands.looks.forget(*ip);
                }
            }
        }
    }
}

fn heard(probe: Probe) -> Vec<Mac> {
    match probe {
        Probe::TakenBy(macs) => macs,
        Probe::Free => Vec::new(),
    }
}

/// The doors of the VIPs are open under a lease that is valid: a node that does not know yet that it was taken over from hears
/// the one who has them now.
fn has_vips(context: &Context) -> bool {
    let view = context.lease.view();
    let view = view.borrow();
    let now = context.clock.now();
    let is_held = view.facts.held.is_some_and(|(_, until)| now < until);
    let is_paused = view.facts.long.is_some_and(|(_, until)| now < until);
    view.vip_open && (is_held || is_paused)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
    const OLD: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NEW: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

    fn ours(heard: &[Mac]) -> Look {
        Look { heard: heard.to_vec(), is_ours: true }
    }

    fn theirs(heard: &[Mac]) -> Look {
        Look { heard: heard.to_vec(), is_ours: false }
    }

    /// What is told after each look.
    fn told<const N: usize>(looks: [Look; N]) -> [Vec<Contest>; N] {
        let kept = Looks::default();
        looks.map(|look| {
            kept.note(VIP, look);
            kept.contests()
        })
    }

    fn contest(macs: &[Mac], is_ours: bool) -> Vec<Contest> {
        vec![Contest { ip: VIP, macs: macs.to_vec(), is_ours }]
    }

    #[test]
    fn a_holder_tells_of_whoever_answers_twice_until_nobody_does() {
        let seen = told([ours(&[]), ours(&[STRANGER]), ours(&[STRANGER]), ours(&[]), ours(&[STRANGER])]);
        assert_eq!(seen, [vec![], vec![], contest(&[STRANGER], true), vec![], vec![]]);
    }

    #[test]
    fn others_tell_of_two_machines_and_never_of_one() {
        let seen = told([theirs(&[OLD]), theirs(&[OLD]), theirs(&[OLD, STRANGER]), theirs(&[STRANGER, OLD])]);
        assert_eq!(seen, [vec![], vec![], vec![], contest(&[STRANGER, OLD], false)]);
        // The holder is lost: who answers alone may be the next one.
        let seen = told([theirs(&[OLD, STRANGER]), theirs(&[STRANGER]), theirs(&[STRANGER])]);
        assert_eq!(seen, [vec![], vec![], vec![]]);
    }

    #[test]
    fn a_vip_that_moves_is_no_contest() {
        let watched = told([theirs(&[OLD]), theirs(&[OLD, NEW]), theirs(&[NEW])]);
        let taken = told([theirs(&[OLD]), theirs(&[OLD]), ours(&[]), ours(&[])]);
        let lost = told([ours(&[]), ours(&[NEW]), theirs(&[NEW]), theirs(&[NEW])]);
        for (who, seen) in [("watched", &watched[..]), ("taken", &taken[..]), ("lost", &lost[..])] {
            assert!(seen.iter().all(Vec::is_empty), "{who}: {seen:?}");
        }
    }

    #[test]
    fn nothing_is_told_while_nobody_can_be_asked() {
        let looks = Looks::default();
        (0..2).for_each(|_| looks.note(VIP, ours(&[STRANGER])));
        assert_eq!(looks.contests(), contest(&[STRANGER], true));
        looks.forget(VIP);
        assert_eq!(looks.contests(), vec![]);
        looks.note(VIP, ours(&[STRANGER]));
        assert_eq!(looks.contests(), vec![], "one look is not enough");
    }

    #[test]
    fn each_vip_is_told_by_itself() {
        let other = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
        let looks = Looks::default();
        for _ in 0..2 {
            looks.note(VIP, ours(&[]));
            looks.note(other, ours(&[STRANGER]));
        }
        let told: Vec<IpAddr> = looks.contests().into_iter().map(|contest| contest.ip).collect();
        assert_eq!(told, [other]);
    }
}
