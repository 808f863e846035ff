//! `verify` and `dump` of data directories, as operators call them, from both binaries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use garenne::vhost::definitions::{Binding, Definition};
use serde_json::{Value as Json, json};

use crate::backup::{Ended, back_up};
use crate::support::wire::PERSISTENT;
use crate::support::*;

/// Runs a binary with what it is to do and the directory that it is about.
fn call(binary: &str, dir: &Path, words: &[&str]) -> Ended {
    let (verb, options) = words.split_first().expect("a verb");
    Ended::of(Command::new(binary).arg(verb).arg(dir).args(options))
}

fn garenne(dir: &Path, words: &[&str]) -> Ended {
    call(env!("CARGO_BIN_EXE_garenne"), dir, words)
}

/// What `dump` prints.
#[track_caller]
fn dump(dir: &Path, options: &[&str]) -> Vec<Json> {
    let ended = garenne(dir, &[&["dump"], options].concat());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    ended.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(path).expect("a file"))),
        }
    }
    found
}

/// The segment that has these bytes, and where.
fn find(dir: &Path, bytes: &[u8]) -> (PathBuf, usize) {
    let at = |file: &[u8]| file.windows(bytes.len()).position(|window| window == bytes);
    let found = files(&dir.join("log")).into_iter().find_map(|(path, file)| Some((path, at(&file)?)));
    found.expect("it is in the log")
}

/// A broker with some of everything, stopped in order.
fn stopped() -> Broker {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("orders");
    client.declare_durable_with("ranked", arguments([("x-max-priority", Value::Int(5))]));
    client.declare_exchange(exchange::Declare {
        exchange: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        arguments: arguments([("x-delayed-type", Value::text("direct"))]),
        ..Default::default()
    });
    client.bind("orders", "later", "due");
    client.confirm();
    for text in ["the first order", "the second order", "the third order"] {
        client.publish_persistent("", "orders", text);
    }
    client.publish_with("", "orders", PERSISTENT, [0xff, 0x00, 0xfe]);
    let urgent = amqp::Properties { delivery_mode: Some(2), priority: Some(4), ..Default::default() };
    client.publish_with("", "ranked", &urgent.encode(), "urgent");
    let mut delay = Vec::new();
    Table::from_iter([("x-delay", Value::Int(3_600_000))]).encode(&mut delay);
    let delayed = amqp::Properties { delivery_mode: Some(2), headers: Some(&delay), ..Default::default() };
    client.publish_with("later", "due", &delayed.encode(), "in an hour");
    client.expect_confirmed(1, 6);
    client.get("orders", "the first order");
    client.ack(1);
    client.get("orders", "the second order");
    client.close();
    drop(client);
    broker.stop();
    broker
}

#[test]
fn a_whole_directory_is_found_whole_and_left_as_it_is() {
    let broker = stopped();
    let dir = broker.data_dir();
    let before = files(&dir);

    for binary in [env!("CARGO_BIN_EXE_garenne"), env!("CARGO_BIN_EXE_garennectl")] {
        let ended = call(binary, &dir, &["verify"]);

        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
        for said in [
            "queue 'orders' in vhost '/': 3 messages, 34 bytes",
            "queue 'ranked' in vhost '/': 1 messages, 6 bytes",
            "what exchange 'later' in vhost '/' holds back: 1 messages, 10 bytes",
            "queues: 3, messages: 5, bytes of bodies: 50",
            "it is whole",
        ] {
            assert!(ended.out.contains(said), "{said}: {}", ended.out);
        }
        assert!(!ended.out.contains("note:"), "{}", ended.out);
    }
    assert!(before == files(&dir), "something was changed");
}

#[test]
fn damage_is_told_with_its_place_its_cost_and_the_next_step() {
    let broker = stopped();
    let (path, at) = find(&broker.data_dir(), b"the third order");
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("it is written");

    let ended = garenne(&broker.data_dir(), &["verify"]);

    assert_eq!(ended.code, 1, "{ended:?}");
    let file = path.file_name().expect("a name").to_str().expect("text");
    let place = |line: &&str| line.starts_with(&format!("DAMAGE log/{file}, byte "));
    let hole = ended.out.lines().find(place).expect(&ended.out);
    let number = |before: &str| {
        let rest = hole.split(before).nth(1).and_then(|rest| rest.split([',', ' ']).next());
        rest.and_then(|n| n.parse::<usize>().ok()).expect(hole)
    };
    let (from, len) = (number("byte "), number(&format!("byte {}, ", number("byte "))));
    assert!((from..from + len).contains(&at), "{hole}");
    for said in [
        "costs: 1 messages, which are named below",
        "costs: 1 messages of queue 'orders' in vhost '/': 3\n  next: a broker starts all the same",
        "it is damaged: 2 findings",
    ] {
        assert!(ended.out.contains(said), "{said}: {}", ended.out);
    }
    // What is left can still be had.
    let ended = garenne(&broker.data_dir(), &["dump", "--queue", "orders"]);
    assert_eq!((ended.code, ended.out.lines().count()), (1, 3), "{ended:?}");
    assert!(ended.err.contains("1 messages cannot be read"), "{ended:?}");
}

#[test]
fn a_torn_tail_is_normal_after_a_crash() {
    let mut broker = Process::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    client.publish_persistent("", "q", "whole");
    client.publish_persistent("", "q", "torn in two");
    client.expect_confirmed(1, 2);
    broker.kill();
    let (path, at) = find(&broker.data_dir(), b"torn in two");
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("it opens")
        .set_len(at as u64 + 4)
        .expect("it is cut");

    let ended = garenne(&broker.data_dir(), &["verify"]);

    assert_eq!(ended.code, 0, "{ended:?}");
    for said in
        ["A crash looks like this", "note: the next start reads the log", "messages: 1,", "it is whole"]
    {
        assert!(ended.out.contains(said), "{said}: {}", ended.out);
    }
}

