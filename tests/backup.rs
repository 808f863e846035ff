//! Backups as operators make them, with garennectl, of a broker that goes on; and what a broker finds in one.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::*;

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn of(command: &mut Command) -> Ended {
        let Output { status, stdout, stderr } =
            command.env_remove("GARENNE_CONFIG").output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended { code: status.code().expect("an exit code"), out: text(stdout), err: text(stderr) }
    }
}

/// `garennectl` as somebody, about a broker.
fn ctl(broker: &Broker, user: &str, words: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garennectl"));
    command.args(["--base-uri", &format!("http://{}", broker.http()), "--format", "json"]);
    command.args(["--username", user, "--password", user]).args(words);
    Ended::of(&mut command)
}

/// Has a broker write a backup.
#[track_caller]
pub fn back_up(broker: &Broker, to: &Path) -> Json {
    let to = to.to_str().expect("a path of text");
    let ended = ctl(broker, "guest", &["backup", "--path", to]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let said: Json = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(said["path"], to);
    said
}

/// A broker on a copy.
fn on_copy(dir: &Path) -> Broker {
    Broker::with(|config| config.data_dir = dir.to_owned())
}

fn body(n: u64) -> String {
    format!("{n} {}", "x".repeat(3000))
}

/// The numbers of messages, and whether any was handed out before.
fn numbers(client: &mut Client, queue: &str) -> Vec<(u64, bool)> {
    let number = |text: &str| text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    client.drain_marked(queue).iter().map(|(text, again)| (number(text), *again)).collect()
}

#[test]
fn a_backup_made_while_publishing_goes_on_has_all_that_was_confirmed_before() {
    let options = store::Options { checkpoint_interval: Duration::from_millis(20), ..Default::default() };
    let broker = Broker::on(options);
    let mut client = broker.client();
    for queue in ["kept", "done"] {
        client.declare_durable(queue);
    }
    client.confirm();
    for n in 0..300 {
        client.publish_persistent("", "done", body(n));
    }
    client.expect_confirmed(1, 300);
    let (confirmed, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let publisher = {
        let (mut client, confirmed, is_over) = (broker.client(), confirmed.clone(), is_over.clone());
        thread::spawn(move || {
            client.confirm();
            let mut n = 0;
            while !is_over.load(Ordering::SeqCst) {
                (n..n + 20).for_each(|n| client.publish_persistent("", "kept", body(n)));
                client.expect_confirmed(n + 1, n + 20);
                n += 20;
                confirmed.store(n, Ordering::SeqCst);
            }
        })
    };
    // All but the last 10 are settled: most of the segments that they lie in are to go.
    for n in 0..290 {
        client.get("done", &body(n));
    }
    client.ack_through(290);
    client.sync();
    eventually("much is published", || confirmed.load(Ordering::SeqCst) > 500);
    let dir = tempfile::tempdir().expect("a directory");

    let before = confirmed.load(Ordering::SeqCst);
    let said = back_up(&broker, &dir.path().join("copy"));

    let after = confirmed.load(Ordering::SeqCst);
    eventually("publishing goes on", || confirmed.load(Ordering::SeqCst) > after);
    is_over.store(true, Ordering::SeqCst);
    publisher.join().expect("a publisher that ends well");
    assert!(said["bytes"].as_u64() > Some(before * 3000), "{said}");
    let copy = on_copy(&dir.path().join("copy"));
    let mut client = copy.client();
    let kept = numbers(&mut client, "kept");
    assert!(kept.len() as u64 >= before, "{} of {before}", kept.len());
    assert!(
        (0..).zip(&kept).all(|(expected, found)| *found == (expected, false)),
        "in order, none a second time"
    );
    assert_eq!(numbers(&mut client, "done"), (290..300).map(|n| (n, false)).collect::<Vec<_>>());
}

#[test]
fn a_backup_has_all_definitions() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable_with("q", arguments([("x-max-length", Value::Int(9))]));
    client.declare_exchange(exchange::Declare {
        exchange: "x".into(),
        kind: "topic".into(),
        durable: true,
        ..Default::default()
    });
    client.bind("q", "x", "a.#");
    let declared = ctl(
        &broker,
        "guest",
        &["users", "declare", "--name", "alice", "--password", "alice", "--tags", "monitoring"],
    );
    assert_eq!(declared.code, 0, "{declared:?}");
    let dir = tempfile::tempdir().expect("a directory");

    // An empty directory is as good as one that is not there.
    back_up(&broker, dir.path());

    let copy = on_copy(dir.path());
    let exported = |broker: &Broker| broker.inner().export_definitions(None).expect("definitions");
    assert_eq!(exported(&copy), exported(&broker));
    let mut client = copy.client();
    client.publish("x", "a.b", "through the binding");
    client.get("q", "through the binding");
}

#[test]
fn a_backup_that_cannot_be_made_says_why() {
    let broker = Broker::with(|config| config.seed.users.push(user("watcher", "watcher", &["monitoring"])));
    let dir = tempfile::tempdir().expect("a directory");
    let check = |user: &str, to: &Path, code: i32, reason: &str| {
        let ended = ctl(&broker, user, &["backup", "--path", to.to_str().expect("text")]);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.err.contains(reason), "{ended:?}");
    };

    check("guest", "relative".as_ref(), 65, "whole path");
    check("guest", &broker.data_dir().join("backup"), 65, "inside the data directory");
    check("guest", broker.data_dir().parent().expect("one above it"), 65, "not empty");
    check("watcher", &dir.path().join("copy"), 77, "");

    let refused = |body: Json, reason: &str| {
        let (status, answer) =
            crate::http::Caller::guest(&broker).call("POST", "/backup", Some(&body.to_string()));
        assert_eq!(status, 400, "{answer}");
        assert!(answer["reason"].to_string().contains(reason), "{answer}");
    };
    refused(json!({}), "path");
    refused(json!({"path": 7}), "path is 7, and must be a string");
    refused(json!({"path": ""}), "whole path");
    assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);
}
