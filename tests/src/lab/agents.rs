//! The product in the lab: its certificates, its one configuration file, its agents, and what it says of itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::database;
use super::shell;
use super::wire::{ARP_SENDERS, INTERFACE, Port, VIP};
use super::{docker, redis};

/// The nodes of the cluster.
pub const NODES: [Port; 3] = [Port::Db1, Port::Db2, Port::Mon];
/// Longest time that a question to an agent may take, in seconds, as `timeout` reads it.
const ASK_LIMIT: &str = "5";

/// The program under test: `BATON_BIN`, or the one that was built beside this program.
///
/// # Errors
/// It has not been built.
pub fn program() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("BATON_BIN") {
        return Ok(given.into());
    }
    let own = std::env::current_exe()?;
    let built = own.ancestors().skip(1).take(2).map(|dir| dir.join("baton")).find(|path| path.is_file());
    built.context("no program `baton` beside this one: build it first (cargo build -p baton-node)")
}

/// Whether the program under test has been built.
#[must_use]
pub fn is_built() -> bool {
    program().is_ok()
}

/// What the configuration is to say.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Timing profile.
    pub profile: &'a str,
    /// A container engine and a service.
    pub docker: bool,
    /// `mysql.resync` is automatic.
    pub resync_by_itself: bool,
    /// `drill.allow`.
    pub drills: &'a str,
    /// More lines of `[drill]`, and whole sections after them, in which `{lab}` is the lab's directory.
    pub drill_keys: &'a str,
}

/// Makes the certificates, the password files and the configuration file.
///
/// # Errors
/// A file cannot be written, or `baton pki` or `baton config check` fails.
pub fn prepare(dir: &Path, options: Options<'_>) -> Result<PathBuf> {
    let baton = program()?.display().to_string();
    let pki = dir.join("pki").display().to_string();
    shell::run(&baton, &["pki", "init", "--dir", &pki])?;
    for node in NODES {
        shell::run(&baton, &["pki", "issue", "--dir", &pki, "--node", node.name()])?;
    }
    let password = dir.join("password");
    std::fs::write(&password, database::PASSWORD)?;
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let file = dir.join("baton.toml");
    std::fs::write(&file, configuration(dir, options))?;
    for node in NODES {
        let args = ["config", "check", "--config", &file.display().to_string(), "--node", node.name()];
        shell::run(&baton, &args).context("the lab's own configuration is refused")?;
    }
    Ok(file)
}

/// Gives a node another certificate, which ends after `days`. Its agent reads it when it is started again.
///
/// # Errors
/// A file cannot be removed, or `baton pki` fails.
pub fn renew(dir: &Path, node: Port, days: u32) -> Result<()> {
    let pki = dir.join("pki");
    for ending in ["pem", "key"] {
        std::fs::remove_file(pki.join(node.name()).with_extension(ending))?;
    }
    let (baton, pki) = (program()?.display().to_string(), pki.display().to_string());
    let args = ["pki", "issue", "--dir", &pki, "--node", node.name(), "--days", &days.to_string()];
    shell::run(&baton, &args).map(drop)
}

fn configuration(dir: &Path, options: Options<'_>) -> String {
    let Options { profile, docker: with_docker, resync_by_itself, drills, drill_keys } = options;
    let resync = if resync_by_itself { "automatic" } else { "by-hand" };
    let dir = dir.display();
    let drill_keys = drill_keys.replace("{lab}", &dir.to_string());
    let nodes = NODES.map(|node| {
        let kind = if node == Port::Mon { "witness" } else { "data" };
        format!("[[node]]\nname = \"{}\"\nkind = \"{kind}\"\naddress = \"{}\"\n", node.name(), node.address())
    });
    let (container, late) = (docker::CONTAINER, docker::LATE);
    let services = if with_docker {
        format!(
            "[docker]\nsocket = \"{dir}/{{node}}/docker.sock\"\n\
             [[service]]\nname = \"{container}\"\ncontainer = \"{container}\"\nruns_on = \"holder\"\n\
             needs_database = false\nports = [{}]\n\
             [[service]]\nname = \"{late}\"\ncontainer = \"{late}\"\nruns_on = \"holder\"\n",
            docker::PORT
        )
    } else {
        String::new()
    };
    format!(
        "cluster = \"lab\"\nprofile = \"{profile}\"\ninitial_holder = \"db1\"\n\
         [paths]\nstate = \"{dir}/{{node}}/state\"\nrun = \"{dir}/{{node}}\"\n\
         [pki]\nca = \"{dir}/pki/ca.pem\"\ncert = \"{dir}/pki/{{node}}.pem\"\nkey = \"{dir}/pki/{{node}}.key\"\n\
         {}\
         [[vip]]\naddress = \"{VIP}/24\"\ninterface = \"{INTERFACE}\"\ngateway = \"{}\"\n\
         [mysql]\nport = {}\nsocket = \"{dir}/{{node}}/mysql.sock\"\nuser = \"baton\"\n\
         password_file = \"{dir}/password\"\n\
         check_user = \"{}\"\ncheck_password_file = \"{dir}/password\"\nreplication_user = \"repl\"\n\
         replication_password_file = \"{dir}/password\"\ndata_dir = \"{dir}/{{node}}/mysql/data\"\nschema = \"{}\"\n\
         start = [\"/bin/sh\", \"{dir}/{{node}}/mysql-start\"]\nstop = [\"/bin/sh\", \"{dir}/{{node}}/mysql-stop\"]\n\
         resync = \"{resync}\"\n\
         [redis]\nport = {}\nsocket = \"{dir}/{{node}}/redis.sock\"\n\
         [drill]\nallow = \"{drills}\"\ncooldown = \"0s\"\nevidence = \"{dir}/{{node}}/drills\"\narp_senders = \"{ARP_SENDERS}\"\n\
         user = \"{}\"\npassword_file = \"{dir}/password\"\n\
         {drill_keys}\n\
         {services}",
        nodes.concat(),
        Port::Client.address(),
        database::PORT,
        database::CHECK_USER,
        database::AGENT_SCHEMA,
        redis::PORT,
        database::DRILL_USER,
    )
}

