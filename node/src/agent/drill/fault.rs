//! One fault of this node: armed, injected, healed. In this order always: its heal stands ready and was seen; the fault;
//! its effect is seen; the heal; that nothing is left is seen.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use baton_netops::sever::{self, Way};
use baton_runbooks::ledger::DrillId;
use jiff::Timestamp;

use super::warden::Warden;
use super::{Borne, Context, admit, container, power};
use crate::api::drill::{FaultKind, FaultPhase, FaultSpec, FaultState};
use crate::chain::chain;
use crate::drill::{FILLER, Note, disk, more_path, note_path, remove_filler};
use crate::hands::server::{self, ServerId, Watch};

/// A killed process is gone within milliseconds, unless it hangs in the kernel.
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// Agents talk several times a second, and a replica is sent what clients write: a severing drops something soon.
const DROPS_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// A watchdog heals at once when it is told to.
const HEALS_WITHIN: Duration = Duration::from_secs(5);
/// The agent's last answer must have gone before it is killed.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Left free at least, whatever is asked for: what the linter wants, held here too, for an order need not come from a file.
const LEAVE_MIB: u64 = 64;
/// A trickle if nothing else is asked for.
const TRICKLE_KIB: u32 = 4;
/// No drill writes a larger file.
const FILL_MAX: u64 = 64 << 30;

/// Makes the heal ready. Breaks nothing.
pub(super) async fn arm(context: &Context, number: DrillId, spec: FaultSpec) -> Result<(), String> {
    let _alone = context.drills.busy.lock().await;
    if context.drills.fault().as_ref().is_some_and(|borne| !borne.is_over()) {
        return Err("this node bears a fault already".to_owned());
    }
    admit::fault(context, number, &spec)?;
    context.drills.hear(number);
    let path = note_path(&context.config.state_dir);
    let mut note = Note {
        state: FaultState {
            drill: number,
            spec: spec.clone(),
            phase: FaultPhase::Armed,
            armed_at: Timestamp::now(),
            bit_at: None,
            shows_at: None,
            healed_at: None,
            heal: String::new(),
            effect: String::new(),
            healed: String::new(),
        },
        boot: server::boot_id().map_err(|e| format!("no boot id: {e}"))?,
        stopped: Vec::new(),
        filler: None,
        filler_bytes: 0,
        leave_bytes: 0,
        engine: None,
        containers: Vec::new(),
        more_stopped: None,
        watchdog: None,
    };
    aim(context, &mut note).await?;
    write(&note, &path).await?;
    let ready = make_ready(context, &mut note).await;
    let watchdog = match ready {
        Ok(watchdog) => watchdog,
        Err(why) => {
            let _ = disk(move || Note::remove(&path)).await;
            return Err(why);
        }
    };
    write(&note, &path).await?;
    note.state.armed_at = Timestamp::now();
    *context.drills.fault() = Some(Borne { note, ends: None, watchdog });
    Ok(())
}

async fn write(note: &Note, path: &std::path::Path) -> Result<(), String> {
    let (note, path) = (note.clone(), path.to_owned());
    disk(move || note.write(&path)).await.map_err(|e| format!("the note cannot be written: {e}"))
}

/// Bytes that a drill leaves free.
///
/// # Errors
/// It is asked for more than any disk has.
fn leave_bytes(asked_mib: Option<u64>) -> Result<u64, String> {
    let mib = asked_mib.unwrap_or(LEAVE_MIB).max(LEAVE_MIB);
    mib.checked_mul(1 << 20).ok_or_else(|| format!("no disk has {mib} MiB to leave free"))
}

/// Finds what is to be hit.
async fn aim(context: &Context, note: &mut Note) -> Result<(), String> {
    let config = &context.config;
    match note.state.spec.kind {
        FaultKind::MysqldFreeze => note.stopped = vec![mysqld(context).await?.to_string()],
        FaultKind::AgentFreeze => note.stopped = vec![own_id()?.to_string()],
        FaultKind::ContainerUnhealthy => {
            container::aim(context, note, more_path(&note_path(&config.state_dir))).await?;
        }
        FaultKind::ReplicaDiskFull => {
            let dir = &config.mysql.as_ref().ok_or("no MySQL")?.data_dir;
            let free = free_bytes(dir).await?;
            let leave = leave_bytes(note.state.spec.leave_mib)?;
            let bytes = free.saturating_sub(leave);
            if bytes == 0 || bytes > FILL_MAX {
                return Err(format!(
                    "{} MiB are free there; a drill fills 1 MiB to {} MiB",
                    free >> 20,
                    FILL_MAX >> 20
                ));
            }
            note.filler = Some(dir.join(FILLER));
            // The watchdog counts anew when it fills: what was free a minute ago may be taken.
            note.filler_bytes = bytes;
            note.leave_bytes = leave;
        }
        FaultKind::MysqldKill
        | FaultKind::RedisKill
        | FaultKind::AgentKill
        | FaultKind::ContainerKill
        | FaultKind::Partition
        | FaultKind::OneWay
        | FaultKind::ReplicationLag
        | FaultKind::PowerOff => {}
    }
    Ok(())
}

