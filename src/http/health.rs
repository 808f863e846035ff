//! Checks of the broker's health, for probes: each is cheap, and answers 200 or 503.

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};
use crate::alarm::Cause;
use crate::auth::Action;
use crate::error::What;

pub fn routes() -> Vec<Route> {
    const CHECKS: &str = "Whether a check passes";
    let ok = |path: &'static str| Route::get(path, Right::Any, CHECKS, alone).query(&[]);
    vec![
        Route::get("/health/live", Right::Nobody, "Whether the process answers", fine).query(&[]),
        Route::get("/health/ready", Right::Nobody, "Whether clients can work, consumers at least", fine)
            .query(&[]),
        Route::get("/health/checks/alarms", Right::Any, CHECKS, alarms).query(&[]),
        Route::get("/health/checks/local-alarms", Right::Any, CHECKS, alarms).query(&[]),
        Route::get("/health/checks/certificate-expiration/{within}/{unit}", Right::Any, CHECKS, certificates)
            .query(&[]),
        Route::get("/health/checks/port-listener/{port}", Right::Any, CHECKS, port).query(&[]),
        Route::get("/health/checks/protocol-listener/{protocol}", Right::Any, CHECKS, protocol).query(&[]),
        Route::get("/health/checks/virtual-hosts", Right::Any, CHECKS, fine).query(&[]),
        ok("/health/checks/node-is-quorum-critical"),
        ok("/health/checks/node-is-mirror-sync-critical"),
        Route::get("/health/checks/is-in-service", Right::Any, CHECKS, fine).query(&[]),
        Route::get("/health/checks/ready-to-serve-clients", Right::Any, CHECKS, fine).query(&[]),
        Route::get("/health/checks/below-node-connection-limit", Right::Any, CHECKS, connections).query(&[]),
        Route::get("/health/checks/metadata-store/initialized", Right::Any, CHECKS, fine).query(&[]),
        Route::get("/health/checks/metadata-store/initialized/with-data", Right::Any, CHECKS, fine)
            .query(&[]),
        Route::get("/healthchecks/node", Right::Any, CHECKS, old).query(&[]),
        Route::get("/healthchecks/node/{node}", Right::Any, CHECKS, old).query(&[]),
        Route::get(
            "/aliveness-test/{vhost}",
            Right::Use,
            "Whether a message passes through a queue",
            aliveness,
        )
        .query(&[]),
    ]
}

fn ok() -> Result<Answer, Error> {
    Ok(Answer::Json(json!({"status": "ok"})))
}

fn fine(_: &Call) -> Result<Answer, Error> {
    ok()
}

fn alone(_: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(json!({"status": "ok", "reason": "single node cluster"})))
}

fn failed(answer: Json) -> Result<Answer, Error> {
    Err(Error::Unhealthy(Box::new(answer)))
}

/// The alarms that are on, by the names that RabbitMQ has for what runs short.
pub fn active_alarms(call: &Call) -> Vec<Json> {
    let alarm = call.broker.alarm();
    let disk = alarm.has(Cause::LowDisk) || alarm.has(Cause::FullDisk);
    let all = [("memory", alarm.has(Cause::Memory)), ("disk", disk)];
    let on = all.into_iter().filter(|(_, is_on)| *is_on);
    on.map(|(resource, _)| json!({"node": call.node(), "resource": resource})).collect()
}

fn alarms(call: &Call) -> Result<Answer, Error> {
    let alarms = active_alarms(call);
    if alarms.is_empty() {
        return ok();
    }
    let reason = format!("There are alarms in effect in the cluster: {}", call.broker.alarm().reason());
    failed(json!({"status": "failed", "reason": reason, "alarms": alarms}))
}

fn old(call: &Call) -> Result<Answer, Error> {
    if call.has_param("node") && call.param("node") != call.node() {
        return Err(Error::NotFound);
    }
    match active_alarms(call).is_empty() {
        true => ok(),
        // This old check says it with 200.
        false => Ok(Answer::Json(json!({"status": "failed", "reason": call.broker.alarm().reason()}))),
    }
}

