//! How each fault is injected, verified and healed.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Fault, Scene, back, command, forced, foreign, loading, paused, resync};
use crate::lab::wire::VIP;
use crate::lab::{Port, Traffic, agents, database, docker, process, shell, wait};

/// How long a fault may take to show.
const BITES_WITHIN: Duration = Duration::from_secs(10);
/// Repairs are made as soon as the kernel has said what is gone.
const REPAIRED_WITHIN: Duration = Duration::from_secs(5);
/// How long an agent may take to find the replica out of sync.
const BEHIND_WITHIN: Duration = Duration::from_secs(20);
/// How long a cluster may take to serve after its last node has started.
const SERVED_AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// What an agent is told whose driver is to hang.
const DRIVER_HANGS: &str = "driver:tick:hold";
/// How long a takeover may take to reach the step at which it is struck.
const STEP_WITHIN: Duration = Duration::from_secs(20);

#[expect(clippy::too_many_lines, reason = "a list: an arm per fault")]
pub(super) fn inject(fault: Fault, scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    let host = lab.host(primary);
    let wire = &lab.wire;
    match fault {
        Fault::PowerLoss => lab.power_off(primary),
        Fault::PowerReturn => resync::lose_power_in_commits(scene),
        Fault::AgentKill => host.process("agent")?.signal(Signal::SIGKILL),
        Fault::AgentFreeze => signal_driver(scene, Signal::SIGSTOP),
        Fault::DriverHang => lab.arm(primary, DRIVER_HANGS),
        Fault::HostFreeze => match process::signal_all(&wire.path(primary), Signal::SIGSTOP) {
            0 => bail!("the host has no process"),
            _ => Ok(()),
        },
        Fault::MysqldKill => host.process("mysqld")?.signal(Signal::SIGKILL),
        Fault::MysqldFreeze => host.process("mysqld")?.signal(Signal::SIGSTOP),
        Fault::RedisKill => host.process("redis")?.signal(Signal::SIGKILL),
        Fault::RedisLoading => loading::lose_the_primary(scene),
        Fault::ServiceGone => docker::ask(&host.dir, &["rm", "--force", docker::CONTAINER]).map(drop),
        Fault::DiskFull => fill(&filler(scene)),
        Fault::LinkDown => wire.carrier(primary, false),
        Fault::GatewayCut => wire.cut_both(primary, Port::Client, Traffic::All),
        Fault::PartitionPrimary | Fault::Resync | Fault::ResyncInterrupted | Fault::ResyncAutomatic => {
            isolate(scene)
        }
        Fault::PartitionPair => wire.cut_both(primary, backup, Traffic::All),
        Fault::OneWayIn => {
            wire.cut(backup, primary, Traffic::All)?;
            wire.cut(Port::Mon, primary, Traffic::All)
        }
        Fault::OneWayOut => {
            wire.cut(primary, backup, Traffic::All)?;
            wire.cut(primary, Port::Mon, Traffic::All)
        }
        Fault::PrimaryWitnessCut => wire.cut_both(primary, Port::Mon, Traffic::All),
        Fault::WitnessLoss => lab.power_off(Port::Mon),
        Fault::BackupLoss => lab.power_off(backup),
        Fault::ReplicaBehind => fall_behind(scene),
        Fault::LossAccepted => {
            fall_behind(scene)?;
            accept_loss(scene)
        }
        Fault::VipRemoved => wire.remove_address(primary, VIP),
        Fault::RulesFlushed => flush_rules(scene),
        Fault::VipForeignOwner => foreign::take_vip(scene),
        Fault::LeaderLossDuringTakeover => {
            let leader = lab.standing()?.leader.context("no leader")?;
            host.process("mysqld")?.signal(Signal::SIGKILL)?;
            at_the_step(scene)?;
            lab.power_off(leader)?;
            lab.disarm()
        }
        Fault::TargetCrashDuringTakeover => {
            lab.power_off(primary)?;
            at_the_step(scene)
        }
        Fault::TargetLossDuringTakeover => {
            isolate(scene)?;
            at_the_step(scene)?;
            lab.power_off(backup)?;
            wire.mend()
        }
        Fault::ClusterRestart => restart_cluster(scene),
        Fault::AgentsRestart => restart_agents(scene),
        Fault::Forced => forced::lose_two(scene),
        Fault::PausedQuorumLoss => paused::lose_quorum(scene),
        Fault::PausedAgentRestart => paused::restart_cut_off(scene),
        Fault::PausedPrimaryLoss => paused::lose_primary(scene),
        Fault::QuorumLoss => lab.power_off(backup).and_then(|()| lab.power_off(Port::Mon)),
        Fault::Switchover => command::pass_baton(scene),
        Fault::SwitchoverFails => command::pass_in_vain(scene),
        Fault::SwitchoverCrash => command::pass_through_a_crash(scene),
        Fault::SwitchoverBack => command::pass_there_and_back(scene),
        Fault::SwitchoverAborted => command::pass_and_abort(scene),
        Fault::PauseResume => command::pause_and_resume(scene),
        Fault::CommandsRefused => command::are_refused(scene),
        Fault::ResyncOrdered => command::resync(scene),
    }
}

