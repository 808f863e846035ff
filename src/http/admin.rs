//! What operators do to the broker itself: its log, its copy, its end; and what they ask about permissions and mistakes.

use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::{Call, text};
use super::error::Error;
use super::route::{Right, Route};
use crate::auth::Action;
use crate::log;
use crate::queue::Handle;
use crate::tally::Count;
use crate::vhost::Vhost;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/log-level", Right::Administer, "What is logged", level).query(&[]),
        Route::put("/log-level", Right::Administer, "Changes what is logged", set_level)
            .body(json!({"level": "info"}), &["level"]),
        Route::post(
            "/backup",
            Right::Administer,
            "Writes a copy of all data to a directory of its machine",
            backup,
        )
        .body(json!({"path": "/srv/backup/monday"}), &["path"]),
        Route::put("/shutdown", Right::Administer, "Stops the broker in order", shut_down)
            .body(json!({}), &[]),
        Route::get(
            "/users/{user}/explain",
            Right::Administer,
            "Whether a user may do something, and why",
            explain,
        )
        .query(&["vhost", "action", "resource", "name", "key"]),
        Route::get("/doctor", Right::Any, "What may be wrong with queues, exchanges and consumers", doctor)
            .query(&[]),
        Route::get("/doctor/{vhost}", Right::See, "The same of a vhost", doctor).query(&[]),
    ]
}

fn level(_: &Call) -> Result<Answer, Error> {
    let level = log::level().map(|level| level.get());
    Ok(Answer::Json(json!({"level": level})))
}

fn set_level(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let wanted = text(&body, "level")?.ok_or_else(|| Error::missing_field("level"))?;
    let Some(level) = log::level() else {
        return Err(Error::BadRequest("this broker was started without a log".into()));
    };
    level.set(wanted).map_err(Error::BadRequest)?;
    tracing::info!(target: "audit", user = call.who.name(), level = wanted, "the log level has been changed");
    Ok(Answer::Done)
}

fn backup(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let path = text(&body, "path")?.ok_or_else(|| Error::missing_field("path"))?;
    tracing::info!(target: "audit", user = call.who.name(), peer = %call.peer, path, "a backup is begun");
    let made = call.broker.store().back_up(path.as_ref()).inspect_err(|error| {
        tracing::warn!(target: "audit", user = call.who.name(), path, %error, "a backup has failed");
    })?;
    let store::BackedUp { segments, bytes } = made;
    tracing::info!(target: "audit", user = call.who.name(), path, segments, bytes, "a backup is written");
    Ok(Answer::Json(json!({"path": path, "segments": segments, "bytes": bytes})))
}

fn shut_down(call: &Call) -> Result<Answer, Error> {
    call.object()?;
    tracing::info!(target: "audit", user = call.who.name(), peer = %call.peer, "the broker is told to stop");
    call.broker.ask_to_stop();
    Ok(Answer::Done)
}

fn explain(call: &Call) -> Result<Answer, Error> {
    let user = call.param("user");
    call.broker.user(user).ok_or(Error::NotFound)?;
    let asked = |name: &str| call.query(name).filter(|value| !value.is_empty());
    let vhost = asked("vhost").unwrap_or("/");
    call.broker.vhost(vhost).map_err(|_| Error::NotFound)?;
    let action = match asked("action") {
        Some("configure") => Action::Configure,
        Some("write") => Action::Write,
        Some("read") => Action::Read,
        other => {
            let other = other.unwrap_or_default();
            return Err(Error::BadRequest(format!(
                "action is '{other}', and must be configure, write or read"
            )));
        }
    };
    let name = call.query("name").unwrap_or_default();
    let answer = |allowed: bool, because: String, pattern: &str| {
        Ok(Answer::Json(json!({"allowed": allowed, "because": because, "pattern": pattern})))
    };
    let word = call.query("action").unwrap_or_default();
    let Some(permission) = call.broker.permission(user, vhost) else {
        let because = format!("user '{user}' has no permissions in vhost '{vhost}'");
        return answer(false, because, "");
    };
    let what = match asked("resource").unwrap_or("queue") {
        "queue" => crate::error::What::Queue,
        "exchange" | "topic" => crate::error::What::Exchange,
        other => {
            return Err(Error::BadRequest(format!(
                "resource is '{other}', and must be queue, exchange or topic"
            )));
        }
    };
    let access = call.broker.access(user, vhost)?;
    let pattern = permission.of(action).to_string();
    if let Err(refused) = access.check(action, what, name) {
        return answer(false, format!("{refused}: its {word} permission does not fit"), &pattern);
    }
    if asked("resource") != Some("topic") {
        return answer(
            true,
            format!("the {word} permission of user '{user}' in vhost '{vhost}' fits"),
            &pattern,
        );
    }
    let key = call.query("key").unwrap_or_default();
    if !access.has_topics(name) {
        let because =
            format!("user '{user}' has no topic permissions for exchange '{name}': every key is allowed");
        return answer(true, because, "");
    }
    let all = call.broker.topic_permissions();
    let own = all.iter().find(|one| one.user == user && one.vhost == vhost && one.exchange == name);
    let pattern = own.map(|one| match action {
        Action::Write => one.permission.write.clone(),
        Action::Configure | Action::Read => one.permission.read.clone(),
    });
    let pattern = pattern.unwrap_or_default();
    match access.check_topic(action, name, key) {
        Ok(()) => answer(true, format!("the topic permission for exchange '{name}' fits '{key}'"), &pattern),
        Err(refused) => answer(false, refused.to_string(), &pattern),
    }
}

