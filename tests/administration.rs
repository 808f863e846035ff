//! Users, vhosts, permissions, limits, policies, parameters and definitions over HTTP: RabbitMQ's paths, statuses and
//! reasons.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use crate::support::Broker;

/// Somebody who asks.
struct Asker<'a> {
    broker: &'a Broker,
    login: &'static str,
}

fn ask<'a>(broker: &'a Broker) -> Asker<'a> {
    Asker { broker, login: "guest:guest" }
}

impl Asker<'_> {
    fn send(&self, method: &str, path: &str, body: Json) -> (u16, Json) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.broker.http()).expect("the API listens");
        let request = format!(
            "{method} /api{path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            BASE64.encode(self.login),
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it is written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Json::Null))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Json {
        let (status, body) = self.send("GET", path, Json::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    #[track_caller]
    fn expect(&self, method: &str, path: &str, body: Json, status: u16, reason: &str) {
        let (got, answer) = self.send(method, path, body);
        assert_eq!(got, status, "{method} {path}: {answer}");
        let said = answer["reason"].as_str().map_or_else(|| answer["reason"].to_string(), String::from);
        assert!(reason.is_empty() || said.contains(reason), "{method} {path}: {said}");
    }
}

#[test]
fn users_are_made_changed_and_deleted() {
    let broker = Broker::start();
    let asker = ask(&broker);

    asker.expect("PUT", "/users/anna", json!({"password": "x"}), 400, "tags_not_present");
    asker.expect("PUT", "/users/anna", json!({"password": "x", "tags": "administrator, foo"}), 201, "");
    asker.expect("PUT", "/users/anna", json!({"password_hash": "", "tags": ["management"]}), 204, "");
    let anna = asker.get("/users/anna");
    assert_eq!(
        anna,
        json!({"name": "anna", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256",
               "tags": ["management"], "limits": {}})
    );
    asker.expect("PUT", "/users/anna", json!({"password_hash": "!!", "tags": ""}), 400, "not_base64");
    asker.expect("PUT", "/users/anna", json!({"password": 5, "tags": ""}), 400, "password is 5");
    asker.expect("PUT", "/users/anna", json!({"password": "x", "tags": 5}), 400, "tags must be a list");
    asker.expect("GET", "/users/nobody", Json::Null, 404, "Not Found");
    assert_eq!(asker.get("/users/without-permissions")[0]["name"], "anna");
    asker.expect("POST", "/users/bulk-delete", json!({"users": ["anna", "zz"]}), 400, "no_such_user");
    asker.expect("POST", "/users/bulk-delete", json!({"users": "anna"}), 400, "must be a list");
    asker.expect("POST", "/users/bulk-delete", json!({}), 400, "key_missing,users");
    asker.expect("PUT", "/users/boss", json!({"password": "x", "tags": "protected"}), 201, "");
    asker.expect("DELETE", "/users/boss", Json::Null, 412, "protected from deletion");
    asker.expect("DELETE", "/users/anna", Json::Null, 204, "");
    asker.expect("DELETE", "/users/anna", Json::Null, 404, "");
}

#[test]
fn permissions_are_set_listed_and_explained() {
    let broker = Broker::start();
    let asker = ask(&broker);
    let all = json!({"configure": "^a", "write": ".*", "read": ".*"});
    asker.expect("PUT", "/users/anna", json!({"password": "x", "tags": ""}), 201, "");

    asker.expect("PUT", "/permissions/%2F/anna", all.clone(), 201, "");
    asker.expect("PUT", "/permissions/%2F/anna", all.clone(), 204, "");
    asker.expect("PUT", "/permissions/%2F/nobody", all.clone(), 400, "vhost_or_user_not_found");
    asker.expect("PUT", "/permissions/nowhere/anna", all, 400, "vhost_or_user_not_found");
    let bad = json!({"configure": "(", "write": ".*", "read": ".*"});
    asker.expect("PUT", "/permissions/%2F/anna", bad, 400, "invalid_regexp: configure is '('");
    let few = json!({"configure": "", "write": ""});
    asker.expect("PUT", "/permissions/%2F/anna", few, 400, "key_missing,read");
    assert_eq!(asker.get("/permissions").as_array().unwrap().len(), 2);
    assert_eq!(asker.get("/users/anna/permissions"), json!([asker.get("/permissions/%2F/anna")]));
    assert_eq!(asker.get("/vhosts/%2F/permissions").as_array().unwrap().len(), 2);
    let explained = asker.get("/users/anna/explain?vhost=/&action=configure&resource=queue&name=b");
    assert_eq!((&explained["allowed"], &explained["pattern"]), (&json!(false), &json!("^a")));
    let topics = json!({"exchange": "amq.topic", "write": "^a", "read": ".*"});
    asker.expect("PUT", "/topic-permissions/%2F/anna", topics, 201, "");
    let explained =
        asker.get("/users/anna/explain?vhost=/&action=write&resource=topic&name=amq.topic&key=a.b");
    assert_eq!(explained["allowed"], true);
    assert_eq!(asker.get("/topic-permissions/%2F/anna")[0]["exchange"], "amq.topic");
    asker.expect("DELETE", "/topic-permissions/%2F/anna/amq.topic", Json::Null, 204, "");
    asker.expect("DELETE", "/topic-permissions/%2F/anna", Json::Null, 404, "");
    asker.expect("DELETE", "/permissions/%2F/anna", Json::Null, 204, "");
    asker.expect("DELETE", "/permissions/%2F/anna", Json::Null, 404, "");
}

#[test]
fn vhosts_and_limits_are_set_and_taken_away() {
    let broker = Broker::start();
    let asker = ask(&broker);

    let about = json!({"description": "d", "tags": "a,b", "default_queue_type": "quorum", "tracing": true});
    asker.expect("PUT", "/vhosts/v", about, 201, "");
    let vhost = asker.get("/vhosts/v");
    assert_eq!((&vhost["tags"], &vhost["default_queue_type"]), (&json!(["a", "b"]), &json!("quorum")));
    assert_eq!((&vhost["tracing"], &vhost["metadata"]["description"]), (&json!(true), &json!("d")));
    assert_eq!(asker.get("/permissions/v/guest")["configure"], ".*");
    asker.expect("PUT", "/vhosts/v", json!({"tracing": "yes"}), 400, "not_boolean");
    asker.expect(
        "PUT",
        "/vhosts/v",
        json!({"default_queue_type": "odd"}),
        400,
        "default_queue_type is 'odd'",
    );
    asker.expect("POST", "/vhosts/v/deletion/protection", Json::Null, 204, "");
    asker.expect("DELETE", "/vhosts/v", Json::Null, 412, "protected from deletion");
    asker.expect("DELETE", "/vhosts/v/deletion/protection", Json::Null, 204, "");
    asker.expect("PUT", "/vhost-limits/v/max-queues", json!({"value": 5}), 204, "");
    asker.expect(
        "PUT",
        "/vhost-limits/v/max-queues",
        json!({"value": "a"}),
        400,
        "max-queues should be a number",
    );
    asker.expect("PUT", "/vhost-limits/v/max-foo", json!({"value": 5}), 400, "Unrecognised terms");
    asker.expect("PUT", "/vhost-limits/v/max-queues", json!({}), 400, "key_missing,value");
    assert_eq!(asker.get("/vhost-limits/v"), json!([{"vhost": "v", "value": {"max-queues": 5}}]));
    assert_eq!(asker.get("/parameters/vhost-limits/v")[0]["value"], json!({"max-queues": 5}));
    asker.expect("DELETE", "/vhost-limits/v/max-queues", Json::Null, 204, "");
    assert_eq!(asker.get("/vhost-limits"), json!([]));
    asker.expect("PUT", "/user-limits/guest/max-channels", json!({"value": 50}), 204, "");
    assert_eq!(asker.get("/user-limits/guest"), json!([{"user": "guest", "value": {"max-channels": 50}}]));
    asker.expect("PUT", "/user-limits/nobody/max-channels", json!({"value": 5}), 400, "no_such_user");
    asker.expect("DELETE", "/user-limits/guest/max-channels", Json::Null, 204, "");
    asker.expect("DELETE", "/vhosts/v", Json::Null, 204, "");
    asker.expect("GET", "/vhosts/v", Json::Null, 404, "Not Found");
}

#[test]
fn policies_and_parameters_say_what_is_wrong_with_them() {
    let broker = Broker::start();
    let asker = ask(&broker);
    let policy =
        json!({"pattern": "^a", "definition": {"message-ttl": 5}, "apply-to": "queues", "priority": "7"});

    asker.expect("PUT", "/policies/%2F/p", policy.clone(), 201, "");
    assert_eq!(
        asker.get("/policies/%2F/p"),
        json!({"vhost": "/", "name": "p", "pattern": "^a", "apply-to": "queues",
               "definition": {"message-ttl": 5}, "priority": 7})
    );
    asker.expect("PUT", "/operator-policies/%2F/o", policy, 201, "");
    assert_eq!(asker.get("/operator-policies")[0]["name"], "o");
    assert_eq!(asker.get("/policies").as_array().unwrap().len(), 1);
    let refused = |body: Json, reason: &str| asker.expect("PUT", "/policies/%2F/p", body, 400, reason);
    refused(json!({"pattern": "(", "definition": {"message-ttl": 5}}), "Validation failed\n\n");
    refused(json!({"pattern": "a", "definition": {"message-tt": 5}}), "message-tt");
    refused(json!({"pattern": "a", "definition": 5}), "definition should be an object");
    refused(json!({"pattern": "a"}), "key_missing,definition");
    refused(
        json!({"pattern": "a", "definition": {"message-ttl": 5}, "apply-to": "x"}),
        "apply-to \"x\" unrecognised",
    );
    asker.expect("PUT", "/policies/nowhere/p", json!({"pattern": "", "definition": {"expires": 1}}), 404, "");
    asker.expect("DELETE", "/policies/%2F/p", Json::Null, 204, "");
    asker.expect("DELETE", "/policies/%2F/p", Json::Null, 404, "");
    let value = json!({"value": {}});
    asker.expect(
        "PUT",
        "/parameters/shovel/%2F/s",
        value.clone(),
        400,
        "Validation failed\n\ncomponent shovel not found\n",
    );
    asker.expect("PUT", "/parameters/policy/%2F/s", value, 400, "policies may not be set using this method");
    asker.expect("PUT", "/global-parameters/g", json!({"value": [1, null]}), 201, "");
    assert_eq!(asker.get("/global-parameters/g"), json!({"name": "g", "value": [1, null]}));
    asker.expect("DELETE", "/global-parameters/g", Json::Null, 204, "");
    asker.expect("PUT", "/cluster-name", json!({"name": "here"}), 204, "");
    assert_eq!(asker.get("/cluster-name"), json!({"name": "here"}));
}

#[test]
fn definitions_go_out_and_in() {
    let broker = Broker::start();
    let asker = ask(&broker);
    let written = asker.get("/definitions");

    asker.expect("POST", "/definitions", written, 204, "");
    let queue = json!({"queues": [{"name": "q", "durable": true}]});
    let (status, diff) = asker.send("POST", "/definitions/%2F?dry_run=true", queue.clone());
    assert_eq!((status, &diff["create"]), (200, &json!(["queue 'q' in vhost '/'"])));
    asker.expect("POST", "/definitions/%2F", queue, 204, "");
    assert_eq!(asker.get("/definitions/%2F")["queues"][0]["name"], "q");
    asker.expect("POST", "/definitions", json!({"queues": 5}), 400, "queues must be a list");
    asker.expect("POST", "/definitions/nowhere", json!({}), 404, "");
    asker.expect("GET", "/definitions/nowhere", Json::Null, 400, "vhost_not_found");
}

#[test]
fn what_somebody_may_see_depends_on_tags() {
    let broker = Broker::start();
    let asker = ask(&broker);
    for tag in ["management", "policymaker", "monitoring"] {
        asker.expect("PUT", &format!("/users/{tag}"), json!({"password": "x", "tags": tag}), 201, "");
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        asker.expect("PUT", &format!("/permissions/%2F/{tag}"), all, 201, "");
    }
    asker.expect("PUT", "/vhosts/hidden", json!({}), 201, "");
    let node = asker.get("/overview")["node"].as_str().unwrap().to_string();
    let attempts = format!("/auth/attempts/{node}");
    let may = |login: &'static str, path: &str| {
        Asker { broker: &broker, login }.send("GET", path, Json::Null).0 == 200
    };

    for path in
        ["/definitions", "/users", "/permissions", "/vhosts/%2F", "/topic-permissions", "/users/guest"]
    {
        for login in ["management:x", "policymaker:x", "monitoring:x"] {
            assert!(!may(login, path), "{login} {path}");
        }
    }
    for path in
        ["/vhosts", "/policies", "/operator-policies", "/vhost-limits", "/user-limits", "/cluster-name"]
    {
        for login in ["management:x", "policymaker:x", "monitoring:x"] {
            assert!(may(login, path), "{login} {path}");
        }
    }
    for path in ["/parameters", "/global-parameters"] {
        assert!(may("policymaker:x", path) && !may("management:x", path) && !may("monitoring:x", path));
    }
    assert!(may("monitoring:x", &attempts) && !may("policymaker:x", &attempts));
    let vhosts = |login| Asker { broker: &broker, login }.get("/vhosts").as_array().unwrap().len();
    assert_eq!((vhosts("management:x"), vhosts("monitoring:x")), (1, 2));
    let of_http = asker.get(&format!("{attempts}/source"));
    assert!(of_http.as_array().unwrap().iter().any(|source| source["username"] == "policymaker"));
}

#[test]
fn passwords_are_what_the_configuration_wants() {
    let broker = Broker::with(|config| {
        config.password_length_min = 8;
        config.password_pattern = Some("[0-9]$".into());
    });
    let asker = ask(&broker);
    let refused = |password: &str, why: &str| {
        let body = json!({"password": password, "tags": ""});
        asker.expect("PUT", "/users/anna", body, 400, why);
    };

    refused("short1", "credential_validation_failed: minimum required password length is 8");
    refused("", "credential_validation_failed");
    refused("longenough", "does not match the validator regular expression");
    let users = json!({"users": [{"name": "anna", "password": "short1", "tags": ""}]});
    asker.expect("POST", "/definitions", users, 400, "credential_validation_failed");
    asker.expect("GET", "/users/anna", Json::Null, 404, "");

    asker.expect("PUT", "/users/anna", json!({"password": "longenough1", "tags": ""}), 201, "");
    asker.expect("PUT", "/users/hash", json!({"password_hash": "", "tags": ""}), 201, "");
}
