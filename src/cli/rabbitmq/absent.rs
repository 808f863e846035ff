//! Commands that only make sense with Erlang, with a cluster or with streams: known, explained, refused.

use super::arguments::{Switch, flag, number, text};
use super::call::{Call, Fault, READING, Result, Verb, code, quiet};
use super::output::Output;
use super::{CTL, DIAGNOSTICS, QUEUES, STREAMS, UPGRADE};

pub const SECTION: &str = "Not in Garenne";

const ERLANG: &str = "there is no Erlang in Garenne";
const CLUSTER: &str = "this version of Garenne is a single node";
const STREAM: &str = "this version of Garenne has no streams";
const NO_APP: &str =
    "the broker and its node are one process: stop it with 'rabbitmqctl stop', start it with 'garenne'";
const RESET: &str = "to empty a broker, stop it and remove its data directory; \
                     to empty a vhost, delete it and add it again";
const LOG: &str = "logs go to standard error, and from there to journalctl or docker logs; \
                   read them there, or bind a queue to amq.rabbitmq.log";
const SECRETS: &str = "encrypted configuration values are RabbitMQ's own; \
                       Garenne reads secrets from the environment or from files that only it may read";
const DRAIN: &str = "a single node has no other to hand its clients to; \
                     when it stops it tells them, and writes everything";
const MIRRORS: &str = "queues have no mirrors here; each confirmed message is on disk";
const MEMBERS: &str = "queues have no replicas in this version: a single node has them all";

/// Name, tools, why not. What is taken for arguments does not matter: none of them is carried out.
const ABSENT: &[(&str, u8, &str)] = &[
    ("stop_app", CTL, NO_APP),
    ("reset", CTL, RESET),
    ("force_reset", CTL, RESET),
    ("force_boot", CTL, CLUSTER),
    ("join_cluster", CTL, CLUSTER),
    ("forget_cluster_node", CTL, CLUSTER),
    ("rename_cluster_node", CTL, CLUSTER),
    ("update_cluster_nodes", CTL, CLUSTER),
    ("change_cluster_node_type", CTL, CLUSTER),
    ("sync_queue", CTL, MIRRORS),
    ("cancel_sync_queue", CTL, MIRRORS),
    ("suspend_listeners", CTL, DRAIN),
    ("resume_listeners", CTL, DRAIN),
    ("encode", CTL, SECRETS),
    ("decode", CTL, SECRETS),
    ("list_ciphers", READING, SECRETS),
    ("eval", CTL, ERLANG),
    ("eval_file", CTL, ERLANG),
    ("exec", CTL, ERLANG),
    ("hipe_compile", CTL, ERLANG),
    ("schema_info", READING, "definitions are not kept in Mnesia; see docs/DATA.md"),
    ("erlang_version", DIAGNOSTICS, ERLANG),
    ("erlang_cookie_hash", DIAGNOSTICS, ERLANG),
    ("erlang_cookie_sources", DIAGNOSTICS, ERLANG),
    ("remote_shell", DIAGNOSTICS, ERLANG),
    ("observer", DIAGNOSTICS, ERLANG),
    ("maybe_stuck", DIAGNOSTICS, ERLANG),
    ("runtime_thread_stats", DIAGNOSTICS, ERLANG),
    ("command_line_arguments", DIAGNOSTICS, ERLANG),
    ("consume_event_stream", DIAGNOSTICS, "bind a queue to the exchange amq.rabbitmq.event"),
    ("discover_peers", DIAGNOSTICS, CLUSTER),
    ("log_tail", DIAGNOSTICS, LOG),
    ("log_tail_stream", DIAGNOSTICS, LOG),
    ("log_location", DIAGNOSTICS, LOG),
    ("os_env", DIAGNOSTICS, "the environment of a process is read on its machine: /proc/PID/environ"),
    ("list_network_interfaces", DIAGNOSTICS, "ask the machine: ip address"),
    ("resolve_hostname", DIAGNOSTICS, "ask the machine: getent hosts NAME"),
    ("resolver_info", DIAGNOSTICS, ERLANG),
    ("cipher_suites", DIAGNOSTICS, "Garenne speaks TLS with rustls: TLS 1.2 and 1.3 with its safe suites"),
    ("tls_versions", DIAGNOSTICS, "Garenne speaks TLS with rustls: TLS 1.2 and 1.3"),
    ("certificates", DIAGNOSTICS, "ask the port: openssl s_client -connect HOST:5671 -showcerts"),
    ("enable_auth_attempt_source_tracking", DIAGNOSTICS, "sources of failed logins are always counted"),
    ("disable_auth_attempt_source_tracking", DIAGNOSTICS, "sources of failed logins are always counted"),
    ("reset_node_auth_attempt_metrics", DIAGNOSTICS, "these counters start with the broker"),
    ("reclaim_quorum_memory", DIAGNOSTICS | QUEUES, ERLANG),
    ("quorum_status", DIAGNOSTICS | QUEUES, MEMBERS),
    ("stream_status", DIAGNOSTICS | STREAMS, STREAM),
    ("grow", QUEUES, MEMBERS),
    ("shrink", QUEUES, MEMBERS),
    ("add_member", QUEUES, MEMBERS),
    ("delete_member", QUEUES, MEMBERS),
    ("drain", UPGRADE, DRAIN),
    ("revive", UPGRADE, DRAIN),
    ("add_super_stream", STREAMS, STREAM),
    ("delete_super_stream", STREAMS, STREAM),
    ("list_stream_connections", STREAMS, STREAM),
    ("list_stream_publishers", STREAMS, STREAM),
    ("list_stream_consumers", STREAMS, STREAM),
    ("list_stream_consumer_groups", STREAMS, STREAM),
    ("list_stream_group_consumers", STREAMS, STREAM),
    ("list_stream_tracking", STREAMS, STREAM),
    ("activate_stream_consumer", STREAMS, STREAM),
    ("reset_offset", STREAMS, STREAM),
    ("restart_stream", STREAMS, STREAM),
    ("coordinator_status", STREAMS, STREAM),
    ("add_replica", STREAMS, STREAM),
    ("delete_replica", STREAMS, STREAM),
    ("set_stream_retention_policy", STREAMS, STREAM),
];

/// Switches that scripts give them.
const SWITCHES: &[Switch] = &[
    flag("offline"),
    flag("disc"),
    flag("ram"),
    flag("all"),
    flag("force"),
    text("format"),
    text("cipher"),
    text("hash"),
    text("tracking-id"),
    text("binding-keys"),
    text("stream"),
    text("reference"),
    number("iterations"),
    number("number").short('N'),
    number("duration").short('d'),
    number("sample-interval"),
    number("partitions"),
];

pub fn verbs() -> impl Iterator<Item = Verb> {
    ABSENT.iter().map(|(name, tools, why)| Verb {
        name,
        tools: *tools,
        section: SECTION,
        about: why,
        usage: "",
        switches: SWITCHES,
        words: (0, usize::MAX),
        banner: quiet,
        run: |call| absent(call, call.verb.about),
    })
}

pub fn absent(call: &Call, why: &str) -> Result<Output> {
    Err(Fault::error(code::UNAVAILABLE, format!("'{}' cannot be carried out: {why}", call.verb.name)))
}
