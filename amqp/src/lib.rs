//! AMQP 0-9-1 on the wire: bytes to frames, methods, content and tables, and back. No IO.
//!
//! A reader splits whole frames off its buffer ([`frame::whole`]), walks them ([`frame::Frames`]) and
//! gives method payloads to [`method::decode`] and header payloads to [`content::Header::decode`]. A
//! writer appends frames to a `BytesMut` with the `put_*` functions of [`frame`].

pub mod limits;
pub mod reply;

pub mod content;
pub mod frame;
pub mod method;
pub mod sasl;
pub mod table;

pub use content::{Header, Properties};
pub use frame::{Frame, FrameKind};
pub use method::Method;
pub use reply::{Exception, ReplyCode, Scope};
pub use table::{Table, Value};
