//! Coming back with extra transactions: quarantine, export, resync.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Scene;
use super::back::{self, Back};
use crate::lab::{Flavour, Port, Traffic, agents, database, process, shell, wait};

/// How long the cut-off primary may take to close itself.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// How long the node that is back may take to say that it is in quarantine, with everything saved.
const SAVED_WITHIN: Duration = Duration::from_secs(30);
/// How long the copy may take to have what the holder has.
const SAME_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to come back without anybody.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Rows that somebody writes into the closed database.
const STRAY_ROWS: u64 = 5;

/// While the primary is cut off, an administrator writes into its closed database.
pub(super) fn stray(scene: Scene<'_>) -> Result<()> {
    let socket = scene.lab.host(scene.primary).mysql();
    // Its ports are closed by then, so nobody hears of what is let go below.
    wait::until_true("the backup to hold the baton", CLOSED_WITHIN, || {
        Ok(scene.lab.standing()?.holder == Some(scene.backup))
    })?;
    // Nobody is there to acknowledge, and the administrator does not wait. The agent ends sessions while it closes, these too.
    let let_go = || {
        wait::until_true("commits to be let go", CLOSED_WITHIN, || {
            Ok(database::query(&socket, scene.lab.flavour().semi_sync(false)).is_ok())
        })
    };
    if scene.lab.flavour() == Flavour::Mysql {
        // It does not close before they have gone, nor does its agent finish them while it does not know who holds the baton.
        let_go()?;
    }
    wait::until_true("the primary to close", CLOSED_WITHIN, || {
        Ok(database::value(&socket, "SELECT @@global.read_only").is_ok_and(|value| value == "1"))
    })?;
    // The agent ends sessions once more after that; one that lives for a while is past it.
    wait::until_true("the primary to leave sessions alone", CLOSED_WITHIN, || {
        Ok(database::value(&socket, "SELECT SLEEP(1)").is_ok_and(|value| value == "0"))
    })?;
    let_go()?;
    let table =
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='app' AND table_name='stray'";
    insist(scene, "CREATE TABLE app.stray (id INT PRIMARY KEY)", table)?;
    for id in 0..STRAY_ROWS {
        let row = format!("SELECT COUNT(*) FROM app.stray WHERE id={id}");
        insist(scene, &format!("INSERT INTO app.stray VALUES ({id})"), &row)?;
    }
    Ok(())
}

/// Repeats a statement until `done` counts one: where it opens the server first, an agent that sees it closes it again and
/// ends the session.
fn insist(scene: Scene<'_>, statement: &str, done: &str) -> Result<()> {
    let socket = scene.lab.host(scene.primary).mysql();
    let mut refused = None;
    wait::until_true(statement, CLOSED_WITHIN, || {
        refused = database::query(&socket, &scene.lab.flavour().past_read_only(statement)).err();
        Ok(database::value(&socket, done).is_ok_and(|value| value == "1"))
    })
    .with_context(|| refused.map_or_else(String::new, |error| format!("{error:#}")))
}

/// The network is whole again: quarantine, then one resync.
pub(super) fn come_back(scene: Scene<'_>) -> Result<()> {
    scene.lab.wire.mend()?;
    in_quarantine(scene)?;
    ended_with(scene, 0)?;
    is_a_copy(scene)
}

/// Commits wait for the replica's acknowledgement when the primary loses power: they are in its log, and nobody was told.
pub(super) fn lose_power_in_commits(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    lab.wire.cut_both(primary, backup, Traffic::Tcp(database::PORT))?;
    let waiting = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%_wait_sessions'";
    wait::until_true("commits to wait", CLOSED_WITHIN, || {
        let rows = database::query(&lab.host(primary).mysql(), waiting)?;
        Ok(rows.first().is_some_and(|row| row["Value"] != "0"))
    })?;
    lab.power_off(primary)?;
    lab.wire.mend()
}

/// Power is back. Recovery finishes those commits, so the node has extra transactions: they are saved, and it is resynced.
pub(super) fn come_back_from_commits(scene: Scene<'_>) -> Result<()> {
    scene.lab.power_on(scene.primary)?;
    let back = back::whole(scene.lab, BACK_WITHIN)?;
    println!("{}: {back:?}", scene.primary.name());
    ensure!(back == Back::Resynced, "{} had nothing extra: no commit waited", scene.primary.name());
    has_the_same(scene)
}

