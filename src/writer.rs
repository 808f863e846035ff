//! Frames on their way to a socket, written in batches: small things copied together, large bodies
//! shared.

use std::collections::VecDeque;
use std::io::IoSlice;

use amqp::frame;
use amqp::limits::FRAME_END;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::message::Message;

/// A part of a body this long is written from where it lies; a shorter one is cheaper to copy than to
/// point at.
const COPY_BYTES_MAX: usize = 2048;

/// Parts given to one system call; the kernel takes up to 1024, but few are ever needed.
const SLICES_MAX: usize = 64;

/// What is still to be written.
#[derive(Debug, Default)]
pub struct Writer {
    sealed: VecDeque<Bytes>,
    sealed_bytes: usize,
    tail: BytesMut,
}

impl Writer {
    /// Octets to be written.
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.tail.len()
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where frames are appended.
    pub fn frames(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends header and body frames of a message.
    pub fn put_content(&mut self, channel: u16, message: &Message, frame_bytes_max: u32) {
        self.put_content_with(channel, message.parts.properties(), message, frame_bytes_max);
    }

    /// The same with other properties than the message's own.
    pub fn put_content_with(
        &mut self,
        channel: u16,
        properties: &[u8],
        message: &Message,
        frame_bytes_max: u32,
    ) {
        let parts = &message.parts;
        let body = parts.body();
        frame::put_header(&mut self.tail, channel, body.len() as u64, properties);
        for part in frame::body_parts(body.len(), frame_bytes_max) {
            frame::put_body_head(&mut self.tail, channel, part.len());
            if part.len() <= COPY_BYTES_MAX {
                self.tail.put_slice(&body[part]);
            } else {
                self.seal();
                self.sealed_bytes += part.len();
                self.sealed.push_back(parts.share_body(part));
            }
            self.tail.put_u8(FRAME_END);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed_bytes += self.tail.len();
            self.sealed.push_back(self.tail.split().freeze());
        }
    }

    /// The next parts to write.
    pub fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let parts = self.sealed.iter().map(|part| &part[..]).chain(tail);
        let mut n = 0;
        for part in parts.take(SLICES_MAX) {
            slices[n] = IoSlice::new(part);
            n += 1;
        }
        (slices, n)
    }

    /// `n` octets have been written.
    pub fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let Some(first) = self.sealed.front_mut() else {
                self.tail.advance(n);
                return;
            };
            let taken = n.min(first.len());
            first.advance(taken);
            if first.is_empty() {
                self.sealed.pop_front();
            }
            self.sealed_bytes -= taken;
            n -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::Parts;

    #[test]
    fn large_and_small_bodies_come_out_whole_and_in_order_whatever_is_written_at_a_time() {
        let message = |n: usize| {
            let body: Bytes = (0..n).map(|i| i as u8).collect();
            Message::from_parts(Parts::gathered(&[0, 0], &[0, 0], body), 0, None).unwrap()
        };
        let (small, large) = (message(10), message(10_000));
        let mut expected = BytesMut::new();
        let mut writer = Writer::default();
        for m in [&small, &large, &small] {
            writer.put_content(1, m, 4096);
            let body = m.parts.body();
            frame::put_header(&mut expected, 1, body.len() as u64, m.parts.properties());
            frame::body_parts(body.len(), 4096)
                .for_each(|part| frame::put_body(&mut expected, 1, &body[part]));
        }

        let mut got = Vec::new();
        while !writer.is_empty() {
            let (slices, n) = writer.slices();
            let all: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).collect();
            let step = all.len().min(777);
            got.extend(&all[..step]);
            writer.advance(step);
        }

        assert_eq!(got, expected);
    }
}
