//! RabbitMQ's command line tools by their names, over HTTP: the same verbs, output and exit codes.

mod absent;
mod access;
mod arguments;
mod call;
mod checks;
mod connections;
mod definitions;
mod lists;
mod node;
mod output;
mod plugins;
mod queues;
mod rules;
mod status;
mod vhosts;
mod watermarks;

use std::io::Write;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use super::client::Client;
use super::failure::Failure;
use super::settings::{Flags, Settings};
use arguments::Parsed;
use call::{Call, EVERYWHERE, Fault, Verb, bold, code, usage_line};
use output::Formatter;

pub const CTL: u8 = 1;
pub const DIAGNOSTICS: u8 = 2;
pub const PLUGINS: u8 = 4;
pub const QUEUES: u8 = 8;
pub const STREAMS: u8 = 16;
pub const UPGRADE: u8 = 32;

const TOOLS: &[(&str, u8)] = &[
    ("rabbitmqctl", CTL),
    ("rabbitmq-diagnostics", DIAGNOSTICS),
    ("rabbitmq-plugins", PLUGINS),
    ("rabbitmq-queues", QUEUES),
    ("rabbitmq-streams", STREAMS),
    ("rabbitmq-upgrade", UPGRADE),
];

/// How long a node is asked for its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(2);

/// The tool that goes by this name.
pub fn tool(name: &str) -> Option<&'static str> {
    TOOLS.iter().map(|(tool, _)| *tool).find(|tool| *tool == name)
}

fn verbs() -> &'static [Verb] {
    static VERBS: OnceLock<Vec<Verb>> = OnceLock::new();
    VERBS.get_or_init(|| {
        let written = [
            node::VERBS,
            watermarks::VERBS,
            status::VERBS,
            access::VERBS,
            vhosts::VERBS,
            rules::VERBS,
            definitions::VERBS,
            lists::VERBS,
            checks::VERBS,
            connections::VERBS,
            queues::VERBS,
            plugins::VERBS,
        ];
        written.concat().into_iter().chain(absent::verbs()).collect()
    })
}

fn find(tools: u8, name: &str) -> Option<&'static Verb> {
    verbs().iter().find(|verb| verb.tools & tools != 0 && verb.name == name)
}

pub fn main(tool: &'static str, arguments: &[String]) -> u8 {
    let formatter = arguments::parse(arguments, &[]).text("formatter").and_then(Formatter::named);
    match run(tool, arguments) {
        Ok(()) => 0,
        Err(fault) => {
            match fault.text.strip_prefix("Error:\n") {
                Some(message) if formatter == Some(Formatter::Json) => {
                    eprintln!("{}", serde_json::json!({ "result": "error", "message": message }));
                }
                _ => eprintln!("{}", fault.text),
            }
            fault.code
        }
    }
}

fn run(tool: &'static str, arguments: &[String]) -> Result<(), Fault> {
    let tools = TOOLS.iter().find(|(name, _)| *name == tool).map_or(EVERYWHERE, |(_, bit)| *bit);
    let first = arguments::parse(arguments, &[]);
    if first.is_set("version") {
        return version(&first);
    }
    let Some(name) = first.words.first() else {
        if first.is_set("help") {
            return print(&overview(tool, tools));
        }
        return Err(Fault::plain(code::USAGE, overview(tool, tools)));
    };
    match name.as_str() {
        "help" => return help(tool, tools, first.words.get(1)),
        "version" => return version(&first),
        "autocomplete" => {
            let start = first.words.get(1).map_or("", String::as_str);
            let names = verbs().iter().filter(|verb| verb.tools & tools != 0 && verb.name.starts_with(start));
            return print(&names.map(|verb| format!("{}\n", verb.name)).collect::<String>());
        }
        _ => {}
    }
    let Some(verb) = find(tools, name) else {
        return Err(not_found(tool, tools, name));
    };
    if first.is_set("help") {
        return help(tool, tools, Some(name));
    }
    let mut given = arguments::parse(arguments, verb.switches);
    let misused = |reason: &str| call::misused(tool, verb, code::USAGE, reason, arguments);
    if !given.invalid.is_empty() {
        let lines: Vec<String> =
            given.invalid.iter().map(|(name, value)| format!("{name} : {value}")).collect();
        return Err(misused(&format!("Invalid options for this command:\n{}", lines.join("\n"))));
    }
    let words = given.words.split_off(1);
    if words.len() < verb.words.0 {
        return Err(misused("not enough arguments."));
    }
    if words.len() > verb.words.1 {
        return Err(misused("too many arguments."));
    }
    let unknown = lists::unknown_columns(verb.name, &words);
    if !unknown.is_empty() {
        return Err(misused(&format!("Info key(s) {} are not supported", unknown.join(","))));
    }
    let formatter = match given.text("formatter") {
        None => Formatter::Table,
        Some(name) => Formatter::named(name).ok_or_else(|| {
            misused(&format!("formatter '{name}' is not one of table, pretty_table, json, csv"))
        })?,
    };
    let node = node_name(&given);
    let unusable = |failure: Failure| Fault::error(code::DATA, failure);
    let settings = settings(Flags::default(), &given).map_err(unusable)?;
    let client = Rc::new(Client::new(&settings).map_err(unusable)?);
    let call = Call { tool, verb, words, given, client, node, formatter };
    let is_for_people = matches!(formatter, Formatter::Table | Formatter::PrettyTable);
    let banner = (verb.banner)(&call);
    if is_for_people && !call.is_quiet() && !banner.is_empty() {
        print(&format!("{banner}\n"))?;
    }
    let output = (verb.run)(&call)?;
    let has_header = !call.is_silent() && !call.given.is_set("no-table-headers");
    print(&output.render(formatter, has_header, &call.node))
}

