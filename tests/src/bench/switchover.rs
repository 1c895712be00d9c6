//! The write gap of a planned move: ours, and the usual script's, in the same lab with the same ten clients.
//!
//! One lab per system, one load over all of its moves, to and fro. The gap is the longest time without an acknowledgement
//! of any client from just before the move until the service is steady again. A client whose write failed tries another one
//! at once; what that does not mend before its next turn is counted as unserved.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_chaos::check::{Bounds, check};
use baton_chaos::history::{History, Kind, Origin, Outcome, Write};
use baton_chaos::load::{Load, LoadOptions};
use serde::Serialize;

use super::median;
use crate::lab::{
    DATA, Driver, Flavour, Lab, Options, Port, agents, database, redis, shell, target_dir, wait, wire,
};

/// Ten clients, 200 writes per second.
pub(super) const CLIENTS: u64 = 10;
pub(super) const PERIOD: Duration = Duration::from_millis(5);
/// How long a lab may take until a move can begin.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);
/// Moves begin at a random moment within this time.
const JITTER_MS: u64 = 1_500;
/// How long the load goes on after a move.
const AFTER: Duration = Duration::from_secs(1);

/// The measured gaps.
#[derive(Debug, Default, Serialize)]
pub struct Switchovers {
    unit: &'static str,
    /// Write gaps of MySQL, by system, milliseconds, in the order of the moves.
    pub series: BTreeMap<String, Vec<u64>>,
    /// The same of Redis.
    pub redis: BTreeMap<String, Vec<u64>>,
    /// Acknowledged writes that were lost, both kinds together, by system.
    pub lost_acknowledged: BTreeMap<String, usize>,
    /// Turns of clients during the moves in which no write was acknowledged, neither the first nor one that was tried again;
    /// both kinds together, by system.
    pub unserved: BTreeMap<String, usize>,
    /// The longest that one client waited between two acknowledged writes to MySQL, by system, milliseconds, the worst of all
    /// clients in each move. What is served to all together can leave one of them hanging.
    pub slowest_client: BTreeMap<String, Vec<u64>>,
    /// Milliseconds in which a move's command ran, by system.
    pub command_ms: BTreeMap<String, Vec<u64>>,
}

/// How a system moves the service away from a node.
type Pass = fn(&Lab, Port, Port) -> Result<()>;

/// Measures `runs` moves per system. `say` gets a line per move.
///
/// # Errors
/// A lab does not come up, or a move fails.
pub fn measure(runs: u32, mut say: impl FnMut(&str)) -> Result<Switchovers> {
    let mut all = Switchovers { unit: "ms", ..Switchovers::default() };
    let standard = Driver::Agents { profile: "standard".into() };
    let of = |driver: &Driver, flavour| Options { flavour, ..Options::plain(driver.clone()) };
    let command = pass_by_command as Pass;
    all.series_of("baton-mariadb", of(&standard, Flavour::Mariadb), command, runs, &mut say)?;
    if Flavour::Mysql.is_there() {
        all.series_of("baton-mysql", of(&standard, Flavour::Mysql), command, runs, &mut say)?;
    } else {
        say("skipped: no MySQL; `make mysql` fetches it");
    }
    let script = of(&Driver::Nobody, Flavour::Mariadb);
    all.series_of("script-mariadb", script, pass_by_script, runs, &mut say)?;
    Ok(all)
}

