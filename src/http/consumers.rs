//! Consumers: who takes messages from which queue.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::channels::{channel_details, no_details};
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::{Columns, Sheet};
use crate::json::table_to_json;
use crate::queue::{ConsumerLook, Handle};
use crate::roster::Guest;
use crate::vhost::Vhost;

pub fn routes() -> Vec<Route> {
    vec![
        Route::list("/consumers", Right::Any, "All consumers", all),
        Route::list("/consumers/{vhost}", Right::Any, "The consumers of a vhost", all),
    ]
}

/// A consumer as it is described.
struct Consumer {
    vhost: Arc<Vhost>,
    queue: Handle,
    look: ConsumerLook,
    guest: Option<Arc<Guest>>,
    node: Arc<str>,
}

impl Item for Consumer {
    fn key(&self) -> (&str, &str) {
        (self.vhost.name(), &self.look.consumer.tag)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let consumer = &self.look.consumer;
        sheet.put("consumer_tag", &*consumer.tag);
        sheet.put("ack_required", !consumer.no_ack);
        sheet.put("exclusive", consumer.exclusive);
        sheet.put("prefetch_count", consumer.prefetch);
        sheet.put("active", self.look.is_active);
        let is_single = self.queue.settings().single_active_consumer == Some(true);
        sheet.put(
            "activity_status",
            match (is_single, self.look.is_active) {
                (false, _) => "up",
                (true, true) => "single_active",
                (true, false) => "waiting",
            },
        );
        sheet.with("arguments", || Json::Object(table_to_json(&consumer.arguments)));
        sheet.put("messages_unacknowledged", self.look.unacked);
        sheet.with("queue", || json!({"name": self.queue.name(), "vhost": &**self.vhost.name()}));
        sheet.with("consumer_timeout", || {
            let own = consumer.arguments.get("x-consumer-timeout").map(crate::json::value_to_json);
            // A number in any case: rabbitmqadmin does not read the list without. 0 stands for none.
            own.unwrap_or_else(|| json!(self.queue.settings().consumer_timeout_ms.unwrap_or(0)))
        });
        sheet.with("channel_details", || match &self.guest {
            Some(guest) => channel_details(guest, consumer.channel, &self.node),
            None => no_details(),
        });
    }
}

fn consumers(call: &Call, vhost: &Arc<Vhost>, queue: &Handle) -> Vec<Consumer> {
    let node: Arc<str> = call.node().into();
    let describe = |look: ConsumerLook| {
        let guest = call.broker.roster.get(look.consumer.connection);
        Consumer { vhost: vhost.clone(), queue: queue.clone(), look, guest, node: node.clone() }
    };
    queue.consumers().into_iter().map(describe).collect()
}

fn described(consumer: &Consumer) -> Json {
    let columns = Columns::default();
    let mut sheet = Sheet::new(&columns);
    consumer.describe(&mut sheet);
    sheet.done()
}

/// The consumers of a queue, described.
pub fn of(call: &Call, vhost: &Arc<Vhost>, queue: &Handle) -> Vec<Json> {
    consumers(call, vhost, queue).iter().map(described).collect()
}

/// The consumers of a channel, described.
pub fn of_channel(call: &Call, guest: &Guest, number: u16) -> Vec<Json> {
    // They are known to the queues of its vhost.
    let Ok(vhost) = call.broker.vhost(&guest.vhost) else { return Vec::new() };
    let is_its = |consumer: &Consumer| {
        let consumer = &consumer.look.consumer;
        consumer.connection == guest.id && consumer.channel == number
    };
    let all = vhost.declared_queues().into_iter().flat_map(|queue| consumers(call, &vhost, &queue));
    all.filter(is_its).map(|consumer| described(&consumer)).collect()
}

fn all(call: &Call) -> Result<Answer, Error> {
    let mut found = Vec::new();
    // All of them: whose they are decides who sees them.
    let vhosts = if call.has_param("vhost") { vec![call.vhost()?] } else { call.broker.vhosts() };
    for vhost in vhosts {
        for queue in vhost.declared_queues() {
            found.extend(consumers(call, &vhost, &queue));
        }
    }
    // Without the tag monitoring one sees one's own, as with connections and channels.
    if !call.who.is_monitoring() {
        let own = |consumer: &Consumer| {
            consumer.guest.as_ref().is_some_and(|guest| *guest.user == *call.who.name())
        };
        found.retain(own);
    }
    list::whole(call, found)
}
