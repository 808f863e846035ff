//! The PROXY header that a load balancer sends first: where the client really is (versions 1 and 2).

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 1, with its end of line.
const LINE_BYTES_MAX: usize = 107;

/// A header of version 2 begins with its signature, its version, its kind and its length.
const HEAD_BYTES: usize = 16;

/// The longest header of version 2 that is read. Addresses take at most 216 octets; the rest is additions,
/// of which a client's certificate is the longest.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Reads the header, and not an octet more: where the client is, and where it wanted to go. None if the
/// header does not say it, as those of health checks.
pub async fn read(socket: &mut TcpStream) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
    let mut header = vec![0; v2::PROTOCOL_PREFIX.len()];
    fill(socket, &mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        header.resize(HEAD_BYTES, 0);
        fill(socket, &mut header[v2::PROTOCOL_PREFIX.len()..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[HEAD_BYTES - 2], header[HEAD_BYTES - 1]]));
        if rest > HEADER_BYTES_MAX {
            return Err(format!("a PROXY header of {rest} octets, and at most {HEADER_BYTES_MAX} are read"));
        }
        header.resize(HEAD_BYTES + rest, 0);
        fill(socket, &mut header[HEAD_BYTES..]).await?;
    } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        while !header.ends_with(b"\n") && header.len() < LINE_BYTES_MAX {
            header.push(socket.read_u8().await.map_err(no_header)?);
        }
    } else {
        return Err(format!(
            "proxy_protocol is on, and the client began without a PROXY header: {:02x?}",
            &header[..8]
        ));
    }
    addresses(&header)
}

async fn fill(socket: &mut TcpStream, bytes: &mut [u8]) -> Result<(), String> {
    socket.read_exact(bytes).await.map(|_| ()).map_err(no_header)
}

fn no_header(error: std::io::Error) -> String {
    format!("proxy_protocol is on, and there was no whole PROXY header: {error}")
}

fn addresses(header: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
    let bad = |error: &dyn std::fmt::Display| format!("a bad PROXY header: {error}");
    match HeaderResult::parse(header) {
        HeaderResult::V1(parsed) => Ok(match parsed.map_err(|e| bad(&e))?.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(a) => Some((
                SocketAddr::from((a.source_address, a.source_port)),
                SocketAddr::from((a.destination_address, a.destination_port)),
            )),
            v1::Addresses::Tcp6(a) => Some((
                SocketAddr::from((a.source_address, a.source_port)),
                SocketAddr::from((a.destination_address, a.destination_port)),
            )),
        }),
        HeaderResult::V2(parsed) => {
            let parsed = parsed.map_err(|e| bad(&e))?;
            Ok(match parsed.addresses {
                // The load balancer speaks for itself: a health check.
                _ if parsed.command == v2::Command::Local => None,
                v2::Addresses::IPv4(a) => Some((
                    SocketAddr::from((a.source_address, a.source_port)),
                    SocketAddr::from((a.destination_address, a.destination_port)),
                )),
                v2::Addresses::IPv6(a) => Some((
                    SocketAddr::from((a.source_address, a.source_port)),
                    SocketAddr::from((a.destination_address, a.destination_port)),
                )),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_where_the_client_is_and_where_it_wanted_to_go() {
        let check = |header: &[u8], expected: Option<(&str, &str)>| {
            let expected = expected.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
            assert_eq!(addresses(header), Ok(expected), "{header:?}");
        };
        let v2 = |command: u8, family: u8, rest: &[u8]| {
            let mut header = v2::PROTOCOL_PREFIX.to_vec();
            header.extend([0x20 | command, family]);
            header.extend((rest.len() as u16).to_be_bytes());
            header.extend(rest);
            header
        };

        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 5672\r\n", Some(("192.0.2.7:4711", "10.0.0.1:5672")));
        check(b"PROXY TCP6 2001:db8::7 ::1 4711 5672\r\n", Some(("[2001:db8::7]:4711", "[::1]:5672")));
        check(b"PROXY UNKNOWN\r\n", None);
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x16, 0x28];
        check(&v2(1, 0x11, &four), Some(("192.0.2.7:4711", "10.0.0.1:5672")));
        check(&v2(0, 0x11, &four), None);
        check(&v2(0, 0, &[]), None);
    }

    #[test]
    fn a_bad_header_is_told_of() {
        for header in
            ["PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "PROXY TCP9 a b 1 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7"]
        {
            assert!(addresses(header.as_bytes()).unwrap_err().contains("bad PROXY header"), "{header}");
        }
    }
}
