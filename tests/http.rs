//! The HTTP API as its clients see it: statuses, fields, lists, and what operators do to queues.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use crate::support::{Broker, eventually};

/// Somebody who calls the API.
pub struct Caller {
    address: SocketAddr,
    credentials: Option<String>,
}

impl Caller {
    pub fn guest(broker: &Broker) -> Caller {
        Caller { address: broker.http(), credentials: Some(BASE64.encode("guest:guest")) }
    }

    /// The status and the body of an answer; no body is null.
    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Json) {
        let (status, text) = self.call_for_text(method, path, body);
        let body = if text.is_empty() { Json::Null } else { serde_json::from_str(&text).expect(&text) };
        (status, body)
    }

    fn call_for_text(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let (status, _, body) = self.call_with_head(method, path, body, "");
        (status, body)
    }

    /// The status, the head and the body of an answer to a request whose head has these lines, too.
    fn call_with_head(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        lines: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("the API listens");
        let mut request = format!("{method} /api{path} HTTP/1.0\r\nHost: localhost\r\n{lines}");
        if let Some(credentials) = &self.credentials {
            request += &format!("Authorization: Basic {credentials}\r\n");
        }
        let body = body.unwrap_or_default();
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).expect("it is written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_string(), body.to_string())
    }

    fn get(&self, path: &str) -> Json {
        let (status, body) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    #[track_caller]
    fn does(&self, method: &str, path: &str, body: Json, expected: u16) -> Json {
        let (status, answer) = self.call(method, path, Some(&body.to_string()));
        assert_eq!(status, expected, "{method} {path}: {answer}");
        answer
    }

    #[track_caller]
    fn publish(&self, key: &str, payload: &str, properties: Json) {
        let body = json!({"routing_key": key, "payload": payload, "payload_encoding": "string", "properties": properties});
        let answer = self.does("POST", "/exchanges/%2F/amq.default/publish", body, 200);
        assert_eq!(answer, json!({"routed": true}));
    }
}

fn payloads(messages: &Json) -> Vec<&str> {
    messages.as_array().expect("a list").iter().filter_map(|message| message["payload"].as_str()).collect()
}

#[test]
fn who_does_not_say_who_it_is_gets_nothing() {
    let broker = Broker::start();
    let nobody = Caller { address: broker.http(), credentials: None };
    let stranger = Caller { address: broker.http(), credentials: Some(BASE64.encode("guest:wrong")) };

    assert_eq!(nobody.call("GET", "/overview", None), (401, Json::Null));
    let refused = json!({"error": "not_authorized", "reason": "Login failed"});
    assert_eq!(stranger.call("GET", "/overview", None), (401, refused));
    assert_eq!(nobody.call("GET", "/health/live", None).0, 200);
}

#[test]
fn an_idle_broker_has_all_the_numbers_that_tools_read() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);

    let overview = guest.get("/overview");

    for path in [
        "/message_stats/publish",
        "/message_stats/ack_details/rate",
        "/queue_totals/messages_ready",
        "/object_totals/queues",
    ] {
        assert!(overview.pointer(path).is_some_and(Json::is_number), "{path}: {overview}");
    }
    assert_eq!(overview["product_name"], "Garenne");
    let node = &guest.get("/nodes")[0];
    for name in ["mem_used", "mem_limit", "fd_used", "fd_total", "disk_free", "uptime", "proc_used"] {
        assert!(node[name].as_u64().is_some_and(|n| n > 0), "{name}: {node}");
    }
}

