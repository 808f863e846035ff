//! Clients in other languages: each one's conversation (tests/clients) with a broker of its own. A client
//! that is not installed is skipped, loudly; with CI=true it must be there.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use garenne::config::{Certificate, Tls};

use crate::support::certificates::Authority;
use crate::support::{Broker, Process, eventually, permission, user};

/// What `run` exits with for a client that is not installed.
const NOT_INSTALLED: i32 = 77;

fn runner() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run"))
}

fn check(client: &str) {
    let broker = Broker::start();

    converse(runner().arg(client).env("AMQP_URL", broker.url()), client);
}

/// Runs a client to its end; what it has printed, if it is installed.
fn converse(command: &mut Command, client: &str) -> Option<String> {
    judge(&command.output().expect("tests/clients/run"), client)
}

fn judge(output: &Output, client: &str) -> Option<String> {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Some(printed),
        Some(NOT_INSTALLED) if std::env::var("CI").as_deref() != Ok("true") => {
            // Past the test's capture, so that it is seen.
            use std::io::Write;
            let _ =
                writeln!(std::io::stderr(), "\n*** SKIPPED: client {client} is not installed ***\n{said}");
            None
        }
        code => panic!("client {client} ended with {code:?}:\n{said}"),
    }
}

macro_rules! clients {
    ($($name:ident)*) => {
        const PLAIN: &[&str] = &[$(stringify!($name)),*];

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
    assert_eq!(listed.lines().collect::<Vec<_>>(), [PLAIN, TLS].concat());
}

/// Those whose tests are below, each with what it needs.
const TLS: &[&str] = &["pika_tls", "pika_reload", "java_tls", "openssl_scan"];

/// The URL of a broker that speaks TLS; its certificate is for `localhost` only.
fn secure_url(address: SocketAddr) -> String {
    format!("amqps://guest:guest@localhost:{}/", address.port())
}

/// Two brokers, of which the first wants certificates from its clients, the second asks for them; and
/// certificates that the one authority has signed, and a strange one.
fn with_certificates(client: &str) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server_in_chain("server", &["localhost"], None);
    authority.client("client", vec![]);
    let strange = stranger.client("strange", vec![]);
    let here = authority.dir();
    std::fs::copy(&strange.certificate, here.join("strange.pem")).expect("a copy");
    std::fs::copy(&strange.key, here.join("strange.key")).expect("a copy");
    std::fs::copy(stranger.file(), here.join("strange-ca.pem")).expect("a copy");
    let name = "CN=client,O=Shop\\, Inc.";
    let broker = |require_certificate: bool| {
        Broker::with(|config| {
            config.listen_tls = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
            config.tls = Some(Tls {
                ca: Some(authority.file()),
                verify_peer: true,
                require_certificate,
                ..Tls::with(server.certificate.clone(), server.key.clone())
            });
            config.auth_mechanisms = vec!["EXTERNAL".into(), "PLAIN".into()];
            config.seed.users.push(user(name, "unused", &[]));
            config.seed.permissions.push(permission(name, "/", [".*", ".*", ".*"]));
        })
    };
    let (required, optional) = (broker(true), broker(false));

    let mut command = runner();
    command.arg(client).env("AMQP_URL", secure_url(required.tls_address()));
    command.env("AMQP_URL_OPTIONAL", secure_url(optional.tls_address()));
    command.env("TLS_DIR", here).env("TLS_USER", name);
    converse(&mut command, client);
}

#[test]
fn pika_tls() {
    with_certificates("pika_tls");
}

#[test]
fn java_tls() {
    with_certificates("java_tls");
}

/// Puts a new certificate where the server's is, and its file back to the length and time that it had if
/// nobody but a signal is to tell of it.
fn replace(authority: &Authority, unseen: bool) -> Vec<u8> {
    const LENGTH: usize = 4096;
    let early = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    // The old files are in use until the new ones are whole.
    let new = authority.server("new", &["localhost"]);
    let mut text = std::fs::read_to_string(&new.certificate).expect("a certificate");
    if unseen {
        text.push_str(&"#".repeat(LENGTH - text.len()));
        std::fs::write(&new.certificate, &text).expect("a file");
        for file in [&new.certificate, &new.key] {
            let opened = std::fs::File::options().write(true).open(file).expect("a file");
            opened.set_modified(early).expect("another time");
        }
    }
    let der = new.der();
    std::fs::rename(&new.key, authority.dir().join("server.key")).expect("a new name");
    std::fs::rename(&new.certificate, authority.dir().join("server.pem")).expect("a new name");
    der
}

