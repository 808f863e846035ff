//! `garennectl`, the operator's command line: nouns and verbs over the broker's HTTP API, and nothing else.
//! Called by the name of one of RabbitMQ's tools it answers as that tool does.

mod bindings;
mod client;
mod command;
mod connections;
mod dead_letters;
mod definitions;
mod delayed;
mod duration;
mod exchanges;
mod failure;
mod health;
mod listing;
mod messages;
mod parameters;
mod permissions;
mod policies;
mod queues;
mod rabbitmq;
mod settings;
mod status;
mod table;
mod users;
mod vhosts;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_complete::Shell;

use client::Client;
use command::{Given, Noun, Session, Verb, build, build_verb};
use failure::{Failure, Result};
use settings::{Flags, Settings};
use table::{FORMATS, Format, Printing, STYLES, Style};

/// Every noun, in the order of the help.
const COMMANDS: &[&Noun] = &[
    &vhosts::NOUN,
    &vhosts::LIMITS,
    &users::NOUN,
    &users::LIMITS,
    &users::PASSWORDS,
    &permissions::NOUN,
    &permissions::TOPICS,
    &exchanges::NOUN,
    &queues::NOUN,
    &bindings::NOUN,
    &messages::NOUN,
    &dead_letters::NOUN,
    &delayed::NOUN,
    &policies::NOUN,
    &policies::OPERATOR,
    &parameters::NOUN,
    &parameters::GLOBAL,
    &connections::NOUN,
    &connections::CHANNELS,
    &connections::CONSUMERS,
    &definitions::NOUN,
    &health::NOUN,
    &status::SHOW,
    &status::NODES,
    &status::FEATURE_FLAGS,
    &status::DEPRECATED,
    &status::PLUGINS,
    &status::AUTH_ATTEMPTS,
    &status::CONFIG_FILE,
];

/// Commands of one word.
const SINGLE: &[Verb] = &[
    status::STATUS,
    status::HEALTHY,
    status::DOCTOR,
    status::BACKUP,
    status::WHOAMI,
    status::LOG_LEVEL,
    status::SHUTDOWN,
];

/// The older order of rabbitmqadmin, verb first: group, object, and the noun and verb that it stands for.
const VERB_FIRST: &[(&str, &str, &str, &str)] = &[
    ("list", "nodes", "nodes", "list"),
    ("list", "vhosts", "vhosts", "list"),
    ("list", "vhost_limits", "vhost_limits", "list"),
    ("list", "users", "users", "list"),
    ("list", "user_limits", "user_limits", "list"),
    ("list", "user_connections", "connections", "list_of_user"),
    ("list", "permissions", "permissions", "list"),
    ("list", "connections", "connections", "list"),
    ("list", "channels", "channels", "list"),
    ("list", "consumers", "consumers", "list"),
    ("list", "queues", "queues", "list"),
    ("list", "exchanges", "exchanges", "list"),
    ("list", "bindings", "bindings", "list"),
    ("list", "parameters", "parameters", "list"),
    ("list", "policies", "policies", "list"),
    ("list", "operator_policies", "operator_policies", "list"),
    ("list", "feature_flags", "feature_flags", "list"),
    ("list", "deprecated_features", "deprecated_features", "list"),
    ("list", "deprecated_features_in_use", "deprecated_features", "list_used"),
    ("declare", "vhost", "vhosts", "declare"),
    ("declare", "vhost_limit", "vhost_limits", "declare"),
    ("declare", "user", "users", "declare"),
    ("declare", "user_limit", "user_limits", "declare"),
    ("declare", "permissions", "permissions", "declare"),
    ("declare", "queue", "queues", "declare"),
    ("declare", "exchange", "exchanges", "declare"),
    ("declare", "binding", "bindings", "declare"),
    ("declare", "parameter", "parameters", "set"),
    ("declare", "policy", "policies", "declare"),
    ("declare", "operator_policy", "operator_policies", "declare"),
    ("delete", "vhost", "vhosts", "delete"),
    ("delete", "vhost_limit", "vhost_limits", "delete"),
    ("delete", "user", "users", "delete"),
    ("delete", "user_limit", "user_limits", "delete"),
    ("delete", "permissions", "permissions", "delete"),
    ("delete", "queue", "queues", "delete"),
    ("delete", "exchange", "exchanges", "delete"),
    ("delete", "binding", "bindings", "delete"),
    ("delete", "parameter", "parameters", "clear"),
    ("delete", "policy", "policies", "delete"),
    ("delete", "operator_policy", "operator_policies", "delete"),
    ("purge", "queue", "queues", "purge"),
    ("close", "connection", "connections", "close"),
    ("close", "user_connections", "connections", "close_of_user"),
    ("publish", "message", "messages", "publish"),
    ("get", "messages", "messages", "get"),
    ("export", "definitions", "definitions", "export"),
    ("import", "definitions", "definitions", "import"),
    ("rebalance", "queues", "queues", "rebalance"),
];

