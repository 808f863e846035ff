//! The PROXY header of load balancers: the client is where it says.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::{Broker, Client, Login, permission, user};

fn broker() -> Broker {
    Broker::with(|config| {
        config.proxy_protocol = true;
        config.handshake_timeout_secs = 2;
        config.seed.users.push(user("anna", "secret", &[]));
        config.seed.permissions.push(permission("anna", "/", [".*", ".*", ".*"]));
    })
}

const FAR: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 5672\r\n";
const NEAR: &[u8] = b"PROXY TCP6 ::1 ::1 4711 5672\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn version_2(command: u8, from: [u8; 4], more: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([0x20 | command, 0x11]);
    header.extend((12 + more.len() as u16).to_be_bytes());
    header.extend(from);
    header.extend([192, 0, 2, 1, 0x12, 0x67, 0x16, 0x28]);
    header.extend(more);
    header
}

/// A client that sends this header first.
fn client(broker: &Broker, header: &[u8]) -> Client {
    let mut client = broker.stranger();
    client.send_raw(header);
    client
}

#[test]
fn the_client_is_where_the_header_says_and_guest_stays_on_this_machine() {
    let broker = broker();
    let addition = [4, 0, 3, 0, 0, 0];

    for header in
        [NEAR, UNKNOWN, &version_2(1, [127, 0, 0, 1], &addition), &version_2(0, [192, 0, 2, 7], &[])]
    {
        let mut client = client(&broker, header);
        client.shake_hands(&Login::default());
        client.open_channel(1);
        client.declare("q");
    }
    for header in [FAR, &version_2(1, [192, 0, 2, 7], &addition)] {
        let mut guest = client(&broker, header);
        guest.log_in(&Login::default());
        guest.expect_end();
        let mut anna = client(&broker, header);
        anna.shake_hands(&Login::of("anna", "secret"));
        anna.open_channel(1);
        let peers: Vec<SocketAddr> = broker.roster().iter().map(|guest| guest.peer).collect();
        assert!(peers.contains(&"192.0.2.7:4711".parse().unwrap()), "{peers:?}");
        anna.close();
    }
}

#[test]
fn garbage_is_refused_and_what_is_half_or_slow_ends_with_the_handshake_timeout() {
    let broker = broker();
    for garbage in [
        &b"PROXY TCP4 here there 1 2\r\n"[..],
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 70000\r\n",
        &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
        &amqp::limits::PROTOCOL_HEADER.repeat(2),
        &[SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        &[SIGNATURE, &[0x91, 0x11, 0, 0]].concat(),
        &[SIGNATURE, &[0x21, 0x11, 0, 3, 1, 2, 3]].concat(),
    ] {
        let start = Instant::now();
        let mut client = client(&broker, garbage);
        client.expect_closed();
        assert!(start.elapsed() < Duration::from_millis(1500), "{garbage:?}");
    }
    let half: Vec<Client> = [&FAR[..20], &version_2(1, [1; 4], &[])[..17]]
        .into_iter()
        .map(|half| client(&broker, half))
        .collect();
    let start = Instant::now();

    for mut client in half {
        client.expect_closed();
    }

    assert!(start.elapsed() < Duration::from_secs(10));
    client(&broker, NEAR).shake_hands(&Login::default());
}

#[test]
fn the_header_comes_before_tls() {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;

    let authority = Authority::new();
    let files = authority.server("server", &["localhost"]);
    let broker = Broker::with(|config| {
        config.proxy_protocol = true;
        config.listen_tls = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.tls = Some(garenne::config::Tls::with(files.certificate.clone(), files.key.clone()));
    });
    let config = crate::support::tunnel::config(&authority, &Default::default());
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(broker.tls_address()).unwrap();

    socket.write_all(NEAR).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(&amqp::limits::PROTOCOL_HEADER).unwrap();

    let mut start = [0; 7];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(start[..3], [1, 0, 0]);
}
