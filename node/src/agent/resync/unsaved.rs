//! Is everything saved that is about to be replaced? Asked once more right before the database is stopped.
//!
//! A copy takes hours. Clients cannot write to this node meanwhile, but whoever may write to a read-only server can, and what came
//! after the export would be removed with the old data in the end. What comes between this look and the end of the server is not seen.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use tokio::time::{Instant, sleep};

use super::super::Context;
use super::STATEMENT;
use super::preflight::ask_holder;
use super::run::{Job, is_still_held};
use crate::chain::chain;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::export::covers;
use crate::hands::mysql::replica::Had;

/// For so long the holder is asked again before hours of copying are thrown away. Its agent may be restarted for an upgrade, it may
/// have no lease for a moment after a change of the leader, and a transaction that waits there for its acknowledgement is here before
/// it counts as executed there.
const ASK_FOR: Duration = Duration::from_secs(30);
/// What this node had is looked at anew when the good answer came later than this.
const FRESH: Duration = Duration::from_secs(2);
/// How long after an answer it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whether the old data must be kept. What stands in place is the node's own if it `is_own`: otherwise its own data stand beside since
/// an earlier attempt, and are kept if that one did not know what they have.
///
/// # Errors
/// It has something that is not saved, or what the holder has is not known, also when that was asked for a while; or this node is not
/// to be replaced any more ([`is_still_held`]).
pub(super) async fn must_keep(
    context: &Context,
    mysql: &Mysql,
    job: &Job,
    is_own: bool,
) -> anyhow::Result<bool> {
    if job.keep || !is_own {
        return Ok(job.keep);
    }
    let until = Instant::now() + ASK_FOR;
    loop {
        let looked_at = Instant::now();
        let had = match mysql.had(STATEMENT).await {
            Ok(had) => had,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "resync: nobody knows what came to this database since; its data are kept"
                );
                return Ok(true);
            }
        };
        if covers(job.flavour, &job.saved, &had.extra(&job.state)?)? {
            return Ok(false);
        }
        // What came from the holder itself since then is no loss.
        let wanted = || is_still_held(context, job);
        settled(until, ASK_AGAIN, || holder_has(context, job, &had), wanted).await?;
        // An answer that had to be waited for says nothing of what came to this node meanwhile.
        if looked_at.elapsed() <= FRESH {
            return Ok(false);
        }
        if Instant::now() >= until {
            tracing::warn!(
                "resync: the holder answers too late to know what came to this database since; its data are kept"
            );
            return Ok(true);
        }
    }
}

/// What this node `had` is saved, or the holder has it too. Asked after this node, or what is in flight would count as extra.
async fn holder_has(context: &Context, job: &Job, had: &Had) -> anyhow::Result<()> {
    let offer = ask_holder(context, &job.from, job.epoch).await;
    let offer = offer.map_err(|why| anyhow!("what {} has is not known: {why}", job.from))?;
    let extra = had.extra(&offer.state)?;
    ensure!(covers(job.flavour, &job.saved, &extra)?, "{}", words(&extra, &job.saved));
    Ok(())
}

/// Asks until the answer is good. Fails with the newest answer at `until`, and at once when a good one is not `wanted` any more.
async fn settled<A>(
    until: Instant,
    again: Duration,
    mut ask: impl FnMut() -> A,
    wanted: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()>
where
    A: Future<Output = anyhow::Result<()>>,
{
    loop {
        let Err(why) = ask().await else { return Ok(()) };
        wanted()?;
        if Instant::now() >= until {
            return Err(why);
        }
        tracing::info!("resync: the holder is asked again: {why:#}");
        sleep(again).await;
    }
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
    use std::future::ready;

    use anyhow::bail;

    use super::*;

    const AGAIN: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_holder_that_is_away_for_a_moment_is_asked_again() {
        let later = Instant::now() + Duration::from_secs(3600);
        let mut answers =
            [Err(anyhow!("connection refused")), Err(anyhow!("it has no lease")), Ok(())].into_iter();
        let asked = settled(later, AGAIN, || ready(answers.next().unwrap()), || Ok(()));
        asked.await.unwrap();
        assert!(answers.next().is_none());
    }

    #[tokio::test]
    async fn it_is_asked_for_a_while_and_not_at_all_when_it_holds_no_more() {
        let mut asked = 0;
        let ask = || {
            asked += 1;
            ready(Err(anyhow!("answer {asked}")))
        };
        let end = settled(Instant::now() + 5 * AGAIN, AGAIN, ask, || Ok(())).await;
        assert_eq!(end.unwrap_err().to_string(), format!("answer {asked}"), "the newest");
        let later = Instant::now() + Duration::from_secs(3600);
        let refused = || ready(Err(anyhow!("db1 does not hold the baton")));
        let end = settled(later, AGAIN, refused, || bail!("a run is under way")).await;
        assert_eq!(end.unwrap_err().to_string(), "a run is under way");
    }

    #[test]
    fn it_is_said_what_came_and_what_to_do() {
        let later = words("0-1-12..14", "0-1-12..13");
        assert!(later.contains("has 0-1-12..14") && later.contains("only 0-1-12..13 were saved"), "{later}");
        let first = words("0-1-1..1", "");
        assert!(first.contains("since the plan was made") && first.contains("Order it again"), "{first}");
    }
}