#[test]
fn pika_reload() {
    let authority = Authority::new();
    authority.client("client", vec![]);
    let first = replace(&authority, true);
    let at = |name: &str| authority.dir().join(name);
    let process = Process::with_tls(&format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\nverify_peer = true\nrequire_certificate = true\n",
        at("server.pem"),
        at("server.key"),
        authority.file()
    ));
    let mut command = runner();
    command.arg("pika_reload").env("AMQP_URL", secure_url(process.tls_address()));
    command.env("TLS_DIR", authority.dir());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("tests/clients/run");
    let mut asks = child.stdin.take().expect("its stdin");
    let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
    let mut told = String::new();
    let mut seen = || {
        use std::io::Write;
        // If it has ended, its exit code tells.
        let _ = asks.write_all(b"another\n");
        let mut line = || lines.next()?.ok();
        while let Some(line) = line() {
            if let Some(hex) = line.strip_prefix("certificate ") {
                return Some(hex.to_string());
            }
            told.push_str(&line);
            told.push('\n');
        }
        None
    };
    let hex = |der: &[u8]| der.iter().map(|byte| format!("{byte:02x}")).collect::<String>();

    let mut shows = seen();
    if shows.is_some() {
        assert_eq!(shows, Some(hex(&first)));
        // The files look as before: only the signal tells.
        let second = replace(&authority, true);
        process.hang_up();
        eventually("the second certificate is used after the signal", || {
            shows = seen();
            shows.is_none() || shows == Some(hex(&second))
        });
        let third = replace(&authority, false);
        eventually("the third certificate is used, without a signal", || {
            shows = seen();
            shows.is_none() || shows == Some(hex(&third))
        });
    }

    let _ = seen;
    drop(asks);
    told.extend(lines.map_while(Result::ok).map(|line| line + "\n"));
    let mut output = child.wait_with_output().expect("its end");
    output.stdout = told.into_bytes();
    judge(&output, "pika_reload");
}

/// Scans a server; what the scan has printed.
fn scan(authority: &Authority, address: SocketAddr, more: &[&str]) -> Output {
    let mut command = runner();
    command
        .args(["openssl_scan", "--connect", &address.to_string(), "--ca"])
        .arg(authority.file())
        .args(more);
    command.output().expect("tests/clients/run")
}

/// An RSA key in PEM, which nothing but OpenSSL makes here.
fn rsa_key() -> Option<String> {
    let mut openssl = Command::new("openssl");
    openssl.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let output = openssl.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Scans the AMQPS or the HTTPS port of a broker under one of its names: these suites of TLS 1.2 and those of 1.3 are
/// spoken, and nothing else that should not be.
fn finds_nothing(name: &str, https: bool, exchange: &str) {
    let authority = Authority::new();
    let ecdsa = authority.server_in_chain("server", &["localhost"], None);
    let key = rsa_key();
    let rsa = key.map(|key| authority.server_in_chain("rsa", &["rsa.example"], Some(&key)));
    let broker = Broker::with(|config| {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config.listen_tls = vec![any];
        config.https = Some(any);
        let mut tls = Tls::with(ecdsa.certificate, ecdsa.key);
        if let Some(rsa) = rsa {
            let certificate = Certificate { certificate: rsa.certificate, key: rsa.key, key_password: None };
            tls.server_names.insert("rsa.example".into(), certificate);
        }
        config.tls = Some(tls);
    });

    let output = if https {
        scan(&authority, broker.https_address(), &["--name", name, "--https"])
    } else {
        scan(&authority, broker.tls_address(), &["--name", name])
    };

    let Some(printed) = judge(&output, "openssl_scan") else { return };
    let suite = |line: &str| Some(line.split_once("accepted: ")?.1.split_whitespace().next()?.to_string());
    let found: Vec<String> = printed.lines().filter(|line| line.contains(" 0x")).filter_map(suite).collect();
    let ciphers = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"];
    let mut wanted = ciphers.map(|cipher| format!("{exchange}-{cipher}")).to_vec();
    wanted.extend(
        ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"]
            .map(|cipher| format!("TLS_{cipher}")),
    );
    assert_eq!(found, wanted, "{printed}");
    assert!(printed.contains("refused: no_renegotiation"), "{printed}");
}

#[test]
fn a_scan_of_amqps_finds_nothing_that_should_not_be() {
    finds_nothing("localhost", false, "ECDHE-ECDSA");
}

#[test]
fn a_scan_of_amqps_with_an_rsa_key_finds_nothing_that_should_not_be() {
    finds_nothing("rsa.example", false, "ECDHE-RSA");
}

#[test]
fn a_scan_of_https_finds_nothing_that_should_not_be() {
    finds_nothing("localhost", true, "ECDHE-ECDSA");
}

#[test]
fn a_scan_finds_what_should_not_be() {
    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"]).arg(&files.certificate);
    openssl.arg("-key").arg(&files.key).args(["-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]);
    openssl.args(["-min_protocol", "TLSv1", "-client_renegotiation"]);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut server) = openssl.spawn() else {
        judge(&runner().arg("openssl_scan").output().expect("tests/clients/run"), "openssl_scan");
        return;
    };
    let mut lines = BufReader::new(server.stdout.take().expect("its stdout")).lines();
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        line.strip_prefix("ACCEPT ").map(|address| address.parse::<SocketAddr>().expect("an address"))
    });
    // It must not wait for somebody to read what it says.
    let reader = std::thread::spawn(move || lines.for_each(drop));

    let output = address.map(|address| scan(&authority, address, &["--https"]));

    let _ = server.kill();
    let _ = server.wait();
    reader.join().expect("its reader");
    let output = output.expect("a server that listens");
    if output.status.code() == Some(NOT_INSTALLED) {
        judge(&output, "openssl_scan");
        return;
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for wrong in [
        "TLS 1.0 ",
        "TLS 1.1 ",
        "TLS 1.2 0xc009",
        "TLS 1.2 0xc006",
        "signature: ecdsa sha1",
        "renegotiation by",
    ] {
        let is_wrong = |line: &str| line.starts_with(wrong) && line.ends_with("WRONG");
        assert!(printed.lines().any(is_wrong), "{wrong}: {printed}");
    }
}
