//! `baton rejoin`: says what keeps a node from being attached. One that was given up by a force comes back as a new member.
//!
//! Any node takes it. The node's own agent is asked how it stands, and puts its log aside when that is ordered.

use std::time::Duration;

use baton_runbooks::model::{Generation, NodeId};
use serde::Serialize;

use super::run::is_confirmed;
use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::alarm::AlarmCode;
use crate::api::client::{Client, ClientError};
use crate::api::force::{RejoinAnswer, RejoinRequest};
use crate::api::types::{ErrorCode, NodeRow, Role, Status};
use crate::api::view::away;
use crate::config::Ms;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `baton rejoin`.
#[derive(Debug, clap::Args)]
pub(super) struct RejoinArgs {
    /// The node [default: the one that is asked]
    #[arg(value_name = "NODE")]
    which: Option<String>,
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to wait until it is a member again
    #[arg(long, default_value = "1m", value_name = "SPAN")]
    timeout: Ms,
    /// Your name, for the log
    #[arg(long, default_value = "operator")]
    by: String,
}

/// What `--output json` prints, whatever came of it. Fields may be added.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// The node.
    node: &'a NodeId,
    /// It is attached, needs not be, or is a member again.
    ok: bool,
    /// The same in words; with `--dry-run`, what would be done.
    says: &'a str,
    /// Where its log stands, as its own agent says; `None`: it could not be asked.
    log: Option<&'a RejoinAnswer>,
}

pub(super) fn run(global: &Global, args: &RejoinArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let output = global.output;
    let status = block_on(client.status())??;
    let node = args.which.as_deref().map_or_else(|| status.node.clone(), NodeId::from);
    let Some(row) = status.nodes.iter().find(|row| row.name == node) else {
        return Err(Failure::new(Exit::Usage, format!("there is no node {node}")));
    };
    let look = RejoinRequest { node: node.clone(), by: args.by.clone(), generation: None };
    match block_on(client.rejoin(&look))? {
        Ok(seen) if seen.forked => {
            let problem = seen.problem.as_deref().unwrap_or("two survivors were forced to one generation");
            tell(output, &node, Exit::Refused, &format!("{node} says: {problem}"), Some(&seen))
        }
        Ok(seen) if seen.outranked => put_aside(&client, args, output, &look, &seen),
        Ok(seen) => {
            let (exit, says) = standing(&status, row);
            tell(output, &node, exit, &says, Some(&seen))
        }
        // Its reports are enough to say why it is not attached, but not for a node whose own log does not count.
        Err(error) if node == status.node || is_outranked(&status) => Err(error.into()),
        Err(error) => {
            let (exit, says) = standing(&status, row);
            let says = if exit == Exit::Done { says } else { format!("{says}. {error}") };
            tell(output, &node, exit, &says, None)
        }
    }
}

fn is_outranked(status: &Status) -> bool {
    status.alarms.iter().any(|alarm| alarm.code == AlarmCode::Outranked.as_str())
}

/// For programs on standard output; what is refused is complained about as well, as by every verb.
fn tell(
    output: Output,
    node: &NodeId,
    exit: Exit,
    says: &str,
    log: Option<&RejoinAnswer>,
) -> Result<Exit, Failure> {
    match output {
        Output::Json => screen::say(&screen::json(&Answer { node, ok: exit == Exit::Done, says, log })?)?,
        Output::Table if exit == Exit::Done => screen::complain(&wrap(says)),
        Output::Table => {}
    }
    if exit == Exit::Done { Ok(exit) } else { Err(Failure::new(exit, wrap(says))) }
}