#[test]
fn queues_are_declared_shown_and_deleted() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let declaration = json!({"durable": true, "arguments": {"x-max-length": 5}});

    guest.does("PUT", "/queues/%2F/a%2Fb", declaration.clone(), 201);
    guest.does("PUT", "/queues/%2F/a%2Fb", declaration, 204);
    let other = guest.does("PUT", "/queues/%2F/a%2Fb", json!({"durable": true}), 400);

    assert!(
        other["reason"].as_str().is_some_and(|reason| reason.contains("inequivalent arg 'x-max-length'")),
        "{other}"
    );
    let queue = guest.get("/queues/%2F/a%2Fb");
    assert_eq!((&queue["name"], &queue["arguments"]["x-max-length"]), (&json!("a/b"), &json!(5)));
    assert_eq!(guest.get("/queues/%2F/")[0]["name"], "a/b", "a slash at the end means nothing");
    guest.does("DELETE", "/queues/%2F/a%2Fb", json!({}), 204);
    guest.does("DELETE", "/queues/%2F/a%2Fb", json!({}), 404);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let check = |method: &str, path: &str, body: &str, status: u16, reason: &str| {
        let (is, answer) = guest.call(method, path, Some(body));
        assert_eq!(is, status, "{method} {path} {body}: {answer}");
        assert!(answer["reason"].to_string().contains(reason), "{method} {path} {body}: {answer}");
    };

    check("PUT", "/queues/%2F/q", "{", 400, "not_json");
    check("PUT", "/queues/%2F/q", "[]", 400, "not_json");
    check("PUT", "/queues/%2F/q", "\"x\"", 400, "decoded to a string");
    check("PUT", "/queues/%2F/q", "{\"durable\": \"maybe\"}", 400, "not_boolean");
    check("PUT", "/queues/%2F/q", "{\"arguments\": {\"x-max-length\": \"a\"}}", 400, "x-max-length");
    check("PUT", "/queues/%2F/amq.q", "{}", 401, "Access refused");
    check("PUT", &format!("/queues/%2F/{}", "q".repeat(256)), "{}", 400, "less than 255 bytes");
    check("PUT", "/queues/nowhere/q", "{}", 404, "");
    check("GET", "/queues?page=0", "", 400, "page number 0");
    check("GET", "/queues?page=1&page_size=501", "", 400, "page size 501");
    check("GET", "/queues?page=9", "", 400, "out of range");
    check("GET", "/queues?page=1&name=(&use_regex=true", "", 400, "Pagination parameters are invalid");
    check(
        "POST",
        "/exchanges/%2F/nothing/publish",
        &publish_to("q"),
        400,
        "404 NOT_FOUND - no exchange 'nothing'",
    );
    check(
        "POST",
        "/queues/%2F/nothing/get",
        "{\"count\":1,\"ackmode\":\"ack_requeue_true\",\"encoding\":\"auto\"}",
        404,
        "no queue",
    );
    check("GET", "/no/such/path", "", 404, "Not Found");
}

fn publish_to(key: &str) -> String {
    json!({"routing_key": key, "payload": "", "payload_encoding": "string", "properties": {}}).to_string()
}

#[test]
fn lists_are_sorted_filtered_and_cut() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    for (name, messages) in [("ab", 2), ("aa", 1), ("b", 0)] {
        guest.does("PUT", &format!("/queues/%2F/{name}"), json!({"durable": true}), 201);
        (0..messages).for_each(|_| guest.publish(name, "x", json!({})));
    }
    let names = |path: &str| -> Vec<String> {
        let list = guest.get(path);
        let items = list.get("items").unwrap_or(&list).as_array().expect("a list").clone();
        items.iter().map(|queue| queue["name"].as_str().expect("a name").to_string()).collect()
    };

    assert_eq!(names("/queues"), ["aa", "ab", "b"]);
    assert_eq!(names("/queues?sort=messages&sort_reverse=true"), ["ab", "aa", "b"]);
    assert_eq!(names("/queues?page=1&name=a&use_regex=false"), ["aa", "ab"]);
    assert_eq!(names("/queues?page=1&name=%5Ea.%24&use_regex=true"), ["aa", "ab"]);
    let page = guest.get("/queues?page=2&page_size=2&columns=name");
    let expected = json!({"filtered_count": 3, "item_count": 1, "page": 2, "page_count": 2, "page_size": 2,
                          "total_count": 3, "items": [{"name": "b"}]});
    assert_eq!(page, expected);
}

