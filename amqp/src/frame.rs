//! Frames (specification 4.2.3): the envelope around methods, headers, bodies and heartbeats.
//!
//! ```text
//! 0      1         3             7                  size+7 size+8
//! +------+---------+-------------+ +------------+ +-----------+
//! | type | channel |    size     | |  payload   | | frame-end |
//! +------+---------+-------------+ +------------+ +-----------+
//! ```
//!
//! Nothing is copied on the way in: a reader takes all whole frames off its buffer at once and walks
//! them as slices; what outlives the walk (properties, bodies) shares the buffer's memory.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::content::Header;
use crate::limits::{FRAME_END, FRAME_HEAD_BYTES, FRAME_OVERHEAD_BYTES};
use crate::method::{self, Ack, Cold, DeliverPrefix};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method.
    Method,
    /// A content header.
    Header,
    /// A part of a body.
    Body,
    /// A sign of life.
    Heartbeat,
}

/// A frame in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel it belongs to; 0 is the connection itself.
    pub channel: u16,
    /// Everything between the head and the end octet.
    pub payload: &'a [u8],
}

/// Bytes that are no frame. Each one ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The payload would be larger than was agreed.
    TooLarge {
        /// The type octet.
        kind: u8,
        /// The channel.
        channel: u16,
        /// Octets of payload announced.
        size: u32,
        /// Octets of payload allowed.
        max: u32,
    },
    /// The octet after the payload is not the frame end.
    BadEnd {
        /// The type octet.
        kind: u8,
        /// The channel.
        channel: u16,
        /// What stood there.
        end: u8,
    },
    /// No such frame type.
    UnknownKind {
        /// The type octet.
        kind: u8,
        /// The channel.
        channel: u16,
    },
}

/// How many bytes at the front of `buffer` are whole frames, and what is wrong with the first bad one
/// after them. `frame_bytes_max` counts the whole frame with its envelope, as frame-max does; 0 is no
/// limit.
pub fn whole(buffer: &[u8], frame_bytes_max: u32) -> (usize, Option<Error>) {
    let mut at = 0;
    while let Some(head) = buffer[at..].first_chunk::<FRAME_HEAD_BYTES>() {
        let (kind, channel, size) = read_head(head);
        let max = frame_bytes_max.wrapping_sub(FRAME_OVERHEAD_BYTES as u32);
        if frame_bytes_max != 0 && size > max {
            return (at, Some(Error::TooLarge { kind, channel, size, max }));
        }
        let end_at = at + FRAME_HEAD_BYTES + size as usize;
        let Some(&end) = buffer.get(end_at) else { break };
        if end != FRAME_END {
            return (at, Some(Error::BadEnd { kind, channel, end }));
        }
        if !matches!(kind, 1 | 2 | 3 | 8) {
            return (at, Some(Error::UnknownKind { kind, channel }));
        }
        at = end_at + 1;
    }
    (at, None)
}

/// How many bytes the frame at the front of `buffer` will take in all, once its head is there.
pub fn expected_bytes(buffer: &[u8]) -> Option<usize> {
    let (_, _, size) = read_head(buffer.first_chunk()?);
    Some(size as usize + FRAME_OVERHEAD_BYTES)
}

/// The payload of a frame that [`whole`] found to be bad, so far as it is there; `size` is what
/// [`expected_bytes`] says of it.
pub fn payload_of_bad(buffer: &[u8], size: usize) -> &[u8] {
    let end = size.saturating_sub(1).min(buffer.len());
    buffer.get(FRAME_HEAD_BYTES..end).unwrap_or_default()
}

fn read_head(head: &[u8; FRAME_HEAD_BYTES]) -> (u8, u16, u32) {
    let [kind, c1, c0, s3, s2, s1, s0] = *head;
    (kind, u16::from_be_bytes([c1, c0]), u32::from_be_bytes([s3, s2, s1, s0]))
}

/// Walks bytes that [`whole`] found to be whole frames.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
}

impl<'a> Frames<'a> {
    /// A walk over `bytes`, which must be what [`whole`] counted.
    pub fn new(bytes: &'a [u8]) -> Self {
        Frames { bytes }
    }

