//! What a method that was not done makes of its drill; and what comes after one, with an agent that answers as it is told.

use std::path::Path;
use std::sync::{Arc, Mutex};

use baton_node::api::client::Client;
use baton_node::api::types::{ErrorBody, ErrorCode};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::*;
use crate::evidence::sample::passed;
use crate::experiment::{Probe, Span, shipped};
use crate::runner::sample;

/// The faults of a drill: those that were done, and the one that was to be done now.
fn faults(done: usize) -> Vec<FaultRecord> {
    let fault = passed().faults.swap_remove(0);
    let next = FaultRecord { injected_ms: None, verified_ms: None, ..fault.clone() };
    std::iter::repeat_n(fault, done).chain([next]).collect()
}

fn answered(code: ErrorCode) -> ClientError {
    let body =
        ErrorBody { code, message: "db1 allows drills up to L1, not L2".into(), way_out: "wait".into() };
    ClientError::Answered { status: 409, body }
}

#[test]
fn a_move_that_is_refused_refuses_the_drill_unless_something_was_done_before() {
    let refusal = answered(ErrorCode::Refused);
    let why = refusal.to_string();
    assert!(why.contains("db1 allows drills up to L1"), "{why}");
    assert_eq!(not_moved(&faults(0), &refusal), Ending::Refused { why: why.clone() });
    assert_eq!(not_moved(&faults(1), &refusal), Ending::Aborted { by: "switchover".into(), why });
    let window = "db1: drills are for Mon-Fri here".to_owned();
    assert_eq!(refused(&faults(0), "db1", window.clone()), Ending::Refused { why: window.clone() });
    assert_eq!(refused(&faults(1), "db1", window.clone()), Ending::Aborted { by: "db1".into(), why: window });
}

#[test]
fn a_move_of_which_nobody_knows_whether_it_began_is_not_called_refused() {
    let socket = || PathBuf::from("baton.sock");
    let lost = ClientError::Broken { socket: socket(), detail: "reset".into() };
    let late = ClientError::TimedOut { socket: socket(), after: Duration::from_secs(10) };
    for error in [lost, late, answered(ErrorCode::TimedOut), answered(ErrorCode::NoQuorum)] {
        let ending = not_moved(&faults(0), &error);
        assert_eq!(ending, Ending::Aborted { by: "switchover".into(), why: error.to_string() });
    }
}

/// What an agent says of the cluster now.
type Says = Arc<Mutex<Status>>;
/// What it was asked, in its order.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers questions with what it is to say, and whatever is ordered with the view of a node that bears nothing.
async fn agent(listener: UnixListener, says: Says, asked: Asked) {
    let view = serde_json::to_value(sample::view("db1")).unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = sample::request(&mut stream).await;
        let is_question = request.starts_with("get /v1/status ");
        asked.lock().unwrap().push(request);
        let status = serde_json::to_value(&*says.lock().unwrap()).unwrap();
        let body = if is_question { status.to_string() } else { view.to_string() };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
}

fn stage(socket: &Path, experiment: Experiment) -> Stage {
    let origin = Origin::new();
    Stage {
        agents: Agents { client: Client::new(socket.to_owned()), by: "ann".into() },
        experiment,
        number: DrillId(1),
        origin,
        screen: Screen::new(origin),
        shared: Shared::default(),
        bearing: Bearing::default(),
        faults: Vec::new(),
        events: Vec::new(),
        waits: Vec::new(),
        fence_hook: None,
        whole_ms: 0,
    }
}

/// A stage beside such an agent; what this one is to say; what it was asked; and the directory of its socket.
async fn beside(experiment: Experiment, says: Status) -> (Stage, Says, Asked, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("baton.sock");
    let (says, asked) = (Arc::new(Mutex::new(says)), Asked::default());
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(agent(listener, Arc::clone(&says), Arc::clone(&asked)));
    (stage(&socket, experiment), says, asked, dir)
}

/// A rehearsal, which needs nothing, and then the holder's database is killed.
fn two_methods() -> Experiment {
    let mut experiment = shipped::named("mysqld-killed").unwrap().experiment;
    let first = shipped::named("rehearsal").unwrap().experiment.method.swap_remove(0);
    experiment.method.insert(0, first);
    experiment.method[1].duration = Span::from_ms(300);
    experiment.after.wait_redundancy = Span::from_ms(300);
    experiment
}