/// Another program flushes every rule of the primary's host.
fn flush_rules(scene: Scene<'_>) -> Result<()> {
    let netns = scene.lab.wire.netns(scene.primary);
    let before = shell::finish(shell::inside(&netns, "nft").args(["list", "tables"]))?;
    ensure!(!before.trim().is_empty(), "the host has no nftables rules");
    shell::finish(shell::inside(&netns, "nft").args(["flush", "ruleset"])).map(drop)
}

/// All three lose power, and boot in each order, a second apart. Each time the old holder is to serve again.
fn restart_cluster(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    let (a, b, c) = (primary, backup, Port::Mon);
    for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        order.into_iter().try_for_each(|port| lab.power_off(port))?;
        for port in order {
            lab.power_on(port)?;
            wait::pass(Duration::from_secs(1))?;
        }
        wait::until_true(
            "the old holder to serve again, with a replica in sync",
            SERVED_AGAIN_WITHIN,
            || {
                let standing = lab.standing()?;
                Ok(standing.ok && standing.in_sync && lab.serving()? == Some(primary))
            },
        )
        .with_context(|| format!("started in the order {order:?}"))?;
    }
    Ok(())
}

/// Replication is cut until the ledger says so, and for a second of writes more; then the primary loses power.
fn fall_behind(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    lab.wire.cut_both(primary, backup, Traffic::Tcp(database::PORT))?;
    wait::until_true("the replica to be out of sync", BEHIND_WITHIN, || Ok(!lab.standing()?.in_sync))?;
    wait::pass(Duration::from_secs(1))?;
    lab.power_off(primary)
}

/// As an operator would, at the backup: too little is refused and changes nothing, all is granted.
fn accept_loss(scene: Scene<'_>) -> Result<()> {
    let config = scene.lab.config.as_ref().context("only agents are told what may be lost")?;
    wait::until_true("the loss of the primary to be known", BITES_WITHIN, || {
        Ok(agents::takeover(config, scene.backup, "any", &["--dry-run"])?.0 == 0)
    })?;
    let (code, said) = agents::takeover(config, scene.backup, "1ms", &["--yes", "--timeout", "4s"])?;
    ensure!(code == 2, "a loss beyond what is accepted ended with {code}: {said}");
    let (code, said) = agents::takeover(config, scene.backup, "any", &["--yes"])?;
    scene.lab.tell(&said);
    ensure!(code == 0, "baton takeover ended with {code}: {said}");
    Ok(())
}

/// Every agent ends; the primary's comes back only when the others wait for it.
fn restart_agents(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    [primary, backup, Port::Mon].into_iter().try_for_each(|port| lab.kill_driver(port))?;
    lab.start_driver(backup)?;
    lab.start_driver(Port::Mon)?;
    wait::until_true("the primary to be waited for", BITES_WITHIN, || {
        Ok(agents::reasons(
            lab.config.as_ref().context("agents")?,
            lab.standing()?.leader.context("no leader")?,
        )?
        .contains("cold-start"))
    })?;
    lab.start_driver(primary)
}

