//! What a certificate says of who holds it, in the words of RabbitMQ.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::asn1_rs::{Any, Oid, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::config::{LoginFrom, SanType, Tls};

/// The certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who it is, such as `CN=cart,O=Shop` (RFC 4514).
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// From when until when it is valid.
    pub validity: String,
    /// The user it stands for (EXTERNAL), if it names one.
    pub login: Option<String>,
}

impl PeerCertificate {
    /// Reads a certificate that has been verified; what names the user, the settings say.
    pub fn read(der: &[u8], settings: &Tls) -> Option<PeerCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(PeerCertificate {
            subject: distinguished_name(certificate.subject()),
            issuer: distinguished_name(certificate.issuer()),
            validity: format!("{} - {}", time(&validity.not_before), time(&validity.not_after)),
            login: login(&certificate, settings),
        })
    }
}

/// Whose certificate it is, and until when, in seconds since 1970.
pub fn subject_and_expiry(der: &[u8]) -> Option<(String, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some((distinguished_name(certificate.subject()), certificate.validity().not_after.timestamp()))
}

fn time(at: &ASN1Time) -> String {
    let at = at.to_datetime();
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn login(certificate: &X509Certificate<'_>, settings: &Tls) -> Option<String> {
    let login = match settings.login_from {
        LoginFrom::DistinguishedName => distinguished_name(certificate.subject()),
        LoginFrom::CommonName => {
            let names = certificate.subject().iter_common_name();
            let names: Vec<String> = names.map(|name| utf8(name.attr_value())).collect();
            names.join(",")
        }
        LoginFrom::SubjectAlternativeName => {
            let names = certificate.subject_alternative_name().ok()??;
            let mut fitting = names
                .value
                .general_names
                .iter()
                .filter_map(|name| alternative(name, settings.login_san_type));
            fitting.nth(settings.login_san_index)?
        }
    };
    (!login.is_empty()).then_some(login)
}

/// A subject alternative name, if it is of the kind.
fn alternative(name: &GeneralName<'_>, kind: SanType) -> Option<String> {
    match (kind, name) {
        (SanType::Dns, GeneralName::DNSName(name))
        | (SanType::Email, GeneralName::RFC822Name(name))
        | (SanType::Uri, GeneralName::URI(name)) => Some(name.to_string()),
        (SanType::Ip, GeneralName::IPAddress(octets)) => match **octets {
            [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*octets).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
        },
        // The value lies in a tag of its own: [0] EXPLICIT.
        (SanType::OtherName, GeneralName::OtherName(_, der)) => {
            let (_, explicit) = Any::from_der(der).ok()?;
            match explicit.header.class() {
                x509_parser::asn1_rs::Class::ContextSpecific => {
                    let (_, value) = Any::from_der(explicit.data).ok()?;
                    Some(utf8(&value))
                }
                _ => Some(utf8(&explicit)),
            }
        }
        _ => None,
    }
}

/// As RFC 4514 writes it: the last part first. RabbitMQ's spelling of types and escapes, since users are
/// named by it.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes: Vec<String> = part
                .iter()
                .map(|a| format!("{}={}", type_name(a.attr_type()), escape(&utf8(a.attr_value()))))
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn type_name(oid: &Oid<'_>) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("2.5.4.3", "CN"),
        ("2.5.4.4", "SN"),
        ("2.5.4.5", "SERIALNUMBER"),
        ("2.5.4.6", "C"),
        ("2.5.4.7", "L"),
        ("2.5.4.8", "ST"),
        ("2.5.4.10", "O"),
        ("2.5.4.11", "OU"),
        ("2.5.4.12", "TITLE"),
        ("2.5.4.42", "GIVENNAME"),
        ("2.5.4.43", "INITIALS"),
        ("2.5.4.44", "GENERATIONQUALIFIER"),
        ("2.5.4.65", "PSEUDONYM"),
        ("0.9.2342.19200300.100.1.1", "UID"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
    ];
    let id = oid.to_id_string();
    NAMES.iter().find(|(known, _)| *known == id).map_or(id, |(_, name)| name.to_string())
}

/// A value's text; what is none as its octets in hexadecimal, after `#`.
fn utf8(value: &Any<'_>) -> String {
    let octets = value.data;
    let text = match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            String::from_utf8(octets.to_vec()).ok()
        }
        Tag::T61String => Some(octets.iter().map(|&octet| char::from(octet)).collect()),
        Tag::BmpString => {
            let units = octets.chunks(2).map(|two| u16::from_be_bytes([two[0], *two.get(1).unwrap_or(&0)]));
            char::decode_utf16(units).collect::<Result<String, _>>().ok()
        }
        Tag::UniversalString => octets
            .chunks(4)
            .map(|four| {
                <[u8; 4]>::try_from(four).ok().and_then(|four| char::from_u32(u32::from_be_bytes(four)))
            })
            .collect(),
        _ => None,
    };
    text.unwrap_or_else(|| octets.iter().fold("#".to_string(), |text, octet| text + &format!("{octet:02X}")))
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, octet) in value.bytes().enumerate() {
        match octet {
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(octet));
            }
            32..126 => text.push(char::from(octet)),
            _ => {
                let _ = write!(text, "\\{octet:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_name_is_escaped_as_rabbitmq_does() {
        let check = |value: &str, expected: &str| assert_eq!(escape(value), expected, "{value}");

        check("Shop, Inc.", "Shop\\, Inc.");
        check(" lead", "\\ lead");
        check("#hash\\back/ ", "\\#hash\\\\back/\\ ");
        check("a #1 b", "a #1 b");
        check("J\u{fc}rgen", "J\\C3\\BCrgen");
        check("~", "\\7E");
        check("Q\"u<o>te;a+b", "Q\\\"u\\<o\\>te\\;a\\+b");
    }
}
