//! The document that describes the API to programs (OpenAPI 3.0), made from the routes.

use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Format, Right, Route};

pub fn routes() -> Vec<Route> {
    vec![Route::get("/openapi.json", Right::Nobody, "This document", get).query(&[])]
}

fn get(call: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(document(&call.broker.config.http_path_prefix)))
}

/// The whole document of an API that stands below this prefix.
fn document(prefix: &str) -> Json {
    let mut paths: Map<String, Json> = Map::new();
    for route in super::routes() {
        let path = paths.entry(format!("/api{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(&route);
    }
    let mut document = json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Garenne",
            "description": "RabbitMQ's management API, and what Garenne adds to it.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "security": [{"basic": []}],
        "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
        "paths": paths,
    });
    if !prefix.is_empty() {
        document["servers"] = json!([{"url": prefix}]);
    }
    document
}

fn operation(route: &Route) -> Json {
    let named = |place: &str, name: &str, kind: Json| json!({"name": name, "in": place, "required": place == "path", "schema": kind});
    let in_path = route.path.split(['{', '}']).skip(1).step_by(2);
    let in_path = in_path.map(|name| named("path", name, json!({"type": "string", "minLength": 1})));
    let in_query = route.query.iter().map(|name| {
        let kind = match *name {
            "page" | "page_size" | "max" => json!({"type": "integer", "minimum": 1, "maximum": 500}),
            "sort_reverse" | "use_regex" | "pagination" | "if-unused" | "if-empty" | "dry_run" => {
                json!({"type": "boolean"})
            }
            _ => json!({"type": "string"}),
        };
        named("query", name, kind)
    });
    let is_read = route.method == axum::http::Method::GET;
    let mut responses = Map::new();
    let mut may = |status: &str, text: &str| {
        responses.insert(status.into(), json!({"description": text}));
    };
    match is_read {
        true => may("200", "What was asked for"),
        false => {
            may("200", "Done, and what came of it");
            may("201", "It was made");
            may("204", "Done");
        }
    }
    may("400", "The request makes no sense; the reason says why");
    may("404", "There is no such thing");
    may("405", "There is no such method here");
    may("412", "It is protected, or in use");
    may("503", "A check has failed");
    if route.right != Right::Nobody {
        may("401", "Nobody we know, or not allowed; the reason says why");
    }
    let mut operation = json!({
        "summary": route.about,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    });
    if route.right == Right::Nobody {
        operation["security"] = json!([]);
    }
    if !route.body.is_null() {
        let mut schema = schema(&route.body);
        if !route.required.is_empty() {
            schema["required"] = json!(route.required);
        }
        let file = json!({"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}});
        let content = match route.format {
            Format::Json => json!({"application/json": {"schema": schema}}),
            Format::JsonOrUpload => {
                json!({"application/json": {"schema": schema}, "multipart/form-data": {"schema": file}})
            }
            Format::Form => json!({"application/x-www-form-urlencoded": {"schema": schema}}),
        };
        operation["requestBody"] = json!({"required": !route.required.is_empty(), "content": content});
    }
    operation
}

/// What a value like this one is.
fn schema(example: &Json) -> Json {
    match example {
        Json::Null => json!({}),
        Json::Bool(_) => json!({"type": "boolean"}),
        Json::Number(_) => json!({"type": "integer"}),
        Json::String(_) => json!({"type": "string"}),
        Json::Array(items) => json!({"type": "array", "items": items.first().map_or(json!({}), schema)}),
        Json::Object(fields) => {
            let properties: Map<String, Json> =
                fields.iter().map(|(name, value)| (name.clone(), schema(value))).collect();
            json!({"type": "object", "properties": properties})
        }
    }
}
