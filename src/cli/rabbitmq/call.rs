//! One call of a tool: what it was asked, of which node, and how to answer and to fail as RabbitMQ's tools do.

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::arguments::{Parsed, Switch};
use super::output::{Formatter, Output};
use super::{CTL, DIAGNOSTICS, PLUGINS, QUEUES, STREAMS, UPGRADE};
use crate::cli::client::{Client, path};
use crate::cli::failure::Failure;

pub type Result<T> = std::result::Result<T, Fault>;

/// Exit codes of RabbitMQ's tools, out of sysexits.h.
pub mod code {
    pub const USAGE: u8 = 64;
    pub const DATA: u8 = 65;
    pub const NO_USER: u8 = 67;
    pub const UNAVAILABLE: u8 = 69;
    pub const SOFTWARE: u8 = 70;
    pub const TEMPORARY: u8 = 75;
}

/// A command that did not work: what goes to standard error, and the exit code.
#[derive(Debug, PartialEq)]
pub struct Fault {
    pub code: u8,
    pub text: String,
}

impl Fault {
    /// `Error:` and the reason below it, as most of them are.
    pub fn error(code: u8, reason: impl std::fmt::Display) -> Fault {
        Fault { code, text: format!("Error:\n{reason}") }
    }

    pub fn plain(code: u8, reason: impl Into<String>) -> Fault {
        Fault { code, text: reason.into() }
    }
}

#[derive(Clone, Copy)]
pub struct Verb {
    pub name: &'static str,
    /// Which of the tools have it.
    pub tools: u8,
    pub section: &'static str,
    pub about: &'static str,
    /// Its arguments, as the usage line has them.
    pub usage: &'static str,
    pub switches: &'static [Switch],
    /// How many words it takes.
    pub words: (usize, usize),
    /// What is said before it is tried; empty: nothing.
    pub banner: fn(&Call) -> String,
    pub run: fn(&Call) -> Result<Output>,
}

pub struct Call {
    pub tool: &'static str,
    pub verb: &'static Verb,
    pub words: Vec<String>,
    pub given: Parsed,
    pub client: Rc<Client>,
    /// As banners name it; `rabbit@host`.
    pub node: String,
    pub formatter: Formatter,
}

impl Call {
    /// The same call, to be given another verb; without words of its own.
    pub fn again(&self) -> Call {
        Call {
            tool: self.tool,
            verb: self.verb,
            words: Vec::new(),
            given: self.given.clone(),
            client: Rc::clone(&self.client),
            node: self.node.clone(),
            formatter: self.formatter,
        }
    }

    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    pub fn vhost(&self) -> &str {
        self.given.text("vhost").unwrap_or("/")
    }

    pub fn is_silent(&self) -> bool {
        self.given.is_set("silent")
    }

    /// Says nothing but what was asked for.
    pub fn is_quiet(&self) -> bool {
        self.is_silent() || self.given.is_set("quiet")
    }

    /// `--timeout` in seconds.
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.given.number("timeout")?).ok().map(Duration::from_secs)
    }

    /// What a command says when it takes its time.
    pub fn timeout_banner(&self) -> String {
        format!("Timeout: {:?} seconds ...\n", self.timeout().map_or(60.0, |timeout| timeout.as_secs_f64()))
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.client.get(path).map_err(|failure| self.fault(failure))
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.client.put(path, body).map_err(|failure| self.fault(failure))
    }

    pub fn delete(&self, path: &str) -> Result<Value> {
        self.client.delete(path).map_err(|failure| self.fault(failure))
    }

    /// None: it is not there.
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.client.get(path) {
            Ok(value) => Ok(Some(value)),
            Err(Failure::NotFound { .. }) => Ok(None),
            Err(failure) => Err(self.fault(failure)),
        }
    }

    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        match self.get(path)? {
            Value::Array(rows) => Ok(rows),
            other => {
                let shown: String = other.to_string().chars().take(80).collect();
                Err(Fault::error(code::SOFTWARE, format!("{path} answered no list: {shown}")))
            }
        }
    }

    pub fn has_user(&self, user: &str) -> Result<bool> {
        Ok(self.find(&path(&["users", user]))?.is_some())
    }

    pub fn has_vhost(&self, vhost: &str) -> Result<bool> {
        Ok(self.find(&path(&["vhosts", vhost]))?.is_some())
    }

    /// What the API answered, as the tools say it.
    pub fn fault(&self, failure: Failure) -> Fault {
        match failure {
            Failure::Unreachable { .. } | Failure::Denied { .. } => self.unreachable(&failure),
            Failure::NotFound { thing, .. } => {
                Fault::error(code::UNAVAILABLE, format!("there is no {thing}"))
            }
            Failure::Refused { reason, .. } => Fault::error(code::UNAVAILABLE, reason),
            other => Fault::error(code::SOFTWARE, other),
        }
    }

    pub fn unreachable(&self, failure: &Failure) -> Fault {
        let node = &self.node;
        Fault::plain(
            code::UNAVAILABLE,
            format!(
                "Error: unable to perform an operation on node '{node}'. Please see diagnostics information and \
                 suggestions below.\n\n{failure}\n\nThis tool speaks HTTP. It takes the address from GARENNE_URL, \
                 user and password from GARENNE_USER and GARENNE_PASSWORD."
            ),
        )
    }

    /// The command line is wrong: what about it, what was given, and how it goes.
    pub fn misused(&self, code: u8, reason: &str, given: &[String]) -> Fault {
        misused(self.tool, self.verb, code, reason, given)
    }
}

pub fn misused(tool: &str, verb: &Verb, code: u8, reason: &str, given: &[String]) -> Fault {
    Fault::plain(
        code,
        format!(
            "Error (argument validation): {reason}\nArguments given:\n\t{}\n\n{}\n\n{}",
            given.join(" "),
            bold("Usage"),
            usage_line(tool, verb)
        ),
    )
}

pub fn usage_line(tool: &str, verb: &Verb) -> String {
    let usage = if verb.usage.is_empty() { String::new() } else { format!(" {}", verb.usage) };
    format!("{tool} [--node <node>] [--longnames] [--quiet] {}{usage}", verb.name)
}

/// RabbitMQ's tools write this also where no terminal is.
pub fn bold(text: &str) -> String {
    format!("\u{1b}[1m{text}\u{1b}[0m")
}

/// Which tools a verb belongs to when it is one for reading: the control tool and the diagnostic one.
pub const READING: u8 = CTL | DIAGNOSTICS;
pub const EVERYWHERE: u8 = CTL | DIAGNOSTICS | PLUGINS | QUEUES | STREAMS | UPGRADE;

pub fn quiet(_: &Call) -> String {
    String::new()
}
