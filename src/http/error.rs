//! Why a request is not answered as was hoped: statuses and bodies, which are RabbitMQ's.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error;

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// Nobody has said who they are.
    Nobody,
    /// Nobody we know, or with a wrong password.
    Login,
    /// Somebody who may not; why.
    NotAuthorised(String),
    /// There is no such thing.
    NotFound,
    /// Something that the request names is not there; what.
    Missing(String),
    /// The request makes no sense; why.
    BadRequest(String),
    /// The same, where RabbitMQ's reason is no text.
    Bad(Value),
    /// The same with a word of its own for what is wrong.
    Wrong(&'static str, String),
    /// The thing is protected; why.
    Conflict(String),
    /// A check of the broker's health has failed: its whole answer.
    Unhealthy(Box<Value>),
    /// The broker is about to end.
    Stopping,
    /// The broker's own fault; what happened.
    Internal(String),
}

impl Error {
    /// A field of the body is missing.
    pub fn missing_field(name: &str) -> Error {
        Error::missing_fields(&[name])
    }

    /// What came of an operation that RabbitMQ does over AMQP for a request: who may not is told what.
    pub fn in_full(error: error::Error) -> Error {
        match error {
            error::Error::Refused { .. } => Error::NotAuthorised(format!("ACCESS_REFUSED - {error}")),
            other => other.into(),
        }
    }

    /// Fields of a body that have to be there, in RabbitMQ's words.
    pub fn missing_fields(names: &[&str]) -> Error {
        let names: Vec<String> = names.iter().map(|name| format!("{{key_missing,{name}}}")).collect();
        Error::BadRequest(format!("[{}]", names.join(",")))
    }
}

impl From<error::Error> for Error {
    fn from(error: error::Error) -> Error {
        use error::Error as E;
        let text = error.to_string();
        match error {
            E::NotFound(_) | E::NoVhost(_) | E::NoUser(_) => Error::Missing(text),
            E::Protected(_) => Error::Conflict(text),
            E::Refused { .. } | E::RefusedTopic { .. } | E::RefusedVhost { .. } | E::Reserved { .. } => {
                Error::NotAuthorised("Access refused.".into())
            }
            E::SystemExchange(_) | E::DefaultExchange => Error::NotAuthorised("Access refused.".into()),
            E::Store(_) => Error::Internal(text),
            _ => Error::BadRequest(text),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Backup { .. } => Error::BadRequest(error.to_string()),
            _ => Error::Internal(error.to_string()),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        fn body(status: StatusCode, error: &str, reason: impl Into<Value>) -> Response {
            (status, Json(json!({"error": error, "reason": reason.into()}))).into_response()
        }
        let ask = |mut response: Response| {
            let ask = header::HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
            response
        };
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            Error::Nobody => ask(StatusCode::UNAUTHORIZED.into_response()),
            // The other spelling is RabbitMQ's, and only here.
            Error::Login => ask(body(StatusCode::UNAUTHORIZED, "not_authorized", "Login failed")),
            Error::NotAuthorised(reason) => body(StatusCode::UNAUTHORIZED, "not_authorised", reason),
            Error::NotFound => body(StatusCode::NOT_FOUND, "Object Not Found", "Not Found"),
            Error::Missing(reason) => body(StatusCode::NOT_FOUND, "not_found", reason),
            Error::BadRequest(reason) => body(BAD, "bad_request", reason),
            Error::Bad(reason) => body(BAD, "bad_request", reason),
            Error::Wrong(error, reason) => body(BAD, error, reason),
            Error::Conflict(reason) => body(StatusCode::PRECONDITION_FAILED, "precondition_failed", reason),
            Error::Unhealthy(answer) => (StatusCode::SERVICE_UNAVAILABLE, Json(*answer)).into_response(),
            Error::Stopping => {
                body(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the broker is about to end")
            }
            Error::Internal(reason) => {
                body(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", reason)
            }
        }
    }
}
