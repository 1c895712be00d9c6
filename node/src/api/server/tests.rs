//! Unit tests of the local API's server.

use std::sync::Arc;

use baton_runbooks::decide::switchover::{Check, Preflight};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::api::client::{Client, ClientError};
use crate::api::sample;
use crate::api::types::{AbortRequest, SwitchoverRequest};
use crate::cli::Exit;

struct Running {
    dir: tempfile::TempDir,
    commands: mpsc::Receiver<Operator>,
    publish: watch::Sender<Arc<View>>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Running {
    fn client(&self) -> Client {
        Client::new(self.dir.path().join("baton.sock"))
    }
}

async fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let listener = bind(&dir.path().join("baton.sock")).await.unwrap();
    let (publish, view) = watch::channel(Arc::new(sample::view()));
    let (operator, commands) = mpsc::channel(COMMANDS_MAX);
    let (stop, stopped) = oneshot::channel();
    let stopping = async {
        stopped.await.ok();
    };
    let served = tokio::spawn(serve(listener, view, operator, stopping));
    Running { dir, commands, publish, stop, served }
}

#[tokio::test]
async fn reads_come_from_the_newest_view() {
    let running = start().await;
    let client = running.client();
    assert_eq!(client.status().await.unwrap(), sample::healthy());
    assert_eq!(client.explain().await.unwrap(), sample::explain());
    assert_eq!(client.history().await.unwrap().runs, [sample::ended_run()]);
    assert_eq!(client.run(7).await.unwrap(), sample::ended_run());
    let newer = View { status: sample::under_way(), ..sample::view() };
    running.publish.send_replace(Arc::new(newer));
    assert_eq!(client.status().await.unwrap(), sample::under_way());
    let missing = client.run(8).await.unwrap_err();
    assert_eq!(Exit::of(&missing), Exit::Usage);
    assert_eq!(
        missing.to_string(),
        "there is no run 8 in the history; `baton history` lists the runs that are kept"
    );
    running.stop.send(()).unwrap();
    running.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn acknowledgement_reaches_the_driver_with_the_callers_uid() {
    let mut running = start().await;
    let client = running.client();
    let request = AckRequest { by: "ada".to_owned(), expected_epoch: Epoch(3) };
    let driver = async {
        let command = running.commands.recv().await.unwrap();
        let Operator::AcknowledgeRun { run, by, expected_epoch, reply } = command else {
            panic!("{command:?}")
        };
        assert_eq!((run, expected_epoch), (RunId(7), Epoch(3)));
        assert_eq!(by, format!("ada (uid {})", nix::unistd::getuid()));
        reply
            .send(Err(CommandError::Refused { reason: "epoch 3 is not the ledger's epoch 4".to_owned() }))
            .unwrap();
    };
    let (answer, ()) = tokio::join!(client.acknowledge(7, &request), driver);
    let refused = answer.unwrap_err();
    assert_eq!(Exit::of(&refused), Exit::Refused);
    assert_eq!(
        refused.to_string(),
        "refused: epoch 3 is not the ledger's epoch 4; look at `baton status` and `baton explain`"
    );
}

#[tokio::test]
async fn a_switchover_reaches_the_driver_and_its_answer_comes_back() {
    let mut running = start().await;
    let client = running.client();
    let request = SwitchoverRequest {
        to: Some("db2".into()),
        by: "ada".to_owned(),
        drain_patience_ms: 5_000,
        plan: None,
        drill: Some(DrillId(3)),
    };
    let check = Check { code: "no-run".to_owned(), ok: false, evidence: "run 7 is in progress".to_owned() };
    let seen = SwitchoverAnswer { preflight: Preflight { checks: vec![check], plan: None }, run: None };
    let driver = async {
        let command = running.commands.recv().await.unwrap();
        let Operator::Switchover { wanted, plan, drill, reply } = command else { panic!("{command:?}") };
        assert_eq!((wanted.to, wanted.drain_patience_ms, plan), (Some("db2".into()), 5_000, None));
        assert_eq!(wanted.by, format!("ada (uid {})", nix::unistd::getuid()));
        assert_eq!(drill, Some(DrillId(3)));
        reply.send(Ok(seen.clone())).unwrap();
    };
    let (answer, ()) = tokio::join!(client.switchover(&request), driver);
    assert_eq!(answer.unwrap(), seen);
}

#[tokio::test]
async fn an_abort_that_comes_too_late_is_refused() {
    let mut running = start().await;
    let client = running.client();
    let driver = async {
        let command = running.commands.recv().await.unwrap();
        let Operator::AbortRun { run, reply, .. } = command else { panic!("{command:?}") };
        assert_eq!(run, RunId(8));
        let reason = "the point of no return is behind the run".to_owned();
        reply.send(Err(CommandError::Refused { reason })).unwrap();
    };
    let request = AbortRequest { by: "ada".to_owned() };
    let (answer, ()) = tokio::join!(client.abort(8, &request), driver);
    assert_eq!(Exit::of(&answer.unwrap_err()), Exit::Refused);
}

#[tokio::test]
async fn a_rejoin_of_another_node_reaches_the_driver_signed_and_says_where_that_node_stands() {
    let mut running = start().await;
    let client = running.client();
    let request = RejoinRequest { node: "db1".into(), by: "ada".to_owned(), generation: Some(Generation(0)) };
    let seen = RejoinAnswer {
        generation: Generation(0),
        outranked: true,
        forked: false,
        leader: None,
        problem: Some("db2 says that the cluster was forced".to_owned()),
        ordered: true,
    };
    let driver = async {
        let command = running.commands.recv().await.unwrap();
        let Operator::Rejoin { request: got, reply } = command else { panic!("{command:?}") };
        let by = format!("ada (uid {})", nix::unistd::getuid());
        assert_eq!(got, RejoinRequest { by, ..request.clone() });
        reply.send(Ok(seen.clone())).unwrap();
    };
    let (answer, ()) = tokio::join!(client.rejoin(&request), driver);
    assert_eq!(answer.unwrap(), seen);
}

#[tokio::test]
async fn commands_without_a_driver_are_refused_at_once() {
    let mut running = start().await;
    running.commands.close();
    let request = AckRequest { by: "ada".to_owned(), expected_epoch: Epoch(3) };
    let error = running.client().acknowledge(7, &request).await.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::NoQuorum);
}

