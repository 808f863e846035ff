//! Looking into queues, and moving what is in them: peek, find, who holds what, redrive; delayed messages.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use store::Seq;

use super::answer::Answer;
use super::call::{Call, flag, integer, text};
use super::channels::channel_details;
use super::error::Error;
use super::messages::{Encoding, has_header, message_json};
use super::queues::named;
use super::route::{Right, Route};
use crate::auth::Action;
use crate::error::What;
use crate::message::Message;
use crate::outbox::{Event, Held};
use crate::queue::{Handle, Waiting};
use crate::vhost::{Goal, Redrive, Redriven, delayed_id};

/// So many messages are shown at a time, and so many of unacknowledged ones.
const SHOWN_MAX: usize = 1_000;

/// How long a connection may take to say what it holds.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

pub fn routes() -> Vec<Route> {
    let peek = json!({"count": 1, "offset": 0, "encoding": "auto", "truncate": 50_000});
    let find = json!({"message_id": "", "header": "", "value": "", "limit": 1, "encoding": "auto", "truncate": 50_000});
    let redrive =
        json!({"to": "origin", "queue": "", "limit": 1, "rate": 1, "again": false, "dry_run": true});
    let moved = json!({"queue": "", "limit": 1, "rate": 1, "dry_run": true});
    const HELD: &str = "The messages that an exchange holds back, by their time";
    vec![
        Route::post(
            "/queues/{vhost}/{name}/peek",
            Right::Use,
            "Shows messages and leaves them alone",
            self::peek,
        )
        .body(peek, &[]),
        Route::post(
            "/queues/{vhost}/{name}/find",
            Right::Use,
            "Shows the messages of an id or a header",
            self::find,
        )
        .body(find, &[]),
        Route::get(
            "/queues/{vhost}/{name}/unacked",
            Right::Use,
            "Who holds which messages, since when",
            unacked,
        )
        .query(&[]),
        Route::post("/queues/{vhost}/{name}/redrive", Right::Use, "Takes dead letters back", self::redrive)
            .body(redrive, &[]),
        Route::post(
            "/queues/{vhost}/{name}/move",
            Right::Use,
            "Moves messages to another queue",
            move_messages,
        )
        .body(moved, &["queue"]),
        Route::get("/dead-letters", Right::Any, "The queues that have dead letters", dead_letters).query(&[]),
        Route::get("/dead-letters/{vhost}", Right::See, "Those of a vhost", dead_letters).query(&[]),
        Route::get("/delayed", Right::Any, "The exchanges that hold messages back", delaying).query(&[]),
        Route::get("/delayed/{vhost}", Right::See, "Those of a vhost", delaying).query(&[]),
        Route::get("/exchanges/{vhost}/{name}/delayed", Right::Use, HELD, delayed).query(&["after", "max"]),
        Route::delete(
            "/exchanges/{vhost}/{name}/delayed",
            Right::Use,
            "Forgets all that it holds back",
            purge,
        ),
        Route::delete("/exchanges/{vhost}/{name}/delayed/{id}", Right::Use, "Cancels one of them", cancel),
    ]
}

/// The queue of the path, which the user may read.
fn readable(call: &Call) -> Result<Handle, Error> {
    let (vhost, queue) = named(call)?;
    call.caller(vhost.name())?.access.check(Action::Read, What::Queue, queue.name())?;
    Ok(queue)
}

fn count(body: &Map<String, Json>, name: &str, default: usize, max: usize) -> Result<usize, Error> {
    match integer(body, name)? {
        None => Ok(default),
        Some(n) => match usize::try_from(n).ok().filter(|n| *n <= max) {
            Some(n) => Ok(n),
            None => Err(Error::BadRequest(format!("{name} is {n}, and must be between 0 and {max}"))),
        },
    }
}

fn shown(position: usize, waiting: &Waiting, encoding: Encoding, now_ms: u64) -> Json {
    let message = &waiting.message;
    let mut map = message_json(message, waiting.redelivered, encoding);
    map.insert("position".into(), position.into());
    map.insert("message_id".into(), json!(message_id(message)));
    map.insert("age_ms".into(), now_ms.saturating_sub(message.taken_at_ms).into());
    map.insert("expires_at_ms".into(), json!(message.expires_at_ms()));
    map.insert("delivery_count".into(), waiting.returns.failed.into());
    Json::Object(map)
}

fn message_id(message: &Message) -> Option<String> {
    let read = amqp::Properties::parse(message.parts.properties()).ok()?;
    read.message_id.map(crate::json::text_of)
}