/// A queue with more ready messages than this, and no limit, is told of as a warning.
const MANY: usize = 100_000;

/// A delivery that is unacknowledged for longer than this is told of.
const LONG_MS: u64 = 30 * 60 * 1000;

fn doctor(call: &Call) -> Result<Answer, Error> {
    let mut found = Vec::new();
    for vhost in call.vhosts()? {
        for queue in vhost.declared_queues() {
            look_at_queue(&vhost, &queue, &mut found);
        }
        look_at_exchanges(call, &vhost, &mut found);
        look_at_channels(call, &vhost, &mut found);
    }
    Ok(Answer::Json(found.into()))
}

fn finding(severity: &str, vhost: &Vhost, object: &str, name: &str, finding: String, advice: &str) -> Json {
    let mut map = Map::new();
    for (key, value) in [
        ("severity", severity),
        ("vhost", &**vhost.name()),
        ("object", object),
        ("name", name),
        ("finding", &finding),
        ("advice", advice),
    ] {
        map.insert(key.into(), value.into());
    }
    Json::Object(map)
}

fn look_at_queue(vhost: &Vhost, queue: &Handle, found: &mut Vec<Json>) {
    let look = queue.look();
    let mut tell = |severity: &str, text: String, advice: &str| {
        found.push(finding(severity, vhost, "queue", queue.name(), text, advice));
    };
    let settings = &look.settings;
    match &settings.dead_letter_exchange {
        None if queue.declaration().is_kept() => tell(
            "info",
            "it has no dead letter exchange: rejected and expired messages are gone".into(),
            "set dead-letter-exchange by a policy",
        ),
        Some(exchange) if !exchange.is_empty() && vhost.exchange(exchange).is_none() => tell(
            "error",
            format!("its dead letter exchange '{exchange}' does not exist"),
            "declare the exchange, or name another one by a policy",
        ),
        _ => {}
    }
    let is_bounded = settings.length_max.is_some()
        || settings.body_bytes_max.is_some()
        || settings.message_ttl_ms.is_some()
        || settings.expires_ms.is_some();
    if !is_bounded {
        let severity = if look.ready > MANY { "warning" } else { "info" };
        tell(
            severity,
            format!("nothing bounds it; it has {} messages", look.ready),
            "set max-length, max-length-bytes or message-ttl by a policy",
        );
    }
    if look.ready > 0 && look.consumers == 0 {
        tell(
            "warning",
            format!("{} messages wait and nobody consumes", look.ready),
            "start a consumer, or purge it",
        );
    }
    if look.paused_until_ms > 0 {
        tell("info", "it is paused".into(), "resume it when it is to deliver again");
    }
    for consumer in queue.consumers() {
        let tag = &consumer.consumer.tag;
        if consumer.consumer.no_ack {
            tell(
                "warning",
                format!("consumer '{tag}' acknowledges automatically: what it is sent when it dies is lost"),
                "acknowledge messages when they are done",
            );
        }
        if consumer.is_active
            && !consumer.consumer.no_ack
            && look.ready > 0
            && look.starving
            && consumer.unacked == 0
        {
            tell(
                "warning",
                format!("consumer '{tag}' has nothing to do while {} messages wait", look.ready),
                "look whether it reads its connection",
            );
        }
        if consumer.consumer.prefetch == 0 && !consumer.consumer.no_ack {
            tell(
                "info",
                format!("consumer '{tag}' takes any number of messages at a time"),
                "set a prefetch count (basic.qos)",
            );
        }
    }
}

fn look_at_exchanges(call: &Call, vhost: &Vhost, found: &mut Vec<Json>) {
    let now_ms = call.broker.clock().now_ms();
    for (exchange, _) in vhost.exchanges() {
        let name = exchange.name.to_string();
        let figures = vhost.exchange_tally(&name).figures(now_ms);
        let (came, went) = (figures.count(Count::PublishIn), figures.count(Count::PublishOut));
        if came > 0 && went == 0 {
            found.push(finding(
                "warning",
                vhost,
                "exchange",
                &name,
                format!("none of the {came} messages that were published to it reached a queue"),
                "look at its bindings and at the keys of its publishers; an alternate exchange keeps what leads nowhere",
            ));
        }
    }
}

fn look_at_channels(call: &Call, vhost: &Vhost, found: &mut Vec<Json>) {
    let now_ms = call.broker.clock().now_ms();
    for guest in call.broker.roster.guests().iter().filter(|guest| guest.vhost == *vhost.name()) {
        for channel in guest.channels() {
            let since_ms = channel.standing().oldest_unacked_at_ms;
            let age_ms = since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
            if age_ms > LONG_MS {
                found.push(finding(
                    "warning",
                    vhost,
                    "channel",
                    &format!("{} ({})", guest.name(), channel.number),
                    format!("a message has been unacknowledged for {} minutes", age_ms / 60_000),
                    "see who holds it: GET /api/queues/VHOST/NAME/unacked; consumer-timeout takes it back",
                ));
            }
        }
    }
}
