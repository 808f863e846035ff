//! What the broker refuses, as the reply codes that clients know.

use amqp::{Exception, ReplyCode};

use crate::error::Error;

/// An exception and the method that caused it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What goes to the client.
    pub exception: Exception,
    /// The class of the method; 0 if no method is to blame.
    pub class_id: u16,
    /// The method.
    pub method_id: u16,
}

impl Failure {
    /// Blames a method.
    pub fn of(exception: Exception, (class_id, method_id): (u16, u16)) -> Self {
        Failure { exception, class_id, method_id }
    }

    /// Blames no method.
    pub fn of_none(exception: Exception) -> Self {
        Failure::of(exception, (0, 0))
    }
}

impl From<Error> for Exception {
    fn from(error: Error) -> Exception {
        let code = match &error {
            Error::NotFound(_) => ReplyCode::NotFound,
            Error::Mismatch(_) | Error::InUse(_) | Error::NotEmpty(_) | Error::Invalid(_) => {
                ReplyCode::PreconditionFailed
            }
            Error::Refused { .. }
            | Error::RefusedTopic { .. }
            | Error::SystemExchange(_)
            | Error::Reserved { .. }
            | Error::DefaultExchange
            | Error::InternalExchange(_)
            | Error::ExclusiveUse(_) => ReplyCode::AccessRefused,
            Error::RefusedVhost { .. } | Error::NoVhost(_) | Error::Limit(_) => ReplyCode::NotAllowed,
            Error::NoUser(_) | Error::Protected(_) => ReplyCode::AccessRefused,
            Error::Locked(_) => ReplyCode::ResourceLocked,
            Error::UnknownKind(_) => ReplyCode::CommandInvalid,
            Error::Store(_) => ReplyCode::InternalError,
        };
        Exception::new(code, error)
    }
}
