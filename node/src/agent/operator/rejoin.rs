//! An operator lets a node come back whose log is of a lower generation than the cluster's.
//!
//! Its own agent answers and obeys, whichever agent is asked: orders have a port of their own, and so reach a node that has no part
//! in the cluster's Raft. The log is put aside by consensus when it starts the next time, so that agent ends.

use baton_consensus::force;

use super::force::end_soon;
use crate::agent::Context;
use crate::agent::resync::{self, Order};
use crate::api::force::{RejoinAnswer, RejoinRequest};
use crate::api::server::CommandError;

/// Looked at and ordered here, or passed on to the node's own agent.
pub(super) async fn ask(context: &Context, request: RejoinRequest) -> Result<RejoinAnswer, CommandError> {
    let refused = |reason: String| CommandError::Refused { reason };
    if request.node == context.config.node {
        return serve(context, &request).map_err(refused);
    }
    let Some(found) = context.config.find(&request.node) else {
        return Err(refused(format!("{} is not the name of a node", request.node)));
    };
    resync::pass_on(context, found, &Order::Rejoin { request }).await
}

/// How this node stands; with a generation, its log is put aside.
pub(in crate::agent) fn serve(context: &Context, request: &RejoinRequest) -> Result<RejoinAnswer, String> {
    let me = &context.config.node;
    if request.node != *me {
        return Err(format!("this is {me}, not {}", request.node));
    }
    let standing = context.consensus.standing().borrow().clone();
    let seen = RejoinAnswer {
        generation: context.consensus.committed().borrow().ledger.generation,
        outranked: standing.outranked,
        forked: standing.forked,
        leader: standing.leader,
        problem: standing.problem,
        ordered: false,
    };
    if request.generation.is_none() {
        return Ok(seen);
    }
    if let Some(why) = objection(request, &seen) {
        return Err(why);
    }
    tracing::warn!(by = request.by, "this node is asked to come back as a new member");
    force::ask_to_rejoin(&context.config.state_dir)
        .map_err(|error| format!("the order cannot be written: {error}"))?;
    end_soon();
    Ok(RejoinAnswer { ordered: true, ..seen })
}

/// Only a log of a lower generation is put aside, and only the one that the operator saw. Of two survivors of one generation neither
/// is: with both logs gone nobody would know any more what was decided.
fn objection(request: &RejoinRequest, seen: &RejoinAnswer) -> Option<String> {
    if seen.forked {
        return Some(format!(
            "{} and another node were both forced to generation {}: decide which one goes on, and run `baton force` on it with all \
             others stopped; then the others rejoin",
            request.node, seen.generation
        ));
    }
    if !seen.outranked {
        return Some(format!(
            "the log of {} is not of a lower generation; it rejoins by itself",
            request.node
        ));
    }
    (request.generation != Some(seen.generation)).then(|| "something has changed since you looked".to_owned())
}

#[cfg(test)]
mod tests {
    use baton_runbooks::model::Generation;

    use super::*;

    #[test]
    fn only_the_log_that_was_seen_is_put_aside_and_only_an_outranked_one() {
        let ordered = |generation| RejoinRequest {
            node: "db1".into(),
            by: "ann".to_owned(),
            generation: Some(Generation(generation)),
        };
        let old = RejoinAnswer {
            generation: Generation(1),
            outranked: true,
            forked: false,
            leader: None,
            problem: Some("db2 says that the cluster was forced".to_owned()),
            ordered: false,
        };
        assert_eq!(objection(&ordered(1), &old), None);
        assert!(objection(&ordered(0), &old).is_some_and(|why| why.contains("changed")));
        assert!(objection(&ordered(2), &old).is_some_and(|why| why.contains("changed")));
        let forked = RejoinAnswer { forked: true, ..old.clone() };
        assert!(objection(&ordered(1), &forked).is_some_and(|why| why.contains("`baton force`")));
        let sound = RejoinAnswer { outranked: false, ..old };
        assert!(objection(&ordered(1), &sound).is_some_and(|why| why.contains("rejoins by itself")));
    }
}