/// Where the broker is: GARENNE_URL and the files of garennectl, or else the host of `--node`.
fn settings(flags: Flags, given: &Parsed) -> Result<Settings, Failure> {
    let host = given.text("node").and_then(|node| node.split_once('@')).map(|(_, host)| host.to_string());
    let is_elsewhere = |host: &String| host != "localhost" && *host != short_host();
    let is_told = std::env::var("GARENNE_URL").is_ok_and(|url| !url.is_empty());
    let host = if is_told { None } else { host.filter(is_elsewhere) };
    let timeout = given.number("timeout").and_then(|secs| u64::try_from(secs).ok()).filter(|secs| *secs > 0);
    let settings = Settings::of_process(Flags { host, ..flags })?;
    Ok(Settings { timeout: timeout.map(Duration::from_secs).or(settings.timeout), ..settings })
}

/// `rabbit@host`: as it was said, or as RabbitMQ would call this machine's node.
fn node_name(given: &Parsed) -> String {
    let named = given.text("node").map(String::from).or_else(|| std::env::var("RABBITMQ_NODENAME").ok());
    match named.filter(|name| !name.is_empty()) {
        Some(name) if name.contains('@') => name,
        Some(name) => format!("{name}@{}", short_host()),
        None => format!("rabbit@{}", short_host()),
    }
}

fn short_host() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("localhost").to_string()
}

fn print(text: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Fault::error(code::SOFTWARE, format!("cannot write the output: {error}"))),
    }
}

/// The version of RabbitMQ that the node says it is equal to, for scripts that decide by it; without a node,
/// that of this tool.
fn version(given: &Parsed) -> Result<(), Fault> {
    let asked = settings(Flags::default(), given).and_then(|settings| {
        let settings = Settings { timeout: Some(VERSION_TIMEOUT), ..settings };
        Client::new(&settings)?.get("/overview")
    });
    let version = asked.ok().and_then(|overview| overview["rabbitmq_version"].as_str().map(String::from));
    print(&format!("{}\n", version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"))))
}

fn not_found(tool: &str, tools: u8, name: &str) -> Fault {
    let near = verbs()
        .iter()
        .filter(|verb| verb.tools & tools != 0)
        .map(|verb| (distance(verb.name, name), verb.name))
        .min()
        .filter(|(distance, _)| *distance <= name.len().div_ceil(3));
    let head = format!("\nCommand '{name}' not found. \n");
    match near {
        Some((_, near)) => Fault::plain(code::USAGE, format!("{head}Did you mean '{near}'? \n")),
        None => Fault::plain(code::USAGE, format!("{head}{}", overview(tool, tools))),
    }
}

/// How many letters must be changed, put in or left out (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, c) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (to, d) in other.iter().enumerate() {
            let changed = before + usize::from(c != *d);
            before = row[to + 1];
            row[to + 1] = changed.min(before + 1).min(row[to] + 1);
        }
    }
    row[other.len()]
}

