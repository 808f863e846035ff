//! rabbitmq-plugins: everything that is there is in the binary, so enabling is explaining.

use serde_json::{Value, json};

use super::PLUGINS;
use super::arguments::{Switch, flag};
use super::call::{Call, Fault, Result, Verb, code};
use super::output::{Formatter, Output};

/// What Garenne has in its binary, by the names of the plugins that bring it to RabbitMQ.
const BUILT_IN: &[&str] = &[
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_delayed_message_exchange",
    "rabbitmq_event_exchange",
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_message_deduplication",
    "rabbitmq_prometheus",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_web_dispatch",
];

/// What RabbitMQ ships and Garenne does not have.
const ABSENT: &[&str] = &[
    "rabbitmq_amqp1_0",
    "rabbitmq_auth_backend_cache",
    "rabbitmq_auth_backend_http",
    "rabbitmq_auth_backend_ldap",
    "rabbitmq_auth_backend_oauth2",
    "rabbitmq_federation",
    "rabbitmq_federation_management",
    "rabbitmq_jms_topic_exchange",
    "rabbitmq_mqtt",
    "rabbitmq_peer_discovery_aws",
    "rabbitmq_peer_discovery_common",
    "rabbitmq_peer_discovery_consul",
    "rabbitmq_peer_discovery_etcd",
    "rabbitmq_peer_discovery_k8s",
    "rabbitmq_sharding",
    "rabbitmq_shovel",
    "rabbitmq_shovel_management",
    "rabbitmq_stomp",
    "rabbitmq_stream",
    "rabbitmq_stream_management",
    "rabbitmq_top",
    "rabbitmq_tracing",
    "rabbitmq_trust_store",
    "rabbitmq_web_mqtt",
    "rabbitmq_web_mqtt_examples",
    "rabbitmq_web_stomp",
    "rabbitmq_web_stomp_examples",
];

const SECTION: &str = "Plugin Management";
const WHERE: &[Switch] = &[flag("offline"), flag("online")];
const ALL: &[Switch] = &[flag("offline"), flag("online"), flag("all")];

pub const VERBS: &[Verb] = &[
    Verb {
        name: "list",
        tools: PLUGINS,
        section: SECTION,
        about: "Lists plugins",
        usage: "[pattern] [--verbose] [--minimal] [--enabled] [--implicitly-enabled]",
        switches: &[
            flag("verbose").short('v'),
            flag("minimal").short('m'),
            flag("enabled").short('E'),
            flag("implicitly-enabled").short('e'),
            flag("offline"),
            flag("online"),
        ],
        words: (0, 1),
        banner: |call| {
            format!(
                "Listing plugins with pattern \"{}\" ...",
                call.words.first().map_or(".*", String::as_str)
            )
        },
        run: list,
    },
    Verb {
        name: "enable",
        tools: PLUGINS,
        section: SECTION,
        about: "Enables plugins; those that Garenne has are always enabled",
        usage: "<plugin1> [ <plugin2>] | --all [--offline] [--online]",
        switches: ALL,
        words: (0, usize::MAX),
        banner: |call| banner(call, "Enabling"),
        run: enable,
    },
    Verb {
        name: "set",
        tools: PLUGINS,
        section: SECTION,
        about: "Enables these plugins and disables the others; nothing changes",
        usage: "[<plugin>] [--offline] [--online]",
        switches: WHERE,
        words: (0, usize::MAX),
        banner: |call| banner(call, "Enabling"),
        run: enable,
    },
    Verb {
        name: "disable",
        tools: PLUGINS,
        section: SECTION,
        about: "Disables plugins; what is in the binary cannot be",
        usage: "<plugin>|--all [--offline] [--online]",
        switches: ALL,
        words: (0, usize::MAX),
        banner: |call| banner(call, "Disabling"),
        run: disable,
    },
    Verb {
        name: "is_enabled",
        tools: PLUGINS,
        section: SECTION,
        about: "Health check: are these plugins enabled?",
        usage: "<plugin1> [ <plugin2>] [--offline] [--online]",
        switches: WHERE,
        words: (1, usize::MAX),
        banner: |call| match &call.words[..] {
            [one] => format!("Asking node {} if plugin {one} is enabled...", call.node),
            all => format!("Asking node {} if plugins {} are enabled...", call.node, all.join(", ")),
        },
        run: is_enabled,
    },
    Verb {
        name: "directories",
        tools: PLUGINS,
        section: SECTION,
        about: "Shows where plugins lie; there are no such files",
        usage: "[--offline] [--online]",
        switches: WHERE,
        words: (0, 0),
        banner: |call| format!("Listing plugin directories used by node {}", call.node),
        run: |_| Ok(Output::said("None: Garenne has everything in its binary and loads no plugins")),
    },
];

fn banner(call: &Call, what: &str) -> String {
    let names = if call.given.is_set("all") { "all".to_string() } else { call.words.join("\n") };
    format!("{what} plugins on node {}:\n{names}", call.node)
}