#[test]
fn messages_are_peeked_at_and_found_without_being_touched_wherever_they_are() {
    // Nothing that the store can bring back stays in memory.
    let broker = Broker::with(|config| config.message_memory_bytes_max = 0);
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    for n in 0..50 {
        guest.publish(
            "q",
            &n.to_string(),
            json!({"delivery_mode": 2, "message_id": format!("id-{n}"), "headers": {"n": n}}),
        );
    }

    let peeked = guest.does("POST", "/queues/%2F/q/peek", json!({"count": 3, "offset": 20}), 200);
    assert_eq!(payloads(&peeked), ["20", "21", "22"]);
    assert_eq!((&peeked[0]["position"], &peeked[0]["redelivered"]), (&json!(20), &json!(false)));
    let found = guest.does("POST", "/queues/%2F/q/find", json!({"message_id": "id-41"}), 200);
    assert_eq!(payloads(&found), ["41"]);
    let found =
        guest.does("POST", "/queues/%2F/q/find", json!({"header": "n", "value": "7", "limit": 9}), 200);
    assert_eq!(payloads(&found), ["7"]);
    let taken = json!({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"});
    let first = guest.does("POST", "/queues/%2F/q/get", taken, 200);
    assert_eq!((payloads(&first), &first[0]["redelivered"]), (vec!["0"], &json!(false)));
    assert_eq!(guest.get("/queues/%2F/q")["messages"], 49);
}

#[test]
fn dead_letters_are_taken_back_to_where_they_came_from() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let arguments = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"});
    guest.does("PUT", "/queues/%2F/jobs", json!({"durable": true, "arguments": arguments}), 201);
    guest.does("PUT", "/queues/%2F/dead", json!({"durable": true}), 201);
    for job in ["a", "b", "c"] {
        guest.publish("jobs", job, json!({"delivery_mode": 2, "headers": {"job": job}}));
    }
    let reject = json!({"count": 3, "ackmode": "reject_requeue_false", "encoding": "auto"});
    guest.does("POST", "/queues/%2F/jobs/get", reject.clone(), 200);
    let count = |queue: &str| guest.get(&format!("/queues/%2F/{queue}"))["messages"].as_u64();
    eventually("three dead letters", || count("dead") == Some(3));

    let preview =
        guest.does("POST", "/queues/%2F/dead/redrive", json!({"to": "origin", "dry_run": true}), 200);
    assert_eq!((&preview["moved"], count("dead")), (&json!(3), Some(3)));
    let only = json!({"to": "origin", "filter": {"header": "job", "value": "b"}});
    let moved = guest.does("POST", "/queues/%2F/dead/redrive", only, 200);

    assert_eq!(moved, json!({"moved": 1, "skipped": 2, "failed": 0, "targets": {"jobs": 1}}));
    assert_eq!((count("dead"), count("jobs")), (Some(2), Some(1)));
    let again = guest.does("POST", "/queues/%2F/jobs/get", reject, 200);
    assert_eq!(again[0]["properties"]["headers"], json!({"job": "b", "x-redrive-count": 1}));
    eventually("three dead letters", || count("dead") == Some(3));
    let rest = guest.does("POST", "/queues/%2F/dead/redrive", json!({"to": "origin"}), 200);
    assert_eq!((&rest["moved"], &rest["skipped"]), (&json!(2), &json!(1)), "one has failed again");
}

#[test]
fn moved_messages_survive_a_restart_where_they_are() {
    let mut broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/from", json!({"durable": true}), 201);
    guest.does("PUT", "/queues/%2F/to", json!({"durable": true}), 201);
    for n in 0..10 {
        guest.publish("from", &n.to_string(), json!({"delivery_mode": 2}));
    }

    guest.does("POST", "/queues/%2F/from/move", json!({"queue": "from"}), 400);
    guest.does("POST", "/queues/%2F/from/move", json!({"queue": "to", "limit": 4}), 200);
    broker.restart();

    let guest = Caller::guest(&broker);
    let all = json!({"count": 20, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let moved = guest.does("POST", "/queues/%2F/to/get", all.clone(), 200);
    assert_eq!(payloads(&moved), ["0", "1", "2", "3"]);
    let stayed = guest.does("POST", "/queues/%2F/from/get", all, 200);
    assert_eq!(payloads(&stayed), ["4", "5", "6", "7", "8", "9"]);
}

#[test]
fn who_holds_a_message_is_named() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    guest.publish("q", "x", json!({"message_id": "m"}));
    let mut client = broker.client();
    client.consume("q", "c");
    client.expect_delivery("x");

    let held = || guest.get("/queues/%2F/q/unacked");
    eventually("somebody holds it", || held().as_array().is_some_and(|held| held.len() == 1));

    let held = &held()[0];
    assert_eq!((&held["consumer_tag"], &held["message_id"]), (&json!("c"), &json!("m")));
    assert_eq!((&held["channel_details"]["user"], &held["delivery_tag"]), (&json!("guest"), &json!(1)));
    let consumer = &guest.get("/consumers/%2F")[0];
    assert_eq!((&consumer["consumer_tag"], &consumer["queue"]["name"]), (&json!("c"), &json!("q")));
    eventually("the channel has it", || guest.get("/channels")[0]["messages_unacknowledged"] == 1);
    assert_eq!(guest.get("/channels")[0]["message_stats"]["deliver"], 1);
}

#[test]
fn queues_are_paused_and_altered_and_routes_previewed() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);

    guest.does("PUT", "/queues/%2F/q/pause", json!({}), 204);
    assert_eq!(guest.get("/queues/%2F/q")["state"], "paused");
    guest.does("PUT", "/queues/%2F/q/resume", json!({}), 204);
    assert_eq!(guest.get("/queues/%2F/q")["state"], "running");
    guest.does("PUT", "/queues/%2F/q/arguments", json!({"arguments": {"x-max-length": 7}}), 204);
    assert_eq!(guest.get("/queues/%2F/q")["arguments"], json!({"x-max-length": 7}));
    guest.does("POST", "/bindings/%2F/e/amq.topic/q/q", json!({"routing_key": "a.#"}), 201);
    let route =
        |key: &str| guest.does("POST", "/exchanges/%2F/amq.topic/route", json!({"routing_key": key}), 200);
    assert_eq!(route("a.b")["routed"], json!([{"queue": "q"}]));
    assert_eq!(route("b")["routed"], json!([]));
    let bindings = guest.get("/bindings/%2F/e/amq.topic/q/q");
    let key = bindings[0]["properties_key"].as_str().expect("a key").replace('%', "%25");
    guest.does("DELETE", &format!("/bindings/%2F/e/amq.topic/q/q/{key}"), json!({}), 204);
    assert_eq!(guest.get("/bindings/%2F/e/amq.topic/q/q"), json!([]));
}