    /// The content that follows a method on this channel, if all of it is here in two frames: the payload
    /// of its header and its body. An empty body has no frame. Otherwise nothing is taken.
    pub fn take_content(&mut self, channel: u16) -> Option<(&'a [u8], &'a [u8])> {
        let mut ahead = self.clone();
        let header = ahead.next().filter(|f| f.kind == FrameKind::Header && f.channel == channel)?.payload;
        let mut body: &[u8] = &[];
        let body_bytes = Header::body_bytes(header)?;
        if body_bytes > 0 {
            let frame = ahead.next().filter(|f| f.kind == FrameKind::Body && f.channel == channel)?;
            body = frame.payload;
        }
        if body.len() as u64 != body_bytes {
            return None;
        }
        *self = ahead;
        Some((header, body))
    }

    /// What has not been walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (kind, channel, size) = read_head(self.bytes.first_chunk()?);
        let kind = match kind {
            1 => FrameKind::Method,
            2 => FrameKind::Header,
            3 => FrameKind::Body,
            _ => FrameKind::Heartbeat,
        };
        let (frame, rest) = self.bytes.split_at(size as usize + FRAME_OVERHEAD_BYTES);
        self.bytes = rest;
        let payload = &frame[FRAME_HEAD_BYTES..frame.len() - 1];
        Some(Frame { kind, channel, payload })
    }
}

fn put_head(out: &mut BytesMut, kind: u8, channel: u16, size: usize) {
    out.put_u8(kind);
    out.put_u16(channel);
    out.put_u32(size as u32);
}

/// Writes the size of the payload that was appended since `at` into its head, and the end octet.
fn close(out: &mut BytesMut, at: usize) {
    let size = (out.len() - at - FRAME_HEAD_BYTES) as u32;
    out[at + 3..at + 7].copy_from_slice(&size.to_be_bytes());
    out.put_u8(FRAME_END);
}

/// Appends a method frame.
pub fn put_method(out: &mut BytesMut, channel: u16, method: &Cold) {
    let at = out.len();
    put_head(out, 1, channel, 0);
    method::put(out, method);
    close(out, at);
}

/// Appends a basic.ack frame.
pub fn put_ack(out: &mut BytesMut, channel: u16, ack: Ack) {
    let at = out.len();
    put_head(out, 1, channel, 0);
    method::put_ack(out, ack);
    close(out, at);
}

/// Appends a basic.deliver frame; the content follows with [`put_header`] and the body frames.
pub fn put_deliver(
    out: &mut BytesMut,
    channel: u16,
    prefix: &DeliverPrefix,
    delivery_tag: u64,
    redelivered: bool,
    address: &[u8],
) {
    put_head(out, 1, channel, method::deliver_bytes(prefix, address));
    method::put_deliver(out, prefix, delivery_tag, redelivered, address);
    out.put_u8(FRAME_END);
}

/// Appends a content header frame.
pub fn put_header(out: &mut BytesMut, channel: u16, body_bytes: u64, properties: &[u8]) {
    let at = out.len();
    put_head(out, 2, channel, 0);
    Header::put(out, body_bytes, properties);
    close(out, at);
}

/// Appends the head of a body frame; `size` octets of body and [`FRAME_END`] must follow.
pub fn put_body_head(out: &mut BytesMut, channel: u16, size: usize) {
    put_head(out, 3, channel, size);
}

/// Appends a whole body frame.
pub fn put_body(out: &mut BytesMut, channel: u16, body: &[u8]) {
    put_body_head(out, channel, body.len());
    out.put_slice(body);
    out.put_u8(FRAME_END);
}

/// Appends a heartbeat frame, always on channel 0.
pub fn put_heartbeat(out: &mut BytesMut) {
    put_head(out, 8, 0, 0);
    out.put_u8(FRAME_END);
}

