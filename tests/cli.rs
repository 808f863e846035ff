//! garennectl from the outside: what it asks of a broker, what it prints, and how it ends. The broker is played.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// A broker with canned answers, which remembers what it was asked.
struct Played {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Played {
    /// Answers by `METHOD /path` with a status and a body; everything else is 404.
    fn with(answers: &[(&str, u16, &str)]) -> Played {
        let answers: HashMap<String, (u16, String)> = answers
            .iter()
            .map(|(what, status, body)| (what.to_string(), (*status, body.to_string())))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some((what, body)) = read_request(&mut BufReader::new(&stream)) else { continue };
                let known =
                    answers.get(&what).or_else(|| answers.get(what.split('?').next().unwrap_or_default()));
                let not_found = (404, r#"{"error":"Object Not Found","reason":"Not Found"}"#.to_string());
                let (status, answer) = known.cloned().unwrap_or(not_found);
                notes.lock().expect("notes").push(format!("{what} {body}").trim_end().to_string());
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                let _ = stream.write_all((head + &answer).as_bytes());
            }
        });
        Played { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("notes").clone()
    }

    /// Runs the binary under a name, as through a link.
    fn call(&self, name: &str, arguments: &[&str]) -> Ended {
        run(name, arguments, &self.url)
    }
}

fn read_request(reader: &mut BufReader<&std::net::TcpStream>) -> Option<(String, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut parts = line.split_whitespace();
    let what = format!("{} {}", parts.next()?, parts.next()?.strip_prefix("/api")?);
    let (mut bytes, mut is_allowed) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(length) = header.strip_prefix("content-length:") {
            bytes = length.trim().parse().ok()?;
        }
        is_allowed |= header.starts_with("authorization: basic ");
    }
    assert!(is_allowed, "without a user: {what}");
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body).ok()?;
    Some((what, String::from_utf8_lossy(&body).into_owned()))
}

#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn run(name: &str, arguments: &[&str], url: &str) -> Ended {
    let home = tempfile::tempdir().expect("a folder");
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_garennectl"))
        .arg0(name)
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("GARENNE_URL", url)
        .env("RABBITMQ_NODENAME", "rabbit@here")
        .output()
        .expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: status.code().expect("an exit code"), out: text(stdout), err: text(stderr) }
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

const OVERVIEW: &str = r#"{"product_name":"RabbitMQ","rabbitmq_version":"3.10.8","node":"rabbit@here","listeners":[
    {"node":"rabbit@here","protocol":"amqp","ip_address":"::","port":5672},
    {"node":"rabbit@here","protocol":"http","ip_address":"127.0.0.1","port":15672}]}"#;
const USERS: &str =
    r#"[{"name":"u1","tags":["management","policymaker"]},{"name":"guest","tags":["administrator"]}]"#;
const QUEUES: &str = r#"[{"name":"q1","messages":5,"durable":true,"arguments":{"x-max-length":10}},
    {"name":"q 2","messages":0,"durable":false,"arguments":{}}]"#;

#[test]
fn a_queue_is_declared_with_what_was_said() {
    let broker = Played::with(&[("PUT /queues/a%2Fb/jobs%201", 201, "")]);
    let line = [
        "-V",
        "a/b",
        "queues",
        "declare",
        "--name",
        "jobs 1",
        "--type",
        "quorum",
        "--arguments",
        "{\"x\":1}",
    ];

    let ended = broker.call("garennectl", &line);

    assert_eq!((ended.code, ended.out.as_str()), (0, "queue 'jobs 1' in vhost 'a/b' declared\n"));
    let body = r#"{"arguments":{"x":1,"x-queue-type":"quorum"},"auto_delete":false,"durable":true}"#;
    assert_eq!(broker.asked(), [format!("PUT /queues/a%2Fb/jobs%201 {body}")]);
}

