//! Calls the functions of the crate `rabbitmq_http_client` one after another and says which of them failed.
//!
//! http-client HTTP_PORT AMQP_PORT NODE: one line a call on standard output: name, tab, `ok` or the error.
//! It expects the world of `world.py`, and makes and removes a virtual host of its own.

use std::fmt::Debug;

use rabbitmq_http_client::blocking_api::Client;
use rabbitmq_http_client::commons::{
    BindingDestinationType, ExchangeType, PaginationParams, PolicyTarget, QueueType, SupportedProtocol,
    UserLimitTarget, VirtualHostLimitTarget,
};
use rabbitmq_http_client::password_hashing;
use rabbitmq_http_client::requests::{
    BindingDeletionParams, EnforcedLimitParams, ExchangeParams, GlobalRuntimeParameterDefinition,
    Permissions, PolicyParams, QueueParams, RuntimeParameterDefinition, StreamParams, TopicPermissions,
    UserParams, VirtualHostParams,
};
use rabbitmq_http_client::responses::ReachabilityProbeOutcome;
use serde_json::{Map, Value, json};

const WORLD: &str = "world";
const OWN: &str = "crate/own %";

type Result<T> = std::result::Result<T, String>;

/// Says how a call went, and gives its answer on to calls that need it.
fn tell<T, E: Debug>(name: &str, result: std::result::Result<T, E>) -> Result<T> {
    match result {
        Ok(answer) => {
            println!("{name}\tok");
            Ok(answer)
        }
        Err(error) => {
            let mut text = format!("{error:?}").replace(['\n', '\t'], " ");
            text.truncate(text.char_indices().nth(600).map_or(text.len(), |(at, _)| at));
            println!("{name}\t{text}");
            Err(text)
        }
    }
}

