//! The holder's side: `mariadb-backup` runs, and what it prints goes over the link.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;

use baton_consensus::transport::{Link, LinkError};
use baton_runbooks::model::{Epoch, NodeId};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::{DATA, END, Ended, GREET_DEADLINE, Giver, Verdict, Wanted};

/// Bytes of a frame: large enough that their frames cost nothing, small enough to be on the way at once.
const FRAME: usize = 256 << 10;
/// What is kept of the program's words, in bytes, from their end: there it says why it failed.
const WORDS_MAX: usize = 2048;

/// Answers one link.
pub(super) async fn give(from: NodeId, mut link: Link, giver: Giver) {
    let Ok(Ok(Some(asked))) = tokio::time::timeout(GREET_DEADLINE, link.recv()).await else { return };
    let allowed = match serde_json::from_slice::<Wanted>(&asked) {
        Ok(wanted) => giver.allows(wanted.epoch),
        Err(error) => Err(format!("the question cannot be read: {error}")),
    };
    let verdict = match &allowed {
        Ok(()) => Verdict::Coming,
        Err(reason) => Verdict::Refused { reason: reason.clone() },
    };
    let text = serde_json::to_vec(&verdict).expect("a verdict is plain data");
    let answered = tokio::time::timeout(GREET_DEADLINE, link.send(text.into())).await;
    if allowed.is_err() || !matches!(answered, Ok(Ok(()))) {
        tracing::warn!(%from, reason = allowed.err(), "no copy is handed out");
        return;
    }
    tracing::info!(%from, "a copy of this node's database is handed out");
    let failure = match stream(&mut link, &giver).await {
        Ok(bytes) => {
            tracing::info!(%from, bytes, "the copy is handed out");
            None
        }
        Err(failure) => {
            tracing::warn!(%from, failure, "the copy is not handed out");
            Some(failure)
        }
    };
    let mut last = vec![END];
    last.extend(serde_json::to_vec(&Ended { failure }).expect("an end is plain data"));
    // The other side takes a stream without an end for broken.
    let _ = tokio::time::timeout(GREET_DEADLINE, link.send(last.into())).await;
}

impl Giver {
    /// This node holds the baton, in this epoch, with a valid lease.
    fn allows(&self, epoch: Epoch) -> Result<(), String> {
        let ledger = self.committed.borrow().ledger.clone();
        if ledger.holder.as_ref() != Some(&self.me) || ledger.epoch != epoch {
            return Err(format!("{} does not hold the baton in epoch {epoch}", self.me));
        }
        let held = self.lease.borrow().facts.held;
        match held {
            Some((of, _)) if of == epoch => Ok(()),
            Some(_) | None => Err(format!("{} has no valid lease of epoch {epoch}", self.me)),
        }
    }
}

async fn stream(link: &mut Link, giver: &Giver) -> Result<u64, String> {
    let work = Workplace::make(giver).map_err(|error| format!("{}: {error}", giver.run_dir.display()))?;
    let mut child = Command::new("mariadb-backup")
        .arg(format!("--defaults-file={}", work.options().display()))
        .args(["--backup", "--stream=mbstream"])
        .arg(format!("--target-dir={}", work.path.join("target").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A copy that nobody takes any more ends with its task.
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            format!(
                "mariadb-backup cannot be run ({error}); install the package mariadb-backup on {}",
                giver.me
            )
        })?;
    let words = tokio::spawn(last_words(child.stderr.take()));
    let mut output = child.stdout.take().ok_or("mariadb-backup has no output")?;
    let bytes = pump(link, &mut output).await?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    let words = words.await.unwrap_or_default();
    if status.success() { Ok(bytes) } else { Err(format!("mariadb-backup ended with {status}: {words}")) }
}

async fn pump(link: &mut Link, output: &mut (impl AsyncRead + Unpin)) -> Result<u64, String> {
    let broken = |error: LinkError| crate::chain::chain(&error);
    let mut sent = 0;
    loop {
        let mut frame = Vec::with_capacity(FRAME + 1);
        frame.push(DATA);
        while frame.len() <= FRAME {
            let room = FRAME + 1 - frame.len();
            let read =
                (&mut *output).take(u64::try_from(room).unwrap_or(u64::MAX)).read_buf(&mut frame).await;
            if read.map_err(|error| error.to_string())? == 0 {
                break;
            }
        }
        if frame.len() == 1 {
            return Ok(sent);
        }
        sent += u64::try_from(frame.len() - 1).unwrap_or(0);
        link.send(Bytes::from(frame)).await.map_err(broken)?;
    }
}

/// The end of what a program says, read to the end so that it is never stopped by a full pipe.
pub(super) async fn last_words(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..read]);
            kept.drain(..kept.len().saturating_sub(WORDS_MAX));
        }
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// A directory for one copy: the program's options, with the password, and its small temporary files. Removed at the end.
struct Workplace {
    path: PathBuf,
}

impl Workplace {
    fn make(giver: &Giver) -> std::io::Result<Self> {
        let path = giver.run_dir.join(format!("copy-{}", giver.given.fetch_add(1, Ordering::Relaxed)));
        // An earlier agent may have left one.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let work = Self { path };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(work.options())?;
        let access = &giver.access;
        write!(
            file,
            "[mariadb-backup]\nuser={}\npassword={}\nsocket={}\n",
            option(&access.user),
            option(&access.password),
            option(&access.socket.display().to_string())
        )?;
        Ok(work)
    }

    fn options(&self) -> PathBuf {
        self.path.join("options.cnf")
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::debug!(%error, "the directory of a copy stays");
    }
}

/// A value in an option file: in quotes, with its escapes.
fn option(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