#[expect(clippy::too_many_lines, reason = "a list: an arm per fault")]
pub(super) fn verify(fault: Fault, scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    let host = lab.host(primary);
    match fault {
        Fault::PowerLoss | Fault::PowerReturn | Fault::ReplicaBehind | Fault::LossAccepted => {
            is_dark(scene, primary)
        }
        Fault::WitnessLoss => is_dark(scene, Port::Mon),
        Fault::BackupLoss | Fault::TargetLossDuringTakeover => is_dark(scene, backup),
        // The wait for the step was the proof.
        Fault::LeaderLossDuringTakeover | Fault::TargetCrashDuringTakeover => Ok(()),
        // The command's exit code, or the wait for what comes of it, was the proof.
        Fault::Switchover
        | Fault::SwitchoverBack
        | Fault::SwitchoverAborted
        | Fault::PauseResume
        | Fault::CommandsRefused
        | Fault::ResyncOrdered
        | Fault::ClusterRestart
        | Fault::AgentsRestart => Ok(()),
        Fault::SwitchoverFails | Fault::SwitchoverCrash => at_the_step(scene),
        Fault::QuorumLoss | Fault::PausedQuorumLoss => {
            is_dark(scene, backup)?;
            is_dark(scene, Port::Mon)
        }
        Fault::Forced => {
            is_dark(scene, primary)?;
            is_dark(scene, Port::Mon)
        }
        Fault::VipForeignOwner => {
            is_dark(scene, primary)?;
            foreign::is_reached(scene)
        }
        Fault::PausedPrimaryLoss => {
            is_dark(scene, primary)?;
            paused::nobody_takes_over(scene)
        }
        Fault::AgentKill | Fault::PausedAgentRestart => {
            let agent = host.process("agent")?;
            wait::until_true("the agent to be restarted", BITES_WITHIN, || {
                Ok(agent.starts() > scene.agent_starts)
            })
        }
        Fault::AgentFreeze => wait::until_true("the driver to stand still", BITES_WITHIN, || {
            Ok(drivers(scene).into_iter().all(|pid| process::state(pid) == Some('T')))
        }),
        Fault::DriverHang => wait::until_true("the driver to hang", BITES_WITHIN, || Ok(lab.has_struck())),
        Fault::HostFreeze => wait::until_true("the host to stand still", BITES_WITHIN, || {
            let pids = process::in_netns(&lab.wire.path(primary));
            Ok(!pids.is_empty()
                && pids.into_iter().all(|pid| process::state(pid).is_none_or(|state| state == 'T')))
        }),
        Fault::MysqldFreeze => {
            let mysqld = host.process("mysqld")?;
            wait::until_true("MySQL to stand still", BITES_WITHIN, || Ok(mysqld.state() == Some('T')))
        }
        Fault::MysqldKill => ended(scene, "mysqld"),
        Fault::RedisKill => ended(scene, "redis"),
        Fault::RedisLoading => loading::is_loading(scene),
        Fault::ServiceGone => {
            ensure!(docker::state(&host.dir).is_err(), "the container is still there");
            Ok(())
        }
        Fault::DiskFull => {
            let probe = host.dir.join("mysql/probe");
            let full =
                std::fs::write(&probe, [1; 65536]).is_err_and(|error| error.raw_os_error() == Some(28));
            let _ = std::fs::remove_file(probe);
            ensure!(full, "there is space left");
            Ok(())
        }
        Fault::LinkDown => {
            wait::until_true("the carrier to go", BITES_WITHIN, || Ok(!lab.wire.has_carrier(primary)?))
        }
        Fault::GatewayCut
        | Fault::PartitionPrimary
        | Fault::PartitionPair
        | Fault::OneWayIn
        | Fault::OneWayOut
        | Fault::PrimaryWitnessCut => wait::until_true("frames to be dropped", BITES_WITHIN, || {
            Ok(lab.wire.dropped()?.into_iter().any(|frames| frames > 0))
        }),
        Fault::Resync | Fault::ResyncInterrupted | Fault::ResyncAutomatic => resync::stray(scene),
        // Both were verified by the program that made them: it fails if there is nothing to remove.
        Fault::VipRemoved | Fault::RulesFlushed => Ok(()),
    }
}

/// Clients are served without the rules, too, so they are looked at; and status tells of each repair.
pub(super) fn repaired(fault: Fault, scene: Scene<'_>) -> Result<()> {
    let Some(config) =
        scene.lab.config.as_ref().filter(|_| matches!(fault, Fault::RulesFlushed | Fault::VipRemoved))
    else {
        return Ok(());
    };
    wait::until_true("status to tell of the repair", REPAIRED_WITHIN, || {
        let status = agents::ask(config, scene.primary, &["status"])?;
        Ok(status["lease"]["repairs"].as_u64().is_some_and(|repairs| repairs > 0))
    })?;
    if fault == Fault::VipRemoved {
        return Ok(());
    }
    let netns = scene.lab.wire.netns(scene.primary);
    wait::until_true("the agent to put its rules back", REPAIRED_WITHIN, || {
        let tables = shell::finish(shell::inside(&netns, "nft").args(["list", "tables"]))?;
        Ok(["netdev baton_vip", "inet baton_ports"].into_iter().all(|table| tables.contains(table)))
    })
}

