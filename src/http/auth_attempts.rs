//! Who tried to log in: counted by protocol, and by where it came from.

use serde_json::json;

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};
use crate::broker::Tries;

pub fn routes() -> Vec<Route> {
    const ALL: &str = "/auth/attempts/{node}";
    const SOURCES: &str = "/auth/attempts/{node}/source";
    vec![
        Route::get(ALL, Right::Monitor, "Attempts to log in, by protocol", by_protocol),
        Route::delete(ALL, Right::Monitor, "Begins to count anew", forget),
        Route::get(SOURCES, Right::Monitor, "Attempts to log in, by source", by_source),
        Route::delete(SOURCES, Right::Monitor, "Begins to count by source anew", forget_sources),
    ]
}

fn check_node(call: &Call) -> Result<(), Error> {
    if call.param("node") == call.node() { Ok(()) } else { Err(Error::NotFound) }
}

fn by_protocol(call: &Call) -> Result<Answer, Error> {
    check_node(call)?;
    let all = call.broker.attempts.by_protocol();
    let all = all.into_iter().map(|(protocol, Tries { succeeded, failed })| {
        json!({
            "protocol": protocol.name(), "auth_attempts": succeeded + failed, "auth_attempts_failed": failed,
            "auth_attempts_succeeded": succeeded,
        })
    });
    Ok(Answer::Json(all.collect()))
}

fn by_source(call: &Call) -> Result<Answer, Error> {
    check_node(call)?;
    let all = call.broker.attempts.by_source();
    let all = all.into_iter().map(|(source, Tries { succeeded, failed })| {
        json!({
            "remote_address": source.address.to_string(), "username": source.user,
            "protocol": source.protocol.name(), "auth_attempts": succeeded + failed,
            "auth_attempts_failed": failed, "auth_attempts_succeeded": succeeded,
        })
    });
    Ok(Answer::Json(all.collect()))
}

fn forget(call: &Call) -> Result<Answer, Error> {
    check_node(call)?;
    call.broker.attempts.forget();
    Ok(Answer::Done)
}

fn forget_sources(call: &Call) -> Result<Answer, Error> {
    check_node(call)?;
    call.broker.attempts.forget_sources();
    Ok(Answer::Done)
}
