//! Hooks, with real programs.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use baton_node::hands::hooks::{BadHook, Hook, HookEnd, OUTPUT_MAX, run};
use support::eventually;

const D: Duration = Duration::from_secs(30);

/// The tests' hooks are scripts; the hand itself runs no shell.
fn script(text: &str) -> Hook {
    Hook::new(&["/bin/sh", "-c", text].map(str::to_owned)).unwrap()
}

fn env() -> BTreeMap<String, String> {
    BTreeMap::from([("BATON_EPOCH".into(), "7".into()), ("BATON_RUN".into(), "3".into())])
}

fn is_gone(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[tokio::test]
async fn status_output_and_environment() {
    let done = run(&script("echo out; echo err >&2; env | sort; exit 3"), &env(), D).await;
    assert_eq!(done.end, HookEnd::Exited { code: 3 });
    assert!(!done.is_success() && !done.is_cut);
    for line in ["out", "err", "BATON_EPOCH=7", "BATON_RUN=3"] {
        assert!(done.output.lines().any(|have| have == line), "{}", done.output);
    }
    assert!(!done.output.contains("CARGO"), "nothing of the agent's own environment: {}", done.output);
    assert!(run(&script("exit 0"), &env(), D).await.is_success());
    assert_eq!(run(&script("kill -9 $$"), &env(), D).await.end, HookEnd::Signalled { signal: 9 });
}

#[tokio::test]
async fn arguments_are_no_shell_text() {
    let hook = Hook::new(&["/bin/echo", "$HOME; ls"].map(str::to_owned)).unwrap();
    assert_eq!(run(&hook, &env(), D).await.output, "$HOME; ls\n");
    assert_eq!(Hook::new(&["echo".to_owned()]), Err(BadHook::NotAbsolute("echo".into())));
    assert_eq!(Hook::new(&[]), Err(BadHook::Empty));
    let missing = Hook::new(&["/nonexistent/hook".to_owned()]).unwrap();
    assert!(matches!(run(&missing, &env(), D).await.end, HookEnd::NotStarted { .. }));
}

#[tokio::test]
async fn the_whole_group_is_killed_at_the_deadline() {
    let hook = script("sleep 1000 & echo $!; sleep 1000 & echo $!; wait");
    let done = run(&hook, &env(), Duration::from_millis(500)).await;
    assert_eq!(done.end, HookEnd::TimedOut { after_ms: 500 });
    let pids: Vec<&str> = done.output.lines().collect();
    assert_eq!(pids.len(), 2);
    eventually("the group is gone", || async { pids.iter().all(|pid| is_gone(pid)).then_some(()) }).await;
}

#[tokio::test]
async fn the_group_is_killed_when_the_caller_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let hook = script(&format!("sleep 1000 & echo $! > {}; wait", file.display()));
    let task = tokio::spawn(async move { run(&hook, &env(), D).await });
    let pid = eventually("the hook runs", || async {
        std::fs::read_to_string(&file).ok().filter(|pid| pid.ends_with('\n')).map(|pid| pid.trim().to_owned())
    })
    .await;
    assert!(!is_gone(&pid));
    task.abort();
    eventually("it is gone", || async { is_gone(&pid).then_some(()) }).await;
}

#[tokio::test]
async fn output_is_bounded_and_never_blocks_the_hook() {
    let done = run(&script("head -c 1000000 /dev/zero | tr '\\0' x"), &env(), D).await;
    assert_eq!(done.end, HookEnd::Exited { code: 0 });
    assert_eq!(done.output.len(), OUTPUT_MAX);
    assert!(done.is_cut);
}

#[tokio::test]
async fn what_a_hook_leaves_running_does_not_hold_the_agent() {
    let done = run(&script("sleep 30 & echo $!"), &env(), D).await;
    assert_eq!(done.end, HookEnd::Exited { code: 0 });
    assert!(done.took_ms < 20_000, "{done:?}");
    let pid: i32 = done.output.trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}
