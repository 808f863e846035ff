//! What happened to messages of queues whose policy says `trace-messages`.

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};

pub fn routes() -> Vec<Route> {
    const ABOUT: &str = "What happened to the messages of an id, step by step, the oldest first";
    vec![Route::get("/trails/{vhost}/{message_id}", Right::Use, ABOUT, trail).query(&[])]
}

fn trail(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    Ok(Answer::Json(vhost.trails().of(call.param("message_id").as_bytes()).into()))
}