#[test]
fn a_list_is_a_table_for_people_and_json_or_csv_for_programs() {
    let broker = Played::with(&[("GET /queues", 200, QUEUES)]);
    let call = |format: &str| {
        broker.call("garennectl", &["queues", "list", "--columns", "name,messages", "--format", format])
    };

    assert_eq!(call("csv").out, "name,messages\nq1,5\nq 2,0\n");
    let json: serde_json::Value = serde_json::from_str(&call("json").out).expect("json");
    assert_eq!(json, serde_json::json!([{"name": "q1", "messages": 5}, {"name": "q 2", "messages": 0}]));
    assert!(call("table").out.contains("│ q1   ┆ 5        │"), "{}", call("table").out);
    assert!(
        broker.asked().iter().all(|line| line == "GET /queues?columns=name%2Cmessages"),
        "{:?}",
        broker.asked()
    );
}

#[test]
fn pages_are_turned_until_the_last() {
    let page = |name: &str| format!(r#"{{"items":[{{"name":"{name}"}}],"page_count":2}}"#);
    let query =
        |page: u8| format!("GET /queues?columns=name&page={page}&page_size=500&use_regex=true&name=%5Eq");
    let broker = Played::with(&[(&query(1), 200, &page("q1")), (&query(2), 200, &page("q2"))]);

    let ended = broker.call(
        "garennectl",
        &["queues", "list", "--name-pattern", "^q", "--columns", "name", "--format", "csv"],
    );

    assert_eq!(ended.out, "name\nq1\nq2\n");
}

#[test]
fn failures_name_the_thing_and_the_next_step() {
    let refused = r#"{"error":"bad_request","reason":"inequivalent arg"}"#;
    let denied = r#"{"error":"not_authorised","reason":"Login failed"}"#;
    let broker = Played::with(&[("PUT /queues/%2F/q", 400, refused), ("GET /whoami", 401, denied)]);
    let check = |line: &[&str], code: i32, expected: &str| {
        let ended = broker.call("garennectl", line);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    };

    check(&["queues", "show", "q"], 65, "there is no queue 'q' in vhost '/'");
    check(
        &["queues", "declare", "q"],
        65,
        "queue 'q' in vhost '/': the broker refused (400): inequivalent arg",
    );
    check(&["whoami"], 77, "--username");
    check(&["doctor"], 65, "Garenne's own");
    check(&["queues", "declare"], 64, "required arguments were not provided");
    check(&["queues", "delete", "q", "--idempotently"], 0, "");
    let ended = run("garennectl", &["status"], &nobody());
    assert_eq!(ended.code, 69);
    assert!(
        ended.err.contains("nobody answers at http://127.0.0.1") && ended.err.contains("--http"),
        "{ended:?}"
    );
}

#[test]
fn a_dry_run_is_never_sent_to_a_broker_that_would_import() {
    let broker = Played::with(&[("GET /overview", 200, OVERVIEW), ("POST /definitions", 204, "")]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "{}").expect("written");
    let path = file.path().to_str().expect("a path");

    let ended = broker.call("garennectl", &["definitions", "import", "--file", path, "--dry-run"]);

    assert_eq!(ended.code, 65);
    assert_eq!(broker.asked(), ["GET /overview"]);
}

#[test]
fn dead_letters_go_back_as_many_and_as_fast_as_was_said() {
    let answer = r#"{"moved":3,"skipped":0,"failed":0,"targets":{"jobs":3}}"#;
    let broker = Played::with(&[("POST /queues/%2F/dead/redrive", 200, answer)]);
    let line = [
        "dead-letters",
        "redrive",
        "dead",
        "--limit",
        "3",
        "--rate",
        "5",
        "--filter",
        "tenant=a",
        "--dry-run",
    ];

    let ended = broker.call("garennectl", &line);

    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("moved") && ended.out.contains("{\"jobs\":3}"), "{ended:?}");
    let body =
        r#"{"dry_run":true,"filter":{"header":"tenant","value":"a"},"limit":3,"rate":5,"to":"origin"}"#;
    assert_eq!(broker.asked(), [format!("POST /queues/%2F/dead/redrive {body}")]);
}

#[test]
fn a_shell_gets_completions() {
    let ended = run("garennectl", &["completions", "bash"], &nobody());

    assert_eq!(ended.code, 0);
    assert!(ended.out.contains("dead_letters") && ended.out.contains("complete -F"), "{}", ended.out.len());
}

