//! Clients in other languages: each one's conversation (tests/clients) with a broker of its own. A client
//! that is not installed is skipped, loudly; with CI=true it must be there.

use std::path::Path;
use std::process::Command;

use crate::support::Broker;

/// What `run` exits with for a client that is not installed.
const NOT_INSTALLED: i32 = 77;

fn runner() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run"))
}

fn check(client: &str) {
    let broker = Broker::start();

    let output = runner().arg(client).env("AMQP_URL", broker.url()).output().expect("tests/clients/run");

    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => {}
        Some(NOT_INSTALLED) if std::env::var("CI").as_deref() != Ok("true") => {
            // Past the test's capture, so that it is seen.
            use std::io::Write;
            let _ =
                writeln!(std::io::stderr(), "\n*** SKIPPED: client {client} is not installed ***\n{said}");
        }
        code => panic!("client {client} ended with {code:?}:\n{said}"),
    }
}

macro_rules! clients {
    ($($name:ident)*) => {
        const CLIENTS: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

clients! {
    pika pika_queues pika_redelivery pika_delayed aio_pika aio_pika_queues amqplib amqplib_queues amqplib_rpc
    go java amqp_tools celery celery_queues celery_delayed ruby php
}

#[test]
fn every_client_has_its_test() {
    let output = runner().arg("--list").output().expect("tests/clients/run");

    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(listed.lines().collect::<Vec<_>>(), CLIENTS);
}