/// Starts the watchdog, or loads the rules; says in the note what ends the fault.
async fn make_ready(context: &Context, note: &mut Note) -> Result<Option<Warden>, String> {
    let spec = &note.state.spec;
    if Note::needs_watchdog(spec.kind) {
        let watchdog = Warden::start(&note_path(&context.config.state_dir)).await?;
        note.watchdog = Some(watchdog.id().to_string());
        note.state.heal =
            format!("the watchdog {} stands ready and heals after {} ms", watchdog.id(), spec.duration_ms);
        return Ok(Some(watchdog));
    }
    note.state.heal = match spec.kind {
        FaultKind::Partition | FaultKind::OneWay | FaultKind::ReplicationLag => {
            let trickle = spec.kib_per_second.unwrap_or(TRICKLE_KIB);
            let loaded = sever::prepare(context.config.copy_port, trickle).await;
            loaded.map_err(|error| chain(&error))?;
            format!(
                "table inet {} stands with nothing in it; each element gets a timeout of {} ms in the kernel",
                sever::DRILL_TABLE,
                spec.duration_ms
            )
        }
        FaultKind::MysqldKill | FaultKind::RedisKill => {
            "nothing stands: whoever supervises the server starts it again".to_owned()
        }
        FaultKind::AgentKill => "nothing stands: whoever supervises the agent starts it again".to_owned(),
        FaultKind::ContainerKill => "nothing stands: the holder's agent starts the service again".to_owned(),
        FaultKind::PowerOff => "nothing heals it: somebody switches the node on again".to_owned(),
        FaultKind::MysqldFreeze
        | FaultKind::AgentFreeze
        | FaultKind::ContainerUnhealthy
        | FaultKind::ReplicaDiskFull => String::new(),
    };
    Ok(None)
}

/// Injects what is armed, and sees that it bites.
pub(super) async fn inject(context: &Context, number: DrillId) -> Result<(), String> {
    let _alone = context.drills.busy.lock().await;
    let Some(mut borne) = context.drills.fault().take() else { return Err("nothing is armed".to_owned()) };
    let state = &borne.note.state;
    if state.phase != FaultPhase::Armed || state.drill != number {
        *context.drills.fault() = Some(borne);
        return Err(format!("no fault of drill {number} is armed"));
    }
    let spec = state.spec.clone();
    // An order that was long under way must not break anything when whoever gave it is gone.
    let may = admit::fault(context, number, &spec).and_then(|()| admit::alive(context, number));
    if let Err(why) = may {
        *context.drills.fault() = Some(borne);
        return Err(why);
    }
    borne.ends = Some(Instant::now() + Duration::from_millis(spec.duration_ms));
    borne.note.state.phase = FaultPhase::Biting;
    let bit = bite(context, &mut borne).await;
    match &bit {
        Ok(seen) => {
            borne.note.state.bit_at = Some(Timestamp::now());
            borne.note.state.effect.clone_from(seen);
        }
        // What was injected and did not bite is healed like what did.
        Err(why) => borne.note.state.effect = format!("not seen: {why}"),
    }
    let note = borne.note.clone();
    *context.drills.fault() = Some(borne);
    let noted = write(&note, &note_path(&context.config.state_dir)).await;
    if bit.is_ok() && spec.kind == FaultKind::ContainerUnhealthy {
        tokio::spawn(container::see(context.clone(), number, spec.service));
    }
    bit.map(drop).and(noted)
}

