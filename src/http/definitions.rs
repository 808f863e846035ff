//! Definitions: everything but messages, written out and read in.

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};

pub fn routes() -> Vec<Route> {
    const RIGHT: Right = Right::Administer;
    let definitions = json!({
        "users": [{}], "vhosts": [{}], "permissions": [{}], "topic_permissions": [{}], "parameters": [{}],
        "global_parameters": [{}], "policies": [{}], "queues": [{}], "exchanges": [{}], "bindings": [{}],
    });
    vec![
        Route::get("/definitions", RIGHT, "All definitions", get).query(&["download"]),
        Route::get("/definitions/{vhost}", RIGHT, "What is in a vhost", get_vhost).query(&["download"]),
        Route::post("/definitions", RIGHT, "Imports definitions, all of them or nothing", import)
            .body(definitions.clone(), &[])
            .query(&["dry_run"]),
        Route::post("/definitions/{vhost}", RIGHT, "Imports what is to be in a vhost", import_vhost)
            .body(definitions, &[])
            .query(&["dry_run"]),
    ]
}

fn get(call: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(call.broker.export_definitions(None)?))
}

fn get_vhost(call: &Call) -> Result<Answer, Error> {
    let exported = call.broker.export_definitions(Some(call.param("vhost")));
    // RabbitMQ's status.
    exported.map(Answer::Json).map_err(|_| Error::BadRequest("vhost_not_found".into()))
}

fn import(call: &Call) -> Result<Answer, Error> {
    import_into(call, None)
}

fn import_vhost(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    import_into(call, Some(vhost.name()))
}

fn import_into(call: &Call, vhost: Option<&str>) -> Result<Answer, Error> {
    let definitions: Json = serde_json::from_slice(call.body())
        .map_err(|error| Error::BadRequest(format!("failed_to_parse_json: {error}")))?;
    let dry_run = call.is_true("dry_run");
    let diff = call.broker.import_definitions(&call.actor(), &definitions, vhost, dry_run);
    let diff = diff.map_err(|error| match error {
        crate::error::Error::Store(reason) => Error::Internal(reason),
        other => Error::BadRequest(other.to_string()),
    })?;
    match dry_run {
        true => Ok(Answer::Json(json!(diff))),
        false => Ok(Answer::Done),
    }
}