#[test]
fn delayed_messages_are_listed_cancelled_and_purged() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let exchange =
        json!({"type": "x-delayed-message", "durable": true, "arguments": {"x-delayed-type": "direct"}});
    guest.does("PUT", "/exchanges/%2F/later", exchange, 201);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    guest.does("POST", "/bindings/%2F/e/later/q/q", json!({"routing_key": "k"}), 201);
    for (id, delay) in [("two", 7_200_000), ("one", 3_600_000), ("three", 9_000_000)] {
        let properties = json!({"delivery_mode": 2, "headers": {"x-delay": delay, "x-schedule-id": id}});
        let body = json!({"routing_key": "k", "payload": id, "payload_encoding": "string", "properties": properties});
        guest.does("POST", "/exchanges/%2F/later/publish", body, 200);
    }

    assert_eq!(guest.get("/exchanges/%2F/later")["messages_delayed"], 3);
    let ids = |path: &str| -> Vec<String> {
        let listed = guest.get(path);
        let listed = listed.as_array().expect("a list");
        listed.iter().map(|one| one["schedule_id"].as_str().expect("an id").to_string()).collect()
    };
    assert_eq!(ids("/exchanges/%2F/later/delayed"), ["one", "two", "three"]);
    assert_eq!(ids("/exchanges/%2F/later/delayed?max=1"), ["one"]);
    guest.does("DELETE", "/exchanges/%2F/later/delayed/two", json!({}), 204);
    guest.does("DELETE", "/exchanges/%2F/later/delayed/two", json!({}), 404);
    assert_eq!(ids("/exchanges/%2F/later/delayed"), ["one", "three"]);
    assert_eq!(guest.does("DELETE", "/exchanges/%2F/later/delayed", json!({}), 200), json!({"purged": 2}));
    assert_eq!(guest.get("/delayed"), json!([{"vhost": "/", "exchange": "later", "messages": 0}]));
}