const ABOUT: &str = "Manages a Garenne, or a RabbitMQ, over its HTTP API";

const AFTER_HELP: &str = "\
Every command has an example: garennectl queues declare --help
The order of rabbitmqadmin is understood too: garennectl declare queue --name orders
Of a data directory or a backup that no broker uses: garennectl verify DIR, garennectl dump DIR

Environment: GARENNE_URL, GARENNE_USER, GARENNE_PASSWORD, GARENNE_VHOST
Files: ~/.config/garennectl.toml, ~/.rabbitmqadmin.conf
Exit codes: 64 usage, 65 refused or not there, 69 unreachable or unhealthy, 77 not allowed";

pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(run(arguments))
}

fn run(arguments: Vec<OsString>) -> u8 {
    if let Some((tool, rest)) = as_tool(&arguments) {
        return rabbitmq::main(tool, &rest);
    }
    let matches = match parser().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // A closed standard output leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { 64 } else { 0 };
        }
    };
    match execute(&matches) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("garennectl: {failure}");
            failure.exit_code()
        }
    }
}

/// Through a link of that name, or as `garennectl rabbitmqctl status` where there is no link.
fn as_tool(arguments: &[OsString]) -> Option<(&'static str, Vec<String>)> {
    let name_at = |at: usize| {
        let path = std::path::Path::new(arguments.get(at)?);
        rabbitmq::tool(path.file_name()?.to_str()?)
    };
    let (tool, skipped) = name_at(0).map(|tool| (tool, 1)).or_else(|| Some((name_at(1)?, 2)))?;
    let rest = arguments.iter().skip(skipped).map(|argument| argument.to_string_lossy().into_owned());
    Some((tool, rest.collect()))
}

fn parser() -> Command {
    let options = options();
    let mut parser = Command::new("garennectl")
        .version(env!("CARGO_PKG_VERSION"))
        // -V is the vhost, as rabbitmqadmin has it.
        .disable_version_flag(true)
        .arg(Arg::new("version").long("version").action(ArgAction::Version).help("print the version"))
        .about(ABOUT)
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(options.clone());
    parser = parser.subcommands(SINGLE.iter().map(|verb| build_verb(verb, &options)));
    parser = parser.subcommands(COMMANDS.iter().map(|noun| build(noun, &options)));
    let mut groups: Vec<(&str, Command)> = Vec::new();
    for (group, object, noun, verb) in VERB_FIRST {
        let Some(verb) = find(noun, verb) else { continue };
        let command = build_verb(verb, &options).name(*object);
        match groups.iter_mut().find(|(name, _)| name == group) {
            Some((_, whole)) => *whole = std::mem::take(whole).subcommand(command),
            None => {
                let whole = Command::new(*group)
                    .about("The same, verb first")
                    .hide(true)
                    .arg_required_else_help(true);
                groups.push((group, whole.subcommand_required(true).subcommand(command)));
            }
        }
    }
    parser = parser.subcommands(groups.into_iter().map(|(_, group)| group));
    let shell = Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell));
    let completions = Command::new("completions")
        .about("Prints a script that completes these commands in a shell")
        .after_help("Example:\n  garennectl completions bash > /etc/bash_completion.d/garennectl")
        .arg(shell);
    parser.subcommand(completions)
}

fn find(noun: &str, verb: &str) -> Option<&'static Verb> {
    let noun = COMMANDS.iter().find(|known| known.name == noun)?;
    noun.verbs.iter().find(|known| known.name == verb)
}