/// A call that must answer something: a list that is empty proves nothing about its fields.
fn tell_some<T, E: Debug>(name: &str, result: std::result::Result<Vec<T>, E>) {
    if let Ok(list) = tell(name, result)
        && list.is_empty()
    {
        println!("{name}.some\tthe list is empty");
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [http_port, amqp_port, node] = arguments.as_slice() else {
        eprintln!("usage: http-client HTTP_PORT AMQP_PORT NODE");
        std::process::exit(2);
    };
    let endpoint = format!("http://127.0.0.1:{http_port}/api");
    let client = Client::new(endpoint.as_str(), "guest", "guest");
    reads(&client, node, amqp_port.parse().expect("a port is a number"));
    vhosts_and_users(&client);
    topology(&client);
    rules(&client);
    messages_and_definitions(&client);
    the_rest(&client, node);
}

type C<'a> = Client<&'a str, &'a str, &'a str>;

fn reads(c: &C, node: &str, amqp_port: u16) {
    let page = PaginationParams::new(1, 5);
    let _ = tell("overview", c.overview());
    let _ = tell("server_version", c.server_version());
    let _ = tell("get_cluster_name", c.get_cluster_name());
    let _ = tell("get_cluster_tags", c.get_cluster_tags());
    tell_some("list_nodes", c.list_nodes());
    let _ = tell("get_node_info", c.get_node_info(node));
    let _ = tell("get_node_memory_footprint", c.get_node_memory_footprint(node));
    let _ = tell("list_all_cluster_plugins", c.list_all_cluster_plugins());
    let _ = tell("list_node_plugins", c.list_node_plugins(node));
    tell_some("auth_attempts_statistics", c.auth_attempts_statistics(node));
    let _ = tell("current_user", c.current_user());
    let _ = tell(
        "probe_reachability",
        match c.probe_reachability() {
            ReachabilityProbeOutcome::Reached(details) => Ok(details),
            other => Err(format!("{other:?}")),
        },
    );

    if let Ok(connections) = tell("list_connections", c.list_connections())
        && let Some(connection) = connections.first()
    {
        let _ = tell("get_connection_info", c.get_connection_info(&connection.name));
        let _ = tell("list_channels_on", c.list_channels_on(&connection.name));
    }
    tell_some("list_connections_paged", c.list_connections_paged(&page));
    tell_some("list_connections_in", c.list_connections_in(WORLD));
    tell_some("list_user_connections", c.list_user_connections("guest"));
    tell_some("list_channels", c.list_channels());
    tell_some("list_channels_paged", c.list_channels_paged(&page));
    tell_some("list_channels_in", c.list_channels_in(WORLD));
    tell_some("list_channels_in_paged", c.list_channels_in_paged(WORLD, &page));
    tell_some("list_consumers", c.list_consumers());
    tell_some("list_consumers_in", c.list_consumers_in(WORLD));

    tell_some("list_queues", c.list_queues());
    tell_some("list_queues_paged", c.list_queues_paged(&page));
    tell_some("list_queues_in", c.list_queues_in(WORLD));
    tell_some("list_queues_in_paged", c.list_queues_in_paged(WORLD, &page));
    tell_some("list_queues_with_details", c.list_queues_with_details());
    tell_some("list_quorum_queues", c.list_quorum_queues());
    tell_some("list_quorum_queues_in", c.list_quorum_queues_in(WORLD));
    tell_some("list_classic_queues", c.list_classic_queues());
    tell_some("list_classic_queues_in", c.list_classic_queues_in(WORLD));
    let _ = tell("list_streams", c.list_streams());
    let _ = tell("list_streams_in", c.list_streams_in(WORLD));
    let _ = tell("list_streams_paged", c.list_streams_paged(&page));
    let _ = tell("list_streams_in_paged", c.list_streams_in_paged(WORLD, &page));
    for queue in ["w.classic", "w.quorum", "w/slash %", "w.ünïcode", "w.busy", "w.unacked"] {
        let _ = tell(&format!("get_queue_info {queue}"), c.get_queue_info(WORLD, queue));
    }
    tell_some("list_exchanges", c.list_exchanges());
    tell_some("list_exchanges_paged", c.list_exchanges_paged(&page));
    tell_some("list_exchanges_in", c.list_exchanges_in(WORLD));
    tell_some("list_exchanges_in_paged", c.list_exchanges_in_paged(WORLD, &page));
    let _ = tell("get_exchange_info", c.get_exchange_info(WORLD, "w.alternate"));
    tell_some("list_bindings", c.list_bindings());
    tell_some("list_bindings_in", c.list_bindings_in(WORLD));
    tell_some("list_queue_bindings", c.list_queue_bindings(WORLD, "w.classic"));
    tell_some("list_exchange_bindings_with_source", c.list_exchange_bindings_with_source(WORLD, "w.direct"));
    tell_some(
        "list_exchange_bindings_with_destination",
        c.list_exchange_bindings_with_destination(WORLD, "w.direct"),
    );

    let _ = tell("health_check_cluster_wide_alarms", c.health_check_cluster_wide_alarms());
    let _ = tell("health_check_local_alarms", c.health_check_local_alarms());
    let _ = tell("health_check_if_node_is_quorum_critical", c.health_check_if_node_is_quorum_critical());
    let _ = tell("health_check_port_listener", c.health_check_port_listener(amqp_port));
    let _ = tell("health_check_protocol_listener", c.health_check_protocol_listener(SupportedProtocol::AMQP));
    // These two must fail, and their reasons must parse: the crate then says which check failed.
    for (name, result) in [
        ("health_check_port_listener 1", c.health_check_port_listener(1)),
        ("health_check_protocol_listener mqtt", c.health_check_protocol_listener(SupportedProtocol::MQTT)),
    ] {
        let text = format!("{result:?}");
        let _ = tell(name, if text.contains("HealthCheckFailed") { Ok(()) } else { Err(text) });
    }
    let _ = tell("list_feature_flags", c.list_feature_flags());
    let _ = tell("list_all_deprecated_features", c.list_all_deprecated_features());
    let _ = tell("list_deprecated_features_in_use", c.list_deprecated_features_in_use());
}

fn vhosts_and_users(c: &C) {
    let page = PaginationParams::new(1, 5);
    tell_some("list_vhosts", c.list_vhosts());
    tell_some("list_vhosts_paged", c.list_vhosts_paged(&page));
    let _ = tell("get_vhost", c.get_vhost(WORLD));
    let _ = c.delete_vhost(OWN, true);
    let vhost = VirtualHostParams::named(OWN)
        .with_description("of the crate")
        .with_tags(vec!["one", "two"])
        .with_default_queue_type(QueueType::Classic);
    let _ = tell("create_vhost", c.create_vhost(&vhost));
    let _ = tell("update_vhost", c.update_vhost(&VirtualHostParams::named(OWN).with_description("changed")));
    let _ = tell("get_vhost own", c.get_vhost(OWN));
    let _ = tell("enable_vhost_deletion_protection", c.enable_vhost_deletion_protection(OWN));
    let _ = tell("disable_vhost_deletion_protection", c.disable_vhost_deletion_protection(OWN));

    let hash =
        password_hashing::base64_encoded_salted_password_hash_sha256(&password_hashing::salt(), "crate");
    tell_some("list_users", c.list_users());
    tell_some("list_users_paged", c.list_users_paged(&page));
    tell_some("list_users_without_permissions", c.list_users_without_permissions());
    let _ = tell("create_user", c.create_user(&UserParams::administrator("crate-user", &hash)));
    let _ = tell("create_user second", c.create_user(&UserParams::without_tags("crate-other", &hash)));
    let _ = tell("get_user", c.get_user("crate-user"));
    tell_some("list_permissions", c.list_permissions());
    tell_some("list_permissions_in", c.list_permissions_in(WORLD));
    tell_some("list_permissions_of", c.list_permissions_of("guest"));
    let _ = tell("get_permissions", c.get_permissions(WORLD, "guest"));
    let _ = tell("declare_permissions", c.declare_permissions(&Permissions::full_access("crate-user", OWN)));
    let _ = tell("grant_permissions", c.grant_permissions(&Permissions::read_only("crate-user", OWN)));
    let _ = tell("grant_full_permissions", c.grant_full_permissions("guest", OWN));
    let topic =
        TopicPermissions { user: "crate-user", vhost: OWN, write: "^a", read: ".*", exchange: "amq.topic" };
    let _ = tell("declare_topic_permissions", c.declare_topic_permissions(&topic));
    tell_some("list_topic_permissions", c.list_topic_permissions());
    tell_some("list_topic_permissions_in", c.list_topic_permissions_in(WORLD));
    tell_some("list_topic_permissions_of", c.list_topic_permissions_of("limited"));
    let _ = tell("get_topic_permissions_of", c.get_topic_permissions_of(WORLD, "limited"));
    let _ = tell("clear_topic_permissions", c.clear_topic_permissions(OWN, "crate-user", false));
    let _ = tell("clear_topic_permissions again", c.clear_topic_permissions(OWN, "crate-user", true));

    let user_limit = EnforcedLimitParams::new(UserLimitTarget::MaxChannels, 5);
    let _ = tell("set_user_limit", c.set_user_limit("crate-user", user_limit));
    tell_some("list_all_user_limits", c.list_all_user_limits());
    tell_some("list_user_limits", c.list_user_limits("crate-user"));
    let _ = tell("clear_user_limit", c.clear_user_limit("crate-user", UserLimitTarget::MaxChannels));
    let vhost_limit = EnforcedLimitParams::new(VirtualHostLimitTarget::MaxQueues, 50);
    let _ = tell("set_vhost_limit", c.set_vhost_limit(OWN, vhost_limit));
    tell_some("list_all_vhost_limits", c.list_all_vhost_limits());
    tell_some("list_vhost_limits", c.list_vhost_limits(OWN));
    let _ = tell("clear_vhost_limit", c.clear_vhost_limit(OWN, VirtualHostLimitTarget::MaxQueues));
}

fn topology(c: &C) {
    let durable =
        ExchangeParams::durable_topic("crate.x", Some(map(json!({"alternate-exchange": "amq.fanout"}))));
    let _ = tell("declare_exchange", c.declare_exchange(OWN, &durable));
    let _ = tell("declare_exchange again", c.declare_exchange(OWN, &durable));
    let transient = ExchangeParams::new("crate.y", ExchangeType::Direct, false, true, None);
    let _ = tell("declare_exchange transient", c.declare_exchange(OWN, &transient));
    let classic = QueueParams::new_durable_classic_queue("crate.q", None)
        .with_max_length(1000)
        .with_message_ttl(60000)
        .with_dead_letter_exchange("amq.fanout");
    let _ = tell("declare_queue", c.declare_queue(OWN, &classic));
    let transient = QueueParams::new_transient_autodelete("crate/t %", None);
    let _ = tell("declare_queue transient", c.declare_queue(OWN, &transient));
    let _ = tell("declare_quorum_queue", c.declare_quorum_queue(OWN, "crate.quorum"));
    let _ = tell("declare_classic_queue", c.declare_classic_queue(OWN, "crate.classic"));
    let _ = tell(
        "declare_stream",
        c.declare_stream(
            OWN,
            &StreamParams::with_expiration_and_length_limit("crate.stream", "1D", 1_000_000),
        ),
    );
    let _ = tell("get_stream_info", c.get_stream_info(OWN, "crate.stream"));
    let _ = tell("delete_stream", c.delete_stream(OWN, "crate.stream", true));

    let _ = tell("bind_queue", c.bind_queue(OWN, "crate.q", "crate.x", Some("a.b/c %"), None));
    let arguments = Some(map(json!({"x-match": "all", "a": 1})));
    let _ = tell("bind_queue arguments", c.bind_queue(OWN, "crate.q", "amq.headers", Some(""), arguments));
    let _ = tell("bind_exchange", c.bind_exchange(OWN, "amq.fanout", "crate.x", Some("e.#"), None));
    if let Ok(bindings) = tell("list_queue_bindings own", c.list_queue_bindings(OWN, "crate.q")) {
        for (number, binding) in bindings.iter().filter(|binding| !binding.source.is_empty()).enumerate() {
            let parameters = BindingDeletionParams::from(binding);
            let _ = tell(&format!("delete_binding {number}"), c.delete_binding(&parameters, false));
            let _ = tell(&format!("recreate_binding {number}"), c.recreate_binding(binding));
        }
    }
    let gone = BindingDeletionParams {
        virtual_host: OWN,
        source: "crate.x",
        destination: "amq.fanout",
        destination_type: BindingDestinationType::Exchange,
        routing_key: "e.#",
        arguments: None,
    };
    let _ = tell("delete_binding exchange", c.delete_binding(&gone, false));
    let _ = tell("delete_binding gone", c.delete_binding(&gone, true));
}

fn rules(c: &C) {
    let policy = PolicyParams::new(OWN, "crate-policy", "^crate", map(json!({"max-length": 500})))
        .apply_to(PolicyTarget::ClassicQueues)
        .priority(7);
    let second = PolicyParams::new(OWN, "crate-second", ".*", map(json!({"message-ttl": 500})));
    let _ = tell("declare_policy", c.declare_policy(&policy));
    let _ = tell("declare_policies", c.declare_policies(vec![&policy, &second]));
    let _ = tell("get_policy", c.get_policy(OWN, "crate-policy"));
    tell_some("list_policies", c.list_policies());
    tell_some("list_policies_in", c.list_policies_in(OWN));
    tell_some("list_policies_for_target", c.list_policies_for_target(OWN, PolicyTarget::ClassicQueues));
    tell_some(
        "list_matching_policies",
        c.list_matching_policies(OWN, "crate.q", PolicyTarget::ClassicQueues),
    );
    let _ = tell("get_queue_info policied", c.get_queue_info(OWN, "crate.q"));
    let _ = tell("delete_policy", c.delete_policy(OWN, "crate-policy", false));
    let _ = tell("delete_policies_in", c.delete_policies_in(OWN, vec!["crate-second"]));
    let operator = PolicyParams::new(OWN, "crate-operator", "^crate", map(json!({"max-length": 400})))
        .apply_to(PolicyTarget::Queues);
    let _ = tell("declare_operator_policy", c.declare_operator_policy(&operator));
    let _ = tell("declare_operator_policies", c.declare_operator_policies(vec![&operator]));
    let _ = tell("get_operator_policy", c.get_operator_policy(OWN, "crate-operator"));
    tell_some("list_operator_policies", c.list_operator_policies());
    tell_some("list_operator_policies_in", c.list_operator_policies_in(OWN));
    tell_some(
        "list_operator_policies_for_target",
        c.list_operator_policies_for_target(OWN, PolicyTarget::Queues),
    );
    tell_some(
        "list_matching_operator_policies",
        c.list_matching_operator_policies(OWN, "crate.q", PolicyTarget::Queues),
    );
    let _ = tell("delete_operator_policy", c.delete_operator_policy(OWN, "crate-operator", false));
    let _ = tell("delete_operator_policies_in", c.delete_operator_policies_in(OWN, vec!["crate-operator"]));

    tell_some("list_runtime_parameters", c.list_runtime_parameters());
    tell_some("list_runtime_parameters_of_component", c.list_runtime_parameters_of_component("vhost-limits"));
    let limits = RuntimeParameterDefinition {
        name: "limits",
        vhost: OWN,
        component: "vhost-limits",
        value: map(json!({"max-queues": 60})),
    };
    let _ = tell("upsert_runtime_parameter", c.upsert_runtime_parameter(&limits));
    tell_some(
        "list_runtime_parameters_of_component_in",
        c.list_runtime_parameters_of_component_in("vhost-limits", OWN),
    );
    let _ = tell("get_runtime_parameter", c.get_runtime_parameter("vhost-limits", OWN, "limits"));
    let _ = tell("clear_runtime_parameter", c.clear_runtime_parameter("vhost-limits", OWN, "limits", false));
    let _ =
        tell("clear_runtime_parameter gone", c.clear_runtime_parameter("vhost-limits", OWN, "limits", true));
    let global =
        GlobalRuntimeParameterDefinition { name: "crate-global", value: map(json!({"a": 1, "b": ["c"]})) };
    let _ = tell("upsert_global_runtime_parameter", c.upsert_global_runtime_parameter(&global));
    tell_some("list_global_runtime_parameters", c.list_global_runtime_parameters());
    let _ = tell("get_global_runtime_parameter", c.get_global_runtime_parameter("crate-global"));
    let _ = tell("clear_global_runtime_parameter", c.clear_global_runtime_parameter("crate-global"));
}

fn messages_and_definitions(c: &C) {
    let properties = map(json!({"delivery_mode": 2, "content_type": "text/plain", "headers": {"a": 1}}));
    for _ in 0..3 {
        let _ =
            tell("publish_message", c.publish_message(OWN, "", "crate.classic", "text", properties.clone()));
    }
    let unroutable = c.publish_message(OWN, "amq.direct", "nowhere", "text", Map::new());
    let _ = tell("publish_message unroutable", unroutable);
    for mode in ["ack_requeue_true", "reject_requeue_true", "ack_requeue_false"] {
        tell_some(&format!("get_messages {mode}"), c.get_messages(OWN, "crate.classic", 1, mode));
    }
    let _ = tell("purge_queue", c.purge_queue(OWN, "crate.classic"));

    let _ = tell("export_cluster_wide_definitions", c.export_cluster_wide_definitions());
    let _ = tell("export_cluster_wide_definitions_as_data", c.export_cluster_wide_definitions_as_data());
    let _ = tell("export_vhost_definitions_as_data", c.export_vhost_definitions_as_data(OWN));
    if let Ok(text) =
        tell("export_cluster_wide_definitions_as_string", c.export_cluster_wide_definitions_as_string())
        && let Ok(value) = serde_json::from_str::<Value>(&text)
    {
        let _ = tell("import_definitions", c.import_definitions(value.clone()));
        let _ = tell("import_cluster_wide_definitions", c.import_cluster_wide_definitions(value));
    }
    if let Ok(text) = tell("export_vhost_definitions_as_string", c.export_vhost_definitions_as_string(OWN))
        && let Ok(value) = serde_json::from_str::<Value>(&text)
    {
        let _ = tell("import_vhost_definitions", c.import_vhost_definitions(OWN, value));
    }
}

fn the_rest(c: &C, node: &str) {
    let _ = tell("delete_queue", c.delete_queue(OWN, "crate.q", false));
    let _ = tell("delete_queue gone", c.delete_queue(OWN, "crate.q", true));
    let _ =
        tell("delete_queues", c.delete_queues(OWN, &["crate.classic", "crate.quorum", "crate/t %"], true));
    let _ = tell("delete_exchange", c.delete_exchange(OWN, "crate.x", false));
    let _ = tell("delete_exchanges", c.delete_exchanges(OWN, &["crate.y", "crate.none"], true));
    let _ = tell("close_connection gone", c.close_connection("none", Some("of the crate"), true));
    let _ = tell(
        "close_user_connections gone",
        c.close_user_connections("crate-user", Some("of the crate"), true),
    );
    let _ = tell("clear_permissions", c.clear_permissions(OWN, "crate-user", false));
    let _ = tell("delete_user", c.delete_user("crate-user", false));
    let _ = tell("delete_users", c.delete_users(vec!["crate-other"]));
    let _ = tell("set_cluster_name", c.set_cluster_name(node));
    let _ = tell("set_cluster_tags", c.set_cluster_tags(map(json!({"region": "here"}))));
    let _ = tell("clear_cluster_tags", c.clear_cluster_tags());
    let _ = tell("rebalance_queue_leaders", c.rebalance_queue_leaders());
    let _ = tell("enable_feature_flag", c.enable_feature_flag("quorum_queue"));
    let _ = tell("delete_vhost", c.delete_vhost(OWN, false));
    let _ = tell("delete_vhost gone", c.delete_vhost(OWN, true));
}