#[tokio::test]
async fn no_fault_is_injected_into_a_group_whose_redundancy_is_not_back() {
    let alone = Status { ok: false, ..sample::status() };
    let (mut stage, _says, asked, _dir) = beside(two_methods(), alone).await;
    assert_eq!(stage.act().await, Ok(()));
    let done: Vec<Fault> = stage.faults.iter().map(|fault| fault.fault).collect();
    assert_eq!(done, [Fault::Rehearsal]);
    assert_eq!(stage.redundancy_ms(), None, "which fails the drill");
    let orders = asked.lock().unwrap().iter().filter(|asked| asked.contains("\"order\":")).count();
    assert_eq!(orders, 0, "{asked:?}");
    let said = |what: &str| stage.events.iter().any(|event| event.what == what);
    assert!(said("mysqld-kill is left out: redundancy is not back"), "{:?}", stage.events);
}

#[tokio::test]
async fn the_next_fault_is_for_a_group_that_is_whole_again() {
    let (mut stage, _says, asked, _dir) = beside(two_methods(), sample::status()).await;
    assert_eq!(stage.act().await, Ok(()));
    let done: Vec<Fault> = stage.faults.iter().map(|fault| fault.fault).collect();
    assert_eq!(done, [Fault::Rehearsal, Fault::MysqldKill]);
    let is_armed = asked.lock().unwrap().iter().any(|asked| asked.contains("\"order\":\"arm\""));
    assert!(is_armed, "{asked:?}");
}

/// A container that was killed, as long ago as any look takes; it was to come back at once.
fn container_killed() -> FaultRecord {
    FaultRecord {
        fault: Fault::ContainerKill,
        duration_ms: 0,
        injected_ms: Some(0),
        healed_ms: None,
        heal_verified_ms: None,
        ..passed().faults.swap_remove(0)
    }
}

#[tokio::test]
async fn a_container_that_was_killed_is_healed_when_its_service_is_healthy_again() {
    let experiment = shipped::named("container-killed").unwrap().experiment;
    let (mut stage, says, _asked, _dir) = beside(experiment, sample::with_services(&["stopped"])).await;
    stage.faults.push(container_killed());
    // The node has nothing to heal, and says so at once.
    let healed = stage.heal(0, Duration::ZERO, Comeback::Healthy).await;
    assert_eq!(healed, Err("web0 is stopped, not healthy again".to_owned()));
    assert_eq!((stage.faults[0].healed_ms, stage.faults[0].heal_verified_ms), (None, None));
    *says.lock().unwrap() = sample::with_services(&["healthy"]);
    assert_eq!(stage.heal(0, Duration::from_secs(20), Comeback::Healthy).await, Ok(None));
    let healed_ms = stage.faults[0].heal_verified_ms.expect("it was seen");
    assert!(healed_ms >= 3_000, "{healed_ms} ms: a look of before the kill may have said so");
    let last = &stage.events.last().expect("it is noted").what;
    assert!(last.ends_with("; web0 is healthy"), "{last}");
}

#[tokio::test]
async fn a_drill_that_ends_early_does_not_wait_for_the_health_check_of_a_container_that_was_killed() {
    let experiment = shipped::named("container-killed").unwrap().experiment;
    let (mut stage, says, _asked, _dir) = beside(experiment, sample::with_services(&["starting"])).await;
    stage.faults.push(container_killed());
    // Its own time is over: to be started is not enough any more.
    let healed = stage.heal(0, Duration::ZERO, Comeback::Started).await;
    assert_eq!(healed, Err("web0 is starting, not healthy again".to_owned()));
    stage.faults[0].duration_ms = 60_000;
    assert_eq!(stage.heal(0, Duration::ZERO, Comeback::Started).await, Ok(None));
    let healed_ms = stage.faults[0].heal_verified_ms.expect("it was seen");
    assert!((3_000..30_000).contains(&healed_ms), "{healed_ms} ms");
    let last = &stage.events.last().expect("it is noted").what;
    assert!(last.ends_with("; web0 was started, and was not waited for until it is healthy"), "{last}");
    // One that was not even started has its own time.
    *says.lock().unwrap() = sample::with_services(&["stopped"]);
    stage.faults[0].duration_ms = stage.now_ms() + 500;
    let healed = stage.heal(0, Duration::ZERO, Comeback::Started).await;
    assert_eq!(healed, Err("web0 is stopped, not healthy again".to_owned()));
    assert!(stage.now_ms() >= stage.faults[0].duration_ms);
}