/// The lines are what RabbitMQ 3.10.8's own tool prints.
#[test]
fn rabbitmqctl_lists_as_the_real_one_does() {
    let broker = Played::with(&[("GET /users", 200, USERS), ("GET /queues/%2F", 200, QUEUES)]);
    let check = |line: &[&str], expected: &str| {
        let ended = broker.call("/usr/sbin/rabbitmqctl", line);
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, expected, ""), "{line:?}");
    };

    check(
        &["list_users"],
        "Listing users ...\nuser\ttags\nu1\t[management, policymaker]\nguest\t[administrator]\n",
    );
    check(&["-q", "list_users"], "user\ttags\nu1\t[management, policymaker]\nguest\t[administrator]\n");
    check(&["list_users", "--silent"], "u1\t[management, policymaker]\nguest\t[administrator]\n");
    check(
        &["list_users", "--formatter", "json"],
        "[\n{\"user\":\"u1\",\"tags\":[\"management\",\"policymaker\"]}\n,{\"user\":\"guest\",\"tags\":[\"administrator\"]}\n]\n",
    );
    check(
        &["list_users", "--formatter=csv"],
        "\"user\",\"tags\"\n\"u1\",\"[management, policymaker]\"\n\"guest\",\"[administrator]\"\n",
    );
    check(
        &["list_queues", "name", "messages", "arguments"],
        "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\nname\tmessages\targuments\n\
         q1\t5\t[{\"x-max-length\",10}]\nq 2\t0\t[]\n",
    );
    check(&["-p", "nosuch", "-q", "list_queues"], "");
}

#[test]
fn rabbitmqctl_ends_with_the_codes_of_the_real_one() {
    let user = r#"{"name":"u1","tags":["management"],"password_hash":"x"}"#;
    let broker = Played::with(&[
        ("GET /users/u1", 200, user),
        ("GET /overview", 200, OVERVIEW),
        ("PUT /users/u1", 204, ""),
    ]);
    let check = |tool: &str, line: &[&str], code: i32, expected: &str| {
        let ended = broker.call(tool, line);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    };

    check("rabbitmqctl", &["nosuch_at_all"], 64, "\nCommand 'nosuch_at_all' not found. \n");
    check("rabbitmqctl", &["list_quues"], 64, "Did you mean 'list_queues'?");
    check("rabbitmqctl", &[], 64, "Available commands:");
    check(
        "rabbitmqctl",
        &["add_vhost"],
        64,
        "Error (argument validation): not enough arguments.\nArguments given:\n\tadd_vhost\n",
    );
    check("rabbitmqctl", &["list_users", "x"], 64, "too many arguments.");
    check("rabbitmqctl", &["list_queues", "--nosuch"], 64, "Invalid options for this command:\n--nosuch : ");
    check("rabbitmqctl", &["list_queues", "nosuch"], 64, "Info key(s) nosuch are not supported");
    check("rabbitmqctl", &["add_user", "u1", "pw"], 70, "Error:\nUser \"u1\" already exists");
    check("rabbitmqctl", &["delete_user", "u2"], 67, "Error:\nUser \"u2\" does not exist");
    check("rabbitmqctl", &["change_password", "u2", "pw"], 67, "Error:\nUser \"u2\" does not exist");
    check("rabbitmqctl", &["delete_vhost", "v"], 65, "Virtual host 'v' does not exist");
    check("rabbitmqctl", &["list_user_permissions", "u2"], 69, "{:no_such_user, \"u2\"}");
    check("rabbitmqctl", &["delete_queue", "q"], 64, "Error:\nQueue not found");
    check("rabbitmqctl", &["clear_policy", "p"], 69, "Error:\nParameter does not exist");
    check("rabbitmqctl", &["set_policy", "p", "^q", "{"], 69, "JSON decoding error.");
    check("rabbitmqctl", &["set_log_level", "loud"], 69, "level loud is not supported.");
    check("rabbitmqctl", &["join_cluster", "rabbit@x"], 69, "single node");
    check("rabbitmqctl", &["eval", "1+1."], 69, "no Erlang");
    check("rabbitmq-streams", &["list_stream_consumers"], 69, "no streams");
    check(
        "rabbitmq-diagnostics",
        &["check_port_listener", "1"],
        69,
        "No listener for port 1 is active on node rabbit@here. Found listeners that use the following ports: 5672, 15672",
    );
    check("rabbitmq-diagnostics", &["check_port_listener", "x"], 65, "Argument must be a positive integer");
    check("rabbitmq-plugins", &["enable"], 64, "not enough arguments.");
}

