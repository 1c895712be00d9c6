//! Everything that is looked at before this node's database is replaced, with what was seen.

use std::time::Duration;

use baton_runbooks::decide::switchover::Check;
use baton_runbooks::model::{Epoch, NodeId};
use baton_runbooks::observe::Flavour;

use super::super::Context;
use super::offer::{Offer, PROGRAM, clone_plugin, series, version_of};
use super::run::{self, Job};
use super::{Answered, Order, STATEMENT};
use crate::api::resync::{ResyncAnswer, ResyncPlan, ResyncPreflight, ResyncRequest};
use crate::chain::chain;
use crate::config::Mysql as MysqlConfig;
use crate::copy;
use crate::hands::mysql::datadir::DataDir;
use crate::hands::mysql::export::{Export, RowCounts};

/// Room beside the copy's own bytes: for its log, and for a database that grows meanwhile.
const SPARE_BYTES: u64 = 64 << 20;
/// Tables that the evidence names; the export's summary has all.
const TABLES_MAX: usize = 8;

/// The program that unpacks a copy.
const UNPACKER: &str = "mbstream";

/// Looks, and begins if the operator has seen the plan and it still holds.
pub(super) async fn ask(context: &Context, request: ResyncRequest) -> Answered<ResyncAnswer> {
    let looked = look(context).await;
    let Some(wanted) = request.plan else {
        return Ok(ResyncAnswer { preflight: looked.preflight, number: None });
    };
    let number = begin(context, &looked, &wanted, &request.by)?;
    Ok(ResyncAnswer { preflight: looked.preflight, number: Some(number) })
}

/// Begins without an operator, if nothing stands in its way; otherwise, what does.
pub(super) async fn begin_by_itself(context: &Context) -> Answered<u64> {
    let looked = look(context).await;
    match looked.preflight.plan.clone() {
        Some(plan) => begin(context, &looked, &plan, "mysql.resync = \"automatic\""),
        None => Err(failed(&looked)),
    }
}

fn failed(looked: &Looked) -> String {
    let failed = looked.preflight.checks.iter().filter(|check| !check.ok);
    failed.map(|check| format!("{}: {}", check.code, check.evidence)).collect::<Vec<_>>().join("; ")
}

fn begin(context: &Context, looked: &Looked, wanted: &ResyncPlan, by: &str) -> Answered<u64> {
    let (Some(plan), Some(offer)) = (&looked.preflight.plan, &looked.offer) else {
        return Err(failed(looked));
    };
    if !plan.is_same(wanted) {
        return Err("something has changed since the plan was made; look again".to_owned());
    }
    let (flavour, state) = (offer.flavour, offer.state.clone());
    let saved = plan.extra.clone().unwrap_or_default();
    let job = Job { from: plan.from.clone(), epoch: plan.epoch, flavour, state, saved, keep: looked.keep };
    tracing::warn!(by, from = %plan.from, extra = plan.extra, "resync: this node's database is replaced");
    run::start(context, plan, job).ok_or_else(|| "another resync of this node is under way".to_owned())
}

/// What was found.
struct Looked {
    preflight: ResyncPreflight,
    offer: Option<Offer>,
    /// Nobody knows what the old data have that the holder lacks: they are not removed.
    keep: bool,
}

/// Gathers checks.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn note(&mut self, code: &str, seen: Result<String, String>) {
        let ok = seen.is_ok();
        let evidence = match seen {
            Ok(text) | Err(text) => text,
        };
        self.0.push(Check { code: code.to_owned(), ok, evidence });
    }
}

/// Nothing of the kind is begun while an operator works on the machines.
fn not_paused(context: &Context) -> Result<String, String> {
    match &context.consensus.committed().borrow().ledger.pause {
        Some(pause) => Err(format!("pause {} is not over; `baton resume` ends it", pause.id)),
        None => Ok("no pause stands".to_owned()),
    }
}

