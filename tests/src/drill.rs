//! Drills in the lab: the program `baton-drill` at the client's seat, and what must be left when it is gone.

pub mod kill;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use baton_chaos::evidence::{Record, Store};
use baton_chaos::experiment::shipped;
use baton_chaos::runner::agents::Agents;
use baton_node::api::client::Client;
use baton_node::api::drill::{DrillId, DrillOrder, DrillView, FaultPhase};
use baton_node::api::types::SwitchoverRequest;
use baton_node::config::NodeId;
use baton_runbooks::model::RunId;
use nix::unistd::Pid;

use crate::lab::{DATA, Lab, Port, agents, process, shell, wait};

/// The node whose agent a runner asks: the one that fewest drills hit.
pub const SEAT: Port = Port::Mon;
/// How long a cluster may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// How long clients' transactions under way may go on when the baton is passed, milliseconds.
const DRAIN_MS: u64 = 1_000;
/// How long a killed server stays away, as under a service manager.
const AWAY: Duration = Duration::from_millis(500);

/// The program: beside `baton`.
///
/// # Errors
/// It has not been built.
pub fn program() -> Result<PathBuf> {
    let path = agents::program()?.with_file_name("baton-drill");
    ensure!(
        path.is_file(),
        "no program baton-drill beside baton: build it first (cargo build --workspace --bins)"
    );
    Ok(path)
}

fn command(lab: &Lab, at: Port, words: &[&str]) -> Result<Command> {
    let config = lab.config.as_ref().context("drills need agents")?;
    let mut command = shell::inside(&lab.wire.netns(Port::Client), &program()?.display().to_string());
    command.arg("--config").arg(config).args(["--node", at.name()]).args(words).stdin(Stdio::null());
    Ok(command)
}

/// What a drill came to.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: i32,
    /// What it said to people.
    pub said: String,
    /// Its record, if it printed one.
    pub record: Option<Record>,
}

/// Runs a drill to its end, from the client's seat, asking the agent of `at`.
///
/// # Errors
/// It cannot be started, or is killed.
pub fn run(lab: &Lab, at: Port, drill: &str) -> Result<Outcome> {
    let output =
        command(lab, at, &["--output", "json", "run", drill, "--yes", "--by", "the lab"])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().with_context(|| format!("the drill was killed: {said}"))?;
    let record = serde_json::from_slice(&output.stdout).ok();
    Ok(Outcome { code, said, record })
}

/// Runs another verb of `baton drill`, and returns its exit code and both outputs.
///
/// # Errors
/// It cannot be started, or is killed.
pub fn verb(lab: &Lab, at: Port, words: &[&str]) -> Result<(i32, String)> {
    let output = command(lab, at, words)?.output()?;
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().context("the command was killed")?;
    Ok((code, String::from_utf8_lossy(&said).into_owned()))
}

