//! TLS: what is said goes through it unchanged, certificates are asked for and read again, and who does
//! not speak it is told in the log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use garenne::config::{Certificate, LoginFrom, SanType, Tls, TlsVersion};

use crate::support::certificates::{Authority, Files};
use crate::support::tunnel::{Manner, Tunnel};
use crate::support::{Broker, Client, Login, Process, connection, eventually, permission, user};

fn settings(files: &Files) -> Tls {
    Tls::with(files.certificate.clone(), files.key.clone())
}

fn broker(tls: Tls) -> Broker {
    Broker::with(|config| {
        config.listen_tls = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.tls = Some(tls);
    })
}

fn verifying(authority: &Authority, tls: Tls) -> Tls {
    Tls { ca: Some(authority.file()), verify_peer: true, ..tls }
}

/// A server's certificate for this machine, and a broker that has it.
fn simple() -> (Authority, Broker) {
    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let broker = broker(settings(&files));
    (authority, broker)
}

#[test]
fn messages_large_and_small_come_back_unchanged_with_either_version() {
    let (authority, broker) = simple();
    for (version, name) in [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")] {
        let manner = Manner { versions: vec![version], ..Manner::default() };
        let tunnel = Tunnel::to(broker.tls_address(), &authority, manner);
        let mut client = Client::open(tunnel.address, &Login::default());
        client.declare(name);

        let large = "0123456789".repeat(1_000_000);
        for body in ["", "small", &large] {
            client.publish("", name, body);
        }

        for body in ["", "small", &large] {
            client.get(name, body);
        }
        assert_eq!(tunnel.learned().version, Some(version.version));
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    let (authority, broker) = simple();
    let tunnel = Tunnel::to(broker.tls_address(), &authority, Manner::default());
    let mut slow = Client::open(tunnel.address, &Login::default());
    slow.declare("q");
    let body = "x".repeat(100_000);
    slow.consume("q", "slow");

    let mut other = broker.client();
    for _ in 0..500 {
        other.publish("", "q", &body);
    }
    other.declare("another");

    for _ in 0..500 {
        slow.expect_delivery(&body);
    }
}

#[test]
fn a_server_name_has_its_own_certificate() {
    let authority = Authority::new();
    let first = authority.server("first", &["localhost"]);
    let named = authority.server("named", &["shop.example", "a.star.example"]);
    let certificate =
        Certificate { certificate: named.certificate.clone(), key: named.key.clone(), key_password: None };
    let mut tls = settings(&first);
    tls.server_names.insert("shop.example".into(), certificate.clone());
    tls.server_names.insert("*.star.example".into(), certificate);
    let broker = broker(tls);

    for (server_name, files) in [("localhost", &first), ("shop.example", &named), ("a.star.example", &named)]
    {
        let manner = Manner { server_name, ..Manner::default() };
        let tunnel = Tunnel::to(broker.tls_address(), &authority, manner);
        Client::open(tunnel.address, &Login::default());
        assert_eq!(tunnel.learned().certificate, files.der(), "{server_name}");
    }
}

#[test]
fn without_a_certificate_or_with_a_strangers_nobody_gets_in_where_one_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server("server", &["localhost"]);
    let mine = authority.client("mine", vec![]);
    let strange = stranger.client("strange", vec![]);
    let tls = Tls { require_certificate: true, ..verifying(&authority, settings(&server)) };
    let broker = broker(tls);
    let try_as = |client: Option<Files>| {
        let manner = Manner { client, ..Manner::default() };
        let tunnel = Tunnel::to(broker.tls_address(), &authority, manner);
        let mut client = Client::connect(tunnel.address);
        client.send_raw(&amqp::limits::PROTOCOL_HEADER);
        (client, tunnel)
    };

    let (mut client, _tunnel) = try_as(Some(mine));
    client.expect_start();
    for files in [None, Some(strange)] {
        let (mut client, tunnel) = try_as(files);
        client.expect_closed();
        eventually("the client is told why", || tunnel.learned().error.is_some());
    }
}

