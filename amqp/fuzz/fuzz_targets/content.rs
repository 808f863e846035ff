//! Any bytes as a content header: the properties found, put in a row, are the bytes they came from.
#![no_main]

use amqp::{Header, Properties, Table, table};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The header lies inside of something larger, as it does in a read buffer.
    let mut whole = vec![1, 2, 3];
    whole.extend_from_slice(data);
    whole.push(0xce);
    let whole = Bytes::from(whole);
    let payload = &whole[3..3 + data.len()];
    if let Ok(header) = Header::decode(&whole, payload) {
        assert_eq!(&header.properties[..], &data[12..]);
        let mut out = BytesMut::new();
        Header::put(&mut out, header.body_bytes, &header.properties);
        assert_eq!((&out[4..], &out[..2]), (&data[4..], &[0, 60][..]));
        check_properties(&header.properties);
    } else {
        assert!(data.len() < 12);
    }
    check_properties(data);
});

fn check_properties(bytes: &[u8]) {
    let Ok(p) = Properties::parse(bytes) else { return };
    let written = p.encode();
    // The second bit of the flags means nothing in the basic class.
    assert_eq!(written[..2], [bytes[0], bytes[1] & !2]);
    assert_eq!(written[2..], bytes[2..]);
    let table = p.header_table();
    if let Some(headers) = p.headers {
        assert_eq!(table::check(headers), Ok(headers.len()));
        let built = Table::decode(headers).expect("headers that were checked");
        assert_eq!(format!("{built:?}"), format!("{table:?}"));
    } else {
        assert!(table.is_empty());
    }
}