pub(super) fn heal(fault: Fault, scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    match fault {
        // A host that was fenced meanwhile has nobody to thaw.
        Fault::AgentFreeze if process::in_netns(&lab.wire.path(primary)).is_empty() => Ok(()),
        Fault::AgentFreeze => signal_driver(scene, Signal::SIGCONT),
        Fault::DriverHang => lab.disarm(),
        Fault::HostFreeze => match process::signal_all(&lab.wire.path(primary), Signal::SIGCONT) {
            0 => bail!("the host has no process"),
            _ => Ok(()),
        },
        Fault::MysqldFreeze => thaw_mysqld(scene),
        Fault::DiskFull => make_room(scene),
        Fault::LinkDown => lab.wire.carrier(primary, true),
        Fault::GatewayCut
        | Fault::PartitionPrimary
        | Fault::PartitionPair
        | Fault::OneWayIn
        | Fault::OneWayOut
        | Fault::PrimaryWitnessCut => lab.wire.mend(),
        Fault::Forced => forced::come_back(scene),
        Fault::PausedQuorumLoss => {
            lab.power_on(Port::Mon)?;
            lab.power_on(backup)?;
            paused::end(scene)
        }
        Fault::PausedAgentRestart => {
            lab.wire.mend()?;
            paused::end(scene)
        }
        Fault::PowerReturn => resync::come_back_from_commits(scene),
        Fault::Resync => resync::come_back(scene),
        Fault::ResyncInterrupted => resync::come_back_twice(scene),
        Fault::ResyncAutomatic => resync::come_back_by_itself(scene),
        Fault::ReplicaBehind => {
            lab.wire.mend()?;
            lab.power_on(primary)
        }
        Fault::TargetLossDuringTakeover => lab.power_on(backup),
        Fault::BackupLoss => back::backup_returns(scene),
        Fault::VipForeignOwner => foreign::give_back_vip(scene),
        Fault::QuorumLoss => {
            lab.power_on(Port::Mon)?;
            lab.power_on(backup)
        }
        Fault::PowerLoss
        | Fault::PausedPrimaryLoss
        | Fault::AgentKill
        | Fault::ServiceGone
        | Fault::MysqldKill
        | Fault::RedisKill
        | Fault::RedisLoading
        | Fault::WitnessLoss
        | Fault::LossAccepted
        | Fault::ClusterRestart
        | Fault::AgentsRestart
        | Fault::LeaderLossDuringTakeover
        | Fault::TargetCrashDuringTakeover
        | Fault::Switchover
        | Fault::SwitchoverFails
        | Fault::SwitchoverCrash
        | Fault::SwitchoverBack
        | Fault::SwitchoverAborted
        | Fault::PauseResume
        | Fault::CommandsRefused
        | Fault::ResyncOrdered
        | Fault::VipRemoved
        | Fault::RulesFlushed => Ok(()),
    }
}

/// Cuts the primary off from both other nodes, not from clients.
pub(super) fn isolate(scene: Scene<'_>) -> Result<()> {
    scene.lab.wire.cut_both(scene.primary, scene.backup, Traffic::All)?;
    scene.lab.wire.cut_both(scene.primary, Port::Mon, Traffic::All)
}

/// The processes that decide on the primary: the agent, or keepalived and its child, a sentinel, Corosync.
fn drivers(scene: Scene<'_>) -> Vec<Pid> {
    let decides = |pid: &Pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        ["baton", "keepalived", "redis-sentinel", "corosync"].contains(&name.trim())
    };
    process::in_netns(&scene.lab.wire.path(scene.primary)).into_iter().filter(decides).collect()
}

fn signal_driver(scene: Scene<'_>, signal: Signal) -> Result<()> {
    let drivers = drivers(scene);
    ensure!(!drivers.is_empty(), "nobody decides on {}", scene.primary.name());
    drivers.into_iter().try_for_each(|pid| Ok(kill(pid, signal)?))
}

/// The agent may have killed it meanwhile, and was right.
fn thaw_mysqld(scene: Scene<'_>) -> Result<()> {
    let mysqld = scene.lab.host(scene.primary).process("mysqld")?;
    if mysqld.pid().is_some() { mysqld.signal(Signal::SIGCONT) } else { Ok(()) }
}

/// Waits until the agent of the target has died, or is held, at the step that the lab was told.
fn at_the_step(scene: Scene<'_>) -> Result<()> {
    wait::until_true("the run to reach the step", STEP_WITHIN, || Ok(scene.lab.has_struck()))
}

fn ended(scene: Scene<'_>, name: &str) -> Result<()> {
    let process = scene.lab.host(scene.primary).process(name)?;
    wait::until_true("the process to end", BITES_WITHIN, || Ok(process.pid().is_none()))
}

fn is_dark(scene: Scene<'_>, port: Port) -> Result<()> {
    let left = process::in_netns(&scene.lab.wire.path(port)).len();
    ensure!(left == 0, "{left} processes survive on {}", port.name());
    ensure!(!scene.lab.wire.has_carrier(port)?, "{} has a carrier", port.name());
    Ok(())
}

fn filler(scene: Scene<'_>) -> PathBuf {
    scene.lab.host(scene.primary).dir.join("mysql/filler")
}

/// MariaDB gives up when a rollback finds no space. A service manager starts it again.
fn make_room(scene: Scene<'_>) -> Result<()> {
    std::fs::remove_file(filler(scene))?;
    let is_gone = scene.lab.host(scene.primary).process("mysqld")?.pid().is_none();
    if is_gone { scene.lab.start_server(scene.primary, "mysqld") } else { Ok(()) }
}

/// Writes until no space is left.
fn fill(path: &PathBuf) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    // From large to small, so that nothing is left over.
    for size in [1 << 20, 4096, 1] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}