#[test]
fn tags_survive_a_change_of_password() {
    let user = r#"{"name":"u1","tags":["management","monitoring"],"password_hash":"x"}"#;
    let broker = Played::with(&[("GET /users/u1", 200, user), ("PUT /users/u1", 204, "")]);

    let ended = broker.call("rabbitmqctl", &["change_password", "u1", "new"]);

    assert_eq!((ended.code, ended.out.as_str()), (0, "Changing password for user \"u1\" ...\n"));
    assert_eq!(broker.asked()[1], r#"PUT /users/u1 {"password":"new","tags":"management,monitoring"}"#);
}

#[test]
fn probes_are_answered_as_they_expect() {
    let calm = r#"[{"name":"rabbit@here","mem_alarm":false,"disk_free_alarm":false}]"#;
    let alarmed = r#"[{"name":"rabbit@here","mem_alarm":false,"disk_free_alarm":true}]"#;
    let calm = Played::with(&[
        ("GET /overview", 200, OVERVIEW),
        ("GET /nodes", 200, calm),
        ("GET /whoami", 200, "{}"),
    ]);
    let alarmed = Played::with(&[("GET /nodes", 200, alarmed)]);
    let check = |broker: &Played, line: &[&str], code: i32, out: &str, err: &str| {
        let ended = broker.call("rabbitmq-diagnostics", line);
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (code, out, err), "{line:?}");
    };

    check(&calm, &["-q", "ping"], 0, "Ping succeeded\n", "");
    check(
        &calm,
        &["-q", "check_running"],
        0,
        "RabbitMQ on node rabbit@here is fully booted and running\n",
        "",
    );
    check(&calm, &["-q", "check_local_alarms"], 0, "Node rabbit@here reported no local alarms\n", "");
    check(&calm, &["-s", "check_local_alarms"], 0, "", "");
    check(
        &calm,
        &["-q", "check_port_listener", "5672"],
        0,
        "A listener for port 5672 is running on node rabbit@here.\n",
        "",
    );
    check(
        &alarmed,
        &["-q", "check_local_alarms"],
        69,
        "",
        "Error:\nFree disk space alarm on node rabbit@here\n",
    );
    check(&alarmed, &["-q", "check_alarms"], 69, "", "Free disk space alarm on node rabbit@here\n");
    let ended = run("rabbitmq-diagnostics", &["-q", "ping"], &nobody());
    assert_eq!(ended.code, 69);
    assert!(
        ended.err.starts_with("Error:\nFailed to connect and authenticate to rabbit@here in 60000 ms\n"),
        "{ended:?}"
    );
}

#[test]
fn plugins_are_enabled_in_an_image_that_is_being_built() {
    let check = |line: &[&str], code: i32, expected: &str| {
        let ended = run("rabbitmq-plugins", line, &nobody());
        assert_eq!(ended.code, code, "{ended:?}");
        assert!((ended.out.clone() + &ended.err).contains(expected), "{ended:?}");
    };

    check(
        &["enable", "--offline", "rabbitmq_management", "rabbitmq_prometheus"],
        0,
        "everything in its binary",
    );
    check(&["enable", "--offline", "rabbitmq_mqtt"], 69, "does not have rabbitmq_mqtt");
    check(&["enable", "--offline", "nosuch"], 70, "{:plugins_not_found, [:nosuch]}");
    check(&["is_enabled", "--offline", "rabbitmq_management"], 0, "is enabled");
    for plugin in garenne::config::PLUGINS {
        check(&["is_enabled", "--offline", plugin], 0, "is enabled");
    }
    check(
        &["enable", "--offline", "--all"],
        0,
        &format!("configured:\n  {}\n", garenne::config::PLUGINS.join("\n  ")),
    );
}

