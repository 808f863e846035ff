//! Content headers (specification 4.2.6.1): the size of a body and the properties of a message.
//!
//! Properties stay the bytes they came as, so that what goes out is what came in: order, unknown header
//! types and all. [`Properties`] is a view over those bytes that knows where each field stands.

use bytes::{BufMut, Bytes, BytesMut};

use crate::table::{Malformed, Reader, Table, check};

/// The class a content header names: basic is the only class with content.
pub const BASIC_CLASS: u16 = 60;

/// A content header as received.
///
/// ```text
/// class u16 | weight u16 | body size u64 | property flags u16 (more while bit 0 is set) | properties
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The class, which must be basic.
    pub class_id: u16,
    /// Unused by the specification: must be 0.
    pub weight: u16,
    /// Octets of the body that follows.
    pub body_bytes: u64,
    /// Property flags and properties, untouched. Checked by [`Properties::parse`].
    pub properties: Bytes,
}

/// Octets before the property flags: class, weight, size of the body.
const HEAD_BYTES: usize = 12;

impl Header {
    /// Reads a header frame's payload. `payload` must be a part of `whole`, which the properties share.
    pub fn decode(whole: &Bytes, payload: &[u8]) -> Result<Header, Malformed> {
        let mut reader = Reader { bytes: payload };
        let class_id = reader.u16()?;
        let weight = reader.u16()?;
        let body_bytes = reader.u64()?;
        Ok(Header { class_id, weight, body_bytes, properties: whole.slice_ref(reader.bytes) })
    }

    /// How long the body is that a header frame's payload announces; none if it is not for a message.
    pub fn body_bytes(payload: &[u8]) -> Option<u64> {
        let mut reader = Reader { bytes: payload };
        let is_basic = reader.u16().ok()? == BASIC_CLASS && reader.u16().ok()? == 0;
        let body_bytes = reader.u64().ok()?;
        is_basic.then_some(body_bytes)
    }

    /// Property flags and properties of a header frame's payload.
    pub fn properties(payload: &[u8]) -> &[u8] {
        payload.get(HEAD_BYTES..).unwrap_or_default()
    }

    /// Appends the payload of a header frame.
    pub fn put(out: &mut BytesMut, body_bytes: u64, properties: &[u8]) {
        out.put_u16(BASIC_CLASS);
        out.put_u16(0);
        out.put_u64(body_bytes);
        out.put_slice(properties);
    }
}

