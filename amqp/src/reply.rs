//! Reply codes, and whether each one closes a channel or the whole connection (specification 1.1, 4.10).

use std::borrow::Cow;
use std::fmt;

/// What an error costs the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The channel is closed; the connection goes on.
    Channel,
    /// The whole connection is closed.
    Connection,
}

macro_rules! reply_codes {
    ($($name:ident = $code:literal, $text:literal, $scope:ident;)*) => {
        /// A reply code of the specification; its name and number are part of every reply text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ReplyCode { $(#[doc = $text] $name = $code,)* }

        impl ReplyCode {
            /// The name that reply texts begin with, such as `NOT_FOUND`.
            pub fn name(self) -> &'static str {
                match self { $(ReplyCode::$name => $text,)* }
            }

            /// Whether this code closes a channel or the connection.
            pub fn scope(self) -> Scope {
                match self { $(ReplyCode::$name => Scope::$scope,)* }
            }
        }
    };
}

reply_codes! {
    ContentTooLarge = 311, "CONTENT_TOO_LARGE", Channel;
    NoRoute = 312, "NO_ROUTE", Channel;
    NoConsumers = 313, "NO_CONSUMERS", Channel;
    ConnectionForced = 320, "CONNECTION_FORCED", Connection;
    InvalidPath = 402, "INVALID_PATH", Connection;
    AccessRefused = 403, "ACCESS_REFUSED", Channel;
    NotFound = 404, "NOT_FOUND", Channel;
    ResourceLocked = 405, "RESOURCE_LOCKED", Channel;
    PreconditionFailed = 406, "PRECONDITION_FAILED", Channel;
    FrameError = 501, "FRAME_ERROR", Connection;
    SyntaxError = 502, "SYNTAX_ERROR", Connection;
    CommandInvalid = 503, "COMMAND_INVALID", Connection;
    ChannelError = 504, "CHANNEL_ERROR", Connection;
    UnexpectedFrame = 505, "UNEXPECTED_FRAME", Connection;
    ResourceError = 506, "RESOURCE_ERROR", Connection;
    NotAllowed = 530, "NOT_ALLOWED", Connection;
    NotImplemented = 540, "NOT_IMPLEMENTED", Connection;
    InternalError = 541, "INTERNAL_ERROR", Connection;
}

impl ReplyCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}

/// A protocol error on its way to the client as `channel.close` or `connection.close`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// What went wrong, by the specification's list.
    pub code: ReplyCode,
    /// What it costs: the code's own scope unless [`Exception::on_connection`] raised it.
    pub scope: Scope,
    /// The whole reply text, beginning with the code's name.
    pub text: String,
}

impl Exception {
    /// An exception with the code's own scope; `text` is what follows `NAME - `.
    pub fn new(code: ReplyCode, text: impl fmt::Display) -> Self {
        Exception { code, scope: code.scope(), text: format!("{} - {text}", code.name()) }
    }

    /// The same, closing the connection whatever the code's own scope is.
    pub fn on_connection(self) -> Self {
        Exception { scope: Scope::Connection, ..self }
    }

    /// The reply text as it may travel: at most 255 bytes (a short string). A longer one is cut between
    /// characters and ends in three dots, as RabbitMQ's do.
    pub fn wire_text(&self) -> Cow<'_, str> {
        const DOTS: &str = "...";
        let max = crate::limits::SHORT_STRING_BYTES_MAX;
        if self.text.len() <= max {
            return Cow::Borrowed(&self.text);
        }
        let fits = |&i: &usize| self.text.is_char_boundary(i);
        let end = (0..=max - DOTS.len()).rev().find(fits).unwrap_or(0);
        Cow::Owned(format!("{}{DOTS}", &self.text[..end]))
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.number())
    }
}

impl std::error::Error for Exception {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_begins_with_the_name_of_the_code() {
        let e = Exception::new(ReplyCode::NotFound, "no queue 'x' in vhost '/'");

        assert_eq!(e.text, "NOT_FOUND - no queue 'x' in vhost '/'");
        assert_eq!(e.scope, Scope::Channel);
        assert_eq!(e.on_connection().scope, Scope::Connection);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let e = Exception::new(ReplyCode::NotFound, "é".repeat(200));

        let wire = e.wire_text();
        assert!(wire.len() <= 255 && wire.ends_with("..."));
        assert!(e.text.starts_with(wire.trim_end_matches('.')));
    }
}
