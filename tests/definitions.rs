//! Definitions written out and read in: files of RabbitMQ's and of LavinMQ's, all or nothing, and again.

use garenne::broker::{Actor, VhostChanges};
use garenne::error::Error;
use garenne::vhost::Diff;
use serde_json::{Value as Json, json};

use crate::support::*;

fn file(name: &str) -> Json {
    let path = format!("{}/tests/definitions/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn import(broker: &Broker, definitions: &Json) -> Result<Diff, Error> {
    broker.inner().import_definitions(&Actor::broker(), definitions, None, false)
}

/// An export without what differs between brokers that are otherwise the same.
fn exported(broker: &Broker) -> Json {
    broker.inner().export_definitions(None).unwrap()
}

#[test]
fn a_file_of_rabbitmq_3_is_read_and_is_the_same_again() {
    let mut broker = Broker::start();
    let wanted = file("rabbitmq-3.8.json");

    let diff = import(&broker, &wanted).unwrap();
    assert_eq!((diff.create.len(), diff.change, diff.skip), (12, vec![], vec![]), "{:?}", diff.create);
    assert_eq!(diff.keep, ["global parameter 'internal_cluster_id'"]);
    let again = import(&broker, &wanted).unwrap();
    assert_eq!((again.create, again.change), (vec![], vec![]));

    broker.restart();
    let login = Login { vhost: "shop".into(), ..Login::of("anna", "test12") };
    let mut client = broker.client_as(&login);
    client.publish_persistent("amq.topic", "job.1", "message");
    // What anna may not publish to is refused as in RabbitMQ: `(?!amq\.)` looks ahead.
    client.expect_channel_close_unanswered(
        ReplyCode::AccessRefused,
        "ACCESS_REFUSED - access to exchange 'amq.topic' in vhost 'shop' refused for user 'anna'",
    );
    let shop = broker.vhost("shop");
    let jobs = shop.queue("jobs").unwrap();
    assert_eq!(jobs.settings().message_ttl_ms, Some(60_000));
    assert_eq!(shop.about().limits.get("max-queues"), Some(50));
    assert_eq!(broker.inner().cluster_name(), "rabbit@old");
}

#[test]
fn a_file_of_rabbitmq_4_is_read_and_what_it_has_that_we_have_not_is_named() {
    let broker = Broker::start();

    let diff = import(&broker, &file("rabbitmq-4.2.json")).unwrap();

    assert_eq!(
        diff.skip,
        [
            "parameter 'move' in vhost 'bank': there is no component 'shovel' here",
            "exchange 'amq.rabbitmq.event' in vhost 'bank': it belongs to the broker",
        ]
    );
    let bank = broker.vhost("bank");
    assert!(bank.about().protected);
    assert_eq!(bank.about().default_queue_type.as_deref(), Some("quorum"));
    assert_eq!(bank.queue("accounts").unwrap().declared().table.get_str("x-queue-type"), Some("quorum"));
    assert_eq!(bank.queue("accounts").unwrap().settings().length_max, Some(1000));
    let bert = broker.inner().user("bert").unwrap();
    assert_eq!((bert.limits.get("max-connections"), bert.tags.len()), (Some(7), 2));
    assert!(broker.inner().authenticate("carl", "").is_none());
}

#[test]
fn a_file_of_lavinmq_is_read() {
    let broker = Broker::start();
    import(&broker, &file("lavinmq-2.json")).unwrap();

    let login = Login { vhost: "rabbits".into(), ..Login::of("dora", "test12") };
    let mut client = broker.client_as(&login);
    client.publish("later", "carrots", "message");

    client.get("carrots", "message");
}

#[test]
fn what_one_broker_writes_makes_another_the_same() {
    let (one, other) = (Broker::start(), Broker::start());
    for name in ["rabbitmq-3.8.json", "rabbitmq-4.2.json", "lavinmq-2.json"] {
        import(&one, &file(name)).unwrap();
    }
    let mut client = one.client();
    client.declare("transient");
    client.declare_queue(queue::Declare {
        queue: "own".into(),
        exclusive: true,
        ..queue::Declare::default()
    });
    client.bind("own", "amq.topic", "#");

    let written = exported(&one);
    import(&other, &written).unwrap();

    let mut same = exported(&other);
    same["global_parameters"] = written["global_parameters"].clone();
    assert_eq!(same, written);
    let queues: Vec<&str> =
        written["queues"].as_array().unwrap().iter().filter_map(|q| q["name"].as_str()).collect();
    assert!(queues.contains(&"transient") && !queues.contains(&"own"), "{queues:?}");
}

#[test]
fn a_dry_run_says_what_would_be_and_does_nothing() {
    let broker = Broker::start();
    let before = exported(&broker);
    let wanted = json!({
        "users": [{"name": "guest", "password": "guest", "tags": "administrator"},
                  {"name": "eve", "password": "secret", "tags": []}],
        "vhosts": [{"name": "/", "description": "another"}],
        "queues": [{"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}],
    });

    let diff = broker.inner().import_definitions(&Actor::broker(), &wanted, None, true).unwrap();

    assert_eq!(diff.create, ["user 'eve'", "queue 'q' in vhost '/'"]);
    assert_eq!((diff.change, diff.same), (vec!["vhost '/'".to_string()], 1));
    assert_eq!(exported(&broker), before);
}

#[track_caller]
fn refused(broker: &Broker, wanted: Json, text: &str) {
    let before = exported(broker);

    let error = import(broker, &wanted).unwrap_err().to_string();

    assert!(error.contains(text), "{error}");
    assert_eq!(exported(broker), before, "something has changed");
}

#[test]
fn one_thing_that_cannot_be_and_nothing_is_done() {
    let broker = Broker::start();
    let with = |key: &str, item: Json| {
        let mut all = file("rabbitmq-3.8.json");
        all[key].as_array_mut().unwrap().push(item);
        all
    };

    refused(&broker, json!([]), "definitions must be a JSON object");
    refused(&broker, json!({"queues": 5}), "queues must be a list, and is 5");
    refused(&broker, json!({"queues": [5]}), "queues[0] must be an object, and is 5");
    let queue =
        |arguments: Json| json!({"name": "bad", "vhost": "shop", "durable": true, "arguments": arguments});
    refused(
        &broker,
        with("queues", queue(json!({"x-message-ttl": "a"}))),
        "invalid arg 'x-message-ttl' for queue 'bad'",
    );
    refused(
        &broker,
        with("queues", queue(json!(7))),
        "queues[2] 'bad': arguments must be an object, and is 7",
    );
    refused(&broker, with("queues", json!({"name": "bad", "vhost": "nowhere"})), "vhost nowhere not found");
    refused(&broker, with("queues", json!({"name": "bad"})), "queues[2] 'bad': vhost is missing");
    refused(
        &broker,
        with("exchanges", json!({"name": "bad", "vhost": "shop", "type": "odd"})),
        "exchange 'bad' in vhost 'shop': unknown exchange type 'odd'",
    );
    let binding = |source: &str, destination: &str| json!({"vhost": "shop", "source": source, "destination": destination, "destination_type": "queue"});
    refused(&broker, with("bindings", binding("events", "nobody")), "no queue 'nobody' in vhost 'shop'");
    refused(&broker, with("bindings", binding("nothing", "jobs")), "no exchange 'nothing' in vhost 'shop'");
    refused(
        &broker,
        with(
            "permissions",
            json!({"user": "nobody", "vhost": "shop", "configure": "", "write": "", "read": ""}),
        ),
        "user 'nobody' not found",
    );
    refused(
        &broker,
        with("permissions", json!({"user": "anna", "vhost": "/", "configure": "(", "write": "", "read": ""})),
        "invalid_regexp: configure is '('",
    );
    refused(&broker, with("users", json!({"name": "x", "password_hash": "!"})), "users[1] 'x': not_base64");
    refused(
        &broker,
        with(
            "policies",
            json!({"vhost": "shop", "name": "p", "pattern": "", "definition": {"message-tt": 1}}),
        ),
        "message-tt",
    );
    refused(
        &broker,
        with("parameters", json!({"vhost": "shop", "component": "odd", "name": "x", "value": {}})),
        "component odd not found",
    );
    refused(
        &broker,
        json!({"vhosts": [{"name": "v", "limits": {"max-queues": 0}}],
               "queues": [{"name": "q", "vhost": "v"}]}),
        "vhost 'v' would have 1 queues, and its queue limit is 0",
    );
}

#[test]
fn what_is_there_with_other_properties_stays_as_it_is() {
    let broker = Broker::start();
    broker.client().declare_durable("jobs");
    let queue = json!({"name": "jobs", "vhost": "/", "durable": true, "arguments": {"x-message-ttl": 1}});

    let diff = import(&broker, &json!({"queues": [queue]})).unwrap();

    assert_eq!((diff.keep, diff.create), (vec!["queue 'jobs' in vhost '/'".to_string()], vec![]));
    assert!(broker.vhost("/").queue("jobs").unwrap().declared().table.is_empty());
}

#[test]
fn one_vhost_goes_into_another() {
    let broker = Broker::start();
    let actor = Actor::broker();
    import(&broker, &file("rabbitmq-3.8.json")).unwrap();
    broker.inner().put_vhost(&actor, "copy", VhostChanges::default()).unwrap();

    let written = broker.inner().export_definitions(Some("shop")).unwrap();
    assert!(written["queues"].as_array().unwrap().iter().all(|queue| queue.get("vhost").is_none()));
    broker.inner().import_definitions(&actor, &written, Some("copy"), false).unwrap();

    let mut copied = broker.inner().export_definitions(Some("copy")).unwrap();
    for key in ["original_vhost_name", "description", "metadata"] {
        copied[key] = written[key].clone();
    }
    assert_eq!(copied, written);
    assert_eq!(broker.inner().export_definitions(Some("nowhere")), Err(Error::NoVhost("nowhere".into())));
}

#[test]
fn definitions_are_there_before_the_first_client_and_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let both = json!({
        "users": [{"name": "anna", "password": "secret", "tags": []}],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": "anna", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
    });
    std::fs::write(dir.path().join("1.json"), both.to_string()).unwrap();
    let queue = json!({"queues": [{"name": "q", "vhost": "/", "durable": true}]}).to_string();
    std::fs::write(dir.path().join("2.json"), &queue).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "no JSON").unwrap();
    let path = dir.path().to_path_buf();

    let mut broker = Broker::with(|config| {
        config.load_definitions = vec![path];
        config.skip_unchanged_definitions = true;
    });

    let mut client = broker.client_as(&Login::of("anna", "secret"));
    assert!(client.has_queue("q"));
    assert!(broker.inner().user("guest").is_none());
    // Not made again as long as the file is the same.
    client.send(queue::Delete { queue: "q".into(), ..queue::Delete::default() });
    client.expect(queue::DeleteOk { message_count: 0 });
    client.close();
    drop(client);
    broker.restart();
    assert!(!broker.client_as(&Login::of("anna", "secret")).has_queue("q"));
    std::fs::write(dir.path().join("2.json"), format!("{queue} ")).unwrap();
    broker.restart();
    assert!(broker.client_as(&Login::of("anna", "secret")).has_queue("q"));
}
