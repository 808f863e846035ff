//! What a command is: a noun's verb with its arguments, its example and the function that runs it.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use super::client::Client;
use super::failure::{Failure, Result};
use super::table::{Answer, Format};

/// A group of commands about one kind of thing.
pub struct Noun {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub about: &'static str,
    pub verbs: &'static [Verb],
}

#[derive(Clone, Copy)]
pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// What comes after `garennectl`; a test parses every one of them.
    pub example: &'static str,
    pub arguments: &'static [Argument],
    pub run: fn(&Session, &Given) -> Result<Answer>,
}

#[derive(Clone, Copy)]
pub struct Argument {
    pub name: &'static str,
    pub short: Option<char>,
    alias: Option<&'static str>,
    kind: Kind,
    help: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Required,
    /// Required, and it may also stand without its `--name`.
    Named,
    Optional,
    Default(&'static str),
    Flag,
    Number,
    Switch(bool),
    /// A JSON object.
    Object,
    /// Any JSON.
    Json,
}

pub const fn required(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Required, help }
}

/// The thing itself: `queues show --name jobs`, or shorter `queues show jobs`.
pub const fn named(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Named, help }
}

pub const fn optional(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Optional, help }
}

pub const fn default(name: &'static str, value: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Default(value), help }
}

pub const fn flag(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Flag, help }
}

pub const fn number(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Number, help }
}

/// `--durable`, `--durable true` or `--durable false`.
pub const fn switch(name: &'static str, value: bool, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Switch(value), help }
}

pub const fn object(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Object, help }
}

pub const fn json(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: None, alias: None, kind: Kind::Json, help }
}

impl Argument {
    pub const fn short(self, short: char) -> Argument {
        Argument { short: Some(short), ..self }
    }

    pub const fn alias(self, alias: &'static str) -> Argument {
        Argument { alias: Some(alias), ..self }
    }

    fn long_names(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.name), self.alias].into_iter().flatten()
    }

    /// As clap has it; a `Named` one is two: with its `--name`, and bare.
    fn build(&self) -> Vec<Arg> {
        let arg = Arg::new(self.name).long(self.name).help(self.help).value_name("VALUE");
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        let arg = match self.alias {
            Some(alias) => arg.visible_alias(alias),
            None => arg,
        };
        match self.kind {
            Kind::Required => vec![arg.required(true)],
            Kind::Named => {
                let bare = Arg::new(bare(self.name))
                    .value_name(self.name.to_uppercase())
                    .help("the same, without its option")
                    .required_unless_present(self.name)
                    .conflicts_with(self.name);
                vec![arg, bare]
            }
            Kind::Optional => vec![arg],
            Kind::Default(value) => vec![arg.default_value(value)],
            Kind::Flag => vec![arg.action(ArgAction::SetTrue)],
            Kind::Number => vec![arg.value_name("N").value_parser(clap::value_parser!(u64))],
            Kind::Switch(value) => vec![
                arg.value_name("true|false")
                    .num_args(0..=1)
                    .default_missing_value("true")
                    .default_value(if value { "true" } else { "false" })
                    .value_parser(clap::value_parser!(bool)),
            ],
            Kind::Object => vec![arg.value_name("JSON").default_value("{}").value_parser(parse_object)],
            Kind::Json => vec![arg.value_name("JSON").required(true).value_parser(parse_json)],
        }
    }
}

/// The id of a `Named` argument's bare form.
fn bare(name: &str) -> &'static str {
    match name {
        "queue" => "bare-queue",
        "exchange" => "bare-exchange",
        "username" => "bare-username",
        _ => "bare-name",
    }
}

fn parse_json(text: &str) -> std::result::Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("this is no JSON ({error}); a text needs its quotes: '\"text\"'"))
}

fn parse_object(text: &str) -> std::result::Result<Value, String> {
    match parse_json(text)? {
        value @ Value::Object(_) => Ok(value),
        other => Err(format!("this is JSON, but not an object like '{{\"x-max-length\": 10}}': {other}")),
    }
}

/// What a command was given, by the names of its arguments.
pub struct Given<'a> {
    pub matches: &'a ArgMatches,
}

impl Given<'_> {
    /// A required one; clap saw to it that it is there.
    pub fn text(&self, name: &str) -> &str {
        self.maybe(name).or_else(|| self.maybe(bare(name))).unwrap_or_default()
    }

    pub fn maybe(&self, name: &str) -> Option<&str> {
        self.matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.matches.try_get_one::<bool>(name), Ok(Some(true)))
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.matches.try_get_one::<u64>(name).ok().flatten().copied()
    }

    pub fn json(&self, name: &str) -> Value {
        self.matches.try_get_one::<Value>(name).ok().flatten().cloned().unwrap_or(Value::Null)
    }

    pub fn object(&self, name: &str) -> Map<String, Value> {
        match self.json(name) {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// What every command has at hand: the broker, the vhost, and how the answer will be printed.
pub struct Session {
    pub client: Client,
    /// Only if one was named.
    pub named_vhost: Option<String>,
    pub format: Format,
    /// `--columns`, if they were named.
    pub columns: Option<Vec<String>>,
    /// The configuration file that was read.
    pub file: Option<std::path::PathBuf>,
}

impl Session {
    pub fn vhost(&self) -> &str {
        self.named_vhost.as_deref().unwrap_or("/")
    }
}

/// Taken by every delete: what is not there is as good as deleted.
pub const IDEMPOTENTLY: Argument = flag("idempotently", "it is no error when it is not there");

/// Deletes, and says so.
pub fn delete(session: &Session, given: &Given, path: &str, what: String) -> Result<Answer> {
    match session.client.delete(path) {
        Ok(_) => Ok(Answer::Done(format!("{what} deleted"))),
        Err(Failure::NotFound { .. }) if given.flag("idempotently") => {
            Ok(Answer::Done(format!("{what} was not there")))
        }
        Err(failure) => Err(failure),
    }
}

/// A command of clap for each verb, with the global options that none of the verb's own hides.
pub fn build(noun: &Noun, options: &[Arg]) -> Command {
    // dead-letters is as good as dead_letters.
    let dashed = noun.name.replace('_', "-");
    let group = Command::new(noun.name)
        .about(noun.about)
        .aliases(noun.aliases)
        .aliases((dashed != noun.name).then_some(dashed))
        .subcommand_required(true)
        .arg_required_else_help(true);
    group.subcommands(noun.verbs.iter().map(|verb| build_verb(verb, options)))
}

pub fn build_verb(verb: &Verb, options: &[Arg]) -> Command {
    let own: Vec<Arg> = verb.arguments.iter().flat_map(Argument::build).collect();
    let longs: Vec<&str> = verb.arguments.iter().flat_map(Argument::long_names).collect();
    let shorts: Vec<char> = verb.arguments.iter().filter_map(|argument| argument.short).collect();
    let options = options.iter().filter(|option| {
        let is_same_long = option.get_long().is_some_and(|long| longs.contains(&long));
        !is_same_long
            && !option.get_visible_aliases().unwrap_or_default().iter().any(|name| longs.contains(name))
    });
    let options = options.map(|option| match option.get_short() {
        Some(short) if shorts.contains(&short) => option.clone().short(None),
        _ => option.clone(),
    });
    let dashed = verb.name.replace('_', "-");
    Command::new(verb.name)
        .aliases((dashed != verb.name).then_some(dashed))
        .about(verb.about)
        .after_help(format!("Example:\n  garennectl {}", verb.example))
        .args(own)
        .args(options.map(|option| option.hide(true)))
}
