//! Address, properties and body of a message, in one piece of memory where that is possible.
//!
//! A small message is copied out of what was read from the socket: that costs less than sharing it with the
//! threads that pass the message on, and keeps no more memory than it needs. A larger one stays where it
//! was received, and is written to the log and to consumers' sockets from there.

use std::ops::Range;

use bytes::Bytes;

/// Parts that together take no more octets than this are copied.
const COPY_BYTES_MAX: usize = 104;

/// The three parts of a message.
#[derive(Debug, Clone)]
pub struct Parts {
    piece: Piece,
    /// Where the parts are in the piece. The body is not, if it is apart.
    address: Range<u32>,
    properties: Range<u32>,
    body: Body,
}

#[derive(Debug, Clone)]
enum Piece {
    Copy([u8; COPY_BYTES_MAX]),
    Shared(Bytes),
}

#[derive(Debug, Clone)]
enum Body {
    Within(Range<u32>),
    Apart(Bytes),
}

impl Parts {
    /// Parts of the memory of `whole`, in this order.
    pub fn within(whole: &Bytes, address: &[u8], properties: &[u8], body: &[u8]) -> Parts {
        if address.len() + properties.len() + body.len() <= COPY_BYTES_MAX {
            return Parts::copied(address, properties, body);
        }
        let start = offset(whole, address);
        // An empty slice may point anywhere.
        let end = if body.is_empty() {
            offset(whole, properties) + properties.len()
        } else {
            offset(whole, body) + body.len()
        };
        let range = |part: &[u8]| {
            let from = if part.is_empty() { 0 } else { offset(whole, part) - start };
            from as u32..(from + part.len()) as u32
        };
        Parts {
            address: range(address),
            properties: range(properties),
            body: Body::Within(range(body)),
            piece: Piece::Shared(whole.slice(start..end)),
        }
    }

    /// Parts from anywhere; the body is shared if it is large.
    pub fn gathered(address: &[u8], properties: &[u8], body: Bytes) -> Parts {
        if address.len() + properties.len() + body.len() <= COPY_BYTES_MAX {
            return Parts::copied(address, properties, &body);
        }
        let piece = [address, properties].concat();
        let (middle, end) = (address.len() as u32, piece.len() as u32);
        Parts {
            piece: Piece::Shared(piece.into()),
            address: 0..middle,
            properties: middle..end,
            body: Body::Apart(body),
        }
    }

    fn copied(address: &[u8], properties: &[u8], body: &[u8]) -> Parts {
        let mut piece = [0; COPY_BYTES_MAX];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            let range = at..at + part.len();
            piece[range.clone()].copy_from_slice(part);
            at = range.end;
            range.start as u32..range.end as u32
        };
        let (address, properties, body) = (put(address), put(properties), Body::Within(put(body)));
        Parts { piece: Piece::Copy(piece), address, properties, body }
    }

    /// Exchange and routing key as two short strings, as basic.deliver carries them.
    pub fn address(&self) -> &[u8] {
        self.part(&self.address)
    }

    /// Property flags and properties as received.
    pub fn properties(&self) -> &[u8] {
        self.part(&self.properties)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Within(range) => self.part(range),
            Body::Apart(body) => body,
        }
    }

    /// A part of the body that shares its memory, or a copy of it if the message is small.
    pub fn share_body(&self, range: Range<usize>) -> Bytes {
        match (&self.piece, &self.body) {
            (_, Body::Apart(body)) => body.slice(range),
            (Piece::Shared(piece), Body::Within(body)) => {
                let start = body.start as usize;
                piece.slice(start + range.start..start + range.end)
            }
            (Piece::Copy(_), Body::Within(_)) => Bytes::copy_from_slice(&self.body()[range]),
        }
    }

    /// Octets of all three.
    pub fn size_bytes(&self) -> usize {
        self.address.len() + self.properties.len() + self.body().len()
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        let range = range.start as usize..range.end as usize;
        match &self.piece {
            Piece::Copy(piece) => &piece[range],
            Piece::Shared(piece) => &piece[range],
        }
    }
}

/// Where a part of a piece of memory begins.
fn offset(whole: &Bytes, part: &[u8]) -> usize {
    let at = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    assert!(at <= whole.len() && part.len() <= whole.len() - at, "a part of other memory");
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &Parts, address: &[u8], properties: &[u8], body: &[u8]) {
        assert_eq!((parts.address(), parts.properties(), parts.body()), (address, properties, body));
        assert_eq!(parts.size_bytes(), address.len() + properties.len() + body.len());
        for at in 0..=body.len().min(9) {
            assert_eq!(parts.share_body(at..body.len()), body[at..]);
        }
    }

    #[test]
    fn parts_are_the_same_however_they_are_kept() {
        for body_bytes in [0, 1, 50, 500] {
            for properties_bytes in [0, 3, 200] {
                let whole: Bytes = (0..1000).map(|n| n as u8).collect();
                let (address, properties) = (&whole[7..20], &whole[30..30 + properties_bytes]);
                let body = &whole[300..300 + body_bytes];

                check(&Parts::within(&whole, address, properties, body), address, properties, body);
                let body = whole.slice_ref(body);
                check(&Parts::gathered(address, properties, body.clone()), address, properties, &body);
            }
        }
    }

    #[test]
    fn a_large_body_is_not_copied() {
        let whole: Bytes = vec![7; 1000].into();
        let body = &whole[100..900];

        let within = Parts::within(&whole, &whole[1..3], &whole[3..5], body);
        let gathered = Parts::gathered(b"a", b"p", whole.slice_ref(body));

        assert_eq!(within.share_body(5..10).as_ptr(), body[5..].as_ptr());
        assert_eq!(gathered.share_body(5..10).as_ptr(), body[5..].as_ptr());
    }
}
