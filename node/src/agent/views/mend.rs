//! What an operator is to mend, from the ledger and from what the hands have seen. Pure.

use baton_runbooks::ledger::Ledger;
use baton_runbooks::plan::Step;
use baton_runbooks::run::Event;

use super::super::contest::Contest;
use crate::api::alarm::{AlarmCode, VIP_ANSWERED};
use crate::api::types::Alarm;
use crate::hands::containers::RestartObstacle;

/// As long as the newest run could not take the VIP because another machine has it.
pub(super) fn vip_taken(ledger: &Ledger) -> Option<Alarm> {
    let (run, _) = ledger.newest_run()?;
    let mut entries = run.journal.iter().rev().filter(|entry| entry.step == Step::HoldVip);
    let (entry, error) = entries.find_map(|entry| match &entry.event {
        Event::Failed { error } => Some((entry, Some(error))),
        Event::Succeeded { .. } => Some((entry, None)),
        Event::Started
        | Event::Skipped { .. }
        | Event::UndoStarted
        | Event::UndoFinished
        | Event::UndoFailed { .. } => None,
    })?;
    let error = error.filter(|error| error.starts_with(VIP_ANSWERED))?;
    Some(AlarmCode::VipTaken.alarm(format!(
        "in run {} {} does not take the VIP: {error}; find the machine with that hardware address and take the VIP from it",
        run.id, entry.by
    )))
}

/// As long as another machine answers for a VIP beside its holder.
pub(super) fn contested(contest: &Contest) -> Alarm {
    let macs: Vec<String> = contest.macs.iter().map(ToString::to_string).collect();
    let (ip, macs) = (contest.ip, macs.join(" and "));
    AlarmCode::VipContested.alarm(if contest.is_ours {
        format!(
            "not only this node, which has it, answers for {ip}, but also {macs}; find the machine with that hardware address and \
             take the VIP from it"
        )
    } else {
        format!(
            "{macs} answer for {ip}, and only one of them is the holder's; find the machine with the other hardware address and \
             take the VIP from it"
        )
    })
}

/// As long as the engine would start containers that the agent manages.
pub(super) fn restarting(found: &[RestartObstacle]) -> Option<Alarm> {
    if found.is_empty() {
        return None;
    }
    let policies: Vec<String> =
        found.iter().map(|one| format!("{} (restart policy {})", one.container, one.policy)).collect();
    let names: Vec<&str> = found.iter().map(|one| one.container.as_str()).collect();
    Some(AlarmCode::ContainerRestartsByItself.alarm(format!(
        "the container engine of this node may start {} by itself, whoever holds the baton; run `docker update --restart=no \
         {}`, and set `restart: \"no\"` where it was made, for instance in the Compose file",
        policies.join(" and "),
        names.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use baton_netops::Mac;
    use baton_runbooks::model::WallMs;
    use baton_runbooks::run::{Entry, Run};

    use super::*;
    use crate::api::sample;

    fn failed(error: &str) -> Event {
        Event::Failed { error: error.to_owned() }
    }

    fn attempt_again(run: &mut Run, event: Event) {
        let at = WallMs(sample::START.0 + 1_000);
        let entry = Entry { step: Step::HoldVip, attempt: 2, event, by: "db2".into(), at };
        run.record(entry).unwrap();
    }

    fn under_way(run: &Run) -> Ledger {
        Ledger { run: Some(run.clone()), ..Ledger::default() }
    }

    #[test]
    fn somebody_with_the_vip_is_told_until_it_is_taken() {
        let answered = format!("{VIP_ANSWERED} 10.77.0.100: 02:00:00:00:00:99; nobody may");
        let mut run = sample::takeover();
        sample::succeed(&mut run, Step::FenceOld, 4, 12);
        sample::note(&mut run, Step::HoldVip, 14, Event::Started);
        assert_eq!(vip_taken(&under_way(&run)), None, "not known yet");
        sample::note(&mut run, Step::HoldVip, 90, failed(&answered));
        let alarm = vip_taken(&under_way(&run)).unwrap();
        assert_eq!(alarm.code, "vip-taken");
        for part in ["run 7", "db2", "10.77.0.100", "02:00:00:00:00:99"] {
            assert!(alarm.text.contains(part), "{part}: {}", alarm.text);
        }
        // The next attempt has not found out anything else yet.
        attempt_again(&mut run, Event::Started);
        assert_eq!(vip_taken(&under_way(&run)), Some(alarm));
        attempt_again(&mut run, Event::Succeeded { facts: Vec::new() });
        assert_eq!(vip_taken(&under_way(&run)), None);
    }

    #[test]
    fn another_failure_of_the_step_and_a_newer_run_raise_nothing() {
        let mut run = sample::takeover();
        sample::succeed(&mut run, Step::FenceOld, 4, 12);
        sample::note(&mut run, Step::HoldVip, 14, Event::Started);
        sample::note(&mut run, Step::HoldVip, 90, failed("no end within 5000 ms"));
        assert_eq!(vip_taken(&under_way(&run)), None);
        assert_eq!(vip_taken(&sample::ledger()), None);
        assert_eq!(vip_taken(&Ledger::default()), None);
    }

    #[test]
    fn a_stranger_beside_the_holder_is_named_by_its_hardware_address() {
        let ip = "10.77.0.100".parse().unwrap();
        let (holder, stranger) = (Mac([2, 0, 0, 0, 0, 0x11]), Mac([2, 0, 0, 0, 0, 0x99]));
        let alarm = contested(&Contest { ip, macs: vec![stranger], is_ours: true });
        assert_eq!(alarm.code, "vip-contested");
        assert!(alarm.text.contains("answers for 10.77.0.100, but also 02:00:00:00:00:99;"), "{alarm:?}");
        let alarm = contested(&Contest { ip, macs: vec![holder, stranger], is_ours: false });
        let both = "02:00:00:00:00:11 and 02:00:00:00:00:99 answer for 10.77.0.100, and only one";
        assert!(alarm.text.starts_with(both), "{alarm:?}");
    }

    #[test]
    fn a_container_that_starts_by_itself_is_named_with_the_way_out() {
        let one = |container: &str, policy: &str| RestartObstacle {
            container: container.to_owned(),
            policy: policy.to_owned(),
        };
        assert_eq!(restarting(&[]), None);
        let alarm = restarting(&[one("web", "always"), one("shop-db-1", "unless-stopped")]).unwrap();
        assert_eq!(alarm.code, "container-restarts-by-itself");
        for part in [
            "web (restart policy always)",
            "shop-db-1 (restart policy unless-stopped)",
            "`docker update --restart=no web shop-db-1`",
            "`restart: \"no\"`",
        ] {
            assert!(alarm.text.contains(part), "{part}: {}", alarm.text);
        }
    }
}