#[test]
fn the_document_of_the_api_is_the_one_in_the_repository() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let served = guest.get("/openapi.json");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os("GARENNE_WRITE_OPENAPI").is_some() {
        let text = serde_json::to_string_pretty(&served).expect("it is JSON") + "\n";
        std::fs::write(path, text).expect("the document is written");
    }

    let kept = std::fs::read_to_string(path).expect("docs/openapi.json");

    let kept: Json = serde_json::from_str(&kept).expect("docs/openapi.json is JSON");
    assert!(kept == served, "the API has changed: run this test with GARENNE_WRITE_OPENAPI=1");
}

/// Makes a user with a tag, who has all permissions in some vhosts.
fn user(broker: &Broker, name: &str, tags: &str, vhosts: &[&str]) -> Caller {
    let guest = Caller::guest(broker);
    guest.does("PUT", &format!("/users/{name}"), json!({"password": "secret", "tags": tags}), 201);
    for vhost in vhosts {
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        guest.does("PUT", &format!("/permissions/{vhost}/{name}"), all, 201);
    }
    Caller { address: broker.http(), credentials: Some(BASE64.encode(format!("{name}:secret"))) }
}

#[test]
fn monitoring_sees_vhosts_and_who_is_connected_and_into_vhosts_only_with_permissions() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    let _client = broker.client();
    let monitor = user(&broker, "monitor", "monitoring", &[]);
    let admin = user(&broker, "admin", "administrator", &[]);
    let length = |caller: &Caller, path: &str| caller.get(path).as_array().expect("a list").len();

    for path in ["/queues/%2F", "/queues/%2F/q", "/exchanges/%2F", "/bindings/%2F", "/vhosts/%2F/connections"]
    {
        let refused =
            json!({"error": "not_authorised", "reason": "User not authorised to access virtual host"});
        assert_eq!(monitor.call("GET", path, None), (401, refused), "{path}");
        assert_eq!(admin.call("GET", path, None).0, 200, "{path}");
    }
    assert_eq!((length(&monitor, "/queues"), length(&admin, "/queues")), (0, 1));
    assert_eq!((length(&monitor, "/vhosts"), length(&monitor, "/connections")), (1, 1));
    assert_eq!(monitor.get("/overview")["object_totals"]["queues"], 1);
    assert_eq!(monitor.get("/vhost-limits/%2F"), json!([]));
    let refused = admin.does("PUT", "/queues/%2F/other", json!({}), 401);
    assert_eq!(refused["reason"], "Access refused.");
}

#[test]
fn a_policy_is_shown_to_policymakers_and_feature_flags_to_administrators() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/policies/%2F/p", json!({"pattern": "^a", "definition": {"max-length": 1}}), 201);
    guest.does(
        "PUT",
        "/operator-policies/%2F/o",
        json!({"pattern": "^a", "definition": {"max-length": 1}}),
        201,
    );
    let manager = user(&broker, "manager", "management", &["%2F"]);
    let policymaker = user(&broker, "policymaker", "policymaker", &["%2F"]);
    let check = |caller: &Caller, path: &str, status: u16, reason: &str| {
        let (is, answer) = caller.call("GET", path, None);
        assert_eq!((is, answer["reason"].as_str().unwrap_or_default()), (status, reason), "{path}: {answer}");
    };

    check(&manager, "/policies/%2F", 200, "");
    check(&manager, "/policies/%2F/p", 401, "User not authorised to access object");
    check(&policymaker, "/policies/%2F/p", 200, "");
    check(&policymaker, "/operator-policies/%2F/o", 401, "Not administrator user");
    check(&manager, "/parameters", 401, "User not authorised to access object");
    check(&policymaker, "/feature-flags", 401, "Not administrator user");
    check(&guest, "/feature-flags", 200, "");
}

