//! When a node heals what it bears: something real wins over a drill, and nothing else does.

use baton_runbooks::model::WallMs;

use super::*;
use crate::api::sample::takeover;

const NUMBER: DrillId = DrillId(7);
const LEASE: Duration = Duration::from_millis(10_000);

fn under_way(number: DrillId) -> Drill {
    Drill {
        number,
        name: "mysqld-frozen".into(),
        experiment: String::new(),
        by: "ann".into(),
        at_node: "mon".into(),
        lease_ms: 10_000,
        beat: 3,
        aborted: None,
        at: WallMs(0),
    }
}

/// Everything that is looked at: db1 holds, and `node` bears a fault of a drill that is under way and heard of.
struct Scene {
    node: NodeId,
    ledger: Ledger,
    borne: Bears,
    silent: Option<Duration>,
    spec: FaultSpec,
    unserved: Duration,
}

impl Scene {
    fn new() -> Self {
        let ledger =
            Ledger { holder: Some("db1".into()), drill: Some(under_way(NUMBER)), ..Ledger::default() };
        let spec = FaultSpec {
            kind: FaultKind::MysqldFreeze,
            duration_ms: 30_000,
            peers: Vec::new(),
            service: None,
            leave_mib: None,
            kib_per_second: None,
        };
        Self {
            node: "db2".into(),
            ledger,
            borne: Bears { drill: NUMBER, phase: FaultPhase::Biting, is_due: false },
            silent: Some(LEASE),
            spec,
            unserved: Duration::ZERO,
        }
    }

    fn why(&self) -> Option<String> {
        why_heal_borne(&self.node, &self.ledger, self.borne, self.silent)
    }

    fn needed(&self) -> Option<String> {
        let config = Config::parse(&crate::config::example(), "test", &self.node).unwrap();
        may_be_needed_with(&config, &self.ledger, &self.spec, self.unserved)
    }
}

/// What is changed, by what, and a part of why it is healed; empty: it is not.
type Case = (&'static str, fn(&mut Scene), &'static str);

fn all_say(cases: &[Case], why: fn(&Scene) -> Option<String>) {
    for (name, change, wanted) in cases {
        let mut scene = Scene::new();
        change(&mut scene);
        let said = why(&scene);
        assert_eq!(said.is_none(), wanted.is_empty(), "{name}: {said:?}");
        assert!(said.unwrap_or_default().contains(wanted), "{name}");
    }
}

#[test]
fn a_fault_is_healed_when_its_drill_is_over_or_this_node_is_to_take_over() {
    let cases: &[Case] = &[
        ("nothing", |_| {}, ""),
        ("armed", |it| it.borne.phase = FaultPhase::Armed, ""),
        ("what is left is tried again", |it| it.borne.phase = FaultPhase::Stuck, "tried again"),
        ("its own time", |it| it.borne.is_due = true, "its time is over"),
        ("no drill any more", |it| it.ledger.drill = None, "drill 7 has ended"),
        ("another drill", |it| it.ledger.drill = Some(under_way(DrillId(8))), "drill 7 has ended"),
        (
            "an abort",
            |it| it.ledger.drill = Some(Drill { aborted: Some("a call".into()), ..under_way(NUMBER) }),
            "the drill is to end: a call",
        ),
        (
            "a runner that is silent for longer than its lease",
            |it| it.silent = Some(LEASE + Duration::from_millis(1)),
            "whoever drills was not heard for 10000 ms",
        ),
        ("a runner that was never heard", |it| it.silent = None, "whoever drills was not heard"),
        ("a takeover by this node", |it| it.ledger.run = Some(takeover()), "to take over by run 7"),
        (
            "a takeover by this node, of a fault that is armed only",
            |it| {
                it.ledger.run = Some(takeover());
                it.borne.phase = FaultPhase::Armed;
            },
            "to take over by run 7",
        ),
        (
            "a takeover by another one",
            |it| {
                it.ledger.run = Some(takeover());
                it.node = "db1".into();
            },
            "",
        ),
    ];
    all_say(cases, Scene::why);
}

#[test]
fn what_a_node_bears_is_healed_when_nobody_serves_and_it_may_be_needed() {
    let late = |scene: &mut Scene| scene.unserved = SERVED_WITHIN + Duration::from_millis(1);
    let cases: &[Case] = &[
        ("served", |_| {}, ""),
        ("a hand-over", |it| it.unserved = SERVED_WITHIN, ""),
        ("nobody serves", |it| it.unserved = SERVED_WITHIN * 2, "nobody was heard serving for 2000 ms"),
        (
            "nobody serves, and nobody holds",
            |it| (it.unserved, it.ledger.holder) = (SERVED_WITHIN * 2, None),
            "nobody was heard serving",
        ),
        (
            "the holder itself",
            |it| (it.unserved, it.ledger.holder) = (SERVED_WITHIN * 2, Some("db2".into())),
            "",
        ),
        ("the witness", |it| (it.unserved, it.node) = (SERVED_WITHIN * 2, "mon".into()), ""),
        (
            "a service of the holder's",
            |it| (it.unserved, it.spec.kind) = (SERVED_WITHIN * 2, FaultKind::ContainerUnhealthy),
            "",
        ),
        (
            "cut off from the holder",
            |it| {
                it.unserved = SERVED_WITHIN * 2;
                (it.spec.kind, it.spec.peers) = (FaultKind::Partition, vec!["mon".into(), "db1".into()]);
            },
            "",
        ),
        (
            "cut off from the holder one way",
            |it| {
                it.unserved = SERVED_WITHIN * 2;
                (it.spec.kind, it.spec.peers) = (FaultKind::OneWay, vec!["db1".into()]);
            },
            "",
        ),
        (
            "cut off from the witness only",
            |it| {
                it.unserved = SERVED_WITHIN * 2;
                (it.spec.kind, it.spec.peers) = (FaultKind::Partition, vec!["mon".into()]);
            },
            "nobody was heard serving",
        ),
        (
            "a stream that trickles hides nobody",
            |it| {
                it.unserved = SERVED_WITHIN * 2;
                (it.spec.kind, it.spec.peers) = (FaultKind::ReplicationLag, vec!["db1".into()]);
            },
            "nobody was heard serving",
        ),
    ];
    all_say(cases, Scene::needed);
    for kind in FaultKind::ALL {
        let mut scene = Scene::new();
        late(&mut scene);
        (scene.spec.kind, scene.spec.peers) = (kind, vec!["db1".into()]);
        let stays = matches!(kind, FaultKind::Partition | FaultKind::OneWay | FaultKind::ContainerUnhealthy);
        assert_eq!(scene.needed().is_none(), stays, "{kind}");
    }
}