/// The options that stand before or after every command. A command's own option of the same name hides one.
fn options() -> Vec<Arg> {
    let option = |id: &'static str, long: &'static str, value: &'static str, help: &'static str| {
        Arg::new(id).long(long).value_name(value).help(help)
    };
    let flag = |id: &'static str, long: &'static str, help: &'static str| {
        Arg::new(id).long(long).action(ArgAction::SetTrue).help(help)
    };
    vec![
        option("o-config", "config", "FILE", "a configuration file").short('c'),
        option("o-node", "node", "SECTION", "the section of it that names the broker [default]").short('N'),
        option("o-host", "host", "HOST", "where the HTTP API is [localhost]")
            .short('H')
            .visible_alias("hostname"),
        option("o-port", "port", "PORT", "at which port [15672; 15671 with TLS]").short('P'),
        option("o-base-uri", "base-uri", "URL", "instead of host and port: http://localhost:15672")
            .short('U'),
        option("o-path-prefix", "path-prefix", "PREFIX", "where the API begins [/api]"),
        option("o-vhost", "vhost", "VHOST", "the vhost [/; for lists: all]").short('V'),
        option("o-username", "username", "USER", "who asks [guest]").short('u'),
        option("o-password", "password", "PASSWORD", "and with which password [guest]").short('p'),
        flag("o-use-tls", "use-tls", "HTTPS"),
        flag("o-insecure", "insecure", "do not check the broker's certificate").short('k'),
        option("o-tls-ca", "tls-ca-cert-file", "FILE", "whom to trust, in PEM"),
        option("o-tls-cert", "tls-cert-file", "FILE", "a certificate to show, in PEM"),
        option("o-tls-key", "tls-key-file", "FILE", "and its key, in PEM"),
        option("o-timeout", "timeout", "SECONDS", "how long to wait for an answer [60]"),
        option("o-format", "format", "FORMAT", "table for people, json or csv for programs [table]")
            .value_parser(clap::builder::PossibleValuesParser::new(FORMATS)),
        option("o-columns", "columns", "NAMES", "only these columns, separated by commas"),
        option("o-style", "table-style", "STYLE", "how tables look [modern]")
            .value_parser(clap::builder::PossibleValuesParser::new(STYLES)),
        flag("o-bare", "non-interactive", "tables without borders and header"),
        flag("o-quiet", "quiet", "say nothing when all is well").short('q'),
    ]
}

fn execute(matches: &ArgMatches) -> Result<()> {
    let Some((first, below)) = matches.subcommand() else {
        return Err(Failure::Usage("no command; see garennectl --help".into()));
    };
    if first == "completions" {
        if let Some(shell) = below.get_one::<Shell>("shell") {
            clap_complete::generate(*shell, &mut parser(), "garennectl", &mut std::io::stdout());
        }
        return Ok(());
    }
    let (verb, given) = chosen(first, below);
    let Some(verb) = verb else {
        return Err(Failure::Usage(format!("'{first}' is no command; see garennectl --help")));
    };
    // What stands nearest to the command wins.
    let levels = [given, matches];
    let text =
        |id: &str| levels.iter().find_map(|level| level.try_get_one::<String>(id).ok().flatten()).cloned();
    let flag = |id: &str| levels.iter().any(|level| matches!(level.try_get_one::<bool>(id), Ok(Some(true))));
    let settings = Settings::of_process(Flags {
        config: text("o-config"),
        node: text("o-node"),
        host: text("o-host"),
        port: text("o-port"),
        base_uri: text("o-base-uri"),
        path_prefix: text("o-path-prefix"),
        vhost: text("o-vhost"),
        username: text("o-username"),
        password: text("o-password"),
        timeout: text("o-timeout"),
        use_tls: flag("o-use-tls"),
        insecure: flag("o-insecure"),
        tls_ca: text("o-tls-ca"),
        tls_certificate: text("o-tls-cert"),
        tls_key: text("o-tls-key"),
    })?;
    let columns: Option<Vec<String>> =
        text("o-columns").map(|names| names.split(',').map(|name| name.trim().to_string()).collect());
    let format = Format::named(text("o-format").as_deref().unwrap_or("table"));
    let session = Session {
        client: Client::new(&settings)?,
        named_vhost: settings.vhost.clone(),
        format,
        columns: columns.clone(),
        file: settings.file.clone(),
    };
    let answer = (verb.run)(&session, &Given { matches: given })?;
    let printing = Printing {
        format,
        style: Style::named(text("o-style").as_deref().unwrap_or("modern")),
        is_quiet: flag("o-quiet"),
        is_bare: flag("o-bare"),
        columns,
        is_terminal: std::io::stdout().is_terminal(),
    };
    printing.print(answer)
}

