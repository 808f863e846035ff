//! Bytes for the wire, right ones and wrong ones.

use amqp::frame;
use bytes::{BufMut, BytesMut};

/// A frame with any payload.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = frame_head(kind, channel, payload.len() as u32);
    out.put_slice(payload);
    out.put_u8(amqp::limits::FRAME_END);
    out
}

/// The seven octets before a payload that may never come.
pub fn frame_head(kind: u8, channel: u16, size: u32) -> Vec<u8> {
    let mut out = vec![kind];
    out.put_u16(channel);
    out.put_u32(size);
    out
}

/// A method frame.
pub fn method(channel: u16, method: impl super::Method) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_method(&mut out, channel, &method.cold());
    out.to_vec()
}

/// A content header frame that announces `body_bytes`.
pub fn header(channel: u16, body_bytes: u64, properties: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_header(&mut out, channel, body_bytes, properties);
    out.to_vec()
}

/// A body frame.
pub fn body(channel: u16, part: &[u8]) -> Vec<u8> {
    frame(3, channel, part)
}

/// No properties at all.
pub const NO_PROPERTIES: &[u8] = &[0, 0];

/// delivery-mode 2 and nothing else.
pub const PERSISTENT: &[u8] = &[0x10, 0, 2];

/// A short string.
pub fn short(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut out = vec![text.len() as u8];
    out.put_slice(text);
    out
}

/// Headers and nothing else.
pub fn headers(table: &amqp::Table) -> Vec<u8> {
    let mut out = vec![0x20, 0x00];
    table.encode(&mut out);
    out
}

/// `priority` and nothing else.
pub fn priority(priority: u8) -> Vec<u8> {
    vec![0x08, 0x00, priority]
}

/// `expiration` and nothing else.
pub fn expiration(ms: &str) -> Vec<u8> {
    [vec![0x01, 0x00], short(ms)].concat()
}

/// delivery-mode 2 and an `expiration`.
pub fn persistent_with_expiration(ms: &str) -> Vec<u8> {
    [vec![0x11, 0x00, 2], short(ms)].concat()
}

/// `user-id` and nothing else.
pub fn user_id(user: &str) -> Vec<u8> {
    [vec![0x00, 0x10], short(user)].concat()
}
