//! Feature flags and deprecated features: what tools of RabbitMQ's world ask for before they use something.

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};

pub fn routes() -> Vec<Route> {
    vec![
        Route::list(
            "/feature-flags",
            Right::Administer,
            "What RabbitMQ has behind flags, and is here",
            flags,
        ),
        Route::put("/feature-flags/{name}/enable", Right::Administer, "Does nothing: all are on", enable)
            .body(json!({}), &[]),
        Route::list("/deprecated-features", Right::Any, "What RabbitMQ gives up, and is here", deprecated),
        Route::list("/deprecated-features/used", Right::Any, "The same, as far as it is in use", used),
        Route::post("/rebalance/queues", Right::Administer, "Does nothing: there is one node", rebalance)
            .body(json!({}), &[]),
    ]
}

/// RabbitMQ's flags, and what they stand for.
const FLAGS: &[(&str, &str)] = &[
    ("classic_queue_type_delivery_support", "Deliveries of classic queues"),
    ("direct_exchange_routing_v2", "Routing of direct exchanges"),
    ("drop_unroutable_metric", "Unroutable messages that are dropped are counted"),
    ("empty_basic_get_metric", "Asking an empty queue is counted"),
    ("feature_flags_v2", "Flags are kept"),
    ("implicit_default_bindings", "Every queue is bound to the default exchange"),
    ("maintenance_mode_status", "A node says that it goes"),
    ("message_containers", "Messages are kept as they came"),
    ("quorum_queue", "Queues of type quorum"),
    // NServiceBus does not start without it, though all that it declares are quorum queues.
    (
        "stream_queue",
        "Arguments of streams are understood; this version has none yet and refuses them by name",
    ),
    ("user_limits", "Limits of users"),
    ("virtual_host_metadata", "Vhosts have tags and a description"),
];

/// What newer RabbitMQs refuse or are about to.
const DEPRECATED: &[(&str, &str)] = &[
    ("amqp_address_v1", "Addresses of AMQP 1.0"),
    ("global_qos", "A prefetch limit for all consumers of a channel"),
    ("management_metrics_collection", "Counts and rates in the HTTP API"),
    ("queue_master_locator", "x-queue-master-locator"),
    ("ram_node_type", "Nodes without a disk"),
    ("transient_nonexcl_queues", "Queues that are neither durable nor exclusive"),
];

fn flags(_: &Call) -> Result<Answer, Error> {
    let one = |(name, text): &(&str, &str)| {
        json!({
            "name": name,
            "desc": text,
            "doc_url": "",
            "state": "enabled",
            "stability": "stable",
            "provided_by": "garenne",
        })
    };
    Ok(Answer::Json(FLAGS.iter().map(one).collect()))
}

fn enable(call: &Call) -> Result<Answer, Error> {
    call.object()?;
    let name = call.param("name");
    match name == "all" || FLAGS.iter().any(|(flag, _)| *flag == name) {
        true => Ok(Answer::Done),
        false => Err(Error::BadRequest("unsupported".into())),
    }
}

fn deprecated_json(names: impl Iterator<Item = &'static (&'static str, &'static str)>) -> Json {
    let one = |(name, text): &(&str, &str)| {
        json!({
            "name": name,
            "desc": text,
            "deprecation_phase": "permitted_by_default",
            "state": "permitted",
            "doc_url": "",
            "provided_by": "garenne",
        })
    };
    names.map(one).collect()
}

fn deprecated(_: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(deprecated_json(DEPRECATED.iter())))
}

fn used(call: &Call) -> Result<Answer, Error> {
    let vhosts = call.vhosts()?;
    let has_transient = vhosts.iter().flat_map(|vhost| vhost.declared_queues()).any(|queue| {
        let declaration = queue.declaration();
        !declaration.durable && declaration.owner.is_none()
    });
    let guests = call.broker.roster.guests();
    let has_global = guests.iter().flat_map(|g| g.channels()).any(|c| c.standing().global_prefetch > 0);
    let is_used = |name: &str| match name {
        "transient_nonexcl_queues" => has_transient,
        "global_qos" => has_global,
        _ => false,
    };
    Ok(Answer::Json(deprecated_json(DEPRECATED.iter().filter(|(name, _)| is_used(name)))))
}

fn rebalance(call: &Call) -> Result<Answer, Error> {
    call.object()?;
    Ok(Answer::Done)
}
