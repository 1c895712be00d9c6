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
        What::Issue { dir } => {
            let Some(name) = &global.node else {
                return Err(Failure::new(Exit::Usage, "say for which node with --node NAME"));
            };
            pki::issue(dir, &NodeId::new(name.as_str())).map_err(failed)?;
            format!("made {0}/{name}.pem and {0}/{name}.key; copy them and ca.pem to {name}", dir.display())
        }
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}