/// The verb that was called, and what it was given.
fn chosen<'a>(first: &str, below: &'a ArgMatches) -> (Option<&'static Verb>, &'a ArgMatches) {
    let Some((second, given)) = below.subcommand() else {
        return (SINGLE.iter().find(|verb| verb.name == first), below);
    };
    let first_way = VERB_FIRST.iter().find(|(group, object, ..)| *group == first && *object == second);
    let verb = match first_way {
        Some((_, _, noun, verb)) => find(noun, verb),
        None => find(first, second),
    };
    (verb, given)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a shell splits it, as far as the examples go: blanks, and single quotes.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut is_quoted, mut is_word) = (Vec::new(), String::new(), false, false);
        for c in line.chars() {
            match c {
                '\'' => (is_quoted, is_word) = (!is_quoted, true),
                ' ' if !is_quoted => {
                    if is_word {
                        words.push(std::mem::take(&mut word));
                    }
                    is_word = false;
                }
                c => {
                    word.push(c);
                    is_word = true;
                }
            }
        }
        if is_word {
            words.push(word);
        }
        words
    }

    fn parsed(line: &str) -> std::result::Result<ArgMatches, String> {
        let words = [vec!["garennectl".to_string()], words(line)].concat();
        parser().try_get_matches_from(words).map_err(|error| format!("{line}: {error}"))
    }

    fn verb_of(line: &str) -> &'static Verb {
        let matches = parsed(line).expect("a command");
        let (first, below) = matches.subcommand().expect("a noun");
        chosen(first, below).0.expect("a verb")
    }

    #[test]
    fn the_commands_are_well_formed() {
        parser().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_that_it_understands_itself() {
        for verb in SINGLE.iter().chain(COMMANDS.iter().flat_map(|noun| noun.verbs)) {
            assert!(!verb.about.is_empty(), "{}", verb.name);
            let found = verb_of(verb.example);
            assert_eq!((found.name, found.about), (verb.name, verb.about), "{}", verb.example);
        }
    }

    #[test]
    fn the_order_of_rabbitmqadmin_means_the_same() {
        for (group, object, noun, verb) in VERB_FIRST {
            let verb = find(noun, verb).unwrap_or_else(|| panic!("{group} {object} stands for no command"));
            let example = verb.example.split_once(verb.name).map_or("", |(_, arguments)| arguments);
            let found = verb_of(&format!("{group} {object}{example}"));
            assert_eq!(found.name, verb.name);
        }
    }

    #[test]
    fn a_thing_may_be_named_with_its_option_or_without() {
        for line in
            ["queues show --name jobs", "queues show jobs", "--vhost v queues show jobs", "queue show jobs"]
        {
            let matches = parsed(line).expect("parsed");
            let (_, below) = matches.subcommand().expect("a noun");
            let (_, given) = below.subcommand().expect("a verb");
            assert_eq!(Given { matches: given }.text("name"), "jobs", "{line}");
        }
        assert!(parsed("queues show").is_err());
        assert!(parsed("queues show jobs --name jobs").is_err());
    }

    #[test]
    fn bad_values_are_refused_by_the_name_of_their_option() {
        let check = |line: &str, expected: &str| {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(expected), "{error}");
        };

        check("queues declare q --arguments '{'", "--arguments");
        check("queues declare q --arguments '[1]'", "not an object");
        check("queues declare q --durable maybe", "--durable");
        check("messages peek q --count many", "--count");
        check("queues list --format yaml", "--format");
        check("queues lst", "list");
    }

    #[test]
    fn a_commands_own_option_hides_the_global_one_of_its_name() {
        let matches =
            parsed("-u admin -p secret users declare --name alice --password other").expect("parsed");
        let (_, below) = matches.subcommand().expect("a noun");
        let (_, given) = below.subcommand().expect("a verb");

        assert_eq!(Given { matches: given }.maybe("password"), Some("other"));
        assert_eq!(matches.get_one::<String>("o-password").map(String::as_str), Some("secret"));
    }
}