#[test]
fn a_certificate_names_the_user_for_external() {
    let authority = Authority::new();
    let server = authority.server("server", &["localhost"]);
    let dns = |name: &str| rcgen::SanType::DnsName(name.try_into().unwrap());
    let cart = authority.client("cart", vec![dns("first.example"), dns("second.example")]);
    let check = |change: &dyn Fn(&mut Tls), name: &str| {
        let mut tls = verifying(&authority, settings(&server));
        change(&mut tls);
        let broker = Broker::with(|config| {
            config.listen_tls = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
            config.tls = Some(tls.clone());
            config.auth_mechanisms = vec!["EXTERNAL".into(), "PLAIN".into()];
            config.seed.users.push(user(name, "unused", &[]));
            config.seed.permissions.push(permission(name, "/", [".*", ".*", ".*"]));
        });
        let external = |client: Option<Files>| {
            let manner = Manner { client, ..Manner::default() };
            let tunnel = Tunnel::to(broker.tls_address(), &authority, manner);
            let mut client = Client::connect(tunnel.address);
            client.send_raw(&amqp::limits::PROTOCOL_HEADER);
            let start = client.expect_start();
            assert_eq!(start.mechanisms.as_bytes(), b"EXTERNAL PLAIN");
            let start_ok = Login::default().start_ok();
            client.on(0).send(connection::StartOk {
                mechanism: "EXTERNAL".into(),
                response: "".into(),
                ..start_ok
            });
            (client, tunnel)
        };

        let (mut client, _tunnel) = external(Some(cart.clone()));
        client.expect_tune();
        let (mut client, _tunnel) = external(None);
        client.connection_close();
    };

    check(&|_| {}, "CN=cart,O=Shop\\, Inc.");
    check(&|tls| tls.login_from = LoginFrom::CommonName, "cart");
    let second = |tls: &mut Tls| {
        tls.login_from = LoginFrom::SubjectAlternativeName;
        tls.login_san_type = SanType::Dns;
        tls.login_san_index = 1;
    };
    check(&second, "second.example");
}

#[test]
fn external_is_not_offered_on_a_plain_port() {
    let broker = Broker::with(|config| config.auth_mechanisms = vec!["PLAIN".into(), "EXTERNAL".into()]);
    let mut client = broker.stranger();

    client.send_raw(&amqp::limits::PROTOCOL_HEADER);

    let start = client.expect_start();
    assert_eq!(start.mechanisms.as_bytes(), b"PLAIN");
}

#[test]
fn new_files_are_used_without_a_restart_and_broken_ones_are_not() {
    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let mut process =
        Process::with_tls(&format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", files.certificate, files.key));
    let certificate_of = |process: &Process| {
        let tunnel = Tunnel::to(process.tls_address(), &authority, Manner::default());
        Client::open(tunnel.address, &Login::default());
        tunnel.learned().certificate
    };
    let first = certificate_of(&process);
    let tunnel = Tunnel::to(process.tls_address(), &authority, Manner::default());
    let mut stays = Client::open(tunnel.address, &Login::default());

    // By signal.
    let second = authority.server("server", &["localhost"]).der();
    process.hang_up();
    eventually("the second certificate is used", || certificate_of(&process) == second);
    assert_ne!(first, second);

    // A broken file changes nothing but the log.
    std::fs::write(&files.certificate, "no certificate").unwrap();
    process.hang_up();
    eventually("the error is told", || process.log().contains("the old ones stay in use"));
    assert_eq!(certificate_of(&process), second);

    // By itself.
    let third = authority.server("server", &["localhost"]).der();
    eventually("the third certificate is used", || certificate_of(&process) == third);
    stays.declare("still-here");
    process.terminate();
    assert!(process.wait(), "{}", process.log());
}

#[test]
fn the_wrong_protocol_for_a_port_harms_nobody_and_is_told_in_the_log() {
    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let process = Process::with_tls(&format!(
        "handshake_timeout_secs = 1\n[tls]\ncertificate = {:?}\nkey = {:?}\n",
        files.certificate, files.key
    ));

    let mut plain = Client::connect(process.tls_address());
    plain.send_raw(&amqp::limits::PROTOCOL_HEADER);
    plain.expect_closed();
    let encrypted = Tunnel::to(process.address(), &authority, Manner::default());
    let _client = Client::connect(encrypted.address);
    let mut silent = Client::connect(process.tls_address());
    silent.expect_closed();

    eventually("plain AMQP on the TLS port is told", || process.log().contains("AMQP without TLS"));
    eventually("TLS on the plain port is told", || process.log().contains("a TLS hello"));
    eventually("the silent one is told", || process.log().contains("did not finish its handshake in time"));
    process.client().declare("q");
}

#[test]
fn only_the_versions_and_ciphers_that_are_wanted_are_spoken() {
    let authority = Authority::new();
    let server = authority.server("server", &["localhost"]);
    let tls = Tls {
        versions: vec![TlsVersion::V1_2],
        ciphers: vec!["ECDHE-ECDSA-AES256-GCM-SHA384".into(), "DHE-RSA-AES128-SHA".into()],
        ..settings(&server)
    };
    let broker = broker(tls);
    let scan = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        let address = broker.tls_address().to_string();
        openssl.args(["s_client", "-connect", &address, "-CAfile"]).arg(authority.file()).args(arguments);
        let output = openssl.stdin(Stdio::null()).output();
        output.map(|output| output.status.success())
    };
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("openssl is not installed; only rustls has been asked");
        let manner = Manner { versions: vec![&rustls::version::TLS13], ..Manner::default() };
        let tunnel = Tunnel::to(broker.tls_address(), &authority, manner);
        Client::connect(tunnel.address).expect_closed();
        return;
    }

    assert!(scan(&["-tls1_2", "-verify_return_error"]).unwrap());
    assert!(scan(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]).unwrap());
    for wrong in [
        &["-tls1_3"][..],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"],
    ] {
        assert!(!scan(wrong).unwrap(), "{wrong:?}");
    }
}

