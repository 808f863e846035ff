//! The broker as a whole: `/overview`, who one is, and small facts that tools ask for first.

use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::nodes;
use super::route::{Right, Route};
use super::stats::{self, Lengths, PUBLISHED, TAKEN};
use crate::broker::NodeFigures;
use crate::node::{COMPATIBLE, Usage};
use crate::samples::{self, Span};
use crate::tally::Figures;
use crate::vhost::Vhost;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/overview", Right::Any, "The broker as a whole", overview),
        Route::get("/whoami", Right::Any, "Who one is, and with which tags", whoami),
        Route::get("/version", Right::Any, "The version", version),
        Route::get("/extensions", Right::Any, "Plugins of the management UI: none", extensions),
        Route::get("/auth", Right::Nobody, "Other ways to log in: none", auth).query(&[]),
        Route::post("/login", Right::Nobody, "Whether somebody may use this API, asked by a form", login)
            .form(json!({"username": "", "password": ""}), &["username", "password"]),
        Route::delete("/reset", Right::Administer, "Does nothing: statistics do not go astray", reset),
        Route::delete("/reset/{node}", Right::Administer, "Does nothing, for the node of this name", reset),
    ]
}

fn whoami(call: &Call) -> Result<Answer, Error> {
    let user = call.who.user()?;
    Ok(Answer::Json(json!({"name": &*user.name, "tags": user.tags, "is_internal_user": true})))
}

fn version(_: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(json!(COMPATIBLE)))
}

fn extensions(_: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(json!([])))
}

fn auth(_: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(
        json!({"oauth_enabled": false, "enable_uaa": false, "uaa_client_id": "", "uaa_location": ""}),
    ))
}

/// RabbitMQ also has the browser keep the password in a cookie, which only its own pages read: that is left out.
fn login(call: &Call) -> Result<Answer, Error> {
    let field = |name: &str| call.form_field(name).unwrap_or_default();
    let user = call.log_in(&field("username"), &field("password"))?;
    match user.is_management() {
        true => Ok(Answer::Json(json!("ok"))),
        false => Err(Error::NotAuthorised("Not management user".into())),
    }
}

/// RabbitMQ empties the database of its statistics, and has the totals again when everything has been counted anew.
/// Here they are counted where things happen, and nothing can be left in them.
fn reset(call: &Call) -> Result<Answer, Error> {
    match !call.has_param("node") || call.param("node") == call.node() {
        true => Ok(Answer::Done),
        false => Err(Error::NotFound),
    }
}

/// Sums over the queues of vhosts.
#[derive(Default)]
pub struct Totals {
    /// Messages.
    pub lengths: Lengths,
    consumers: usize,
    queues: usize,
}

impl Totals {
    /// Adds the queues of a vhost; and what was in them, if a span is asked for.
    pub fn add(&mut self, vhost: &Vhost, span: Option<Span>) {
        for queue in vhost.declared_queues() {
            let depth = queue.depth(span);
            let lengths = &mut self.lengths;
            lengths.now[0] += depth.ready;
            lengths.now[1] += depth.unacked;
            lengths.growth.0 += depth.growth.0;
            lengths.growth.1 += depth.growth.1;
            if let Some(past) = &depth.past {
                samples::add(&mut lengths.past, past);
            }
            self.consumers += depth.consumers;
            self.queues += 1;
        }
    }
}

fn overview(call: &Call) -> Result<Answer, Error> {
    let broker = &call.broker;
    let (now_ms, past) = (broker.clock().now_ms(), call.past());
    let vhosts = call.watched_vhosts()?;
    let (mut totals, mut figures, mut exchanges) = (Totals::default(), Figures::default(), 0);
    for vhost in &vhosts {
        totals.add(vhost, past.lengths);
        figures.add(&vhost.tallies().figures(now_ms, past.rates));
        exchanges += vhost.exchange_count();
    }
    if call.who.is_monitoring() {
        // What has been deleted since the start counts as well.
        figures = broker.tallies.figures(now_ms, past.rates);
    }
    let guests = super::connections::visible(call);
    let channels: usize = guests.iter().map(|guest| guest.channel_count()).sum();
    let mut overview = json!({
        "management_version": COMPATIBLE,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [60], "basic": [60], "detailed": [60]},
        "exchange_types": nodes::exchange_types(),
        "product_version": env!("CARGO_PKG_VERSION"),
        "product_name": "Garenne",
        "rabbitmq_version": COMPATIBLE,
        "cluster_name": broker.cluster_name(),
        "cluster_tags": broker.config.cluster_tags,
        "node_tags": broker.config.node_tags,
        "erlang_version": "none",
        "erlang_full_version": concat!("none: Garenne is written in Rust ", env!("CARGO_PKG_RUST_VERSION")),
        "crypto_lib_version": "none",
        "release_series_support_status": "supported",
        "disable_stats": call.is_true("disable_stats"),
        "default_queue_type": broker.config.default_queue_type.as_deref().unwrap_or("classic"),
        "is_op_policy_updating_enabled": true,
        "enable_queue_totals": call.is_true("enable_queue_totals"),
        "message_stats": stats::message_stats(&figures, &[PUBLISHED, TAKEN]),
        "queue_totals": totals.lengths.describe(),
        "object_totals": {
            "channels": channels,
            "connections": guests.len(),
            "consumers": totals.consumers,
            "exchanges": exchanges,
            "queues": totals.queues,
        },
        "statistics_db_event_queue": 0,
        "node": call.node(),
    });
    // What the process takes is not told here.
    let figures = broker.node_figures(&Usage::default(), past.rates);
    overview["churn_rates"] = Json::Object(of_node(&figures, CHURN, NODE.len()));
    if call.who.is_monitoring() {
        overview["listeners"] = nodes::listeners(call);
        overview["contexts"] = nodes::contexts(call);
    }
    let columns = super::sheet::Columns::read(call.query("columns"));
    Ok(Answer::Json(columns.of(overview)))
}

/// What has come and gone since the start.
const CHURN: &[&str] = &[
    "connection_created",
    "connection_closed",
    "channel_created",
    "channel_closed",
    "queue_declared",
    "queue_created",
    "queue_deleted",
];

/// What the node takes, as RabbitMQ calls it.
const NODE: &[&str] = &["mem_used", "fd_used", "sockets_used", "proc_used", "disk_free"];

/// Numbers of the node and how they change, from one of them on.
fn of_node(figures: &NodeFigures, names: &[&str], from: usize) -> Map<String, Json> {
    let mut map = Map::new();
    for (name, n) in names.iter().zip(from..) {
        stats::put(&mut map, name, figures.numbers[n], figures.rates[n]);
        if let Some(past) = &figures.past {
            let past = past.iter().map(|(at_ms, numbers)| (*at_ms, numbers[n]));
            stats::put_past(&mut map, name, &past.collect::<Vec<_>>());
        }
    }
    map
}

/// What the node takes, and what has come and gone.
pub fn node_stats(figures: &NodeFigures) -> Map<String, Json> {
    let mut map = of_node(figures, NODE, 0);
    map.extend(of_node(figures, CHURN, NODE.len()));
    map
}