#[test]
fn consumers_are_shown_to_whom_they_belong_wherever_they_are() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    let mut client = broker.client();
    client.consume("q", "c");
    let nowhere = user(&broker, "nowhere", "management", &[]);
    eventually("it consumes", || guest.get("/consumers").as_array().is_some_and(|all| all.len() == 1));

    assert_eq!(nowhere.get("/consumers/%2F"), json!([]));
    assert_eq!(guest.get("/consumers/%2F")[0]["consumer_tag"], "c");
    assert_eq!(nowhere.call("GET", "/consumers/none", None).0, 404);
    let name =
        guest.get("/channels")[0]["name"].as_str().expect("a name").replace(' ', "%20").replace('>', "%3E");
    let channel = guest.get(&format!("/channels/{name}"));
    assert_eq!(channel["consumer_details"][0]["queue"], json!({"name": "q", "vhost": "/"}));
}

#[test]
fn a_form_logs_in_and_tells_who_may_not() {
    let broker = Broker::start();
    let nobody = Caller { address: broker.http(), credentials: None };
    user(&broker, "plain", "", &["%2F"]);

    assert_eq!(nobody.call("POST", "/login", Some("username=guest&password=guest")), (200, json!("ok")));
    let refused = json!({"error": "not_authorized", "reason": "Login failed"});
    assert_eq!(nobody.call("POST", "/login", Some("username=guest&password=wrong")), (401, refused));
    let refused = json!({"error": "not_authorised", "reason": "Not management user"});
    assert_eq!(nobody.call("POST", "/login", Some("username=plain&password=secret")), (401, refused));
    assert_eq!(nobody.call("GET", "/login", None).0, 405);
}

