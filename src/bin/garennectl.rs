//! The operator's command line: `src/cli`, which speaks to a broker over HTTP and imports nothing of it; and two
//! commands about data directories that no broker uses, which are the broker's own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use garenne::offline;

#[path = "../cli/mod.rs"]
mod cli;

/// The command line makes no sense: as everywhere in `src/cli`.
const USAGE: u8 = 64;

/// What is done without a broker.
#[derive(Parser)]
#[command(name = "garennectl")]
struct Arguments {
    #[command(subcommand)]
    tool: offline::Tool,
}

fn main() -> ExitCode {
    if !is_offline() {
        return cli::main();
    }
    match Arguments::try_parse() {
        Ok(arguments) => offline::run(&arguments.tool),
        Err(error) => {
            // A closed standard output leaves nobody to tell.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
        }
    }
}

/// RabbitMQ's tools, by whose names we may be called, have no such commands.
fn is_offline() -> bool {
    let mut words = std::env::args_os();
    let name = words.next().map(PathBuf::from);
    let is_rabbitmq = name.is_some_and(|name| {
        name.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rabbitmq"))
    });
    !is_rabbitmq && words.next().is_some_and(|word| word == "verify" || word == "dump")
}