fn put_aside(
    client: &Client,
    args: &RejoinArgs,
    output: Output,
    look: &RejoinRequest,
    seen: &RejoinAnswer,
) -> Result<Exit, Failure> {
    let node = &look.node;
    let plan = format!(
        "{node}'s Raft log is put aside, beside the new one; nothing in it counts any more. Its database is not touched: what it \
         has extra is saved before anything is done with it."
    );
    match output {
        Output::Table => {
            if let Some(problem) = &seen.problem {
                screen::complain(&wrap(&format!("{node} says: {problem}")));
            }
            screen::complain(&wrap(&plan));
        }
        Output::Json if args.dry_run => {
            screen::say(&screen::json(&Answer { node, ok: false, says: &plan, log: Some(seen) })?)?;
        }
        Output::Json => {}
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    let order = RejoinRequest { generation: Some(seen.generation), ..look.clone() };
    match block_on(client.rejoin(&order))? {
        Ok(_) => {}
        // Whether it was heard shows in what becomes of the node.
        Err(error) if is_passing(&error) => {
            screen::complain(&format!("{error}; looking whether it was heard"))
        }
        Err(error) => return Err(error.into()),
    }
    let patience = args.timeout.duration();
    let Some(now) = block_on(comes_back(client, look, seen.generation, patience))?? else {
        let says = format!("{node} is not a member yet; `baton status` says what is awaited");
        return tell(output, node, Exit::TimedOut, &says, Some(seen));
    };
    let sentence = block_on(client.status())?.map_or_else(|_| String::new(), |status| status.sentence);
    let says = format!("{node} is a member again. {sentence}");
    tell(output, node, Exit::Done, &says, Some(&now))
}

/// Looks until the node is a member again, while its agent may be away; `None`: it did not come to be so in time.
async fn comes_back(
    client: &Client,
    look: &RejoinRequest,
    before: Generation,
    patience: Duration,
) -> Result<Option<RejoinAnswer>, Failure> {
    let looked = tokio::time::timeout(patience, async {
        loop {
            match client.rejoin(look).await {
                Ok(now) if is_member(&now, before) => return Ok(Some(now)),
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(Failure::from(error)),
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    looked.await.unwrap_or(Ok(None))
}

/// It votes in a generation above that of the log that was put aside.
fn is_member(now: &RejoinAnswer, before: Generation) -> bool {
    now.generation > before && now.leader.is_some() && now.problem.is_none()
}

/// The node's agent restarts, here or there.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Denied { .. } | ClientError::Decode { .. } => false,
        ClientError::Answered { body, .. } => match body.code {
            ErrorCode::NoQuorum | ErrorCode::TimedOut | ErrorCode::Busy | ErrorCode::Stopping => true,
            ErrorCode::NotFound | ErrorCode::BadRequest | ErrorCode::Refused => false,
        },
    }
}

/// Why a node is not attached, and what to do; it attaches by itself if nothing stands in its way.
fn standing(status: &Status, row: &NodeRow) -> (Exit, String) {
    let node = &row.name;
    let holder = status.holder.as_ref().map_or("the holder", NodeId::as_str);
    if row.silent {
        return (
            Exit::Refused,
            format!("{node} is not heard: start its agent, or mend its network; it rejoins by itself"),
        );
    }
    match row.role {
        Role::Holder => (Exit::Done, format!("{node} holds the baton; there is nothing to rejoin")),
        Role::Witness if row.obstacles.is_empty() => {
            (Exit::Done, format!("{node} is there; it has no data to attach"))
        }
        Role::Replica if row.obstacles.is_empty() => {
            (Exit::Done, format!("{node} is attached: it follows {holder}"))
        }
        Role::Closed if row.obstacles.is_empty() => (Exit::Refused, away::closed(row, holder)),
        Role::Witness | Role::Replica | Role::Closed | Role::Unknown => (Exit::Refused, stands(row)),
    }
}

fn stands(row: &NodeRow) -> String {
    format!("{} cannot be attached: {}", row.name, row.obstacles.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ErrorBody;

    #[test]
    fn it_is_back_when_it_votes_under_a_leader_of_a_higher_generation() {
        let before = Generation(0);
        let back = RejoinAnswer {
            generation: Generation(1),
            outranked: false,
            forked: false,
            leader: Some("db2".into()),
            problem: None,
            ordered: false,
        };
        assert!(is_member(&back, before));
        assert!(!is_member(&back, Generation(1)), "nothing has changed");
        assert!(!is_member(&RejoinAnswer { leader: None, ..back.clone() }, before));
        let learns = Some("this node's log is new".to_owned());
        assert!(!is_member(&RejoinAnswer { problem: learns, ..back }, before));
    }

    #[test]
    fn an_agent_that_restarts_is_waited_for_and_a_refusal_is_not() {
        let answered = |code| {
            let body = ErrorBody { code, message: String::new(), way_out: String::new() };
            is_passing(&ClientError::Answered { status: 503, body })
        };
        for code in [ErrorCode::NoQuorum, ErrorCode::TimedOut, ErrorCode::Busy, ErrorCode::Stopping] {
            assert!(answered(code), "{code:?}");
        }
        for code in [ErrorCode::NotFound, ErrorCode::BadRequest, ErrorCode::Refused] {
            assert!(!answered(code), "{code:?}");
        }
        assert!(is_passing(&ClientError::NoAgent { socket: "/x".into(), reason: "nobody listens there" }));
        assert!(!is_passing(&ClientError::Denied { socket: "/x".into() }));
    }

    #[test]
    fn programs_are_told_the_same_as_people() {
        let log = RejoinAnswer {
            generation: Generation(1),
            outranked: false,
            forked: false,
            leader: Some("db2".into()),
            problem: None,
            ordered: false,
        };
        let node = NodeId::from("db1");
        let answer = Answer { node: &node, ok: true, says: "db1 is attached", log: Some(&log) };
        let wanted = serde_json::json!({
            "node": "db1", "ok": true, "says": "db1 is attached",
            "log": {
                "generation": 1, "outranked": false, "forked": false, "leader": "db2", "problem": null, "ordered": false,
            },
        });
        assert_eq!(serde_json::to_value(&answer).unwrap(), wanted);
        // The code is the same in either form.
        for output in [Output::Json, Output::Table] {
            let told = |exit| tell(output, &node, exit, "db1 is not heard", None);
            assert_eq!(told(Exit::Done).unwrap(), Exit::Done);
            assert_eq!(told(Exit::Refused).unwrap_err().exit, Exit::Refused);
        }
    }

    #[test]
    fn a_node_that_is_away_is_named_with_the_way_out() {
        let status = crate::api::sample::healthy();
        let row = |name: &str| status.nodes.iter().find(|row| row.name == NodeId::from(name)).unwrap();
        assert_eq!(standing(&status, row("db1")).0, Exit::Done);
        let away = NodeRow { silent: true, ..row("db2").clone() };
        let (exit, text) = standing(&status, &away);
        assert_eq!(exit, Exit::Refused);
        assert!(text.contains("db2 is not heard: start its agent"), "{text}");
    }
}