#[test]
fn definitions_come_as_a_file_of_a_form_too() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let queue = |name: &str| json!({"queues": [{"name": name, "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}]});
    let form = |fields: &[(&str, &str)]| {
        let part = |(name, text): &(&str, &str)| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        fields.iter().map(part).collect::<String>() + "--B--\r\n"
    };
    let upload = |path: &str, fields: &[(&str, &str)]| {
        let kind = "Content-Type: multipart/form-data; boundary=B\r\n";
        guest.call_with_head("POST", path, Some(&form(fields)), kind)
    };

    assert_eq!(upload("/definitions", &[("file", &queue("a").to_string())]).0, 204);
    let (status, head, _) =
        upload("/all-configuration", &[("file", &queue("b").to_string()), ("redirect", "../#/overview")]);
    assert_eq!((status, head.contains("location: ../#/overview")), (303, true), "{head}");
    let (status, _, refused) = upload("/definitions", &[("other", "{}")]);
    assert_eq!((status, refused.contains("failed_to_parse_json")), (400, true), "{refused}");
    assert_eq!(upload("/definitions/%2F", &[("file", &queue("c").to_string())]).0, 204);

    let names: Vec<Json> = guest.get("/queues?columns=name").as_array().expect("a list").clone();
    assert_eq!(names, [json!({"name": "a"}), json!({"name": "b"}), json!({"name": "c"})]);
    assert_eq!(guest.get("/all-configuration")["queues"], guest.get("/definitions")["queues"]);
    assert_eq!(guest.call("POST", "/definitions", None).0, 204, "nothing says nothing");
}

#[test]
fn vhosts_sum_up_what_their_queues_and_connections_have() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/vhosts/other", json!({}), 201);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    guest.publish("q", "x", json!({"delivery_mode": 2}));
    let client = broker.client();
    let vhost = || guest.get("/vhosts/%2F");
    eventually("the socket is counted", || vhost()["recv_oct"].as_u64().is_some_and(|octets| octets > 0));
    let before = vhost();
    drop(client);
    eventually("it has gone", || guest.get("/connections") == json!([]));

    let after = vhost();

    assert_eq!((&after["messages"], &after["messages_ready"]), (&json!(1), &json!(1)));
    assert!(after["messages_details"]["rate"].is_number(), "{after}");
    assert_eq!(after["message_stats"]["publish"], 1);
    assert!(after["recv_oct"].as_u64() >= before["recv_oct"].as_u64(), "{before} {after}");
    assert_eq!(guest.get("/vhosts/other")["recv_oct"], 0);
}

#[test]
fn persistent_messages_are_counted_apart_also_after_a_restart() {
    let mut broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/kept", json!({"durable": true}), 201);
    guest.does("PUT", "/queues/%2F/passing", json!({"durable": false}), 201);
    for mode in [2, 2, 2, 1] {
        guest.publish("kept", "four", json!({"delivery_mode": mode}));
        guest.publish("passing", "four", json!({"delivery_mode": mode}));
    }
    let numbers = |guest: &Caller, queue: &str| {
        let queue = guest.get(&format!("/queues/%2F/{queue}"));
        ["messages", "messages_persistent", "message_bytes_persistent"].map(|name| queue[name].as_u64())
    };

    assert_eq!(numbers(&guest, "kept"), [Some(4), Some(3), Some(12)]);
    assert_eq!(numbers(&guest, "passing"), [Some(4), Some(0), Some(0)]);
    broker.restart();
    assert_eq!(numbers(&Caller::guest(&broker), "kept")[..2], [Some(3), Some(3)]);
}

#[test]
fn what_was_counted_at_moments_is_told_to_who_asks_with_an_age() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/queues/%2F/q", json!({"durable": true}), 201);
    (0..3).for_each(|_| guest.publish("q", "x", json!({})));
    let ages = "lengths_age=10&lengths_incr=1&msg_rates_age=10&msg_rates_incr=1";
    eventually("a second has passed", || {
        let queue = guest.get(&format!("/queues/%2F/q?{ages}"));
        queue["messages_details"]["samples"][0]["sample"] == 3
    });

    for (path, published, ready) in [
        ("/queues/%2F/q", "/message_stats/publish_details", "/messages_ready_details"),
        ("/overview", "/message_stats/publish_details", "/queue_totals/messages_ready_details"),
        ("/vhosts/%2F", "/message_stats/publish_details", "/messages_ready_details"),
        ("/exchanges/%2F/amq.default", "/message_stats/publish_in_details", ""),
    ] {
        let answer = guest.get(&format!("{path}?{ages}"));
        for details in [published, ready].into_iter().filter(|details| !details.is_empty()) {
            let details = answer.pointer(details).expect("there are details");
            let samples = details["samples"].as_array().expect("samples");
            assert_eq!(samples.len(), 11, "{path}: {details}");
            assert_eq!((&samples[0]["sample"], &samples[10]["sample"]), (&json!(3), &json!(0)), "{path}");
            let step = samples[0]["timestamp"].as_u64().zip(samples[1]["timestamp"].as_u64());
            assert_eq!(step.map(|(newer, older)| newer - older), Some(1_000), "{path}");
            assert_eq!(details["avg_rate"], 0.3, "{path}");
            assert!(details["avg"].is_number(), "{path}: {details}");
        }
    }
    for wrong in ["msg_rates_age=10", "msg_rates_age=x&msg_rates_incr=5", "msg_rates_age=10&msg_rates_incr=0"]
    {
        let queue = guest.get(&format!("/queues/%2F/q?{wrong}"));
        assert!(queue["message_stats"]["publish_details"].get("samples").is_none(), "{wrong}");
    }
}

#[test]
fn the_document_of_an_api_below_a_prefix_says_so() {
    let broker = Broker::with(|config| config.http_path_prefix = "/broker".into());
    let mut stream = TcpStream::connect(broker.http()).expect("the API listens");
    stream
        .write_all(b"GET /broker/api/openapi.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .expect("it is written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");

    let body = answer.split_once("\r\n\r\n").expect("a head and a body").1;

    let document: Json = serde_json::from_str(body).expect("it is JSON");
    assert_eq!(document["servers"], json!([{"url": "/broker"}]));
}

#[test]
fn the_node_tells_how_fast_it_takes_more_and_what_it_took_before() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let _client = broker.client();
    let name = guest.get("/overview")["node"].as_str().expect("a name").to_string();

    let node = guest.get(&format!("/nodes/{name}?node_stats_age=10&node_stats_incr=5"));

    for number in ["mem_used", "fd_used", "sockets_used", "proc_used", "disk_free", "connection_created"] {
        let details = &node[format!("{number}_details")];
        assert!(details["rate"].is_number() && details["avg"].is_number(), "{number}: {details}");
        assert_eq!(details["samples"].as_array().map(Vec::len), Some(3), "{number}: {details}");
    }
    assert_eq!(node["connection_created"], 1);
    let churn = &guest.get("/overview?msg_rates_age=10&msg_rates_incr=5")["churn_rates"];
    assert_eq!(churn["connection_created_details"]["samples"].as_array().map(Vec::len), Some(3), "{churn}");
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    let put = |lines: &str| guest.call_with_head("PUT", "/queues/%2F/q", Some("{}"), lines);

    let (status, _, body) = put("Origin: http://elsewhere.example\r\n");
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("a page of another origin, 'http://elsewhere.example'"), "{body}");
    assert_eq!(put("Origin: null\r\n").0, 401);
    guest.call_with_head("GET", "/queues", None, "Origin: http://elsewhere.example\r\n");
    assert_eq!(guest.get("/queues"), json!([]));

    assert_eq!(put("Origin: http://localhost\r\n").0, 201);
}