/// Nobody does anything.
pub(super) fn come_back_by_itself(scene: Scene<'_>) -> Result<()> {
    scene.lab.wire.mend()?;
    wait::until_true("the node to come back by itself", BACK_WITHIN, || {
        let row = row(scene, Port::Mon)?;
        // An earlier resync is done, too, but then the node is not in sync.
        ensure!(row["resync"]["phase"] == "done" && scene.lab.standing()?.in_sync, "{row}");
        Ok(true)
    })?;
    let state = scene.lab.host(scene.primary).dir.join("state/quarantine");
    let saved =
        std::fs::read_dir(&state)?.flatten().filter(|entry| entry.path().extension().is_some()).count();
    ensure!(saved == 2, "{saved} files in {}: the transactions are saved first", state.display());
    is_a_copy(scene)
}

/// As above, but the copy breaks on the way; the next one is whole, the database cannot be started on it and the agent is
/// restarted; the last attempt succeeds.
pub(super) fn come_back_twice(scene: Scene<'_>) -> Result<()> {
    scene.lab.wire.mend()?;
    in_quarantine(scene)?;
    if scene.lab.flavour() == Flavour::Mariadb {
        // MySQL's own server copies: there is no program that could die by itself.
        break_the_copy(scene)?;
    }
    let host = scene.lab.host(scene.primary);
    let script = host.dir.join("mysql-start");
    let right = std::fs::read(&script)?;
    std::fs::write(&script, "echo no; exit 1\n")?;
    ended_with(scene, 4)?;
    let agent = host.process("agent")?;
    let starts = agent.starts();
    agent.signal(Signal::SIGKILL)?;
    wait::until_true("the agent to be restarted and to say what was interrupted", SAVED_WITHIN, || {
        Ok(agent.starts() > starts && row(scene, scene.primary)?["resync"]["phase"] == "stuck")
    })?;
    std::fs::write(&script, right)?;
    if scene.lab.flavour() == Flavour::Mysql {
        // Its own server receives the copy, so the command is refused and says: start it.
        ended_with(scene, 2)?;
        shell::finish(shell::inside(&scene.lab.wire.netns(scene.primary), "/bin/sh").arg(&script))?;
        database::wait_ready(&host.mysql())?;
    }
    ended_with(scene, 0)?;
    is_a_copy(scene)
}

/// The program that makes the copy is killed in the middle of it. The node is as it was, and nothing is left over.
fn break_the_copy(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    std::thread::scope(|scope| -> Result<()> {
        let resyncing = scope.spawn(move || ended_with(scene, 3));
        let killed = kill_the_copy(scene);
        let ended = resyncing.join().map_err(|_| anyhow!("the resync's thread died"))?;
        killed.with_context(|| format!("the command: {ended:?}"))?;
        ended
    })?;
    wait::until_true("the witness to say that it failed", SAVED_WITHIN, || {
        Ok(row(scene, Port::Mon)?["resync"]["phase"] == "failed")
    })?;
    let host = lab.host(primary);
    let stray = database::value(&host.mysql(), "SELECT COUNT(*) FROM app.stray")?;
    ensure!(stray == STRAY_ROWS.to_string(), "{stray} of its own {STRAY_ROWS} rows are there");
    nothing_is_left(&database::data_dir(&host.dir))?;
    for entry in std::fs::read_dir(&lab.host(backup).dir)? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().starts_with("copy-"), "{} is left over", name.display());
    }
    Ok(())
}

/// Neither a copy nor what it was to replace.
fn nothing_is_left(data: &Path) -> Result<()> {
    for left in ["baton-incoming", "baton-before"] {
        let left = data.with_extension(left);
        ensure!(!left.exists(), "{} is left over", left.display());
    }
    Ok(())
}

/// It is stopped first, so that the copy cannot have ended when it is killed.
fn kill_the_copy(scene: Scene<'_>) -> Result<()> {
    let netns = scene.lab.wire.path(scene.backup);
    let copier = wait::until("the copy to be made", SAVED_WITHIN, || {
        Ok(process::in_netns(&netns).into_iter().find(|pid| makes_a_copy(*pid)))
    })?;
    kill(copier, Signal::SIGSTOP)?;
    let copying = wait::until_true("the witness to say that it copies", SAVED_WITHIN, || {
        Ok(row(scene, Port::Mon)?["resync"]["phase"] == "copying")
    });
    kill(copier, Signal::SIGKILL)?;
    copying
}

fn makes_a_copy(pid: Pid) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split('\0');
    words.next().is_some_and(|program| program.ends_with("mariadb-backup"))
        && words.any(|word| word == "--backup")
}