/// Begins a drill and leaves it running; standard error goes to a file of the lab.
///
/// # Errors
/// It cannot be started.
pub fn begin(lab: &Lab, at: Port, drill: &str) -> Result<Child> {
    let log = std::fs::File::create(lab.dir.join("drill.log"))?;
    let mut command = command(lab, at, &["run", drill, "--yes", "--by", "the lab"])?;
    Ok(command.stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Starts the one who runs drills when they are due, by this file; what it says goes to a file of the lab.
///
/// # Errors
/// It cannot be started.
pub fn keep_schedule(lab: &Lab, at: Port, timetable: &Path) -> Result<Child> {
    let log = std::fs::File::create(lab.dir.join("schedule.log"))?;
    let mut command = command(lab, at, &["schedule", "--run", "--timetable"])?;
    Ok(command.arg(timetable).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// A drill of one's own: a shipped one, with other words in its file. Returns its path.
///
/// # Errors
/// There is none of that name, a word is not in it, or the file cannot be written.
pub fn altered(lab: &Lab, from: &str, words: &[(&str, &str)]) -> Result<String> {
    let mut text = shipped::template("altered", from)?;
    for (old, new) in words {
        ensure!(text.contains(old), "{from} does not say {old}");
        text = text.replace(old, new);
    }
    let path = lab.dir.join("altered.toml");
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// Waits until the fault of a drill stands somewhere.
///
/// # Errors
/// It does not, or the drill ends before.
pub fn wait_biting(lab: &Lab, runner: &mut Child) -> Result<()> {
    let mut ended = None;
    wait::until_true("the fault of a drill", WHOLE_WITHIN, || {
        ended = runner.try_wait()?;
        Ok(ended.is_some() || left(lab)?.iter().any(|what| what.contains("Biting")))
    })?;
    let said = std::fs::read_to_string(lab.dir.join("drill.log")).unwrap_or_default();
    ended.map_or(Ok(()), |ended| bail!("the drill has ended ({ended}): {said}"))
}

/// The newest record that a runner has kept at a node.
///
/// # Errors
/// There is none.
pub fn newest_record(lab: &Lab, at: Port) -> Result<Record> {
    Ok(Store::at(&lab.host(at).dir.join("drills")).find("last")?.record)
}

/// The agents, asked from here: their sockets are files.
///
/// # Errors
/// The lab has no agents.
pub fn agents(lab: &Lab, at: Port) -> Result<Agents> {
    lab.config.as_ref().context("drills need agents")?;
    Ok(Agents { client: Client::new(lab.host(at).dir.join("baton.sock")), by: "the lab".into() })
}

/// An order for one node, given at that node.
///
/// # Errors
/// The agent refuses or does not answer.
pub fn order(lab: &Lab, at: Port, order: DrillOrder) -> Result<DrillView> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let agents = agents(lab, at)?;
    Ok(runtime.block_on(agents.order(Some(&NodeId::new(at.name())), order))?)
}

/// The newest run of the ledger, as a node knows it; 0: there was none.
///
/// # Errors
/// The agent does not answer.
pub fn newest_run(lab: &Lab, at: Port) -> Result<RunId> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let history = runtime.block_on(agents(lab, at)?.client.history())?;
    Ok(history.runs.last().map_or(RunId(0), |run| run.number))
}

/// Passes the baton to the other data node, asked at a node: for a drill, or, without one, as an operator does. Returns when
/// the run has begun, with its number.
///
/// # Errors
/// The baton cannot be passed, or an agent refuses or does not answer.
pub fn pass_baton(lab: &Lab, at: Port, drill: Option<DrillId>) -> Result<RunId> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Agents { client, by } = agents(lab, at)?;
    let mut request = SwitchoverRequest { to: None, by, drain_patience_ms: DRAIN_MS, plan: None, drill };
    let looked = runtime.block_on(client.switchover(&request))?;
    request.plan = Some(looked.preflight.plan.context("the baton cannot be passed now")?);
    let run = runtime.block_on(client.switchover(&request))?.run;
    run.context("no run was begun")
}

/// The processes of a node that are stopped.
#[must_use]
pub fn stopped(lab: &Lab, port: Port) -> Vec<Pid> {
    let all = process::in_netns(&lab.wire.path(port)).into_iter();
    all.filter(|pid| process::state(*pid) == Some('T')).collect()
}

/// What of drills is left anywhere: in the ledger, in kernels, on disks, in stopped processes. Empty: nothing.
///
/// # Errors
/// A node cannot be asked.
pub fn left(lab: &Lab) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for port in agents::NODES {
        let view = order(lab, port, DrillOrder::Look)?;
        left.extend(view.leftovers.iter().map(|what| format!("{}: {what}", port.name())));
        left.extend(view.drill.map(|drill| format!("{}: drill {} is under way", port.name(), drill.number)));
        let borne = view.fault.filter(|fault| fault.phase != FaultPhase::Healed);
        left.extend(borne.map(|fault| format!("{}: {:?} {}", port.name(), fault.phase, fault.spec.kind)));
        let stopped = stopped(lab, port).into_iter();
        left.extend(stopped.map(|pid| format!("{}: process {pid} is stopped", port.name())));
        let sets = shell::finish(shell::inside(&lab.wire.netns(port), "nft").args(["list", "ruleset"]))?;
        let drills = sets.split("table inet baton_drill").nth(1).unwrap_or_default();
        if drills.split("\n}").next().unwrap_or_default().contains("elements") {
            left.push(format!("{}: the kernel severs", port.name()));
        }
    }
    Ok(left)
}

/// Waits until a takeover would work, everybody is heard, and nothing of drills is left.
///
/// # Errors
/// It does not come to that. The lab's files are kept then.
pub fn whole(lab: &Lab) -> Result<()> {
    let came = wait::until_true("a whole cluster with nothing left of a drill", WHOLE_WITHIN, || {
        let standing = lab.standing()?;
        let left = left(lab)?;
        if !left.is_empty() {
            bail!("{}", left.join("; "));
        }
        if !(standing.ok && standing.in_sync) {
            bail!("{}", standing.text);
        }
        Ok(true)
    });
    came.inspect_err(|_| lab.keep())
}

/// The drill passed, both its clients were served, its evidence verifies against the head that the ledger holds, and nothing
/// is left.
///
/// # Errors
/// It is not so.
pub fn passed(lab: &Lab, outcome: &Outcome) -> Result<()> {
    let record = outcome.record.as_ref().with_context(|| format!("no record: {}", outcome.said))?;
    let text = format!("{}\n{:#?}\n{:#?}", outcome.said, record.judgement, record.faults);
    println!("{text}");
    ensure!(record.judgement.verdict.is_pass() && outcome.code == 0, "{text}");
    for client in &record.clients {
        let (kind, seen) = (client.kind, client.reconnecting);
        println!(
            "{kind}: outage {} ms, steady after {:?} ms, {seen:?}",
            client.outage_ms, client.sustained_ms
        );
        let has_read = seen.is_some_and(|seen| seen.read > 0 && seen.read <= seen.connected);
        ensure!(has_read, "{kind}: the client that keeps no connection has never read: {seen:?}");
    }
    whole(lab).context("after the drill")?;
    let (code, said) = verb(lab, SEAT, &["verify"])?;
    ensure!(code == 0, "the evidence does not verify: {said}");
    Ok(())
}

/// Whatever database server ends from now on is started again at once, as a service manager does.
///
/// # Errors
/// One of them does not run.
pub fn supervise_databases(lab: &Lab) -> Result<()> {
    for port in DATA {
        for server in ["mysqld", "redis"] {
            lab.host(port).process(server)?.supervise()?;
        }
    }
    Ok(())
}

/// Starts the database of a node again when it has ended, once, as its service manager would.
#[derive(Debug)]
pub struct Restarter(Option<std::thread::JoinHandle<Result<()>>>);

impl Restarter {
    /// Waits for the end of the server that runs on `port` now.
    ///
    /// # Errors
    /// It does not run.
    pub fn of_mysql(lab: &Lab, port: Port) -> Result<Self> {
        let server = lab.host(port).process("mysqld")?;
        let script = lab.host(port).dir.join("mysql-start").display().to_string();
        let netns = lab.wire.netns(port);
        let thread = std::thread::spawn(move || {
            wait::until_true("the server to end", WHOLE_WITHIN, || Ok(server.pid().is_none()))?;
            wait::pass(AWAY)?;
            shell::finish(shell::inside(&netns, "sh").arg(script)).map(drop)
        });
        Ok(Self(Some(thread)))
    }

    /// Waits until it was started again.
    ///
    /// # Errors
    /// It never ended, or could not be started.
    pub fn done(mut self) -> Result<()> {
        let thread = self.0.take().context("taken once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the restarter died"))?
    }
}
