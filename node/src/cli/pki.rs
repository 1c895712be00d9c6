//! `baton pki init | issue`: the cluster's own authority and the nodes' certificates.

use std::path::PathBuf;

use baton_consensus::pki;
use clap::Subcommand;

use super::{Exit, Failure, Global, Output, chain, screen};
use crate::config::NodeId;

/// Arguments of `baton pki`.
#[derive(Debug, clap::Args)]
pub(super) struct PkiArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make the authority: DIR/ca.pem and DIR/ca.key. Keep ca.key off the nodes
    Init {
        /// Directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make the certificate of the node that --node names: DIR/NAME.pem and DIR/NAME.key
    Issue {
        /// Directory of the authority
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How many days it is valid. In its last 30 days every `baton status` has an alarm, and drills from L2 on are refused
        #[arg(long, value_name = "DAYS", default_value_t = pki::NODE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3_653))]
        days: u32,
    },
}

pub(super) fn run(global: &Global, args: &PkiArgs) -> Result<Exit, Failure> {
    let failed = |e: pki::PkiError| Failure::new(Exit::Usage, chain(&e));
    let (made, next) = match &args.what {
        What::Init { dir } => {
            pki::init(dir).map_err(failed)?;
            let next = format!("`baton pki issue --dir {} --node NAME` for each node", dir.display());
            (["ca.pem", "ca.key"].map(|file| format!("{}/{file}", dir.display())), next)
        }
        What::Issue { dir, days } => {
            let Some(name) = &global.node else {
                return Err(Failure::new(Exit::Usage, "say for which node with --node NAME"));
            };
            pki::issue_for(dir, &NodeId::new(name.as_str()), *days).map_err(failed)?;
            let made = ["pem", "key"].map(|kind| format!("{}/{name}.{kind}", dir.display()));
            (made, format!("copy them and ca.pem to {name}"))
        }
    };
    let text = match global.output {
        Output::Json => screen::json(&serde_json::json!({ "made": made, "next": next }))?,
        Output::Table => format!("made {}; next: {next}", made.join(" and ")),
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}