/// Where the parts of a body begin and end that go into frames of at most `frame_bytes_max` octets (0 is no
/// limit).
pub fn body_parts(body_bytes: usize, frame_bytes_max: u32) -> impl Iterator<Item = Range<usize>> {
    let max = match frame_bytes_max as usize {
        0 => body_bytes.max(1),
        limit => limit - FRAME_OVERHEAD_BYTES,
    };
    (0..body_bytes).step_by(max).map(move |at| at..body_bytes.min(at + max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;
    use crate::method::{basic, channel};
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_waited_for_until_its_last_byte() {
        let mut out = BytesMut::new();
        put_body(&mut out, 7, b"abc");

        for end in 0..out.len() {
            assert_eq!(whole(&out[..end], 4096), (0, None), "cut at {end}");
        }
        assert_eq!(whole(&out, 4096), (out.len(), None));
    }

    #[test]
    fn a_wrong_end_is_told_after_the_frames_before_it() {
        let mut out = BytesMut::new();
        put_heartbeat(&mut out);
        let good = out.len();
        put_body(&mut out, 7, b"abc");
        *out.last_mut().unwrap() = 0;

        let found = whole(&out, 4096);

        assert_eq!(found, (good, Some(Error::BadEnd { kind: 3, channel: 7, end: 0 })));
    }

    #[test]
    fn a_frame_may_be_as_large_as_agreed_and_no_larger() {
        let mut out = BytesMut::new();
        put_body(&mut out, 1, &[0; 4088]);
        assert_eq!(whole(&out, 4096), (4096, None));

        out.clear();
        put_body(&mut out, 1, &[0; 4089]);
        let error = Error::TooLarge { kind: 3, channel: 1, size: 4089, max: 4088 };
        assert_eq!(whole(&out[..7], 4096), (0, Some(error)));
        assert_eq!(whole(&out, 0), (out.len(), None));
    }

    #[test]
    fn an_unknown_type_is_refused() {
        let bytes = [5, 0, 1, 0, 0, 0, 0, FRAME_END];

        assert_eq!(whole(&bytes, 4096), (0, Some(Error::UnknownKind { kind: 5, channel: 1 })));
    }

    #[test]
    fn an_empty_body_has_no_parts() {
        assert_eq!(body_parts(0, 4096).count(), 0);
        assert_eq!(body_parts(0, 0).count(), 0);
    }

    #[test]
    fn a_method_frame_is_read_as_it_was_written() {
        let method = Cold::Channel(channel::AMQPMethod::Open(channel::Open::default()));
        let mut out = BytesMut::new();
        put_method(&mut out, 3, &method);

        let frame = Frames::new(&out).next().unwrap();

        assert_eq!((frame.kind, frame.channel), (FrameKind::Method, 3));
        assert_eq!(method::decode(frame.payload), Ok(Method::Cold(Box::new(method))));
    }

    #[test]
    fn content_is_taken_when_all_of_it_is_there_in_one_body_frame() {
        let take = |body_bytes: u64, body: &[u8], body_channel: u16| {
            let mut out = BytesMut::new();
            put_header(&mut out, 1, body_bytes, &[0x10, 0, 2]);
            if !body.is_empty() {
                put_body(&mut out, body_channel, body);
            }
            put_heartbeat(&mut out);
            let mut frames = Frames::new(&out);
            let taken =
                frames.take_content(1).map(|(header, body)| (Header::properties(header).len(), body.len()));
            (taken, frames.count())
        };

        assert_eq!(take(3, b"abc", 1), (Some((3, 3)), 1));
        assert_eq!(take(0, b"", 1), (Some((3, 0)), 1));
        assert_eq!(take(4, b"abc", 1), (None, 3));
        assert_eq!(take(3, b"abc", 2), (None, 3));
        assert_eq!(take(3, b"", 1), (None, 2));
    }

    #[test]
    fn a_delivery_frame_has_its_size_right() {
        let mut out = BytesMut::new();
        put_deliver(&mut out, 2, &DeliverPrefix::new("tag"), 9, true, &method::address("e", "k"));

        assert_eq!(whole(&out, 4096), (out.len(), None));
        let frame = Frames::new(&out).next().unwrap();
        let Ok(Method::Cold(class)) = method::decode(frame.payload) else { panic!("no method") };
        let Cold::Basic(basic::AMQPMethod::Deliver(deliver)) = *class else { panic!("no deliver") };
        assert_eq!((deliver.delivery_tag, deliver.redelivered), (9, true));
        assert_eq!(deliver.routing_key.as_str(), "k");
    }

    proptest! {
        #[test]
        fn a_body_of_any_size_is_cut_to_the_frame_size_and_put_together(
            len in 0usize..20_000, frame_bytes_max in 4096u32..9000
        ) {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut out = BytesMut::new();
            for part in body_parts(len, frame_bytes_max) {
                put_body(&mut out, 1, &body[part]);
            }

            prop_assert_eq!(whole(&out, frame_bytes_max), (out.len(), None));
            let got: Vec<u8> = Frames::new(&out).flat_map(|f| f.payload.to_vec()).collect();
            prop_assert_eq!(&got[..], &body[..]);
        }

        #[test]
        fn any_bytes_are_walked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (n, _) = whole(&bytes, 4096);
            let walked: usize = Frames::new(&bytes[..n]).map(|f| f.payload.len() + 8).sum();
            prop_assert_eq!(walked, n);
        }
    }
}
