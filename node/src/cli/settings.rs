//! `baton config check | default | explain`.

use clap::Subcommand;

use super::{Exit, Failure, Global, Output, screen};
use crate::config::{self, Config};

/// Arguments of `baton config`.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read the file as the agents would: for the node named, or for every node in it
    Check,
    /// Print a complete, commented example
    Default,
    /// Say what a key means, how it is written, and what holds without it
    Explain {
        /// The key, as section.key, or a section; without it, all keys are listed
        key: Option<String>,
    },
}

pub(super) fn run(global: &Global, args: &ConfigArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::Check => check(global),
        What::Default if global.output == Output::Json => Err(Failure::new(
            Exit::Usage,
            "the example is a file to edit, in TOML, and has no JSON form; `baton config explain --output json` has every key",
        )),
        What::Default => screen::say(&config::example()).map(|()| Exit::Done),
        What::Explain { key } if global.output == Output::Json => {
            let entries =
                config::entries(key.as_deref()).map_err(|message| Failure::new(Exit::Usage, message))?;
            screen::say(&screen::json(&entries)?).map(|()| Exit::Done)
        }
        What::Explain { key: None } => screen::say(&config::all_keys()).map(|()| Exit::Done),
        What::Explain { key: Some(key) } => {
            let text = config::explain(key).map_err(|message| Failure::new(Exit::Usage, message))?;
            screen::say(&text).map(|()| Exit::Done)
        }
    }
}

fn check(global: &Global) -> Result<Exit, Failure> {
    let nodes = match &global.node {
        Some(name) => vec![config::NodeId::new(name.as_str())],
        None => config::node_names(&global.config)?,
    };
    let mut checked = Vec::new();
    for node in &nodes {
        checked.push(Config::load(&global.config, node)?);
    }
    let Some(first) = checked.first() else {
        // Without nodes nothing was checked; seen from any name the file says what it lacks.
        Config::load(&global.config, &global.node()?)?;
        return Ok(Exit::Done);
    };
    let names: Vec<&str> = nodes.iter().map(config::NodeId::as_str).collect();
    let text = match global.output {
        Output::Json => screen::json(&serde_json::json!({
            "file": global.config, "ok": true, "cluster": first.cluster, "profile": first.profile,
            "nodes": names, "hash": first.hash,
        }))?,
        Output::Table => format!(
            "{}: valid for {}. Cluster {}, profile {}, hash {}.",
            global.config.display(),
            names.join(", "),
            first.cluster,
            first.profile.as_str(),
            first.hash
        ),
    };
    screen::say(&text).map(|()| Exit::Done)
}
