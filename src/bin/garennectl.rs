//! The operator's command line: `src/cli`, which speaks to a broker over HTTP and imports nothing of it.

use std::process::ExitCode;

#[path = "../cli/mod.rs"]
mod cli;

fn main() -> ExitCode {
    cli::main()
}
