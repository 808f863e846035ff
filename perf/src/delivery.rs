//! Puts deliveries together from their frames: method, header, body. Reads only what is checked.

use amqp::{Frame, FrameKind};

use crate::stamp::{self, Stamp};

/// A message that came to a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Number of the queue: our consumer tags are these numbers.
    pub queue: usize,
    /// The broker's number of the delivery on its channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub is_redelivered: bool,
    /// Octets of the body.
    pub body_bytes: u64,
    /// What was written into the body, so far as it fits.
    pub stamp: Option<(Stamp, Option<u64>)>,
}

/// What a frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// A part of a delivery that is not yet whole, or a heartbeat.
    Part,
    /// The last part.
    Whole(Delivery),
    /// A method other than basic.deliver: the caller looks at it.
    Method,
    /// A part in the wrong place.
    Misplaced,
}

/// A delivery that is being put together.
#[derive(Debug, Default)]
pub struct Assembly {
    delivery: Delivery,
    awaited: Awaited,
}

/// What must come next (specification 4.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    #[default]
    Method,
    Header,
    Body {
        left: u64,
    },
}

/// Class and method of basic.deliver.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

impl Assembly {
    /// Takes the next frame of the channel.
    #[inline]
    pub fn feed(&mut self, frame: Frame<'_>) -> Fed {
        match (frame.kind, self.awaited) {
            (FrameKind::Method, Awaited::Method) => match frame.payload.strip_prefix(&DELIVER) {
                Some(arguments) => self.begin(arguments).unwrap_or(Fed::Misplaced),
                None => Fed::Method,
            },
            (FrameKind::Header, Awaited::Header) => self.size(frame.payload).unwrap_or(Fed::Misplaced),
            (FrameKind::Body, Awaited::Body { left }) => self.body(frame.payload, left),
            (FrameKind::Heartbeat, _) => Fed::Part,
            _ => Fed::Misplaced,
        }
    }

    fn begin(&mut self, arguments: &[u8]) -> Option<Fed> {
        let (&tag_bytes, rest) = arguments.split_first()?;
        let (consumer_tag, rest) = rest.split_at_checked(tag_bytes.into())?;
        let digit = |number: usize, digit: &u8| {
            number.wrapping_mul(10).wrapping_add(usize::from(digit.wrapping_sub(b'0')))
        };
        let (delivery_tag, rest) = rest.split_first_chunk()?;
        self.delivery = Delivery {
            queue: consumer_tag.iter().fold(0, digit),
            delivery_tag: u64::from_be_bytes(*delivery_tag),
            is_redelivered: rest.first()? & 1 != 0,
            body_bytes: 0,
            stamp: None,
        };
        self.awaited = Awaited::Header;
        Some(Fed::Part)
    }

    /// class u16 | weight u16 | body size u64 | …
    fn size(&mut self, payload: &[u8]) -> Option<Fed> {
        let body_bytes = u64::from_be_bytes(*payload.get(4..)?.first_chunk()?);
        self.delivery.body_bytes = body_bytes;
        self.awaited = Awaited::Body { left: body_bytes };
        Some(if body_bytes == 0 { self.whole() } else { Fed::Part })
    }

    fn body(&mut self, payload: &[u8], left: u64) -> Fed {
        if left == self.delivery.body_bytes {
            self.delivery.stamp = stamp::read(payload);
        }
        let Some(left) = left.checked_sub(payload.len() as u64) else { return Fed::Misplaced };
        self.awaited = Awaited::Body { left };
        if left == 0 { self.whole() } else { Fed::Part }
    }

    fn whole(&mut self) -> Fed {
        self.awaited = Awaited::Method;
        Fed::Whole(self.delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Inbox;
    use amqp::frame;
    use amqp::method::{self, DeliverPrefix};
    use bytes::BytesMut;

    fn put_delivery(out: &mut BytesMut, tag: u64, body: &[u8]) {
        let prefix = DeliverPrefix::new("17");
        frame::put_deliver(out, 1, &prefix, tag, tag.is_multiple_of(2), &method::address("exchange", "key"));
        frame::put_header(out, 1, body.len() as u64, &[0, 0]);
        for part in frame::body_parts(body.len(), 4096) {
            frame::put_body(out, 1, &body[part]);
        }
    }

    fn stamped(size: usize, number: u64) -> Vec<u8> {
        let mut body = vec![0; size];
        stamp::write(&mut body, Stamp { stream: 3, number }, 99);
        body
    }

    #[test]
    fn deliveries_cut_at_every_byte_come_out_the_same() {
        let sizes = [16, 0, 9000, 20];
        let mut stream = BytesMut::new();
        for (number, &size) in sizes.iter().enumerate() {
            put_delivery(&mut stream, number as u64 + 1, &stamped(size, number as u64));
        }

        for cut in 0..=stream.len() {
            let (mut inbox, mut assembly, mut got) = (Inbox::new(), Assembly::default(), Vec::new());
            for mut part in [&stream[..cut], &stream[cut..]] {
                inbox.read_from(&mut part).unwrap();
                for frame in inbox.take_frames().unwrap() {
                    match assembly.feed(frame) {
                        Fed::Whole(delivery) => got.push(delivery),
                        fed => assert_eq!(fed, Fed::Part, "cut at {cut}"),
                    }
                }
            }
            let expected = sizes.iter().zip(0..).map(|(&size, number)| Delivery {
                queue: 17,
                delivery_tag: number + 1,
                is_redelivered: number % 2 == 1,
                body_bytes: size as u64,
                stamp: stamp::read(&stamped(size, number)),
            });
            assert_eq!(got, expected.collect::<Vec<_>>(), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_without_a_header_and_one_too_long_are_misplaced() {
        let body = Frame { kind: FrameKind::Body, channel: 1, payload: b"x" };
        assert_eq!(Assembly::default().feed(body), Fed::Misplaced);

        let mut stream = BytesMut::new();
        put_delivery(&mut stream, 1, b"");
        let mut assembly = Assembly::default();
        let fed: Vec<Fed> = frame::Frames::new(&stream).map(|frame| assembly.feed(frame)).collect();
        assert!(matches!(fed[..], [Fed::Part, Fed::Whole(_)]));
        assert_eq!(assembly.feed(body), Fed::Misplaced);
    }

    #[test]
    fn other_methods_are_left_to_the_caller() {
        let payload = [0, 60, 0, 30, 1, b'0', 1];
        let cancel = Frame { kind: FrameKind::Method, channel: 1, payload: &payload };

        assert_eq!(Assembly::default().feed(cancel), Fed::Method);
    }
}