/// The fourteen properties of the basic class, read in place. Absent ones are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the specification's (1.8.1)
pub struct Properties<'a> {
    pub content_type: Option<&'a [u8]>,
    pub content_encoding: Option<&'a [u8]>,
    /// The header table with its length in front, already checked.
    pub headers: Option<&'a [u8]>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<&'a [u8]>,
    pub reply_to: Option<&'a [u8]>,
    /// Milliseconds as decimal text.
    pub expiration: Option<&'a [u8]>,
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub kind: Option<&'a [u8]>,
    pub user_id: Option<&'a [u8]>,
    pub app_id: Option<&'a [u8]>,
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    /// Reads property flags and properties; checks the header table down to its last field.
    pub fn parse(bytes: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        let mut reader = Reader { bytes };
        let flags = reader.u16()?;
        if flags & 1 != 0 {
            return Err(Malformed("more property flags than the basic class has"));
        }
        let mut p = Properties::default();
        let has = |bit: u16| flags & (1 << bit) != 0;
        if has(15) {
            p.content_type = Some(reader.short_string()?);
        }
        if has(14) {
            p.content_encoding = Some(reader.short_string()?);
        }
        if has(13) {
            let len = check(reader.bytes)?;
            p.headers = Some(reader.take(len)?);
        }
        if has(12) {
            p.delivery_mode = Some(reader.u8()?);
        }
        if has(11) {
            p.priority = Some(reader.u8()?);
        }
        if has(10) {
            p.correlation_id = Some(reader.short_string()?);
        }
        if has(9) {
            p.reply_to = Some(reader.short_string()?);
        }
        if has(8) {
            p.expiration = Some(reader.short_string()?);
        }
        if has(7) {
            p.message_id = Some(reader.short_string()?);
        }
        if has(6) {
            p.timestamp = Some(reader.u64()?);
        }
        if has(5) {
            p.kind = Some(reader.short_string()?);
        }
        if has(4) {
            p.user_id = Some(reader.short_string()?);
        }
        if has(3) {
            p.app_id = Some(reader.short_string()?);
        }
        if has(2) {
            p.cluster_id = Some(reader.short_string()?);
        }
        if reader.bytes.is_empty() { Ok(p) } else { Err(Malformed("bytes after the properties")) }
    }

    /// The properties as they travel, flags first.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 0];
        let mut flags = 0u16;
        let mut short_string = |out: &mut Vec<u8>, bit: u16, field: Option<&[u8]>| {
            if let Some(bytes) = field {
                flags |= 1 << bit;
                out.put_u8(bytes.len() as u8);
                out.put_slice(bytes);
            }
        };
        short_string(&mut out, 15, self.content_type);
        short_string(&mut out, 14, self.content_encoding);
        out.put_slice(self.headers.unwrap_or_default());
        out.extend(self.delivery_mode);
        out.extend(self.priority);
        short_string(&mut out, 10, self.correlation_id);
        short_string(&mut out, 9, self.reply_to);
        short_string(&mut out, 8, self.expiration);
        short_string(&mut out, 7, self.message_id);
        out.put_slice(self.timestamp.map(u64::to_be_bytes).as_ref().map_or(&[], |t| &t[..]));
        short_string(&mut out, 5, self.kind);
        short_string(&mut out, 4, self.user_id);
        short_string(&mut out, 3, self.app_id);
        short_string(&mut out, 2, self.cluster_id);
        let fixed = [
            (13, self.headers.is_some()),
            (12, self.delivery_mode.is_some()),
            (11, self.priority.is_some()),
            (6, self.timestamp.is_some()),
        ];
        let flags = fixed.iter().filter(|(_, has)| *has).fold(flags, |flags, (bit, _)| flags | 1 << bit);
        out[..2].copy_from_slice(&flags.to_be_bytes());
        out
    }

    /// Whether the message asks to survive a restart: delivery-mode 2.
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode == Some(2)
    }

    /// The headers as a table; empty if there are none.
    pub fn header_table(&self) -> Table {
        self.headers.and_then(|bytes| Table::decode(bytes).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::protocol::basic::AMQPProperties;
    use amq_protocol::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;

    fn of_the_crate(properties: &AMQPProperties) -> Vec<u8> {
        use amq_protocol::protocol::basic::gen_properties;
        gen_properties(properties)(Vec::new().into()).expect("a Vec takes all").into_inner().0
    }

    #[test]
    fn all_fourteen_properties_of_the_crate_are_found() {
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::LongInt(1));
        let bytes = of_the_crate(
            &AMQPProperties::default()
                .with_content_type("ct".into())
                .with_content_encoding("ce".into())
                .with_headers(headers)
                .with_delivery_mode(2)
                .with_priority(3)
                .with_correlation_id("ci".into())
                .with_reply_to("rt".into())
                .with_expiration("10".into())
                .with_message_id("mi".into())
                .with_timestamp(7)
                .with_type("k".into())
                .with_user_id("u".into())
                .with_app_id("app".into())
                .with_cluster_id("cl".into()),
        );

        let p = Properties::parse(&bytes).unwrap();

        assert_eq!(p.encode(), bytes);
        assert!(p.is_persistent());
        assert_eq!(p.header_table().get("a"), Some(&crate::Value::Int(1)));
        assert_eq!((p.content_type, p.content_encoding), (Some(&b"ct"[..]), Some(&b"ce"[..])));
        assert_eq!((p.priority, p.timestamp), (Some(3), Some(7)));
        assert_eq!((p.correlation_id, p.reply_to), (Some(&b"ci"[..]), Some(&b"rt"[..])));
        assert_eq!((p.expiration, p.message_id), (Some(&b"10"[..]), Some(&b"mi"[..])));
        assert_eq!((p.kind, p.user_id), (Some(&b"k"[..]), Some(&b"u"[..])));
        assert_eq!((p.app_id, p.cluster_id), (Some(&b"app"[..]), Some(&b"cl"[..])));
    }

    #[test]
    fn a_cut_property_list_is_refused() {
        let bytes = of_the_crate(&AMQPProperties::default().with_message_id("abc".into()));

        for end in 0..bytes.len() {
            assert!(Properties::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Properties::parse(&bytes);
        }

        #[test]
        fn a_header_is_read_as_it_was_written(
            body_bytes: u64, properties in proptest::collection::vec(any::<u8>(), 0..50)
        ) {
            let mut out = BytesMut::new();
            Header::put(&mut out, body_bytes, &properties);
            let whole = out.freeze();

            let header = Header::decode(&whole, &whole).unwrap();

            prop_assert_eq!(header.class_id, BASIC_CLASS);
            prop_assert_eq!(header.body_bytes, body_bytes);
            prop_assert_eq!(&header.properties[..], &properties[..]);
        }
    }
}
