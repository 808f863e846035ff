//! Method, header and bodies of a publish, put together to a message.

use amqp::method::Publish;
use amqp::{Exception, Header, ReplyCode};
use bytes::{Bytes, BytesMut};

/// What basic.publish said, kept until its content is complete.
#[derive(Debug)]
pub struct Head {
    /// Exchange and routing key as two short strings.
    pub address: Bytes,
    /// Return it if no queue takes it.
    pub mandatory: bool,
    /// Asked for what nobody supports.
    pub immediate: bool,
}

/// A publish with all of its content.
#[derive(Debug)]
pub struct Published {
    /// The method.
    pub head: Head,
    /// Property flags and properties.
    pub properties: Bytes,
    /// The body.
    pub body: Bytes,
}

/// Where a channel stands between a publish and the last octet of its body.
///
/// ```text
///          publish            header, size > 0          bodies, size reached
///   Idle ───────────> Header ─────────────────> Body ─────────────────────> Idle
///                       └──── header, size 0 ───────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub enum Assembly {
    /// A method is expected.
    #[default]
    Idle,
    /// A content header is expected.
    Header(Head),
    /// More of the body is expected.
    Body(Head, Header, Body),
}

/// The body so far.
#[derive(Debug)]
pub enum Body {
    /// One frame, in the memory it was received in.
    Whole(Bytes),
    /// Several frames, copied together.
    Parts(BytesMut),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Body::Whole(bytes) => bytes.len(),
            Body::Parts(bytes) => bytes.len(),
        }
    }

    /// Adds a frame. Memory grows with what has come, never with what was announced.
    fn add(self, part: Bytes) -> Body {
        match self {
            Body::Whole(first) if first.is_empty() => Body::Whole(part),
            Body::Whole(first) => {
                let mut all = BytesMut::with_capacity(2 * (first.len() + part.len()));
                all.extend_from_slice(&first);
                all.extend_from_slice(&part);
                Body::Parts(all)
            }
            Body::Parts(mut all) => {
                all.extend_from_slice(&part);
                Body::Parts(all)
            }
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Body::Whole(bytes) => bytes,
            Body::Parts(bytes) => bytes.freeze(),
        }
    }
}

impl Assembly {
    /// Whether a method may come now.
    pub fn is_idle(&self) -> bool {
        matches!(self, Assembly::Idle)
    }

    /// A publish begins. `whole` is the memory that its frame lies in.
    pub fn begin(&mut self, publish: &Publish<'_>, whole: &Bytes) {
        *self = Assembly::Header(Head {
            address: whole.slice_ref(publish.address),
            mandatory: publish.mandatory,
            immediate: publish.immediate,
        });
    }

    /// A content header has come; the publish, if that completes it.
    ///
    /// # Errors
    /// 505 if no header was expected or it is not for a message; 501 if it is none at all; 406 if the
    /// body would be larger than `body_bytes_max`.
    pub fn header(
        &mut self,
        whole: &Bytes,
        payload: &[u8],
        body_bytes_max: u64,
    ) -> Result<Option<Published>, Exception> {
        let head = match std::mem::take(self) {
            Assembly::Header(head) => head,
            other => return Err(other.unexpected()),
        };
        let Ok(header) = Header::decode(whole, payload) else {
            let text = format!("type 2, all octets = {}: unknown_frame", super::octets(payload));
            return Err(Exception::new(ReplyCode::FrameError, text));
        };
        if header.weight != 0 {
            return Err(Assembly::Header(head).unexpected());
        }
        if header.class_id != amqp::content::BASIC_CLASS {
            let text = format!(
                "expected content header for class 60, got one for class {} instead",
                header.class_id
            );
            return Err(Exception::new(ReplyCode::UnexpectedFrame, text));
        }
        if header.body_bytes > body_bytes_max {
            let text = format!(
                "message size {} is larger than configured max size {body_bytes_max}",
                header.body_bytes
            );
            return Err(Exception::new(ReplyCode::PreconditionFailed, text));
        }
        if header.body_bytes == 0 {
            return Ok(Some(Published { head, properties: header.properties, body: Bytes::new() }));
        }
        *self = Assembly::Body(head, header, Body::Whole(Bytes::new()));
        Ok(None)
    }

    /// A part of the body has come; the publish, if that completes it.
    ///
    /// # Errors
    /// 505 if no body was expected, or not as much of it.
    pub fn body(&mut self, whole: &Bytes, payload: &[u8]) -> Result<Option<Published>, Exception> {
        let (head, header, body) = match std::mem::take(self) {
            Assembly::Body(head, header, body) => (head, header, body),
            other => return Err(other.unexpected()),
        };
        let body = body.add(whole.slice_ref(payload));
        match (body.len() as u64).cmp(&header.body_bytes) {
            std::cmp::Ordering::Less => {
                *self = Assembly::Body(head, header, body);
                Ok(None)
            }
            std::cmp::Ordering::Equal => {
                Ok(Some(Published { head, properties: header.properties, body: body.freeze() }))
            }
            std::cmp::Ordering::Greater => Err(Exception::new(
                ReplyCode::UnexpectedFrame,
                format!("the body is longer than the {} octets announced", header.body_bytes),
            )),
        }
    }

    /// Something else came than this state waits for.
    pub fn unexpected(&self) -> Exception {
        let text = match self {
            Assembly::Idle => "expected method frame, got non method frame instead".to_string(),
            Assembly::Header(_) => {
                "expected content header for class 60, got non content header frame instead".to_string()
            }
            Assembly::Body(..) => "expected content body, got non content body frame instead".to_string(),
        };
        Exception::new(ReplyCode::UnexpectedFrame, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn header(size: u64) -> Bytes {
        let mut out = BytesMut::new();
        Header::put(&mut out, size, &[0, 0]);
        out.freeze()
    }

    fn begun() -> Assembly {
        let whole = Bytes::from(amqp::method::address("e", "k"));
        let mut assembly = Assembly::default();
        let publish =
            Publish { address: &whole, exchange: "e", routing_key: "k", mandatory: false, immediate: false };
        assembly.begin(&publish, &whole);
        assembly
    }

    #[test]
    fn bodies_are_put_together_until_the_size_is_reached() {
        let mut assembly = begun();
        let header = header(5);
        assert!(assembly.header(&header, &header, 100).unwrap().is_none());
        for part in ["", "ab", ""] {
            let part = Bytes::from_static(part.as_bytes());
            assert!(assembly.body(&part, &part).unwrap().is_none());
        }

        let last = Bytes::from_static(b"cde");
        let published = assembly.body(&last, &last).unwrap().unwrap();

        assert_eq!(published.body, "abcde");
        assert!(assembly.is_idle());
    }

    #[test]
    fn an_empty_body_needs_no_frame() {
        let header = header(0);

        assert!(begun().header(&header, &header, 100).unwrap().is_some());
    }

    #[test]
    fn too_much_and_too_large_are_refused() {
        let mut assembly = begun();
        let size = header(2);
        assembly.header(&size, &size, 100).unwrap();
        let part = Bytes::from_static(b"abc");
        assert_eq!(assembly.body(&part, &part).unwrap_err().code, ReplyCode::UnexpectedFrame);

        let size = header(101);
        let error = begun().header(&size, &size, 100).unwrap_err();
        assert_eq!(
            error.text,
            "PRECONDITION_FAILED - message size 101 is larger than configured max size 100"
        );
    }
}
