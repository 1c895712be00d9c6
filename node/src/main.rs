//! The binary `baton`. Everything is in the library, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    baton_node::cli::main()
}
