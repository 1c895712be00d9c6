//! `baton agent`: reads the configuration, sets up logging, and hands over to the agent.

use std::process::ExitCode;

use clap::ValueEnum;

use super::{Exit, Global, finish};
use crate::config::Config;
use crate::telemetry::{self, LogFormat};

/// Arguments of `baton agent`.
#[derive(Debug, clap::Args)]
pub(super) struct AgentArgs {
    /// Form of the log on standard error; BATON_LOG sets the filter [default: info,openraft=warn]
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

pub(super) fn run(global: &Global, args: &AgentArgs) -> ExitCode {
    let config = match global.node().and_then(|node| Ok(Config::load(&global.config, &node)?)) {
        Ok(config) => config,
        Err(failure) => return finish(Err(failure)),
    };
    let format = match args.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    if let Err(error) = telemetry::init(format) {
        return finish(Err(super::Failure::new(Exit::Usage, crate::chain::chain(&error))));
    }
    tracing::info!(
        node = %config.node,
        cluster = %config.cluster,
        profile = config.profile.as_str(),
        config = %config.hash,
        version = env!("CARGO_PKG_VERSION"),
        "agent starts"
    );
    let code = crate::agent::run(config);
    telemetry::flush();
    code
}