#[test]
fn who_waits_for_the_start_waits_no_longer_than_told() {
    let ended = run("rabbitmqctl", &["await_startup", "-t", "1"], &nobody());
    assert_eq!(ended.code, 69, "{ended:?}");

    let ended = run("rabbitmqctl", &["wait", "/nosuch/pid", "-t", "1"], &nobody());
    assert_eq!(ended.code, 75, "{ended:?}");
    assert!(ended.err.contains("timed out. Timeout value used: 1000"), "{ended:?}");

    let broker = Played::with(&[("GET /overview", 200, OVERVIEW)]);
    assert_eq!(broker.call("rabbitmqctl", &["await_startup"]).code, 0);
}

#[test]
fn every_tool_helps_and_goes_without_a_link() {
    for tool in [
        "rabbitmqctl",
        "rabbitmq-diagnostics",
        "rabbitmq-plugins",
        "rabbitmq-queues",
        "rabbitmq-streams",
        "rabbitmq-upgrade",
    ] {
        let linked = run(tool, &["help"], &nobody());
        let named = run("garennectl", &[tool, "help"], &nobody());

        assert_eq!(linked.code, 0);
        assert!(linked.out.contains("Available commands:"), "{tool}");
        assert_eq!(linked.out, named.out);
    }
}

#[test]
fn what_needs_no_broker_is_asked_of_garennectl_and_not_of_rabbitmqs_tools() {
    let ended = run("garennectl", &["verify", "/nowhere"], &nobody());
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("/nowhere is no data directory"), "{ended:?}");

    for words in [&["verify"][..], &["dump", "/nowhere", "--definitions", "--bodies"]] {
        let ended = run("garennectl", words, &nobody());
        assert_eq!(ended.code, 64, "{ended:?}");
        assert!(ended.err.contains("Usage: garennectl"), "{ended:?}");
    }
    let ended = run("garennectl", &["--help"], &nobody());
    assert!(ended.out.contains("garennectl verify DIR"), "{ended:?}");

    let ended = run("rabbitmqctl", &["verify", "/nowhere"], &nobody());
    assert_eq!(ended.code, 64, "{ended:?}");
    assert!(ended.err.contains("Command 'verify' not found"), "{ended:?}");
}

#[test]
fn watermarks_are_set_in_rabbitmqctls_words() {
    let check = |line: &[&str], code: i32, out: &str, err: &str| {
        let broker = crate::support::Broker::start();
        let ended = run("rabbitmqctl", line, &format!("http://{}", broker.http()));
        assert_eq!((ended.code, &*ended.out), (code, out), "{ended:?}");
        assert!(ended.err.starts_with(err), "{ended:?}");
    };

    let memory = "Setting memory threshold on rabbit@here to";
    check(&["set_vm_memory_high_watermark", "0.5"], 0, &format!("{memory} 0.5 ...\n"), "");
    check(&["set_vm_memory_high_watermark", "absolute", "2GB"], 0, &format!("{memory} 2GB bytes ...\n"), "");
    let wrong = "Error (argument validation): ";
    let fraction = format!("{wrong}Bad argument: The threshold should be a fraction between 0.0 and 1.0\n");
    check(&["set_vm_memory_high_watermark", "1.5"], 65, "", &fraction);
    check(&["set_vm_memory_high_watermark", "abc"], 65, "", &format!("{wrong}Bad argument.\n"));
    let units = format!("{wrong}Bad argument: Invalid units.\n");
    check(&["set_vm_memory_high_watermark", "absolute", "10XB"], 65, "", &units);

    let disk = "Setting disk free limit on rabbit@here to";
    check(&["set_disk_free_limit", "2GB"], 0, &format!("{disk} 2GB bytes ...\n"), "");
    let relative = format!("{disk} 1.0 times the total RAM ...\n");
    check(&["set_disk_free_limit", "mem_relative", "1.0"], 0, &relative, "");
    check(&["set_disk_free_limit", "abc"], 65, "", &format!("{wrong}Bad argument.\n"));
}
