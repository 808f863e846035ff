//! The watermarks above or below which publishers have to wait, until the next start: memory and disk.

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};
use crate::config::parse_bytes;

pub fn routes() -> Vec<Route> {
    const SET: &str = "Changes them until the next start";
    let example =
        json!({"memory_high_watermark": 0.4, "memory_bytes_max": "2GB", "disk_free_bytes_min": "50MB"});
    vec![
        Route::get("/watermarks", Right::Administer, "Above which publishers have to wait", get).query(&[]),
        Route::put("/watermarks", Right::Administer, SET, put).body(example, &[]),
    ]
}

fn get(call: &Call) -> Result<Answer, Error> {
    let budget = call.broker.budget();
    Ok(Answer::Json(json!({
        "memory_high_watermark": budget.high_watermark(), "memory_bytes_max": budget.limit_bytes(),
        "memory_bytes_total": budget.total_bytes(), "disk_free_bytes_min": budget.disk_free_bytes_min(),
    })))
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let wrong = |name: &str, value: &Json, may: &str| {
        Error::BadRequest(format!("{name} is {value}, and must be {may}"))
    };
    let part = match body.get("memory_high_watermark") {
        None | Some(Json::Null) => None,
        Some(value) => match value.as_f64().filter(|part| (0.0..=1.0).contains(part)) {
            Some(part) => Some(part),
            None => return Err(wrong("memory_high_watermark", value, "a part between 0 and 1")),
        },
    };
    let octets = |name: &str| match body.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            let bytes = value.as_u64().or_else(|| parse_bytes(value.as_str()?));
            bytes.map(Some).ok_or_else(|| wrong(name, value, "octets, such as 134217728, 128MiB or 1GB"))
        }
    };
    let (memory, disk) = (octets("memory_bytes_max")?, octets("disk_free_bytes_min")?);
    if part.is_some() && memory.is_some() {
        let text = "memory_high_watermark and memory_bytes_max are both given, and mean the same: give one";
        return Err(Error::BadRequest(text.into()));
    }
    let budget = call.broker.budget();
    part.into_iter().for_each(|part| budget.set_high_watermark(part));
    memory.into_iter().for_each(|bytes| budget.set_limit_bytes(bytes));
    disk.into_iter().for_each(|bytes| budget.set_disk_free_bytes_min(bytes));
    tracing::info!(
        target: "audit", user = call.who.name(), memory_bytes_max = budget.limit_bytes(),
        disk_free_bytes_min = budget.disk_free_bytes_min(), "the watermarks are changed until the next start"
    );
    Ok(Answer::Done)
}