fn overview(tool: &str, tools: u8) -> String {
    let own: Vec<&Verb> = verbs().iter().filter(|verb| verb.tools & tools != 0).collect();
    let width = own.iter().map(|verb| verb.name.len()).max().unwrap_or(0);
    let mut sections: Vec<&str> = Vec::new();
    for verb in &own {
        if !sections.contains(&verb.section) {
            sections.push(verb.section);
        }
    }
    let mut text = format!(
        "\n{}\n\n{tool} [--node <node>] [--timeout <timeout>] [--longnames] [--quiet] <command> [<command options>]\n\n\
         Available commands:\n",
        bold("Usage")
    );
    for section in sections {
        text.push_str(&format!("\n{}:\n\n", bold(section)));
        for verb in own.iter().filter(|verb| verb.section == section) {
            text.push_str(&format!("   {:width$}  {}\n", verb.name, verb.about));
        }
    }
    text + &format!("\nUse '{tool} help <command>' to learn more about a specific command\n")
}

const GENERAL: &str = "\
   -n <node>   --node <node>      the node; its host is where the HTTP API is looked for
   -p <vhost>  --vhost <vhost>    the virtual host [/]
   -q          --quiet            no informational messages
   -s          --silent           nor table headers
   -t <n>      --timeout <n>      seconds to wait
               --formatter <f>    table, pretty_table, json or csv
               --no-table-headers

This tool speaks HTTP. Address, user and password come from GARENNE_URL, GARENNE_USER and GARENNE_PASSWORD,
or from ~/.config/garennectl.toml [http://localhost:15672, guest, guest].
";

fn help(tool: &str, tools: u8, name: Option<&String>) -> Result<(), Fault> {
    let Some(name) = name else { return print(&overview(tool, tools)) };
    let Some(verb) = find(tools, name) else {
        return Err(Fault::error(code::USAGE, format!("\nCommand '{name}' not found.")));
    };
    let usage = usage_line(tool, verb);
    let options = bold("General Options");
    print(&format!(
        "\n{}\n\n{usage}\n\n{}.\n\n{options}\n\n{GENERAL}",
        bold("Usage"),
        verb.about.trim_end_matches('.')
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verbs that scripts and probes use, by tool.
    const WANTED: &[(u8, &str)] = &[
        (
            CTL,
            "status ping await_startup wait list_queues list_exchanges list_bindings list_connections list_channels \
             list_consumers list_users list_vhosts list_permissions list_user_permissions list_topic_permissions \
             list_policies list_operator_policies list_parameters list_global_parameters list_vhost_limits \
             list_user_limits list_feature_flags add_user delete_user change_password authenticate_user set_user_tags \
             set_permissions clear_permissions set_topic_permissions add_vhost delete_vhost set_policy clear_policy \
             set_operator_policy set_parameter clear_parameter set_global_parameter set_vhost_limits set_user_limits \
             purge_queue delete_queue close_connection close_all_connections export_definitions import_definitions \
             trace_on trace_off set_log_level rotate_logs set_vm_memory_high_watermark set_disk_free_limit stop \
             stop_app start_app reset environment report node_health_check hash_password encode decode",
        ),
        (
            DIAGNOSTICS,
            "ping check_running check_local_alarms check_alarms check_port_connectivity check_port_listener \
             check_protocol_listener check_virtual_hosts check_certificate_expiration alarms listeners \
             memory_breakdown server_version log_tail is_running is_booting status",
        ),
        (PLUGINS, "list enable disable is_enabled set"),
        (QUEUES, "peek rebalance grow shrink quorum_status"),
        (
            STREAMS,
            "add_super_stream delete_super_stream list_stream_connections list_stream_publishers \
             list_stream_consumers list_stream_consumer_groups list_stream_group_consumers list_stream_tracking \
             activate_stream_consumer reset_offset",
        ),
        (UPGRADE, "drain revive await_online_quorum_plus_one"),
    ];

    #[test]
    fn every_verb_that_scripts_use_is_known_to_its_tool() {
        for (tools, names) in WANTED {
            for name in names.split_whitespace() {
                assert!(find(*tools, name).is_some(), "{name} of tool {tools}");
            }
        }
    }

    #[test]
    fn no_tool_has_two_verbs_of_a_name_and_all_are_described() {
        for (tool, bit) in TOOLS {
            let mut names: Vec<&str> =
                verbs().iter().filter(|verb| verb.tools & bit != 0).map(|verb| verb.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{tool}");
        }
        assert!(verbs().iter().all(|verb| !verb.about.is_empty() && !verb.section.is_empty()));
    }

    #[test]
    fn a_verb_that_is_nearly_right_is_suggested() {
        let fault = not_found("rabbitmqctl", CTL, "list_quues");

        assert_eq!(
            fault,
            Fault::plain(64, "\nCommand 'list_quues' not found. \nDid you mean 'list_queues'? \n")
        );
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
    }
}