fn certificates(call: &Call) -> Result<Answer, Error> {
    const DAY_SECS: u64 = 86_400;
    let within = call.param("within").parse::<u32>();
    let within = within.map_err(|_| Error::BadRequest("Invalid expiration value.".into()))?;
    let days = match call.param("unit") {
        "day" | "days" => 1,
        "week" | "weeks" => 7,
        "month" | "months" => 30,
        "year" | "years" => 365,
        _ => {
            let text = "Time unit not recognised. Supported units: days, weeks, months, years.";
            return Err(Error::BadRequest(text.into()));
        }
    };
    let until_secs = call.broker.clock().now_ms() / 1000 + u64::from(within) * days * DAY_SECS;
    let expiring: Vec<Json> = call
        .broker
        .certificates()
        .into_iter()
        .filter(|certificate| certificate.not_after_secs < until_secs)
        .map(|certificate| {
            json!({
                "node": call.node(),
                "protocol": certificate.protocol,
                "certfile": certificate.file,
                "certfile_expires_on": super::stats::time(certificate.not_after_secs * 1000),
            })
        })
        .collect();
    match expiring.is_empty() {
        true => ok(),
        false => failed(json!({"status": "failed", "reason": "Certificates expiring", "expired": expiring})),
    }
}

fn port(call: &Call) -> Result<Answer, Error> {
    let port = call.param("port").parse::<u16>().map_err(|_| Error::BadRequest("Invalid port".into()))?;
    let ports: Vec<u16> = call.broker.listeners().iter().map(|listener| listener.address.port()).collect();
    match ports.contains(&port) {
        true => Ok(Answer::Json(json!({"status": "ok", "port": port}))),
        false => failed(
            json!({"status": "failed", "reason": "No active listener", "missing": port, "ports": ports}),
        ),
    }
}

fn protocol(call: &Call) -> Result<Answer, Error> {
    let wanted = match call.param("protocol") {
        "amqp091" | "amqp0.9.1" | "amqp10" | "amqp1.0" => "amqp",
        "amqps" | "amqp+ssl" => "amqp/ssl",
        "prometheus" | "http/prom" => "http/prometheus",
        "management" => "http",
        other => other,
    };
    let listeners = call.broker.listeners();
    let mut protocols: Vec<&str> = listeners.iter().map(|listener| listener.protocol).collect();
    protocols.dedup();
    match protocols.contains(&wanted) {
        true => Ok(Answer::Json(json!({"status": "ok", "protocol": wanted}))),
        false => failed(json!({
            "status": "failed",
            "reason": "No active listener",
            "missing": call.param("protocol"),
            "protocols": protocols,
        })),
    }
}

fn connections(call: &Call) -> Result<Answer, Error> {
    let (open, max) = (call.broker.roster.len(), call.broker.config.connection_max);
    match max.is_none_or(|max| open < max as usize) {
        true => Ok(Answer::Json(json!({"status": "ok", "connections": open, "limit": max}))),
        false => failed(json!({
            "status": "failed",
            "reason": "node connection limit is reached",
            "connections": open,
            "limit": max,
        })),
    }
}

/// Puts a message into a queue and takes it out again.
fn aliveness(call: &Call) -> Result<Answer, Error> {
    const QUEUE: &str = "aliveness-test";
    let (vhost, caller) = call.caller_here()?;
    let declared = vhost.declare_queue(&caller, QUEUE, Default::default(), &amqp::Table::new());
    let (queue, _) = declared.map_err(Error::in_full)?;
    let properties = amqp::Properties::default().encode();
    vhost.publish(&caller, "", QUEUE, &properties, "test_message".into()).map_err(Error::in_full)?;
    caller.access.check(Action::Read, What::Queue, QUEUE).map_err(Error::in_full)?;
    let outbox = crate::outbox::Outbox::new();
    match queue.get(true, &outbox) {
        crate::queue::Got::Message(..) => ok(),
        _ => failed(json!({"status": "failed", "reason": "the message did not come back"})),
    }
}