async fn look(context: &Context) -> Looked {
    let config = &context.config;
    let me = &config.node;
    let mut checks = Checks::default();
    let nothing = |checks: Checks| Looked {
        preflight: ResyncPreflight { checks: checks.0, plan: None },
        offer: None,
        keep: false,
    };
    let (Some(mysql), true) = (&config.mysql, config.is_data_node()) else {
        checks.note("data-node", Err(format!("{me} has no database")));
        return nothing(checks);
    };
    checks.note("data-node", Ok(format!("{me} has its data in {}", mysql.data_dir.display())));
    let holder = holder(context);
    checks.note(
        "holder",
        holder
            .as_ref()
            .map(|(node, epoch)| format!("{node} holds the baton in epoch {epoch}"))
            .map_err(Clone::clone),
    );
    checks.note("not-paused", not_paused(context));
    checks.note("not-in-sync", not_in_sync(context));
    checks.note("idle", idle(context));
    checks.note("commands", commands(mysql));
    let Ok((from, epoch)) = holder else { return nothing(checks) };
    let offer = ask_holder(context, &from, epoch).await;
    checks.note(
        "holder-serves",
        offer.as_ref().map(|offer| format!("the database of {from} {}", offer.verdict)).map_err(Clone::clone),
    );
    let offer = offer.ok();
    if let Some(offer) = &offer {
        checks.note("programs", programs(context, &from, offer).await);
        checks.note("space", space(mysql, offer));
    }
    let (saved, extra, keep) = saved(context, offer.as_ref()).await;
    checks.note("export", saved);
    let is_ok = checks.0.iter().all(|check| check.ok);
    let plan = offer.as_ref().filter(|_| is_ok).map(|offer| ResyncPlan {
        steps: steps(me, &from, mysql, offer.flavour, keep),
        node: me.clone(),
        from,
        epoch,
        extra,
        bytes: offer.bytes,
    });
    Looked { preflight: ResyncPreflight { checks: checks.0, plan }, offer, keep }
}

fn holder(context: &Context) -> Result<(NodeId, Epoch), String> {
    let ledger = context.consensus.committed().borrow().ledger.clone();
    let me = &context.config.node;
    match &ledger.holder {
        Some(holder) if holder == me => {
            Err(format!("{me} holds the baton itself; what it has is what counts"))
        }
        Some(holder) => Ok((holder.clone(), ledger.epoch)),
        None => Err("nobody holds the baton, so there is nothing to copy".to_owned()),
    }
}

fn not_in_sync(context: &Context) -> Result<String, String> {
    let ledger = context.consensus.committed().borrow().ledger.clone();
    let me = &context.config.node;
    if let Some(run) = &ledger.run {
        return Err(format!("run {} is under way; wait for its end", run.id));
    }
    match ledger.in_sync.contains_key(me) {
        true => Err(format!("{me} is in sync: it has everything, and replacing it would gain nothing")),
        false => Ok(format!("{me} is not in sync, so no takeover counts on it")),
    }
}

fn idle(context: &Context) -> Result<String, String> {
    if context.resync.is_busy() {
        return Err("another resync is under way; `baton status` shows it".to_owned());
    }
    Ok(match context.resync.holds_back() {
        true => "an interrupted one is repeated from the start".to_owned(),
        false => "no other is under way".to_owned(),
    })
}

fn commands(mysql: &MysqlConfig) -> Result<String, String> {
    match (&mysql.start, &mysql.stop) {
        (Some(start), Some(stop)) => {
            Ok(format!("{} and {}", stop.program.display(), start.program.display()))
        }
        _ => {
            Err("the agent cannot stop and start the database; set mysql.stop and mysql.start, for instance \
                  [\"/usr/bin/systemctl\", \"stop\", \"mariadb\"], on every node, and restart the agents"
                .to_owned())
        }
    }
}

/// What a copy of the holder would be, by its own agent.
pub(super) async fn ask_holder(context: &Context, from: &NodeId, epoch: Epoch) -> Result<Offer, String> {
    let node = context.config.find(from).ok_or_else(|| format!("{from} is not in the configuration"))?;
    let address = context.config.copy_address(node);
    let asked = copy::order::<Answered<Offer>>(&context.tls, from, address, &Order::Offer { epoch }).await;
    asked
        .map_err(|error| format!("{}; is TCP port {} open there?", chain(&error), context.config.copy_port))?
}

async fn programs(context: &Context, from: &NodeId, offer: &Offer) -> Result<String, String> {
    match offer.flavour {
        Flavour::Mariadb => mariadb_programs(from, offer).await,
        Flavour::Mysql => mysql_plugins(context, from, offer).await,
    }
}

/// The local server receives the copy, so it must answer.
async fn mysql_plugins(context: &Context, from: &NodeId, offer: &Offer) -> Result<String, String> {
    offer.program.as_ref().map_err(Clone::clone)?;
    let me = &context.config.node;
    let mysql = context.hands.mysql.as_ref().ok_or_else(|| format!("{me} has no database"))?;
    let facts = mysql.facts(STATEMENT).await;
    let facts = facts.map_err(|error| {
        format!("the MySQL of {me} receives the copy and does not answer ({}); start it", chain(&error))
    })?;
    clone_plugin(mysql, me).await?;
    match (series(&offer.version), series(&facts.version)) {
        (Some(theirs), Some(own)) if theirs == own => {
            Ok(format!("both servers are of series {own} and have the clone plugin"))
        }
        _ => Err(format!(
            "the server of {from} is {}, that of {me} is {}; both must be of one series",
            offer.version, facts.version
        )),
    }
}

