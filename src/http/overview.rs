//! The broker as a whole: `/overview`, who one is, and small facts that tools ask for first.

use serde_json::json;

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/whoami", Right::Any, "Who one is, and with which tags", whoami),
        Route::get("/version", Right::Any, "The version", version),
    ]
}

fn whoami(call: &Call) -> Result<Answer, Error> {
    let user = call.who.user()?;
    Ok(Answer::Json(json!({"name": &*user.name, "tags": user.tags, "is_internal_user": true})))
}

fn version(_: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(json!(env!("CARGO_PKG_VERSION"))))
}
