//! `baton pki init | issue`: the cluster's own authority and the nodes' certificates.

use std::path::PathBuf;

use baton_consensus::pki;
use clap::Subcommand;

use super::{Exit, Failure, Global, chain, screen};
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
        /// How many days it is valid
        #[arg(long, value_name = "DAYS", default_value_t = pki::NODE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3_653))]
        days: u32,
    },
}

pub(super) fn run(global: &Global, args: &PkiArgs) -> Result<Exit, Failure> {
    let failed = |e: pki::PkiError| Failure::new(Exit::Usage, chain(&e));
    let text = match &args.what {
        What::Init { dir } => {
            pki::init(dir).map_err(failed)?;
            format!(
                "made {0}/ca.pem and {0}/ca.key; next: `baton pki issue --dir {0} --node NAME` for each node",
                dir.display()
            )
        }
        What::Issue { dir, days } => {
            let Some(name) = &global.node else {
                return Err(Failure::new(Exit::Usage, "say for which node with --node NAME"));
            };
            pki::issue_for(dir, &NodeId::new(name.as_str()), *days).map_err(failed)?;
            format!("made {0}/{name}.pem and {0}/{name}.key; copy them and ca.pem to {name}", dir.display())
        }
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}
