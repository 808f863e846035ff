//! Why a request is not answered as was hoped: statuses and bodies, which are RabbitMQ's.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody, or with a wrong password.
    Login,
    /// Somebody who may not; why.
    NotAuthorised(String),
    /// There is no such thing.
    NotFound,
    /// The request makes no sense; why.
    BadRequest(String),
    /// The thing is protected, or in use; why.
    Conflict(String),
    /// A check of the broker's health has failed: its whole answer.
    Unhealthy(Box<serde_json::Value>),
    /// The broker is about to end.
    Stopping,
    /// The broker's own fault; what happened.
    Internal(String),
}

impl From<error::Error> for Error {
    fn from(error: error::Error) -> Error {
        use error::Error as E;
        let text = error.to_string();
        match error {
            E::NotFound(_) | E::NoVhost(_) => Error::NotFound,
            E::Refused { .. } | E::RefusedTopic { .. } | E::RefusedVhost { .. } | E::Reserved { .. } => {
                Error::NotAuthorised(text)
            }
            E::SystemExchange(_) | E::DefaultExchange => Error::NotAuthorised(text),
            E::Store(_) => Error::Internal(text),
            _ => Error::BadRequest(text),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        Error::Internal(error.to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = |status: StatusCode, error: &str, reason: &str| {
            (status, Json(json!({"error": error, "reason": reason}))).into_response()
        };
        match self {
            Error::Login => {
                let mut response = body(StatusCode::UNAUTHORIZED, "not_authorised", "Login failed");
                let ask = header::HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
                response
            }
            Error::NotAuthorised(reason) => body(StatusCode::UNAUTHORIZED, "not_authorised", &reason),
            Error::NotFound => body(StatusCode::NOT_FOUND, "Object Not Found", "Not Found"),
            Error::BadRequest(reason) => body(StatusCode::BAD_REQUEST, "bad_request", &reason),
            Error::Conflict(reason) => body(StatusCode::PRECONDITION_FAILED, "precondition_failed", &reason),
            Error::Unhealthy(answer) => (StatusCode::SERVICE_UNAVAILABLE, Json(*answer)).into_response(),
            Error::Stopping => {
                body(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the broker is about to end")
            }
            Error::Internal(reason) => {
                body(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", &reason)
            }
        }
    }
}
