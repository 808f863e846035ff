//! Health checks: an exit code for scripts and probes, and a reason for people.

use serde_json::Value;

use super::client::path;
use super::command::{Given, Noun, Session, Verb, default, required};
use super::failure::{Failure, Result};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "health_check",
    aliases: &["health"],
    about: "Health checks; exit code 0 when all is well, 69 when not",
    verbs: &[
        Verb {
            name: "local_alarms",
            about: "Is memory or disk short on this node?",
            example: "health_check local_alarms",
            arguments: &[],
            run: |session, _| check(session, "local-alarms", &[]),
        },
        Verb {
            name: "cluster_wide_alarms",
            about: "Is memory or disk short anywhere?",
            example: "health_check cluster_wide_alarms",
            arguments: &[],
            run: |session, _| check(session, "alarms", &[]),
        },
        Verb {
            name: "virtual_hosts",
            about: "Do all virtual hosts run?",
            example: "health_check virtual_hosts",
            arguments: &[],
            run: |session, _| check(session, "virtual-hosts", &[]),
        },
        Verb {
            name: "node_is_quorum_critical",
            about: "Would quorum queues lose their majority without this node?",
            example: "health_check node_is_quorum_critical",
            arguments: &[],
            run: |session, _| check(session, "node-is-quorum-critical", &[]),
        },
        Verb {
            name: "port_listener",
            about: "Does the broker listen on a port?",
            example: "health_check port_listener --port 5672",
            arguments: &[required("port", "the port")],
            run: |session, given| check(session, "port-listener", &[given.text("port")]),
        },
        Verb {
            name: "protocol_listener",
            about: "Does the broker listen for a protocol?",
            example: "health_check protocol_listener --protocol amqp",
            arguments: &[required("protocol", "amqp, amqp/ssl, http, https, ...")],
            run: |session, given| check(session, "protocol-listener", &[given.text("protocol")]),
        },
        Verb {
            name: "certificate_expiration",
            about: "Does a certificate expire within a time?",
            example: "health_check certificate_expiration --within 2 --unit months",
            arguments: &[
                default("within", "1", "how many"),
                default("unit", "months", "days, weeks, months or years"),
            ],
            run: |session, given| {
                check(session, "certificate-expiration", &[given.text("within"), given.text("unit")])
            },
        },
    ],
};

/// `Ok` when healthy. A check that did not pass is answered with 503 and a reason.
pub fn check(session: &Session, name: &str, rest: &[&str]) -> Result<Answer> {
    let path = path(&[&["health", "checks", name], rest].concat());
    match session.client.get(&path) {
        Ok(_) => Ok(Answer::Done(format!("{name}: ok"))),
        Err(Failure::Refused { status: 503, reason, body, .. }) => {
            Err(Failure::Unhealthy(format!("{name}: {reason}{}", details(&body))))
        }
        Err(failure) => Err(failure),
    }
}

/// What a failed check says besides its reason: which alarms, which ports are there.
fn details(body: &str) -> String {
    let Ok(Value::Object(map)) = serde_json::from_str(body) else { return String::new() };
    let more = map.iter().filter(|(key, _)| !matches!(key.as_str(), "status" | "reason"));
    more.map(|(key, value)| format!("\n  {key}: {value}")).collect()
}

/// What `status` asks: those that need no word more.
pub const ALL: &[&str] = &["local-alarms", "alarms", "virtual-hosts"];

pub fn all(session: &Session, _: &Given) -> Result<Answer> {
    for name in ALL {
        check(session, name, &[])?;
    }
    Ok(Answer::Done(format!("ok: {}", ALL.join(", "))))
}
