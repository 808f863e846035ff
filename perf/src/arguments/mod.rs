//! The command line of `garenne perf`.

mod plans;

use std::path::PathBuf;
use std::time::Duration;

use amqp::Value;
use clap::{Args, Subcommand};

use crate::topology::{Exchange, queue_name};
use crate::uri::Uri;

/// Loads an AMQP 0-9-1 broker and checks what comes out of it.
///
/// Messages are numbered: what is lost, comes twice or out of order is counted, and ends the program with
/// status 1. Without a mode it runs producers and consumers together.
///
/// Examples:
///   garenne perf                                              1 producer, 1 consumer, 10 seconds
///   garenne perf amqp://me:secret@broker/%2f --producers 4 --queues 4 --consumers 4
///   garenne perf --persistent --durable-queues --size 1024 --confirm-window 1000 --ack-every 50 --prefetch 500
///   garenne perf --rate 5000 --persistent --durable-queues --confirm-window 1000     latencies at a fixed rate
///   garenne perf fill --count 1000000 --persistent --durable-queues && garenne perf drain
///   garenne perf --exchange topic --bindings 1000 --queues 100 --consumers 4
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, verbatim_doc_comment)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,

    #[command(flatten)]
    pub(crate) run: Run,
}

impl Arguments {
    /// Whether standard output belongs to a machine.
    pub(crate) fn is_json(&self) -> bool {
        match &self.mode {
            None => self.run.target.json,
            Some(Mode::Run(mode)) => mode.target.json,
            Some(Mode::Fill(mode)) => mode.target.json,
            Some(Mode::Drain(mode)) => mode.target.json,
            Some(Mode::Declare(mode)) => mode.target.json,
            Some(Mode::Idle(mode)) => mode.target.json,
            Some(Mode::First(mode)) => mode.target.json,
            Some(Mode::Disk(mode)) => mode.json,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Publish and consume (what happens without a mode).
    Run(Box<Run>),
    /// Publish a number of messages that stay: a backlog.
    Fill(Box<Fill>),
    /// Consume until the queues are empty, and check that nothing of a fill is missing.
    Drain(Box<Drain>),
    /// Declare and bind many durable queues, one request at a time.
    Declare(Declare),
    /// Hold many connections with a channel and a consumer each.
    Idle(Idle),
    /// Wait for a starting broker and the first message of a queue.
    First(First),
    /// Measure how often a second the disk makes a write safe, without a broker.
    Disk(Disk),
}

/// Which broker, and how to tell.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The broker, as amqp://user:password@host:port/vhost; what is left out is guest:guest@127.0.0.1:5672/%2f.
    #[arg(value_name = "URI", default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    uri: Uri,

    /// The broker's process on this machine: its processor time and memory are reported too.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,

    /// Print one line of JSON and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

/// The queues of a run.
#[derive(Debug, Args)]
struct Queues {
    /// How many queues; producers and consumers are spread over them in turn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    queues: usize,

    /// Queues are called PREFIX-0, PREFIX-1 …, the exchange PREFIX. Messages that are there are thrown away.
    #[arg(long, value_name = "PREFIX", default_value = "garenne-perf")]
    queue_prefix: String,
}

/// How the queues are made.
#[derive(Debug, Args)]
struct Declaration {
    /// Queues and exchange survive a restart.
    #[arg(long)]
    durable_queues: bool,

    /// An argument of queue.declare; digits are a number, true and false what they say. May come again.
    #[arg(long, value_name = "KEY=VALUE", value_parser = queue_argument)]
    queue_argument: Vec<(String, Value)>,

    /// What is published to.
    #[arg(long, value_name = "KIND", default_value = "default")]
    exchange: Exchange,

    /// How many routing keys; default: a key a queue, for topic half as many as bindings.
    #[arg(long, value_name = "N")]
    keys: Option<usize>,

    /// How many bindings, spread over the queues; for topic patterns with * and #, of which a message
    /// matches about two narrow ones and the wide ones (docs/perf.md). Default: what reaches every queue.
    #[arg(long, value_name = "N")]
    bindings: Option<usize>,
}

/// How is published.
#[derive(Debug, Args)]
struct Publishing {
    /// How many producers, a connection each.
    #[arg(long, value_name = "N", default_value_t = 1)]
    producers: usize,

    /// Octets of a body. Below 16 there is no latency, below 8 messages are only counted.
    #[arg(long, value_name = "OCTETS", default_value_t = 16)]
    size: usize,

    /// Messages survive a restart in durable queues.
    #[arg(long)]
    persistent: bool,

    /// Ask for messages back that no queue takes, and count them.
    #[arg(long)]
    mandatory: bool,

    /// How many messages of a producer may be unconfirmed; 0 asks for no confirms.
    #[arg(long, value_name = "N", default_value_t = 0)]
    confirm_window: u64,

    /// Publish so many messages a second, all producers together, evenly; without it as many as possible.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
}

/// How is consumed.
#[derive(Debug, Args)]
struct Consuming {
    /// How many consumers, a connection each; with fewer than queues each consumes from several.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: usize,

    /// Acknowledge every N deliveries at once; 0 needs no acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 0)]
    ack_every: u64,

    /// How many deliveries of a consumer may be unacknowledged; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    prefetch: u16,
}

/// How the tool itself works.
#[derive(Debug, Args)]
struct Effort {
    /// Threads for producers and as many for consumers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Give up when nothing moved for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    patience: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    consuming: Consuming,
    #[command(flatten)]
    queues: Queues,
    #[command(flatten)]
    declaration: Declaration,
    #[command(flatten)]
    effort: Effort,

    /// Publish so many messages in all, instead of for a time.
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "warm_up"])]
    count: Option<u64>,

    /// Measure for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,

    /// Seconds before that, which do not count.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,

    /// Leave the queues there at the end.
    #[arg(long)]
    keep_queues: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fill {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    queues: Queues,
    #[command(flatten)]
    declaration: Declaration,
    #[command(flatten)]
    effort: Effort,

    /// How many messages in all.
    #[arg(long, value_name = "N")]
    count: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    consuming: Consuming,
    #[command(flatten)]
    queues: Queues,
    #[command(flatten)]
    effort: Effort,

    /// How many messages must be there in all; without it only gaps in the numbers are known to be losses.
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Leave the queues there at the end.
    #[arg(long)]
    keep_queues: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Declare {
    #[command(flatten)]
    target: Target,

    /// How many queues.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    queues: usize,

    /// Queues are called PREFIX-0, PREFIX-1 …, the exchange PREFIX.
    #[arg(long, value_name = "PREFIX", default_value = "garenne-perf")]
    queue_prefix: String,

    /// Leave the queues there at the end.
    #[arg(long)]
    keep_queues: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    queues: Queues,

    /// How many connections.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: usize,

    /// How many are opened at a time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    threads: usize,

    /// Seconds to hold them.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    duration: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct First {
    #[command(flatten)]
    target: Target,

    /// The queue; its messages stay there.
    #[arg(long, value_name = "NAME", default_value_t = queue_name("garenne-perf", 0))]
    queue: String,

    /// Be content with being let in.
    #[arg(long, conflicts_with = "queue")]
    connection_only: bool,

    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    patience: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Disk {
    /// A folder on that disk.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Octets of a write.
    #[arg(long, value_name = "OCTETS", default_value_t = 4096, value_parser = size)]
    size: usize,

    /// Seconds for each of the two ways.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    duration: Duration,

    /// Print one line of JSON and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

fn queue_argument(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value, such as x-max-length=1000")?;
    let value = match value {
        "true" | "false" => Value::Bool(value == "true"),
        _ => value.parse().map_or_else(|_| Value::text(value), Value::Int),
    };
    Ok((key.to_string(), value))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write seconds, such as 10 or 0.5")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write messages a second, such as 5000")?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("a rate is more than 0".into()) }
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|_| "write octets, such as 4096")?;
    if size > 0 { Ok(size) } else { Err("a write has at least one octet".into()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// The arguments of a command line.
    pub fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = std::iter::once("perf").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.arguments)
    }

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn queue_arguments_have_the_type_they_look_like() {
        assert_eq!(queue_argument("x-max-length=10"), Ok(("x-max-length".into(), Value::Int(10))));
        assert_eq!(queue_argument("x-queue-mode=lazy"), Ok(("x-queue-mode".into(), Value::text("lazy"))));
        assert_eq!(queue_argument("a=true"), Ok(("a".into(), Value::Bool(true))));
        assert!(queue_argument("a").is_err());
    }
}