#[test]
fn pages_of_queues_go_through_all_vhosts_in_order() {
    let broker = Broker::start();
    let guest = Caller::guest(&broker);
    guest.does("PUT", "/vhosts/b", json!({}), 201);
    for path in ["%2F/c", "%2F/a", "b/y", "%2F/b", "b/x"] {
        guest.does("PUT", &format!("/queues/{path}"), json!({}), 201);
    }
    let names = |query: &str| -> Vec<String> {
        let page = guest.get(&format!("/queues?{query}&page_size=2"));
        let items = page["items"].as_array().expect("a list").clone();
        items.iter().map(|item| format!("{}{}", item["vhost"], item["name"]).replace('"', "")).collect()
    };

    assert_eq!(["page=1", "page=2", "page=3"].map(names), [vec!["/a", "/b"], vec!["/c", "bx"], vec!["by"]]);
    assert_eq!(names("page=1&sort_reverse=true"), ["by", "bx"]);
    assert_eq!(names("page=1&sort=name&sort_reverse=true"), ["by", "bx"]);
    let of_vhost = guest.get("/queues/b?page=1&page_size=1");
    assert_eq!((&of_vhost["items"][0]["name"], &of_vhost["page_count"]), (&json!("x"), &json!(2)));
    let (status, refused) = guest.call("GET", "/queues?page=4&page_size=2", None);
    assert_eq!((status, &refused["error"]), (400, &json!("page_out_of_range")));
}

#[test]
fn watermarks_are_changed_until_the_next_start() {
    let mut broker = Broker::start();
    let guest = Caller::guest(&broker);
    let node = || guest.get("/nodes")[0].clone();
    let before = guest.get("/watermarks");

    guest.does("PUT", "/watermarks", json!({"memory_bytes_max": "1MiB", "disk_free_bytes_min": 7}), 204);
    assert_eq!((&node()["mem_limit"], &node()["disk_free_limit"]), (&json!(1 << 20), &json!(7)));
    eventually("memory is short", || node()["mem_alarm"] == true);
    guest.does("PUT", "/watermarks", json!({"memory_high_watermark": 1.0}), 204);
    eventually("memory is not short any more", || node()["mem_alarm"] == false);

    for (body, reason) in [
        (json!({"memory_high_watermark": 1.5}), "memory_high_watermark is 1.5, and must be a part"),
        (json!({"disk_free_bytes_min": "10XB"}), "disk_free_bytes_min is \"10XB\", and must be octets"),
        (json!({"memory_high_watermark": 0.5, "memory_bytes_max": 5}), "are both given"),
    ] {
        let refused = guest.does("PUT", "/watermarks", body, 400);
        assert!(refused["reason"].as_str().is_some_and(|text| text.contains(reason)), "{refused}");
    }
    broker.restart();
    assert_eq!(Caller::guest(&broker).get("/watermarks"), before);
}
