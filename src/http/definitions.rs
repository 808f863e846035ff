//! Definitions: everything but messages, written out and read in.

use axum::body::Bytes;
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
        Route::get("/all-configuration", RIGHT, "The same, by its old name", get).query(&["download"]),
        Route::get("/definitions/{vhost}", RIGHT, "What is in a vhost", get_vhost).query(&["download"]),
        Route::post("/definitions", RIGHT, "Imports definitions, all of them or nothing", import)
            .body(definitions.clone(), &[])
            .upload()
            .query(&["dry_run"]),
        Route::post("/all-configuration", RIGHT, "The same, by its old name", import)
            .body(definitions.clone(), &[])
            .upload()
            .query(&["dry_run"]),
        Route::post("/definitions/{vhost}", RIGHT, "Imports what is to be in a vhost", import_vhost)
            .body(definitions, &[])
            .upload()
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

/// What is to be imported: the body, or the field `file` of a form. A body of nothing says nothing.
fn said(call: &Call) -> Result<Json, Error> {
    let empty = Bytes::new();
    let text = if call.is_upload() { call.part("file").unwrap_or(&empty) } else { call.body() };
    if text.is_empty() && !call.is_upload() {
        return Ok(json!({}));
    }
    match serde_json::from_slice(text) {
        Ok(definitions @ Json::Object(_)) => Ok(definitions),
        // RabbitMQ's word.
        Ok(_) => Err(Error::BadRequest("failed_to_parse_json".into())),
        Err(error) => Err(Error::BadRequest(format!("failed_to_parse_json: {error}"))),
    }
}

fn import_into(call: &Call, vhost: Option<&str>) -> Result<Answer, Error> {
    let definitions = said(call)?;
    let dry_run = call.is_true("dry_run");
    let diff = call.broker.import_definitions(&call.actor(), &definitions, vhost, dry_run);
    let diff = diff.map_err(|error| match error {
        crate::error::Error::Store(reason) => Error::Internal(reason),
        other => Error::BadRequest(other.to_string()),
    })?;
    match dry_run {
        true => Ok(Answer::Json(json!(diff))),
        false => match call.part("redirect").and_then(|to| std::str::from_utf8(to).ok()) {
            // A form in a page names what is shown next.
            Some(to) => Ok(Answer::SeeOther(to.into())),
            None => Ok(Answer::Done),
        },
    }
}