impl Switchovers {
    fn series_of(
        &mut self,
        name: &str,
        options: Options,
        pass: Pass,
        runs: u32,
        say: &mut impl FnMut(&str),
    ) -> Result<()> {
        let by_hand = options.driver == Driver::Nobody;
        let lab = Lab::up(options)?;
        if by_hand {
            lab.serve_by_hand(Port::Db1, true)?;
            lab.replicate_by_hand(Port::Db2)?;
        }
        let mut holder = ready(&lab)?;
        let origin = Origin::new();
        let load = Load::start(LoadOptions { clients: CLIENTS, period: PERIOD, ..lab.load(origin) })?;
        wait::pass(AFTER)?;
        let mut moves = Vec::new();
        for run in 1..=runs {
            ensure!(ready(&lab)? == holder, "the holder changed by itself");
            wait::pass(Duration::from_millis(rand::random::<u64>() % JITTER_MS))?;
            let to = if holder == Port::Db1 { Port::Db2 } else { Port::Db1 };
            let began_us = origin.now_us();
            pass(&lab, holder, to).with_context(|| format!("{name}, move {run}"))?;
            let took_ms = (origin.now_us() - began_us) / 1000;
            wait::pass(AFTER)?;
            moves.push((began_us, origin.now_us()));
            self.command_ms.entry(name.into()).or_default().push(took_ms);
            say(&format!("{name} move {run}: the command took {took_ms} ms"));
            holder = to;
        }
        let end_us = origin.now_us();
        let history = load.stop()?;
        let dir = target_dir().join("bench");
        std::fs::create_dir_all(&dir)?;
        history.save(&dir.join(format!("switchover-{name}.history.jsonl")))?;
        for (from_us, to_us) in &moves {
            let gap_ms = |kind| gap_us(&history, kind, *from_us, *to_us).div_ceil(1000);
            self.series.entry(name.into()).or_default().push(gap_ms(Kind::Mysql));
            self.redis.entry(name.into()).or_default().push(gap_ms(Kind::Redis));
            let slowest = slowest_client_us(&history, Kind::Mysql, *from_us, *to_us).div_ceil(1000);
            self.slowest_client.entry(name.into()).or_default().push(slowest);
            let unserved: usize =
                Kind::ALL.into_iter().map(|kind| unserved(&history, kind, *from_us, *to_us)).sum();
            *self.unserved.entry(name.into()).or_default() += unserved;
        }
        let bounds = Bounds { fault_us: 0, end_us, holder_changes: runs };
        let verdict = check(&history, &lab.contents(holder), bounds);
        ensure!(verdict.kinds.values().all(|kind| !kind.unread), "the contents could not be read");
        let lost = verdict.kinds.values().map(|kind| kind.lost.len()).sum();
        self.lost_acknowledged.insert(name.into(), lost);
        Ok(())
    }

    /// The table for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(
            "write gap of a planned move   median    min    max  ms   lost  unserved, both kinds\n",
        );
        for (kind, series) in [("mysql", &self.series), ("redis", &self.redis)] {
            for (system, each) in series {
                let (Some(min), Some(max), Some(median)) =
                    (each.iter().min(), each.iter().max(), median(each))
                else {
                    continue;
                };
                let lost = self.lost_acknowledged.get(system).copied().unwrap_or(0);
                let unserved = self.unserved.get(system).copied().unwrap_or(0);
                let _ = writeln!(
                    text,
                    "{system:<22} {kind:<6} {median:>8} {min:>6} {max:>6}      {lost:>5} {unserved:>9}"
                );
            }
        }
        for (system, each) in &self.slowest_client {
            if let (Some(min), Some(max), Some(median)) = (each.iter().min(), each.iter().max(), median(each))
            {
                let _ = writeln!(text, "{system:<22} slowest client of a move: {median} ms ({min} to {max})");
            }
        }
        text
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<PathBuf> {
        let dir = target_dir().join("bench");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("switchover.json");
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

/// Longest time without an acknowledgement between two instants.
fn gap_us(history: &History, kind: Kind, from_us: u64, to_us: u64) -> u64 {
    let of_kind = history.writes.iter().filter(|write| write.kind == kind);
    longest_us(of_kind, from_us, to_us)
}

/// The same for each client by itself, and the worst of them. A client has every tenth turn, and all attempts of a turn have its
/// intended time.
fn slowest_client_us(history: &History, kind: Kind, from_us: u64, to_us: u64) -> u64 {
    let mut turns: BTreeMap<u64, Vec<&Write>> = BTreeMap::new();
    for write in history.writes.iter().filter(|write| write.kind == kind) {
        turns.entry(write.intended_us).or_default().push(write);
    }
    let mut clients = vec![Vec::new(); usize::try_from(CLIENTS).expect("ten")];
    for (number, writes) in turns.into_values().enumerate() {
        let client = number % clients.len();
        clients[client].extend(writes);
    }
    clients.into_iter().map(|writes| longest_us(writes, from_us, to_us)).max().unwrap_or(to_us - from_us)
}

fn longest_us<'w>(writes: impl IntoIterator<Item = &'w Write>, from_us: u64, to_us: u64) -> u64 {
    let acknowledged = writes.into_iter().filter(|write| matches!(write.outcome, Outcome::Acknowledged));
    let mut acknowledged: Vec<u64> = acknowledged.map(|write| write.ended_us).collect();
    acknowledged.sort_unstable();
    // From the last one before the move on; a service that never came back was away until the end.
    let first = acknowledged.partition_point(|at| *at < from_us).saturating_sub(1);
    let within = acknowledged.iter().skip(first).copied().take_while(|at| *at <= to_us);
    let points: Vec<u64> = within.chain([to_us]).collect();
    points.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(to_us - from_us)
}

