//! Every number of the wire, with its reason.

/// The eight bytes a client opens with (specification 4.2.2).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// Octets of a frame's envelope before its payload: type, channel, size.
pub const FRAME_HEAD_BYTES: usize = 7;

/// Octets of a frame around its payload: the head and the end octet.
pub const FRAME_OVERHEAD_BYTES: usize = 8;

/// The octet every frame ends with (4.2.3).
pub const FRAME_END: u8 = 0xCE;

/// The smallest frame-max a peer may ask for (4.2.3, `frame-min-size`).
pub const FRAME_BYTES_MIN: u32 = 4096;

/// The frame-max we propose; RabbitMQ's own, which client test suites depend on.
pub const FRAME_BYTES_MAX: u32 = 131_072;

/// The highest channel number we propose; RabbitMQ's own.
pub const CHANNEL_MAX: u16 = 2047;

/// The heartbeat we propose, in seconds.
pub const HEARTBEAT_SECS: u16 = 60;

/// The largest body of a message unless configured otherwise: RabbitMQ 3.x's and LavinMQ's 128 MiB.
pub const MESSAGE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Octets a short string can carry (4.2.5.3).
pub const SHORT_STRING_BYTES_MAX: usize = 255;

/// How deep tables and arrays may nest. The specification names no limit; ours keeps a decoder's stack
/// bounded, since a frame of 128 KiB could otherwise nest twenty thousand deep.
pub const TABLE_DEPTH_MAX: usize = 256;