/// Asks a node's agent; the answer is whatever JSON it prints.
///
/// # Errors
/// No answer in time, or none that is JSON. An exit code that reports a bad state is not an error here.
pub fn ask(config: &Path, node: Port, verb: &[&str]) -> Result<Value> {
    let baton = program()?.display().to_string();
    let mut command = std::process::Command::new("timeout");
    command.args([ASK_LIMIT, &baton]).args(verb);
    command.args(["--output", "json", "--node", node.name(), "--config"]).arg(config);
    let output = command.output()?;
    let complaint = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match serde_json::from_slice(&output.stdout) {
        Ok(answer) => Ok(answer),
        Err(error) => bail!("baton {verb:?} on {}: {}: {error}: {}", node.name(), output.status, complaint()),
    }
}

/// Passes the baton by `baton switchover --yes` at a node, and returns the exit code and what it said.
///
/// # Errors
/// The program cannot be run, or is killed.
pub fn switchover(config: &Path, node: Port) -> Result<(i32, String)> {
    let mut command = std::process::Command::new(program()?);
    command.args(["switchover", "--yes", "--timeout", "60s", "--node", node.name(), "--config"]).arg(config);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((output.status.code().context("the command was killed")?, said))
}

/// Begins the same and does not wait for it: who has the child waits, and reads what it says.
///
/// # Errors
/// The program cannot be run.
pub fn begin_switchover(config: &Path, node: Port) -> Result<Child> {
    let mut command = std::process::Command::new(program()?);
    command.args(["switchover", "--yes", "--timeout", "60s", "--node", node.name(), "--config"]).arg(config);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

/// Gives an order at a node as an operator would, and returns the exit code and what it said.
///
/// # Errors
/// The program cannot be run, or is killed.
pub fn order(config: &Path, node: Port, verb: &[&str]) -> Result<(i32, String)> {
    let mut command = std::process::Command::new(program()?);
    command.args(verb).args(["--node", node.name(), "--config"]).arg(config);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((output.status.code().context("the command was killed")?, said))
}

/// Accepts a loss by `baton takeover` at a node, and returns the exit code and what it said.
///
/// # Errors
/// The program cannot be run, or is killed.
pub fn takeover(config: &Path, node: Port, at_most: &str, more: &[&str]) -> Result<(i32, String)> {
    let mut command = std::process::Command::new(program()?);
    command.args(["takeover", "--accept-data-loss", at_most, "--node", node.name(), "--config"]).arg(config);
    let output = command.args(more).output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((output.status.code().context("the command was killed")?, said))
}

/// Replaces the database of `node` by `baton resync NODE --yes` at the node `at`, and returns the exit code and what it said.
///
/// # Errors
/// The program cannot be run, or is killed.
pub fn resync(config: &Path, at: Port, node: Port) -> Result<(i32, String)> {
    let mut command = std::process::Command::new(program()?);
    command.args(["resync", node.name(), "--yes", "--timeout", "90s", "--node", at.name(), "--config"]);
    let output = command.arg(config).output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((output.status.code().context("the command was killed")?, said))
}

/// What an agent says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Who holds the baton, if anybody.
    pub holder: Option<Port>,
    /// The number of the present holder's reign.
    pub epoch: u64,
    /// Whether a takeover would work now.
    pub ok: bool,
    /// Whether the ledger says that the replica has every acknowledged write.
    pub in_sync: bool,
    /// Who leads, if anybody.
    pub leader: Option<Port>,
    /// The whole answer, for messages.
    pub text: String,
}

/// What a node's agent says of the cluster.
///
/// # Errors
/// It does not answer, or its answer has no epoch.
pub fn standing(config: &Path, node: Port) -> Result<Standing> {
    let answer = ask(config, node, &["status"])?;
    let named = |key: &str| NODES.into_iter().find(|node| Some(node.name()) == answer[key].as_str());
    Ok(Standing {
        holder: named("holder"),
        leader: named("leader"),
        in_sync: answer["sync"]["state"] == "in-sync",
        epoch: answer["epoch"].as_u64().with_context(|| format!("no epoch in {answer}"))?,
        ok: answer["ok"].as_bool().unwrap_or(false),
        text: answer.to_string(),
    })
}

/// The words of an alarm in an agent's status, if it is there.
#[must_use]
pub fn alarm(status: &Value, code: &str) -> Option<String> {
    let alarms = status["alarms"].as_array()?;
    alarms.iter().find(|alarm| alarm["code"] == code).map(|alarm| alarm["text"].to_string())
}

/// The reasons of an agent's newest decision, as the JSON that it prints.
///
/// # Errors
/// It does not answer, or has decided nothing.
pub fn reasons(config: &Path, node: Port) -> Result<String> {
    let answer = ask(config, node, &["explain"])?;
    let newest = answer["decisions"].as_array().and_then(|decisions| decisions.last()).cloned();
    Ok(newest.with_context(|| format!("no decision in {answer}"))?["why"].to_string())
}
