//! The power of this node, cut by the site's own command: `drill.power_off`.
//!
//! The agent runs it with a time limit and cannot see whether it worked: if it did, there is no agent. The others see it.
//! Nothing here switches the node on again.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use baton_runbooks::ledger::DrillId;

use super::{Context, stands};
use crate::api::drill::FaultKind;
use crate::config::Hook;
use crate::hands::hooks::{self, HookEnd};

/// A power switch on the network answers within seconds; one that hangs must not be left to cut the power at any later time.
const CUT_WITHIN: Duration = Duration::from_secs(10);
/// What is kept of the command's words, characters.
const WORDS_MAX: usize = 400;

/// The command of this node.
///
/// # Errors
/// There is none, or its program is not there.
pub(super) fn hook(context: &Context) -> Result<&Hook, String> {
    let node = &context.config.node;
    let hook = context.config.drill.power_off.as_ref();
    let hook = hook.ok_or_else(|| {
        format!("{node} has no command that cuts its power; drill.power_off in its configuration names one")
    })?;
    let may_run = |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    if std::fs::metadata(&hook.program).is_ok_and(may_run) {
        Ok(hook)
    } else {
        Err(format!("{} of drill.power_off is no program on {node}", hook.program.display()))
    }
}

/// Runs the command after `pause`, in which the agent's last answer goes. That this node lives on is noted as the effect.
pub(super) async fn cut(context: Context, number: DrillId, hook: Hook, pause: Duration) {
    tokio::time::sleep(pause).await;
    // A drill that was ended in between leaves the power on.
    if !stands(&context, number, FaultKind::PowerOff) {
        return;
    }
    let hook = hooks::Hook { program: hook.program, args: hook.args };
    let node = context.config.node.to_string();
    let env =
        BTreeMap::from([("BATON_NODE".to_owned(), node), ("BATON_DRILL".to_owned(), number.to_string())]);
    let run = hooks::run(&hook, &env, CUT_WITHIN).await;
    let ended = match run.end {
        HookEnd::Exited { code } => format!("exited with {code}"),
        HookEnd::Signalled { signal } => format!("was ended by signal {signal}"),
        HookEnd::TimedOut { after_ms } => format!("was ended after {after_ms} ms"),
        HookEnd::NotStarted { detail } => format!("was not started: {detail}"),
    };
    let said: String = run.output.trim().chars().take(WORDS_MAX).collect();
    tracing::error!(program = %hook.program.display(), ended, said, "drill.power_off has ended, and this node lives");
    let mut fault = context.drills.fault();
    let state = fault.as_mut().map(|borne| &mut borne.note.state);
    if let Some(state) = state.filter(|state| state.drill == number && state.spec.kind == FaultKind::PowerOff)
    {
        state.effect = format!("drill.power_off {ended}, and the node lives: {said}");
    }
}