/// What the node says that it has; without a node, as in an image that is being built, what the binary has.
fn enabled(call: &Call) -> Result<Vec<String>> {
    let built_in = || BUILT_IN.iter().map(|name| name.to_string()).collect();
    if call.given.is_set("offline") {
        return Ok(built_in());
    }
    let nodes = call.list("/nodes")?;
    let all = nodes.iter().flat_map(|node| node["enabled_plugins"].as_array().into_iter().flatten());
    let mut names: Vec<String> = all.filter_map(|name| name.as_str().map(String::from)).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn version(call: &Call) -> Result<String> {
    if call.given.is_set("offline") {
        return Ok(env!("CARGO_PKG_VERSION").to_string());
    }
    Ok(call.get("/overview")?["rabbitmq_version"].as_str().unwrap_or_default().to_string())
}

fn list(call: &Call) -> Result<Output> {
    let pattern = call.words.first().map_or(".*", String::as_str);
    let pattern = regex::Regex::new(pattern).map_err(|error| {
        Fault::error(code::DATA, format!("'{pattern}' is no regular expression: {error}"))
    })?;
    let enabled = enabled(call)?;
    let version = version(call)?;
    let is_only_enabled = call.given.is_set("enabled") || call.given.is_set("implicitly-enabled");
    let mut names: Vec<String> =
        enabled.iter().filter(|name| name.starts_with("rabbitmq_")).cloned().collect();
    if !is_only_enabled {
        names.extend(BUILT_IN.iter().chain(ABSENT).map(|name| name.to_string()));
    }
    names.sort_unstable();
    names.dedup();
    names.retain(|name| pattern.is_match(name));

    let is_on = |name: &String| enabled.contains(name);
    let object = |name: &String| {
        let state = if is_on(name) { "enabled" } else { "not_enabled" };
        json!({ "name": name, "version": version, "running": is_on(name), "enabled": state })
    };
    let json = json!({ "format": "normal", "plugins": names.iter().map(object).collect::<Vec<Value>>() });
    let text = if call.given.is_set("minimal") {
        names.iter().map(|name| format!("{name}\n")).collect()
    } else {
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let legend = match call.is_quiet() || call.formatter != Formatter::Table {
            true => String::new(),
            false => format!(
                " Configured: E = explicitly enabled; e = implicitly enabled\n | Status: * = running on {}\n |/\n",
                call.node
            ),
        };
        let line =
            |name: &String| format!("[{}] {name:width$} {version}\n", if is_on(name) { "E*" } else { "  " });
        legend + &names.iter().map(line).collect::<String>()
    };
    Ok(Output::Page { text, json })
}

fn names_given(call: &Call) -> Result<()> {
    if call.words.is_empty() && !call.given.is_set("all") && call.verb.name != "set" {
        return Err(call.misused(code::USAGE, "not enough arguments.", &[call.verb.name.to_string()]));
    }
    Ok(())
}

fn enable(call: &Call) -> Result<Output> {
    names_given(call)?;
    let enabled = enabled(call)?;
    let is_known = |name: &String| enabled.contains(name) || BUILT_IN.contains(&name.as_str());
    let absent: Vec<String> = call.words.iter().filter(|name| !is_known(name)).cloned().collect();
    if let Some(name) = absent.iter().find(|name| !ABSENT.contains(&name.as_str())) {
        let text = format!("{{:plugins_not_found, [:{name}]}}");
        return Err(Fault::error(code::SOFTWARE, text));
    }
    if !absent.is_empty() {
        let text = format!(
            "Garenne does not have {} in this version. What it has is in its binary: {}",
            absent.join(", "),
            BUILT_IN.join(", ")
        );
        return Err(Fault::error(code::UNAVAILABLE, text));
    }
    let text = format!(
        "The following plugins have been configured:\n{}\nApplying plugin configuration to {}...\n\
         Plugin configuration unchanged.\nGarenne has everything in its binary: nothing has to be enabled.",
        indented(&enabled),
        call.node
    );
    Ok(Output::Message { text, json: json!({ "result": "ok", "enabled": enabled, "mode": "unchanged" }) })
}

fn indented(names: &[String]) -> String {
    let own: Vec<String> =
        names.iter().filter(|name| name.starts_with("rabbitmq_")).map(|name| format!("  {name}")).collect();
    own.join("\n")
}

fn disable(call: &Call) -> Result<Output> {
    names_given(call)?;
    let enabled = enabled(call)?;
    let is_on = |name: &&String| enabled.contains(name) || BUILT_IN.contains(&name.as_str());
    let on: Vec<&String> = call.words.iter().filter(is_on).collect();
    if on.is_empty() && !call.given.is_set("all") {
        let text = format!(
            "The following plugins have been configured:\n{}\nApplying plugin configuration to {}...\n\
             Plugin configuration unchanged.",
            indented(&enabled),
            call.node
        );
        return Ok(Output::said(text));
    }
    let text = "what Garenne has in its binary cannot be disabled; what is not used costs nothing. \
                The HTTP API and metrics are turned off in the configuration (docs/configuration.md)";
    Err(Fault::error(code::UNAVAILABLE, text))
}

fn is_enabled(call: &Call) -> Result<Output> {
    let enabled = enabled(call)?;
    let node = &call.node;
    let missing: Vec<&String> = call.words.iter().filter(|name| !enabled.contains(name)).collect();
    let all = enabled.join(", ");
    match (&missing[..], &call.words[..]) {
        ([], [one]) => Ok(said_ok(format!("Plugin {one} is enabled on node {node}"))),
        ([], words) => Ok(said_ok(format!("Plugins {} are enabled on node {node}", words.join(", ")))),
        ([one], _) => Err(Fault::error(
            code::UNAVAILABLE,
            format!("Plugin {one} is not enabled on node {node}. Enabled plugins and dependencies: {all}"),
        )),
        (many, _) => {
            let names: Vec<&str> = many.iter().map(|name| name.as_str()).collect();
            let text = format!(
                "Plugins {} are not enabled on node {node}. Enabled plugins and dependencies: {all}",
                names.join(", ")
            );
            Err(Fault::error(code::UNAVAILABLE, text))
        }
    }
}

fn said_ok(text: String) -> Output {
    Output::Message { json: json!({ "result": "ok", "message": text }), text }
}