async fn mariadb_programs(from: &NodeId, offer: &Offer) -> Result<String, String> {
    let missing = |node: &str, why: &str| format!("{why}; install the package mariadb-backup on {node}");
    let theirs = offer.program.as_ref().map_err(|why| missing(from.as_str(), why))?;
    let own = version_of(PROGRAM).await.map_err(|why| missing("this node", &why))?;
    // It has no option that only says its version, but without input it ends at once.
    let unpacker = tokio::process::Command::new(UNPACKER).arg("--help").output().await;
    unpacker.map_err(|error| missing("this node", &format!("{UNPACKER}: {error}")))?;
    let all = [series(&offer.version), series(theirs), series(&own)];
    match &all {
        [Some(server), Some(one), Some(other)] if server == one && server == other => {
            Ok(format!("server and {PROGRAM} are of series {server} on both nodes"))
        }
        _ => Err(format!(
            "the server of {from} is {}, its program {theirs}, this node's {own}; all must be of one series",
            offer.version
        )),
    }
}

fn space(mysql: &MysqlConfig, offer: &Offer) -> Result<String, String> {
    let dir = DataDir::new(&mysql.data_dir);
    dir.check().map_err(|error| chain(&error))?;
    let free = dir.free_bytes().map_err(|error| chain(&error))?;
    let needed = offer.bytes.saturating_add(offer.bytes / 10).saturating_add(SPARE_BYTES);
    let text = format!(
        "{} MiB are needed beside {}, {} MiB are free",
        needed >> 20,
        dir.path().display(),
        free >> 20
    );
    if free >= needed { Ok(text) } else { Err(format!("{text}; make room")) }
}

/// Whether everything that is overwritten is saved; what that is; whether the old data must be kept beside that.
async fn saved(context: &Context, offer: Option<&Offer>) -> (Result<String, String>, Option<String>, bool) {
    if let Some((extra, export)) = context.ward.case() {
        // What the binary log has not is nowhere but in the old data.
        let keep = export.as_ref().is_some_and(|export| export.transactions == 0);
        let seen = match export {
            None => Err(format!(
                "{extra} are not saved yet; the agent tries again and again, and its log says why it cannot"
            )),
            Some(_) if keep => Ok(format!("the binary log has none of {extra}; the old data are kept")),
            Some(export) => Ok(contents(&export)),
        };
        return (seen, Some(extra), keep);
    }
    let unknown = |why: &str| {
        (
            Ok(format!(
                "nobody knows what this database has that the holder lacks ({why}); the old data are kept"
            )),
            None,
            true,
        )
    };
    let (Some(mysql), Some(offer)) = (&context.hands.mysql, offer) else {
        return unknown("the holder was not asked");
    };
    if context.resync.holds_back() {
        return match context.resync.keeps() {
            true => unknown("an earlier resync was interrupted"),
            false => (Ok("the interrupted resync knew that everything is saved".to_owned()), None, false),
        };
    }
    match mysql.extra_transactions(&offer.state, STATEMENT).await {
        Ok(extra) if extra.is_empty() => (Ok("it has nothing that the holder lacks".to_owned()), None, false),
        Ok(extra) => (
            Err(format!("{extra} are not saved yet; the agent is about to, look again in some seconds")),
            None,
            false,
        ),
        Err(error) => unknown(&chain(&error)),
    }
}

fn contents(export: &Export) -> String {
    let table = |(name, rows): (&String, &RowCounts)| {
        format!("{name} {} inserted, {} updated, {} deleted", rows.inserted, rows.updated, rows.deleted)
    };
    let mut tables: Vec<String> = export.tables.iter().take(TABLES_MAX).map(table).collect();
    if export.tables.len() > TABLES_MAX {
        tables.push(format!("and {} more tables", export.tables.len() - TABLES_MAX));
    }
    format!(
        "{} transactions are saved in {}: {}; {} statements",
        export.transactions,
        export.file.display(),
        tables.join("; "),
        export.statements
    )
}

fn steps(me: &NodeId, from: &NodeId, mysql: &MysqlConfig, flavour: Flavour, keep: bool) -> Vec<String> {
    let by = match flavour {
        Flavour::Mariadb => PROGRAM,
        Flavour::Mysql => "clone plugin",
    };
    let dir = DataDir::new(&mysql.data_dir);
    let old = match keep {
        true => "keep the old data".to_owned(),
        false => format!("remove the old data, {}", dir.before().display()),
    };
    vec![
        format!("copy the database of {from} into {} ({by})", dir.incoming().display()),
        "bring the copy to one moment, and to disk".to_owned(),
        format!("stop the database of {me}"),
        format!("move {} to {}, and the copy in its place", dir.path().display(), dir.before().display()),
        format!("start the database of {me}, read-only, and tell it its place"),
        format!("follow {from} until {me} is in sync"),
        old,
    ]
}

/// For how long a copy may catch up before the command leaves it to the agents. Sizes differ; nothing is lost by waiting.
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(3600);