fn peek(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let wanted = count(&body, "count", 1, SHOWN_MAX)?;
    let offset = count(&body, "offset", 0, usize::MAX)?;
    let encoding = Encoding::read(&body)?;
    let queue = readable(call)?;
    let now_ms = call.broker.clock().now_ms();
    let (mut position, mut found) = (0, Vec::new());
    queue.walk(|waiting| {
        if position >= offset && found.len() < wanted {
            found.push(shown(position, &waiting, encoding, now_ms));
        }
        position += 1;
        found.len() < wanted
    });
    Ok(Answer::Json(found.into()))
}

fn find(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let limit = count(&body, "limit", 1, SHOWN_MAX)?;
    let encoding = Encoding::read(&body)?;
    let id = text(&body, "message_id")?.filter(|id| !id.is_empty());
    let header = text(&body, "header")?.filter(|header| !header.is_empty());
    let value = text(&body, "value")?;
    if id.is_none() && header.is_none() {
        return Err(Error::BadRequest("message_id or header must say which messages are looked for".into()));
    }
    let queue = readable(call)?;
    let now_ms = call.broker.clock().now_ms();
    let fits = |message: &Message| {
        id.is_none_or(|id| message_id(message).as_deref() == Some(id))
            && header.is_none_or(|header| has_header(message, header, value))
    };
    let (mut position, mut found) = (0, Vec::new());
    queue.walk(|waiting| {
        if found.len() < limit && fits(&waiting.message) {
            found.push(shown(position, &waiting, encoding, now_ms));
        }
        position += 1;
        found.len() < limit
    });
    Ok(Answer::Json(found.into()))
}

fn unacked(call: &Call) -> Result<Answer, Error> {
    let queue = readable(call)?;
    let now_ms = call.broker.clock().now_ms();
    let vhost = queue.declaration().vhost.clone();
    let mut found = Vec::new();
    let has_some = |guest: &std::sync::Arc<crate::roster::Guest>| {
        guest.vhost == vhost && guest.channels().iter().any(|channel| channel.standing().unacked > 0)
    };
    for guest in call.broker.roster.guests().into_iter().filter(has_some) {
        let (answer, answered) = mpsc::channel();
        guest.outbox.send(Event::Ask { queue: queue.id(), max: SHOWN_MAX, answer });
        // One that is about to go does not answer, and holds nothing any more.
        let Ok(held) = answered.recv_timeout(ASK_TIMEOUT) else { continue };
        found.extend(held.into_iter().map(|held: Held| {
            json!({
                "consumer_tag": held.consumer_tag,
                "channel_details": channel_details(&guest, held.channel, call.node()),
                "connection_name": guest.client_name(),
                "delivery_tag": held.delivery_tag,
                "since_ms": held.since_ms,
                "age_ms": now_ms.saturating_sub(held.since_ms),
                "message_id": message_id(&held.message),
                "exchange": held.message.exchange(),
                "routing_key": held.message.routing_key(),
                "redelivered": held.redelivered,
            })
        }));
    }
    found.sort_by_key(|one: &Json| one["since_ms"].as_u64());
    found.truncate(SHOWN_MAX);
    Ok(Answer::Json(found.into()))
}

/// What a request says of messages that are to be moved.
fn wishes(body: &Map<String, Json>, goal: Goal, again: bool) -> Result<Redrive, Error> {
    let (header, value, reason) = match body.get("filter") {
        None | Some(Json::Null) => (None, None, None),
        Some(Json::Object(filter)) => {
            let field = |name| text(filter, name).map(|text| text.map(String::from));
            (field("header")?, field("value")?, field("reason")?)
        }
        Some(other) => return Err(Error::BadRequest(format!("filter is {other}, and must be an object"))),
    };
    let rate = integer(body, "rate")?;
    let per_second = rate.map(|rate| {
        u32::try_from(rate).map_err(|_| Error::BadRequest(format!("rate is {rate}, and must be 0 or more")))
    });
    let wants = move |message: &Message| {
        header.as_deref().is_none_or(|header| has_header(message, header, value.as_deref()))
            && reason
                .as_deref()
                .is_none_or(|reason| has_header(message, "x-first-death-reason", Some(reason)))
    };
    Ok(Redrive {
        goal,
        limit: count(body, "limit", usize::MAX, usize::MAX)?,
        per_second: per_second.transpose()?,
        again,
        dry_run: flag(body, "dry_run")?.unwrap_or(false),
        wants: Box::new(wants),
    })
}

/// Carries messages of the queue of the path to where they are to go; those that were carried before only if `again`.
fn carry(call: &Call, body: &Map<String, Json>, goal: Goal, again: bool) -> Result<Answer, Error> {
    let (vhost, queue) = named(call)?;
    let caller = call.caller(vhost.name())?;
    caller.access.check(Action::Read, What::Queue, queue.name())?;
    // Whoever may publish to all queues may put messages into any of them.
    caller.access.check(Action::Write, What::Exchange, "")?;
    let wishes = wishes(body, goal, again)?;
    let Redriven { moved, skipped, failed, targets } = vhost.redrive(&queue, &wishes)?;
    call.settle()?;
    Ok(Answer::Json(json!({"moved": moved, "skipped": skipped, "failed": failed, "targets": targets})))
}

