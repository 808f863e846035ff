//! What a resource answers, and its way to the client: short answers at once, long ones as they are made.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::error::Error;

/// An answer that is longer is sent while it is made, in pieces of about this size, in octets.
const PIECE_BYTES: usize = 64 * 1024;

/// So many pieces may wait for a client to read them.
const PIECES_MAX: usize = 4;

/// How long a client may take to read a piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// Things, described one after the other when they are written.
pub type Items = Box<dyn Iterator<Item = Json> + Send>;

/// An answer.
pub enum Answer {
    /// 200 with a value.
    Json(Json),
    /// 200 with things; with what stands around a page of them.
    List { items: Items, around: Option<Json> },
    /// 201: it was made.
    Created(Option<String>),
    /// 204: done.
    Done,
    /// 303: done, and this is where to go on.
    SeeOther(String),
}

impl Answer {
    /// 201 for what is new, 204 for what was there.
    pub fn put(is_new: bool) -> Answer {
        if is_new { Answer::Created(None) } else { Answer::Done }
    }
}

/// Where pieces of a body go. It is begun when there is more than one piece.
struct Sink {
    buffer: Vec<u8>,
    start: Option<oneshot::Sender<Response>>,
    kind: HeaderValue,
    pieces: Option<mpsc::Sender<Result<Bytes, std::io::Error>>>,
}

/// The client has gone, or does not read.
struct Gone;

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if let Some(start) = self.start.take() {
            let (pieces, body) = mpsc::channel(PIECES_MAX);
            self.pieces = Some(pieces);
            let body = Body::from_stream(ReceiverStream::new(body));
            start.send(with_kind(body.into_response(), self.kind.clone())).map_err(|_| Gone)?;
        }
        let Some(pieces) = &self.pieces else { return Err(Gone) };
        let piece = Ok(Bytes::from(std::mem::take(&mut self.buffer)));
        let sending = pieces.send_timeout(piece, PIECE_TIMEOUT);
        tokio::runtime::Handle::current().block_on(sending).map_err(|_| Gone)
    }

    fn finish(mut self) {
        match self.start.take() {
            Some(start) => {
                let body = Body::from(std::mem::take(&mut self.buffer));
                // Nobody waits for it if that fails.
                let _ = start.send(with_kind(body.into_response(), self.kind));
            }
            None => drop(self.flush()),
        }
    }
}

fn with_kind(mut response: Response, kind: HeaderValue) -> Response {
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An answer without a body, and where what it speaks of is.
fn leading(status: StatusCode, location: Option<String>) -> Response {
    let mut response = status.into_response();
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Sends an answer; returns when the last of it has been handed over.
pub fn send(answered: Result<Answer, Error>, start: oneshot::Sender<Response>) {
    const JSON: &str = "application/json";
    let sink = |start, kind| Sink {
        buffer: Vec::new(),
        start: Some(start),
        kind: HeaderValue::from_static(kind),
        pieces: None,
    };
    let outcome = match answered {
        Err(error) => return drop(start.send(error.into_response())),
        Ok(Answer::Done) => return drop(start.send(StatusCode::NO_CONTENT.into_response())),
        Ok(Answer::Created(location)) => return drop(start.send(leading(StatusCode::CREATED, location))),
        Ok(Answer::SeeOther(to)) => return drop(start.send(leading(StatusCode::SEE_OTHER, Some(to)))),
        Ok(Answer::Json(value)) => {
            let mut sink = sink(start, JSON);
            sink.buffer = value.to_string().into_bytes();
            return sink.finish();
        }
        Ok(Answer::List { items, around }) => list(sink(start, JSON), items, around),
    };
    // A client that does not read on gets no more.
    if let Ok(sink) = outcome {
        sink.finish();
    }
}

fn list(mut sink: Sink, items: Items, around: Option<Json>) -> Result<Sink, Gone> {
    let has_around = around.is_some();
    if let Some(around) = around {
        let text = around.to_string();
        sink.write(text.trim_end_matches('}').as_bytes())?;
        sink.write(b",\"items\":")?;
    }
    sink.write(b"[")?;
    for (n, item) in items.enumerate() {
        if n > 0 {
            sink.write(b",")?;
        }
        sink.write(item.to_string().as_bytes())?;
    }
    sink.write(b"]")?;
    if has_around {
        sink.write(b"}")?;
    }
    Ok(sink)
}
