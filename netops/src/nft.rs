//! The `nft` program, for set-up and comparison only: rulesets in, listings out. Never on the path of
//! a renewal. Each call has a deadline, and the child is killed when it passes.

use std::{io, process::Stdio, time::Duration};

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
}

/// Loads a ruleset text as one transaction.
pub(crate) async fn load(text: &str) -> Result<(), NftError> {
    run(&["-f", "-"], text).await.map(drop)
}

/// Lists a table without counters, `None` if it does not exist.
pub(crate) async fn list(family: &str, table: &str) -> Result<Option<String>, NftError> {
    match run(&["-s", "list", "table", family, table], "").await {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(NftError::Refused(text)) if text.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists a table with its counters, `None` if it does not exist.
pub(crate) async fn list_counted(family: &str, table: &str) -> Result<Option<String>, NftError> {
    match run(&["list", "table", family, table], "").await {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
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

/// What a listing says about rules, without what differs between two equal tables: the table's own name and
/// flags, and the elements of sets that expire. Counters are not listed in the first place.
///
/// Text, because the JSON of nft 1.0.6 is broken for tables with flags.
pub(crate) fn essence(listing: &str) -> Vec<String> {
    let mut essence = Vec::new();
    let mut expires = false;
    let mut lines = listing.lines().map(str::trim).filter(|line| !line.is_empty()).skip(1);
    while let Some(line) = lines.next() {
        if line.ends_with('{') && !line.starts_with("elements") {
            expires = false;
        }
        expires |= line.starts_with("flags") && line.contains("timeout");
        if is_asleep_line(line) {
            continue;
        }
        if !line.starts_with("elements") {
            essence.push(line.to_owned());
            continue;
        }
        let mut elements = line.to_owned();
        while !elements.ends_with('}') {
            let Some(more) = lines.next() else { break };
            elements.push(' ');
            elements.push_str(more);
        }
        if !expires {
            essence.push(sorted(&elements));
        }
    }
    essence
}

/// Whether a listed table is asleep: present, but not hooked.
pub(crate) fn is_asleep(listing: &str) -> bool {
    listing
        .lines()
        .map(str::trim)
        .take_while(|line| !line.ends_with('{') || line.starts_with("table"))
        .any(is_asleep_line)
}

fn is_asleep_line(line: &str) -> bool {
    line.starts_with("flags") && line.contains("dormant")
}

fn sorted(elements: &str) -> String {
    let mut items: Vec<&str> =
        elements.trim_start_matches("elements = {").split(',').map(str::trim).collect();
    if let Some(last) = items.last_mut() {
        *last = last.trim_end_matches('}').trim();
    }
    items.sort_unstable();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "table inet a {\n\tset ports {\n\t\ttype inet_service\n\t\telements = { 3306,\n\t\t\t     80 }\n\t}\n\n\
        \tset ticket_0 {\n\t\ttype inet_proto\n\t\tflags timeout\n\t\telements = { tcp timeout 5s }\n\t}\n\n\
        \tchain gate {\n\t\tcounter drop\n\t}\n}\n";

    #[test]
    fn essence_forgets_names_live_elements_and_order() {
        let other = LISTING
            .replace("table inet a {\n", "table inet b {\n\tflags dormant\n\n")
            .replace("3306,\n\t\t\t     80", "80, 3306")
            .replace("\t\telements = { tcp timeout 5s }\n", "");
        assert_eq!(essence(LISTING), essence(&other));
        assert!(is_asleep(&other) && !is_asleep(LISTING));
    }

    #[test]
    fn essence_keeps_rules_and_lasting_elements() {
        for (from, to) in [("80", "81"), ("counter drop", "accept"), ("inet_proto", "mark"), ("gate", "door")]
        {
            assert_ne!(essence(LISTING), essence(&LISTING.replace(from, to)), "{from}");
        }
    }
}