#[tokio::test]
async fn socket_is_for_the_group_and_is_not_taken_from_a_live_agent() {
    let running = start().await;
    let path = running.dir.path().join("baton.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    assert!(matches!(bind(&path).await, Err(BindError::Taken { .. })));
    assert!(running.client().status().await.is_ok(), "the first agent still answers");
}

#[tokio::test]
async fn stale_socket_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baton.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead agent's socket stays behind");
    bind(&path).await.unwrap();
    let other = dir.path().join("notes.txt");
    std::fs::write(&other, "keep me").unwrap();
    assert!(matches!(bind(&other).await, Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "keep me");
}

#[tokio::test]
async fn missing_agent_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baton.sock");
    let missing = Client::new(path.clone()).status().await.unwrap_err();
    assert_eq!(Exit::of(&missing).code(), 5);
    assert_eq!(
        missing.to_string(),
        format!(
            "no agent answers at {}: there is no such socket; start it with `systemctl start baton`, or name another \
             socket with --socket",
            path.display()
        )
    );
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stale = Client::new(path).status().await.unwrap_err();
    assert!(matches!(stale, ClientError::NoAgent { reason: "nobody listens there", .. }), "{stale}");
}

/// An agent that is stopped still has its socket taken by the kernel: only the deadline ends the wait.
#[tokio::test]
async fn frozen_agent_ends_in_a_time_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baton.sock");
    let _frozen = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = Client::new(path).status().await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert_eq!(Exit::of(&error).code(), 6);
}