/// A drill of which nothing is left to be done but to wait at its end, for so long at most.
fn only_waits(wait: Span) -> Experiment {
    let mut experiment = two_methods();
    experiment.method.truncate(1);
    experiment.after.wait_redundancy = wait;
    experiment
}

/// What was noted of services.
fn of_services(stage: &Stage) -> Vec<&str> {
    let events = stage.events.iter().map(|event| event.what.as_str());
    events.filter(|what| what.starts_with("services were waited for")).collect()
}

/// Lets the services get healthy once the runner has looked at them twice.
async fn get_healthy(shared: Shared, says: Says, asked: Asked) {
    let is_waiting = || shared.lock().doing.contains("the services of the holder");
    while !is_waiting() {
        tokio::task::yield_now().await;
    }
    let before = asked.lock().unwrap().len();
    while asked.lock().unwrap().len() < before + 2 {
        tokio::task::yield_now().await;
    }
    *says.lock().unwrap() = sample::with_services(&["healthy"]);
}

#[tokio::test]
async fn services_whose_health_check_has_not_passed_yet_are_waited_for_at_the_end() {
    let experiment = only_waits(Span::from_secs(20));
    let (mut stage, says, asked, _dir) = beside(experiment, sample::with_services(&["starting"])).await;
    tokio::spawn(get_healthy(stage.shared.clone(), says, asked));
    assert_eq!(stage.act().await, Ok(()));
    let noted = of_services(&stage);
    assert!(noted.len() == 1 && noted[0].contains(", and are well after "), "{noted:?}");
    assert_eq!(stage.waits.len(), 1, "redundancy has its own figure");
    let redundant = stage.events.iter().position(|event| event.what.starts_with("redundancy is back"));
    let well = stage.events.iter().position(|event| event.what == noted[0]);
    assert!(redundant.is_some() && redundant < well, "{:?}", stage.events);
}

#[tokio::test]
async fn services_that_nobody_sees_are_waited_for_as_long_as_redundancy_may_take_and_cost_it_nothing() {
    let experiment = only_waits(Span::from_ms(300));
    let says = sample::with_services(&["healthy", "unknown", "not-seen"]);
    let (mut stage, _says, _asked, _dir) = beside(experiment, says).await;
    assert_eq!(stage.act().await, Ok(()));
    let wanted = "services were waited for, and are not well in time: web1 is unknown, web2 is not-seen";
    assert_eq!(of_services(&stage), [wanted]);
    assert!(stage.redundancy_ms().is_some(), "it was back at once");
}

#[tokio::test]
async fn a_file_that_wants_nothing_of_services_waits_for_none() {
    let mut experiment = only_waits(Span::from_ms(300));
    experiment.steady_state.retain(|state| state.probe != Probe::UnhealthyServices);
    let (mut stage, _says, _asked, _dir) = beside(experiment, sample::with_services(&["stopped"])).await;
    assert_eq!(stage.act().await, Ok(()));
    assert_eq!(of_services(&stage), [""; 0]);
}

#[test]
fn a_cut_explains_the_holder_s_loss_only_if_the_holder_is_an_end_of_it() {
    let by = |fault, node: &str, peers: &[&str]| {
        let peers: Vec<NodeId> = peers.iter().map(|peer| NodeId::new(*peer)).collect();
        let named = explained(fault, &NodeId::new(node), &peers, Some(&NodeId::new("db1")));
        named.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(by(Fault::PartitionPair, "db2", &["mon"]), ["db2"], "db1 was not touched");
    assert_eq!(by(Fault::OneWay, "mon", &["db2"]), ["mon"]);
    assert_eq!(by(Fault::PartitionPair, "db2", &["db1"]), ["db2", "db1"]);
    assert_eq!(by(Fault::OneWay, "mon", &["db1"]), ["mon", "db1"]);
    assert_eq!(by(Fault::Partition, "db2", &["db1", "mon"]), ["db2", "db1"]);
    assert_eq!(by(Fault::PartitionPair, "db1", &["mon"]), ["db1"]);
    assert_eq!(by(Fault::MysqldKill, "db1", &[]), ["db1"]);
    assert_eq!(by(Fault::ReplicationLag, "db2", &["db1"]), [""; 0], "it costs nobody the baton");
}