#[test]
fn the_http_api_speaks_tls_and_tells_of_it() {
    use std::io::{Read, Write};
    let authority = Authority::new();
    let server = authority.server("server", &["localhost"]);
    let anna = authority.client("anna", vec![]);
    let broker = Broker::with(|config| {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config.listen_tls = vec![any];
        config.https = Some(any);
        config.http_path_prefix = "/rabbit".into();
        config.tls = Some(verifying(&authority, settings(&server)));
    });
    // One who has not finished its hello keeps nobody out.
    let mut silent = Client::connect(broker.https_address());
    silent.send_raw(&[0x16, 3, 1]);
    let manner = Manner { client: Some(anna), ..Manner::default() };
    let amqp = Tunnel::to(broker.tls_address(), &authority, manner.clone());
    let _client = Client::open(amqp.address, &Login::default());
    let get = |path: &str| {
        let tunnel = Tunnel::to(broker.https_address(), &authority, manner.clone());
        let mut socket = std::net::TcpStream::connect(tunnel.address).unwrap();
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };

    let connections = get("/rabbit/api/connections");
    let expiring = get("/rabbit/api/health/checks/certificate-expiration/2500/years");
    let overview = get("/rabbit/api/overview");

    assert!(get("/api/overview").starts_with("HTTP/1.1 404"), "the API is below its prefix");
    assert!(connections.starts_with("HTTP/1.1 200"), "{connections}");
    for part in ["\"ssl\":true", "\"ssl_protocol\":\"tlsv1.3\"", "CN=anna,O=Shop", "CN=Test Authority"] {
        assert!(connections.contains(part), "{part}: {connections}");
    }
    assert!(expiring.starts_with("HTTP/1.1 503") && expiring.contains("server.pem"), "{expiring}");
    assert!(overview.contains("amqp/ssl") && overview.contains("\"https\""), "{overview}");
}

#[test]
fn what_cannot_be_used_is_told_at_the_start() {
    let authority = Authority::new();
    let (one, other) = (authority.server("one", &["localhost"]), authority.server("other", &["localhost"]));
    let check = |tls: Tls, expected: &str| {
        let error = garenne::tls::Acceptor::new(&tls, &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let with = |change: &dyn Fn(&mut Tls)| {
        let mut tls = settings(&one);
        change(&mut tls);
        tls
    };

    check(with(&|tls| tls.certificate = PathBuf::from("nowhere.pem")), "nowhere.pem: No such file");
    check(with(&|tls| tls.certificate = one.key.clone()), "there is no certificate in it");
    check(with(&|tls| tls.key = one.certificate.clone()), "there is no private key in it");
    check(with(&|tls| tls.key = other.key.clone()), "is not the key of");
    check(with(&|tls| tls.verify_peer = true), "needs tls.ca");
    check(with(&|tls| tls.require_certificate = true), "needs tls.verify_peer");
    check(with(&|tls| tls.ciphers = vec!["RC4-MD5".into()]), "RC4-MD5");
    check(with(&|tls| tls.versions = vec![]), "tls.versions");
}

#[test]
fn an_encrypted_key_is_read_with_its_password() {
    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let encrypted = authority.dir().join("encrypted.key");
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs8", "-topk8", "-passout", "pass:secret", "-in"]).arg(&files.key);
    match openssl.arg("-out").arg(&encrypted).status() {
        Ok(status) => assert!(status.success()),
        Err(_) => return eprintln!("openssl is not installed, and nothing else here encrypts a key"),
    }
    let with = |password: Option<&str>| {
        let key_password = password.map(String::from);
        let tls = Tls { key: encrypted.clone(), key_password, ..settings(&files) };
        garenne::tls::Acceptor::new(&tls, &[]).map(|_| ())
    };

    assert_eq!(with(Some("secret")), Ok(()));
    assert!(with(Some("wrong")).unwrap_err().contains("cannot be decrypted"));
    assert!(with(None).unwrap_err().contains("no password is configured"));
}

#[test]
fn half_a_hello_ends_with_the_handshake_timeout() {
    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let broker = Broker::with(|config| {
        config.listen_tls = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.tls = Some(settings(&files));
        config.handshake_timeout_secs = 1;
    });
    let start = std::time::Instant::now();

    let mut client = Client::connect(broker.tls_address());
    client.send_raw(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);

    client.expect_closed();
    assert!(start.elapsed() >= Duration::from_millis(900));
}