async fn bite(context: &Context, borne: &mut Borne) -> Result<String, String> {
    let spec = borne.note.state.spec.clone();
    match spec.kind {
        FaultKind::MysqldKill => killed(mysqld(context).await?).await,
        FaultKind::RedisKill => {
            let redis = context.hands.redis.as_ref().ok_or("no Redis")?;
            killed(redis.server_identity().await.map_err(|error| chain(&error))?).await
        }
        FaultKind::ContainerKill => {
            let services = context.hands.services.as_ref().ok_or("no service")?;
            let killed = services.kill(spec.service.as_deref()).await;
            let (name, count) = killed.map_err(|error| format!("{error:#}"))?;
            if count == 0 {
                return Err(format!("no container of {name} ran here: nothing was killed"));
            }
            Ok(format!("{count} of {name} killed; the engine says that nothing of it runs"))
        }
        FaultKind::AgentKill => {
            let own = own_id()?;
            let watch = Watch::open(own).map_err(|e| e.to_string())?.ok_or("this process is not found")?;
            tokio::spawn(async move {
                tokio::time::sleep(LAST_WORDS).await;
                let _ = watch.kill();
            });
            Ok(format!("{own} kills itself in {} ms", LAST_WORDS.as_millis()))
        }
        FaultKind::PowerOff => {
            let hook = power::hook(context)?.clone();
            let said = format!("{} cuts the power in {} ms", hook.program.display(), LAST_WORDS.as_millis());
            tokio::spawn(power::cut(context.clone(), borne.note.state.drill, hook, LAST_WORDS));
            Ok(said)
        }
        FaultKind::AgentFreeze => {
            let watchdog = borne.watchdog.as_mut().ok_or("no watchdog")?;
            watchdog.go().await?;
            Ok(format!("the watchdog stops {} in {} ms", own_id()?, LAST_WORDS.as_millis()))
        }
        FaultKind::MysqldFreeze | FaultKind::ContainerUnhealthy | FaultKind::ReplicaDiskFull => {
            let watchdog = borne.watchdog.as_mut().ok_or("no watchdog")?;
            watchdog.go().await?;
            let seen = watchdog.bites().await?;
            match &borne.note.filler {
                Some(filler) => Ok(format!("{seen}; {} MiB are free", free_bytes(filler).await? >> 20)),
                None => Ok(seen),
            }
        }
        FaultKind::Partition | FaultKind::OneWay | FaultKind::ReplicationLag => severed(context, &spec).await,
    }
}

