//! Any bytes through `whole` and the walk: nothing is read past the end, and sizes add up.
#![no_main]

use amqp::frame::{self, Frames};
use amqp::limits::FRAME_OVERHEAD_BYTES;
use amqp::{FrameKind, frame::Error};
use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;

const MAXIMA: [u32; 4] = [0, 4096, 131_072 + 8, 64];

fuzz_target!(|data: &[u8]| {
    let [first, bytes @ ..] = data else { return };
    let max = MAXIMA[usize::from(*first) % MAXIMA.len()];
    let (n, bad) = frame::whole(bytes, max);
    assert!(n <= bytes.len());

    let mut written = BytesMut::new();
    let mut walk = Frames::new(&bytes[..n]);
    let mut walked = 0;
    for frame in walk.by_ref() {
        walked += frame.payload.len() + FRAME_OVERHEAD_BYTES;
        assert!(max == 0 || walked as u64 <= n as u64 && frame.payload.len() + 8 <= max as usize);
        let within = bytes[..n].as_ptr_range();
        let part = frame.payload.as_ptr_range();
        assert!(within.start <= part.start && part.end < within.end, "a payload outside of the frames");
        put(&mut written, frame.kind, frame.channel, frame.payload);
    }
    assert_eq!(walked, n);
    assert!(walk.rest().is_empty());
    assert_eq!(&written[..], &bytes[..n]);

    check_rest(&bytes[n..], max, bad);

    // Bytes that come bit by bit are the same frames.
    let cut = usize::from(*first) * bytes.len() / 256;
    let (early, early_bad) = frame::whole(&bytes[..cut], max);
    assert!(early <= n);
    match early_bad {
        None => assert_eq!(frame::whole(&bytes[early..], max), (n - early, bad)),
        Some(_) => assert_eq!((early, early_bad), (n, bad)),
    }
});

/// What is left is a part of a frame, or the first bad one.
fn check_rest(rest: &[u8], max: u32, bad: Option<Error>) {
    let expected = frame::expected_bytes(rest);
    if let Some(expected) = expected {
        assert!(frame::payload_of_bad(rest, expected).len() <= expected - FRAME_OVERHEAD_BYTES);
    }
    match bad {
        None => assert!(expected.is_none_or(|expected| expected > rest.len())),
        Some(Error::TooLarge { size, max: most, .. }) => {
            assert!(size > most && max != 0);
            assert_eq!(expected, Some(size as usize + FRAME_OVERHEAD_BYTES));
        }
        Some(Error::BadEnd { .. } | Error::UnknownKind { .. }) => {
            assert!(expected.is_some_and(|expected| expected <= rest.len()));
        }
    }
}

fn put(out: &mut BytesMut, kind: FrameKind, channel: u16, payload: &[u8]) {
    if kind == FrameKind::Body {
        return frame::put_body(out, channel, payload);
    }
    out.put_u8(match kind {
        FrameKind::Method => 1,
        FrameKind::Header => 2,
        FrameKind::Body => 3,
        FrameKind::Heartbeat => 8,
    });
    out.put_u16(channel);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    out.put_u8(amqp::limits::FRAME_END);
}