fn queue_of(body: &Map<String, Json>) -> Result<Goal, Error> {
    let name = text(body, "queue")?.filter(|name| !name.is_empty());
    name.map(|name| Goal::Queue(name.into())).ok_or_else(|| Error::missing_field("queue"))
}

fn redrive(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let goal = match text(&body, "to")? {
        None | Some("origin") => Goal::Origin,
        Some("queue") => queue_of(&body)?,
        Some(other) => {
            return Err(Error::BadRequest(format!("to is '{other}', and must be origin or queue")));
        }
    };
    let again = flag(&body, "again")?.unwrap_or(false);
    carry(call, &body, goal, again)
}

fn move_messages(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let goal = queue_of(&body)?;
    // Who moves messages means all of them, also those that were taken back before.
    carry(call, &body, goal, true)
}

/// So many messages of a queue are looked at for what they died of.
const SAMPLE: usize = 1_000;

fn dead_letters(call: &Call) -> Result<Answer, Error> {
    let mut found = Vec::new();
    for vhost in call.vhosts()? {
        for queue in vhost.dead_letter_queues() {
            let mut reasons: Map<String, Json> = Map::new();
            let mut looked = 0;
            queue.walk(|waiting| {
                looked += 1;
                if let Some(reason) = death_reason(&waiting.message) {
                    let n = reasons.get(&reason).and_then(Json::as_u64).unwrap_or_default();
                    reasons.insert(reason, (n + 1).into());
                }
                looked < SAMPLE
            });
            let messages = queue.counts().0;
            found.push(json!({
                "vhost": &**vhost.name(),
                "queue": queue.name(),
                "messages": messages,
                "looked_at": looked,
                "reasons": reasons,
            }));
        }
    }
    Ok(Answer::Json(found.into()))
}

fn death_reason(message: &Message) -> Option<String> {
    let read = amqp::Properties::parse(message.parts.properties()).ok()?;
    let headers = amqp::Table::decode(read.headers?).ok()?;
    headers.get_str("x-first-death-reason").map(String::from)
}

fn delaying(call: &Call) -> Result<Answer, Error> {
    let mut found = Vec::new();
    for vhost in call.vhosts()? {
        for (exchange, messages) in vhost.delaying_exchanges() {
            found.push(json!({"vhost": &**vhost.name(), "exchange": exchange, "messages": messages}));
        }
    }
    Ok(Answer::Json(found.into()))
}

fn delayed(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let exchange = call.exchange("name");
    call.caller(vhost.name())?.access.check(Action::Read, What::Exchange, exchange)?;
    let max: usize = call.number("max")?.unwrap_or(100).min(SHOWN_MAX);
    let after = call.query("after").filter(|after| !after.is_empty()).map(|after| {
        let parts = after.split_once(',').and_then(|(at, seq)| Some((at.parse().ok()?, seq.parse().ok()?)));
        parts.ok_or_else(|| {
            Error::BadRequest(format!("after is '{after}', and must be a time and a number: 0,0"))
        })
    });
    let (after_ms, after_seq) = after.transpose()?.unwrap_or_default();
    let listed =
        vhost.list_delayed(exchange, (after_ms, Seq(after_seq)), max).map_err(|_| Error::NotFound)?;
    let one = |due: crate::queue::Due| {
        json!({
            "due_at_ms": due.at_ms,
            "seq": due.seq.0,
            "schedule_id": delayed_id(&due.message),
            "message_id": message_id(&due.message),
            "routing_key": due.message.routing_key(),
            "payload_bytes": due.message.parts.body().len(),
            "properties": crate::json::properties_json(due.message.parts.properties()),
        })
    };
    Ok(Answer::Json(listed.into_iter().map(one).collect()))
}

fn purge(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let exchange = call.exchange("name");
    call.caller(vhost.name())?.access.check(Action::Write, What::Exchange, exchange)?;
    let purged = vhost.purge_delayed(exchange).map_err(|_| Error::NotFound)?;
    call.settle()?;
    Ok(Answer::Json(json!({"purged": purged})))
}

fn cancel(call: &Call) -> Result<Answer, Error> {
    let (vhost, caller) = call.caller_here()?;
    let exchange = call.exchange("name");
    vhost.exchange(exchange).ok_or(Error::NotFound)?;
    match vhost.cancel(&caller, exchange, call.param("id"))? {
        true => {
            call.settle()?;
            Ok(Answer::Done)
        }
        false => Err(Error::NotFound),
    }
}