/// What the agent at a node says of the node that is back.
fn row(scene: Scene<'_>, at: Port) -> Result<Value> {
    let config = scene.lab.config.as_ref().context("only agents know a quarantine")?;
    let status = agents::ask(config, at, &["status"])?;
    let rows = status["nodes"].as_array().context("no nodes in the status")?;
    let found = rows.iter().find(|row| row["name"] == scene.primary.name());
    found.cloned().context("the node is not in the status")
}

/// Every node's status says so, with the way out, and what was saved is what is extra.
fn in_quarantine(scene: Scene<'_>) -> Result<()> {
    wait::until_true("the quarantine with its export", SAVED_WITHIN, || {
        Ok(row(scene, Port::Mon)?["quarantine"]["export"]["file"].is_string())
    })?;
    let config = scene.lab.config.as_ref().context("only agents know a quarantine")?;
    let way_out = format!("baton resync {}", scene.primary.name());
    let sentence = wait::until("the status of the other data node to say so", SAVED_WITHIN, || {
        let sentence = agents::ask(config, scene.backup, &["status"])?["sentence"].to_string();
        Ok((sentence.contains("in quarantine") && sentence.contains(&way_out)).then_some(sentence))
    })?;
    let row = row(scene, Port::Mon)?;
    let file = row["quarantine"]["export"]["file"].as_str().context("no file")?;
    let summary: Value = serde_json::from_slice(&std::fs::read(PathBuf::from(file).with_extension("json"))?)?;
    scene.lab.tell(&format!("{sentence}\n{}", summary["tables"]));
    ensure!(summary["tables"]["app.stray"]["inserted"] == STRAY_ROWS, "{summary}");
    ensure!(summary["statements"] == 1, "one table was made: {summary}");
    // Written on the lost primary while it waited for an acknowledgement; nobody was told that they are there.
    let missing = missing(scene, scene.primary, scene.backup)?.len();
    let saved = summary["tables"]["app.writes"]["inserted"].as_u64().unwrap_or(0);
    ensure!(saved == u64::try_from(missing)?, "{missing} rows are extra, {saved} are saved: {summary}");
    let sql = std::fs::read_to_string(file)?;
    ensure!(sql.matches("INSERT INTO `app`.`stray`").count() == usize::try_from(STRAY_ROWS)?, "{file}");
    Ok(())
}

/// Rows of the writer that one node has and the other has not.
fn missing(scene: Scene<'_>, has: Port, has_not: Port) -> Result<BTreeSet<u64>> {
    let ids = |port| -> Result<BTreeSet<u64>> {
        Ok(database::contents(&scene.lab.host(port).mysql())?.into_keys().collect())
    };
    // In this order: the other one may get more meanwhile.
    let (has, has_not) = (ids(has)?, ids(has_not)?);
    Ok(has.difference(&has_not).copied().collect())
}

/// Gives the order at the other data node: any node takes it.
fn ended_with(scene: Scene<'_>, wanted: i32) -> Result<()> {
    let config = scene.lab.config.as_ref().context("only agents resync")?;
    let (code, said) = agents::resync(config, scene.backup, scene.primary)?;
    scene.lab.tell(&said);
    ensure!(code == wanted, "baton resync ended with {code}, not {wanted}: {said}");
    Ok(())
}

/// The node that is back has every row of the holder, and no other.
fn has_the_same(scene: Scene<'_>) -> Result<()> {
    let host = scene.lab.host(scene.primary);
    let there = missing(scene, scene.backup, scene.primary)?;
    wait::until_true("the copy to have everything", SAME_WITHIN, || {
        let ids = database::contents(&host.mysql())?;
        Ok(there.iter().all(|id| ids.contains_key(id)))
    })?;
    let extra = missing(scene, scene.primary, scene.backup)?;
    ensure!(extra.is_empty(), "{} rows are extra still", extra.len());
    Ok(())
}

/// In sync, with everything that the holder has and nothing else, and nothing left over.
fn is_a_copy(scene: Scene<'_>) -> Result<()> {
    ensure!(scene.lab.standing()?.in_sync, "the command has ended, and the ledger does not say in sync");
    has_the_same(scene)?;
    let host = scene.lab.host(scene.primary);
    let stray = database::value(
        &host.mysql(),
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='app' AND table_name='stray'",
    )?;
    ensure!(stray == "0", "the stray table is still there");
    let data = database::data_dir(&host.dir);
    ensure!(data.is_dir(), "no data in {}", data.display());
    nothing_is_left(&data)?;
    // Its newest report may be on the way to that node.
    wait::until_true("the witness to say so, too", SAME_WITHIN, || {
        let row = row(scene, Port::Mon)?;
        Ok(row["quarantine"].is_null() && row["resync"]["phase"] == "done")
    })
}
