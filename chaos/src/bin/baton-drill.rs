//! The program `baton-drill`, reached as `baton drill`.

use std::process::ExitCode;

fn main() -> ExitCode {
    baton_chaos::command::main()
}
