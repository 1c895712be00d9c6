//! Is everything saved that is about to be replaced? Asked once more right before the database is stopped.
//!
//! A copy takes hours. Clients cannot write to this node meanwhile, but whoever may write to a read-only server can, and what came
//! after the export would be removed with the old data in the end. What comes between this look and the end of the server is not seen.

use anyhow::{anyhow, ensure};

use super::super::Context;
use super::STATEMENT;
use super::preflight::ask_holder;
use super::run::Job;
use crate::chain::chain;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::export::covers;

/// Whether the old data must be kept. What stands in place is the node's own if it `is_own`: otherwise its own data stand beside since
/// an earlier attempt, and are kept if that one did not know what they have.
///
/// # Errors
/// It has something that is not saved, or what the holder has is not known.
pub(super) async fn must_keep(
    context: &Context,
    mysql: &Mysql,
    job: &Job,
    is_own: bool,
) -> anyhow::Result<bool> {
    if job.keep || !is_own {
        return Ok(job.keep);
    }
    let had = match mysql.had(STATEMENT).await {
        Ok(had) => had,
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(error, "resync: nobody knows what came to this database since; its data are kept");
            return Ok(true);
        }
    };
    let is_saved = |extra: &str| covers(job.flavour, &job.saved, extra);
    if is_saved(&had.extra(&job.state)?)? {
        return Ok(false);
    }
    // What came from the holder itself since then is no loss. Asked after this node, or what is in flight is one.
    let offer = ask_holder(context, &job.from, job.epoch).await;
    let offer = offer.map_err(|why| anyhow!("what {} has is not known: {why}", job.from))?;
    let extra = had.extra(&offer.state)?;
    ensure!(is_saved(&extra)?, "{}", words(&extra, &job.saved));
    Ok(false)
}

/// Says what is there, and what to do.
fn words(extra: &str, saved: &str) -> String {
    let when = match saved {
        "" => "since the plan was made".to_owned(),
        saved => format!("and only {saved} were saved when the plan was made"),
    };
    format!(
        "this database has {extra}, which the holder lacks, {when}: somebody writes here. Order it again; its check `export` says \
         whether they are saved by then"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_came_and_what_to_do() {
        let later = words("0-1-12..14", "0-1-12..13");
        assert!(later.contains("has 0-1-12..14") && later.contains("only 0-1-12..13 were saved"), "{later}");
        let first = words("0-1-1..1", "");
        assert!(first.contains("since the plan was made") && first.contains("Order it again"), "{first}");
    }
}