/// Turns between two instants in which no write was acknowledged. All attempts of a turn have its intended time.
fn unserved(history: &History, kind: Kind, from_us: u64, to_us: u64) -> usize {
    let mut turns: BTreeMap<u64, bool> = BTreeMap::new();
    for write in history.writes.iter().filter(|write| write.kind == kind) {
        if (from_us..to_us).contains(&write.intended_us) {
            *turns.entry(write.intended_us).or_default() |= matches!(write.outcome, Outcome::Acknowledged);
        }
    }
    turns.values().filter(|served| !**served).count()
}

/// Waits until a move can begin, and says who serves.
pub(super) fn ready(lab: &Lab) -> Result<Port> {
    wait::until("a system that is ready for a move", READY_WITHIN, || {
        if lab.config.is_some() {
            let standing = lab.standing()?;
            ensure!(standing.ok && standing.in_sync, "{}", standing.text);
            let serving = lab.serving()?;
            return Ok(serving.filter(|port| standing.holder == Some(*port)));
        }
        let Some(holder) = lab.serving()? else { return Ok(None) };
        let replica = DATA.into_iter().find(|port| *port != holder).context("two data nodes")?;
        let rows = database::query(&lab.host(replica).mysql(), lab.flavour().replica_status())?;
        let follows = rows.first().is_some_and(|row| lab.flavour().replicates(row));
        let redis = redis::replication(&lab.host(replica).redis(), "master_link_status")? == "up";
        Ok((follows && redis).then_some(holder))
    })
}

fn pass_by_command(lab: &Lab, from: Port, to: Port) -> Result<()> {
    let config = lab.config.as_ref().context("agents have a configuration")?;
    let _ = to;
    let (code, said) = agents::switchover(config, from)?;
    ensure!(code == 0, "{code}: {said}");
    Ok(())
}