async fn killed(id: ServerId) -> Result<String, String> {
    let watch =
        Watch::open(id).map_err(|e| e.to_string())?.ok_or_else(|| format!("{id} has ended before"))?;
    watch.kill().map_err(|e| e.to_string())?;
    match tokio::time::timeout(GONE_WITHIN, watch.exited()).await {
        Ok(Ok(())) => Ok(format!("the kernel says that {id} has ended")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{id} lives {} s after SIGKILL", GONE_WITHIN.as_secs())),
    }
}

async fn severed(context: &Context, spec: &FaultSpec) -> Result<String, String> {
    let address = |peer| context.config.find(peer).map(|node| node.address);
    let peers: Vec<IpAddr> = spec.peers.iter().filter_map(address).collect();
    let mysql_port = context.config.mysql.as_ref().map_or(0, |mysql| mysql.port);
    let ways: &[Way] = match spec.kind {
        FaultKind::OneWay => &[Way::To],
        FaultKind::ReplicationLag => &[Way::Trickle(mysql_port)],
        FaultKind::Partition
        | FaultKind::MysqldKill
        | FaultKind::MysqldFreeze
        | FaultKind::RedisKill
        | FaultKind::AgentKill
        | FaultKind::AgentFreeze
        | FaultKind::ContainerKill
        | FaultKind::ContainerUnhealthy
        | FaultKind::ReplicaDiskFull
        | FaultKind::PowerOff => &[Way::From, Way::To],
    };
    let both: Vec<(IpAddr, Way)> =
        peers.iter().flat_map(|peer| ways.iter().map(|way| (*peer, *way))).collect();
    sever::sever(&both, Duration::from_millis(spec.duration_ms)).map_err(|error| chain(&error))?;
    let until = Instant::now() + DROPS_WITHIN;
    loop {
        let dropped = sever::dropped().await.map_err(|error| chain(&error))?;
        if dropped > 0 {
            return Ok(format!("{dropped} packets were dropped"));
        }
        if Instant::now() >= until {
            return Err(format!("no packet was dropped within {} s", DROPS_WITHIN.as_secs()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Heals what this node bears, and sees that nothing is left. Nothing borne: nothing to do.
pub(super) async fn heal(context: &Context, why: &str) -> Result<(), String> {
    let _alone = context.drills.busy.lock().await;
    let Some(mut borne) = context.drills.fault().take() else { return Ok(()) };
    if borne.is_over() {
        *context.drills.fault() = Some(borne);
        return Ok(());
    }
    let healed = undo(context, &mut borne).await;
    let state = &mut borne.note.state;
    match &healed {
        Ok(seen) => {
            state.phase = FaultPhase::Healed;
            state.healed_at = Some(Timestamp::now());
            state.healed = format!("{why}; {seen}");
            tracing::warn!(kind = %state.spec.kind, why, seen, "the fault of a drill is healed");
            let path = note_path(&context.config.state_dir);
            let _ = disk(move || Note::remove(&path)).await;
        }
        Err(left) => {
            state.phase = FaultPhase::Stuck;
            state.healed = format!("{why}; {left}");
            tracing::error!(kind = %state.spec.kind, why, left, "the fault of a drill is not healed yet");
        }
    }
    *context.drills.fault() = Some(borne);
    healed.map(drop)
}

async fn undo(context: &Context, borne: &mut Borne) -> Result<String, String> {
    let was_armed = borne.note.state.phase == FaultPhase::Armed;
    let kind = borne.note.state.spec.kind;
    if let Some(watchdog) = borne.watchdog.take() {
        let _ = borne.note.wake_watchdog();
        // It was told already, or ends when its input does; what it leaves is healed below.
        let _ = tokio::time::timeout(HEALS_WITHIN, watchdog.ended()).await;
    }
    let note = borne.note.clone();
    let seen = disk(move || note.heal().map_err(std::io::Error::other)).await.map_err(|e| e.to_string())?;
    // Whatever the note says: a crash of the host may have lost one.
    if let Some(data_dir) = context.config.mysql.as_ref().map(|mysql| mysql.data_dir.clone()) {
        let removed = disk(move || remove_filler(&data_dir.join(FILLER))).await;
        removed.map_err(|e| format!("{FILLER} cannot be removed: {e}"))?;
    }
    match kind {
        FaultKind::Partition | FaultKind::OneWay | FaultKind::ReplicationLag => {
            sever::mend().await.map_err(|error| chain(&error))?;
            match sever::severed_for().map_err(|error| chain(&error))? {
                None => Ok(format!("table inet {} is gone", sever::DRILL_TABLE)),
                Some(left) => Err(format!("peers are severed for {} ms more", left.as_millis())),
            }
        }
        _ if was_armed => Ok("it was never injected".to_owned()),
        FaultKind::MysqldKill => Ok(match mysqld(context).await {
            Ok(id) => format!("the server runs as {id}"),
            Err(why) => format!("nothing of the drill is left; the server was not started again: {why}"),
        }),
        FaultKind::RedisKill => Ok("nothing of the drill is left".to_owned()),
        FaultKind::ContainerKill => Ok("nothing of the drill is left".to_owned()),
        FaultKind::AgentKill => Ok("the agent was not killed".to_owned()),
        FaultKind::PowerOff => Ok("the power was not cut".to_owned()),
        FaultKind::MysqldFreeze
        | FaultKind::AgentFreeze
        | FaultKind::ContainerUnhealthy
        | FaultKind::ReplicaDiskFull => Ok(seen),
    }
}

/// What of drills is left on this node: in its kernel, on its disks.
pub(super) async fn leftovers(context: &Context) -> Vec<String> {
    let bears = context.drills.fault().as_ref().is_some_and(|borne| !borne.is_over());
    if bears {
        return Vec::new();
    }
    let mut left = Vec::new();
    match sever::severed_for() {
        Ok(None) => {}
        Ok(Some(span)) => left.push(format!("peers are severed for {} ms more", span.as_millis())),
        Err(error) => left.push(chain(&error)),
    }
    let filler = context.config.mysql.as_ref().map(|mysql| mysql.data_dir.join(FILLER));
    let note = note_path(&context.config.state_dir);
    let looked = disk(move || {
        let filler = filler.filter(|path| path.exists());
        let filler = filler.map(|path| format!("{} fills the disk", path.display()));
        let note = note.exists().then(|| format!("{} is there", note.display()));
        Ok(filler.into_iter().chain(note).collect::<Vec<_>>())
    });
    match looked.await {
        Ok(seen) => left.extend(seen),
        Err(error) => left.push(format!("what is left on the disk cannot be seen: {error}")),
    }
    left
}

async fn mysqld(context: &Context) -> Result<ServerId, String> {
    let socket = &context.config.mysql.as_ref().ok_or("no MySQL")?.socket;
    server::listener(socket).await.map_err(|error| format!("nobody listens at {}: {error}", socket.display()))
}

fn own_id() -> Result<ServerId, String> {
    let pid = i32::try_from(std::process::id()).map_err(|e| e.to_string())?;
    server::of_pid(pid).map_err(|e| e.to_string())
}

/// Bytes that a database may still use in the file system of `path`.
async fn free_bytes(path: &std::path::Path) -> Result<u64, String> {
    let asked = path.to_owned();
    let free = disk(move || crate::drill::free_bytes(&asked)).await;
    free.map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_fills_a_disk_to_the_brim() {
        for asked in [None, Some(0), Some(63)] {
            assert_eq!(leave_bytes(asked), Ok(64 << 20), "{asked:?}");
        }
        assert_eq!(leave_bytes(Some(100)), Ok(100 << 20));
        assert!(leave_bytes(Some(1 << 44)).is_err());
    }
}