#[test]
fn definitions_that_lead_nowhere_are_found() {
    let broker = stopped();
    let dir = broker.data_dir();
    let (store, _) = store::Store::open(&dir, store::Options::default()).expect("it opens");
    let binding = |source: &str, destination: &str, vhost: &str| {
        let binding = Binding {
            vhost: vhost.into(),
            source: source.into(),
            destination: destination.into(),
            to_queue: true,
            routing_key: "k".into(),
            arguments: Table::new(),
        };
        Definition::Binding(binding).define()
    };
    let senseless = store::Operation::Define { key: b"q\0\x01/\0\x04lost".to_vec(), value: b"{}".to_vec() };
    let orphan = store::QueueId(77);
    store
        .append_and_wait(vec![
            binding("amq.topic", "orders", "/"),
            binding("amq.topic", "nobody", "/"),
            binding("nowhere", "orders", "/"),
            binding("amq.topic", "orders", "gone"),
            senseless,
            store::Operation::QueueCreate { queue: orphan },
            store::Operation::Publish(store::Publish {
                timestamp_ms: 1,
                due_at_ms: None,
                destinations: [(orphan, store::Seq(0))].into_iter().collect(),
                parts: store::Parts::default(),
            }),
        ])
        .expect("it is kept");
    store.close().expect("it closes");

    let ended = garenne(&dir, &["verify"]);

    assert_eq!(ended.code, 1, "{ended:?}");
    for said in [
        "DAMAGE binding from 'amq.topic' to 'nobody' with key 'k' in vhost '/': the queue it leads to is not there",
        "DAMAGE binding from 'nowhere' to 'orders' with key 'k' in vhost '/': the exchange it leaves from is not there",
        "DAMAGE binding from 'amq.topic' to 'orders' with key 'k' in vhost 'gone': its vhost is not there",
        "missing field `vhost`",
        "DAMAGE queue number 77: 1 messages, and no definition names it",
        "it is damaged: 5 findings",
    ] {
        assert!(ended.out.contains(said), "{said}: {}", ended.out);
    }
}

#[test]
fn a_directory_is_dumped_as_lines_of_json() {
    let broker = stopped();
    let dir = broker.data_dir();

    let all = dump(&dir, &[]);

    let count = |object: &str| all.iter().filter(|line| line["object"] == object).count();
    assert_eq!(
        (count("queue"), count("delaying_exchange"), count("message"), all.len()),
        (2, 1, 5, 8),
        "{all:?}"
    );
    let delayed = all.iter().find(|line| line["held_back_by"] == "later").expect("a delayed message");
    assert_eq!(
        delayed["due_at_ms"].as_u64(),
        delayed["taken_at_ms"].as_u64().map(|at_ms| at_ms + 3_600_000),
        "{delayed}"
    );
    assert_eq!(delayed["properties"]["headers"]["x-delay"], 3_600_000);
    let urgent =
        all.iter().find(|line| line["object"] == "message" && line["queue"] == "ranked").expect("urgent");
    assert_eq!((&urgent["priority"], urgent.get("payload")), (&json!(4), None));

    let orders = dump(&dir, &["--queue", "orders", "--vhost", "/", "--bodies"]);

    assert_eq!(
        orders[0],
        json!({
            "object": "queue", "vhost": "/", "queue": "orders", "auto_delete": false, "arguments": {}, "messages": 3,
        })
    );
    let mut second = orders[1].clone();
    assert!(second["taken_at_ms"].take().is_u64());
    assert_eq!(
        second,
        json!({
            "object": "message", "vhost": "/", "queue": "orders", "priority": 0, "seq": 2, "redelivered": true,
            "exchange": "", "routing_key": "orders", "properties": {"delivery_mode": 2}, "taken_at_ms": null,
            "payload_bytes": 16, "payload": "the second order", "payload_encoding": "string",
        })
    );
    let payloads: Vec<&Json> = orders[1..].iter().map(|line| &line["payload"]).collect();
    assert_eq!(payloads, ["the second order", "the third order", "/wD+"]);
    assert_eq!(orders[3]["payload_encoding"], "base64");
    let ended = garenne(&dir, &["dump", "--queue", "orders", "--vhost", "other"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("there is no queue 'orders' in vhost 'other'"), "{ended:?}");
}

#[test]
fn definitions_are_dumped_as_the_api_exports_them() {
    let mut broker = stopped();
    let ended = call(env!("CARGO_BIN_EXE_garennectl"), &broker.data_dir(), &["dump", "--definitions"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let dumped: Json = serde_json::from_str(&ended.out).expect("JSON");

    broker.restart();

    assert_eq!(dumped, broker.inner().export_definitions(None).expect("definitions"));
    assert_eq!(dumped["queues"].as_array().map(Vec::len), Some(2));
}

#[test]
fn what_a_broker_uses_is_not_looked_at_but_its_backup_is() {
    let broker = Broker::start();
    broker.client().declare_durable("q");
    for words in [&["verify"], &["dump"]] {
        let ended = garenne(&broker.data_dir(), words);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains("garennectl backup --path"), "{ended:?}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let ended = garenne(dir.path(), &["verify"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("is no data directory"), "{ended:?}");

    back_up(&broker, dir.path());

    let ended = garenne(dir.path(), &["verify"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(dump(dir.path(), &[]).len(), 1);
}
