//! Vhosts: listed, made, changed, deleted, and protected from that.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::{Call, flag, text};
use super::error::Error;
use super::list::{self, Item};
use super::overview::Totals;
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::stats::{self, LENGTHS, PUBLISHED, TAKEN};
use crate::broker::{Broker, VhostChanges, metadata};
use crate::queue::Past;
use crate::vhost;

pub fn routes() -> Vec<Route> {
    const RIGHT: Right = Right::Administer;
    let about = json!({"description": "", "tags": "", "default_queue_type": "classic", "tracing": false});
    vec![
        Route::list("/vhosts", Right::Any, "All vhosts that one may see", all),
        Route::get("/vhosts/{vhost}", RIGHT, "A vhost", get),
        Route::put("/vhosts/{vhost}", RIGHT, "Makes a vhost or changes it", put).body(about, &[]),
        Route::delete("/vhosts/{vhost}", RIGHT, "Deletes a vhost with all that is in it", delete),
        Route::post(
            "/vhosts/{vhost}/deletion/protection",
            RIGHT,
            "Keeps a vhost from being deleted",
            protect,
        ),
        Route::delete(
            "/vhosts/{vhost}/deletion/protection",
            RIGHT,
            "A vhost can be deleted again",
            unprotect,
        ),
        Route::post("/vhosts/{vhost}/start/{node}", RIGHT, "Does nothing: vhosts do not stop", start),
    ]
}

struct Vhost {
    vhost: Arc<vhost::Vhost>,
    node: Arc<str>,
    broker: Arc<Broker>,
    past: Past,
}

impl Vhost {
    fn new(call: &Call, vhost: Arc<vhost::Vhost>) -> Vhost {
        Vhost { vhost, node: call.node().into(), broker: call.broker.clone(), past: call.past() }
    }
}

impl Item for Vhost {
    fn key(&self) -> (&str, &str) {
        ("", self.vhost.name())
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let about = self.vhost.about();
        sheet.put("name", &**self.vhost.name());
        sheet.put("description", about.description.as_str());
        sheet.put("tags", about.tags.clone());
        sheet.put("default_queue_type", about.default_queue_type.as_deref().unwrap_or("undefined"));
        sheet.put("tracing", about.tracing);
        sheet.put("protected_from_deletion", about.protected);
        sheet.with("metadata", || Json::Object(metadata(&self.vhost)));
        sheet.with("cluster_state", || {
            Json::Object(Map::from_iter([(self.node.to_string(), Json::from("running"))]))
        });
        if sheet.wants(LENGTHS) {
            let mut totals = Totals::default();
            totals.add(&self.vhost, self.past.lengths);
            sheet.extend(totals.lengths.describe());
        }
        sheet.with("message_stats", || {
            let figures = self.vhost.tallies().figures(self.broker.clock().now_ms(), self.past.rates);
            Json::Object(stats::message_stats(&figures, &[PUBLISHED, TAKEN]))
        });
        if sheet.wants(&["recv_oct", "recv_oct_details", "send_oct", "send_oct_details"]) {
            let traffic = self.broker.roster.traffic_of(self.vhost.name(), self.broker.clock().now_ms());
            let mut map = Map::new();
            stats::put(&mut map, "recv_oct", traffic.received_bytes, traffic.rates.0);
            stats::put(&mut map, "send_oct", traffic.sent_bytes, traffic.rates.1);
            sheet.extend(map);
        }
    }
}

fn all(call: &Call) -> Result<Answer, Error> {
    let vhosts = call.watched_vhosts()?.into_iter().map(|vhost| Vhost::new(call, vhost));
    list::all(call, vhosts.collect())
}

fn get(call: &Call) -> Result<Answer, Error> {
    list::one(call, &Vhost::new(call, call.vhost()?))
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let kind = text(&body, "default_queue_type")?.filter(|kind| !matches!(*kind, "" | "undefined"));
    let changes = VhostChanges {
        // As RabbitMQ has it: what is not said is said to be nothing.
        description: Some(text(&body, "description")?.unwrap_or_default().into()),
        tags: Some(crate::broker::tags(&body, "tags")?.unwrap_or_default()),
        default_queue_type: kind.map(|kind| Some(kind.into())),
        tracing: flag(&body, "tracing")?,
        protected: flag(&body, "protected_from_deletion")?,
        limits: None,
    };
    let is_new = call.broker.put_vhost(&call.actor(), call.param("vhost"), changes)?;
    Ok(Answer::put(is_new))
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    call.broker.delete_vhost(&call.actor(), vhost.name())?;
    Ok(Answer::Done)
}

fn protect(call: &Call) -> Result<Answer, Error> {
    set_protection(call, true)
}

fn unprotect(call: &Call) -> Result<Answer, Error> {
    set_protection(call, false)
}

fn set_protection(call: &Call, is_protected: bool) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let changes = VhostChanges { protected: Some(is_protected), ..VhostChanges::default() };
    call.broker.put_vhost(&call.actor(), vhost.name(), changes)?;
    Ok(Answer::Done)
}

fn start(call: &Call) -> Result<Answer, Error> {
    call.vhost()?;
    if call.param("node") != call.node() {
        return Err(Error::NotFound);
    }
    Ok(Answer::Done)
}
