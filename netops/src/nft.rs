//! The `nft` program, for set-up and comparison only: text rulesets in, JSON listings out. Never on the path of
//! a renewal. Each call has a deadline, and the child is killed when it passes.

use std::{io, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// A small transaction takes 5 to 20 ms; far beyond that another program holds the kernel's nftables lock.
const NFT_LIMIT: Duration = Duration::from_secs(5);

/// Why the `nft` program did not do its part.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not installed, or cannot be started or spoken to.
    #[error("cannot run the nft program")]
    Run(#[source] io::Error),
    /// It did not finish within 5 s and was killed.
    #[error("nft did not finish within 5 s")]
    Late,
    /// It refused what it was given; nothing took effect.
    #[error("nft refused: {0}")]
    Refused(String),
    /// Its listing is not JSON.
    #[error("the listing of nft is not JSON")]
    Listing(#[source] serde_json::Error),
}

/// Loads a ruleset text as one transaction.
pub(crate) async fn load(text: &str) -> Result<(), NftError> {
    run(&["-f", "-"], text).await.map(drop)
}

/// Lists a table, `None` if it does not exist.
pub(crate) async fn list(family: &str, table: &str) -> Result<Option<Value>, NftError> {
    match run(&["-j", "-s", "list", "table", family, table], "").await {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(NftError::Listing),
        Err(NftError::Refused(text)) if text.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn run(arguments: &[&str], input: &str) -> Result<Vec<u8>, NftError> {
    let work = async {
        let mut child = Command::new("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("LC_ALL", "C")
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that refuses early closes its end; its own message is the better error.
            let written = stdin.write_all(input.as_bytes()).await;
            if let Err(error) = written
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(error);
            }
        }
        child.wait_with_output().await
    };
    let output = timeout(NFT_LIMIT, work).await.map_err(|_| NftError::Late)?.map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(NftError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// What a listing says about rules, without what differs between two equal tables: handles, the table's own
/// name and flags, counters, and the elements of sets that expire.
pub(crate) fn essence(listing: &Value) -> Vec<Value> {
    let objects = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    objects.iter().filter_map(essential).collect()
}

fn essential(object: &Value) -> Option<Value> {
    let (kind, body) = object.as_object()?.iter().next()?;
    if kind == "metainfo" || kind == "table" {
        return None;
    }
    let mut body = body.clone();
    let fields = body.as_object_mut()?;
    fields.remove("handle");
    fields.remove("table");
    let expires = fields.get("flags").is_some_and(|f| f.to_string().contains("timeout"));
    if expires {
        fields.remove("elem");
    }
    if let Some(elements) = fields.get_mut("elem").and_then(Value::as_array_mut) {
        elements.sort_by_key(Value::to_string);
    }
    if let Some(expressions) = fields.get_mut("expr").and_then(Value::as_array_mut) {
        for expression in expressions.iter_mut().filter(|e| e.get("counter").is_some()) {
            *expression = Value::from("counter");
        }
    }
    Some(serde_json::json!({ kind.as_str(): body }))
}