/// What administrators type, in the order with the least gap: read-only, catch up, open, move the address, turn round.
/// Each statement is a connection of its own, as with a command-line client.
fn pass_by_script(lab: &Lab, from: Port, to: Port) -> Result<()> {
    let (old, new) = (lab.host(from), lab.host(to));
    let (old_netns, new_netns) = (lab.wire.netns(from), lab.wire.netns(to));
    let vip = format!("{}/24", wire::VIP);
    database::query(&old.mysql(), "SET GLOBAL read_only=1")?;
    redis::ask::<String>(&old.redis(), &["CONFIG", "SET", "min-replicas-to-write", "99"])?;
    let position = database::value(&old.mysql(), "SELECT @@global.gtid_binlog_pos")?;
    let reached = database::value(&new.mysql(), &format!("SELECT MASTER_GTID_WAIT('{position}', 10)"))?;
    ensure!(reached == "0", "the replica does not catch up");
    database::query(&new.mysql(), "STOP SLAVE")?;
    database::query(&new.mysql(), "SET GLOBAL read_only=0")?;
    redis::ask::<String>(&new.redis(), &["REPLICAOF", "NO", "ONE"])?;
    redis::ask::<String>(&new.redis(), &["CONFIG", "SET", "min-replicas-to-write", "0"])?;
    shell::run("ip", &["-n", &old_netns, "addr", "del", &vip, "dev", wire::INTERFACE])?;
    shell::run("ip", &["-n", &new_netns, "addr", "add", &vip, "dev", wire::INTERFACE])?;
    // Its exit code says whether somebody answered, and nobody does.
    let announce = ["-U", "-c", "1", "-I", wire::INTERFACE, &wire::VIP.to_string()].map(String::from);
    let _ = shell::finish(shell::inside(&new_netns, "arping").args(announce));
    // Connections that still lead to the old server are ended.
    let sessions = "SELECT id FROM information_schema.processlist WHERE user='app'";
    for row in database::query(&old.mysql(), sessions)? {
        let _ = database::query(&old.mysql(), &format!("KILL {}", row["id"]));
    }
    database::query(&old.mysql(), "SET GLOBAL rpl_semi_sync_master_enabled=0")?;
    database::query(&new.mysql(), "RESET SLAVE ALL")?;
    database::query(&old.mysql(), "SET GLOBAL gtid_slave_pos=@@global.gtid_binlog_pos")?;
    database::follow(Flavour::Mariadb, &old.mysql(), &to.address().to_string())?;
    database::query(&old.mysql(), "START SLAVE")?;
    redis::ask::<String>(&old.redis(), &["REPLICAOF", &to.address().to_string(), &redis::PORT.to_string()])?;
    database::query(&new.mysql(), "SET GLOBAL rpl_semi_sync_master_enabled=1").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(ended_us: u64) -> Write {
        Write {
            kind: Kind::Mysql,
            id: ended_us,
            intended_us: ended_us,
            started_us: ended_us,
            ended_us,
            outcome: Outcome::Acknowledged,
            server: None,
        }
    }

    #[test]
    fn the_gap_is_the_longest_pause_of_the_move() {
        let writes = [1_000, 2_000, 9_000, 10_000, 40_000].map(acknowledged).into();
        let history = History { writes, ..History::default() };
        assert_eq!(gap_us(&history, Kind::Mysql, 2_500, 11_000), 7_000);
        assert_eq!(gap_us(&history, Kind::Mysql, 10_500, 41_000), 30_000);
        assert_eq!(gap_us(&history, Kind::Mysql, 50_000, 90_000), 50_000, "it never came back");
    }

    #[test]
    fn one_client_that_hangs_is_seen_although_the_others_are_served() {
        let turn = |number: u64| {
            let ended_us = if number == 23 { 90_000 } else { number * 1_000 };
            Write { intended_us: number * 1_000, ..acknowledged(ended_us) }
        };
        let history = History { writes: (1..=100).map(turn).collect(), ..History::default() };
        assert_eq!(gap_us(&history, Kind::Mysql, 15_000, 95_000), 2_000);
        // Its turn before was the 13th, and the one after it was acknowledged while that one still waited.
        assert_eq!(slowest_client_us(&history, Kind::Mysql, 15_000, 95_000), 20_000);
    }

    #[test]
    fn a_turn_is_unserved_if_no_attempt_of_it_was_acknowledged() {
        let refused = |intended_us, ended_us| Write {
            intended_us,
            outcome: Outcome::Refused { error: "refused".into() },
            ..acknowledged(ended_us)
        };
        let again = |intended_us, ended_us| Write { intended_us, ..acknowledged(ended_us) };
        let writes = vec![
            refused(1_000, 1_100),
            again(1_000, 6_200),
            refused(2_000, 2_100),
            refused(2_000, 7_100),
            acknowledged(3_000),
            // Before the move, and of the other kind.
            refused(500, 600),
            Write { kind: Kind::Redis, ..refused(4_000, 4_100) },
        ];
        let history = History { writes, ..History::default() };
        assert_eq!(unserved(&history, Kind::Mysql, 1_000, 10_000), 1);
        assert_eq!(unserved(&history, Kind::Redis, 1_000, 10_000), 1);
    }
}
