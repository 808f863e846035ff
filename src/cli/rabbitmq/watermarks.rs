//! Above which use of memory, and below which rest of the disk, publishers have to wait; until the next start.

use serde_json::{Value, json};

use super::CTL;
use super::call::{Call, Fault, Result, Verb, code};
use super::output::Output;

const SECTION: &str = "Configuration and Environment";
const FRACTION: &str = "Bad argument: The threshold should be a fraction between 0.0 and 1.0";

pub const VERBS: &[Verb] = &[
    Verb {
        name: "set_vm_memory_high_watermark",
        tools: CTL,
        section: SECTION,
        about: "Sets above which use of memory publishers have to wait",
        usage: "<fraction> | absolute <value>",
        switches: &[],
        words: (1, 2),
        banner: |call| {
            let value = match memory(call) {
                Ok(_) if call.words.len() == 2 => format!("{} bytes", call.word(1)),
                Ok(_) => call.word(0).to_string(),
                Err(_) => return String::new(),
            };
            format!("Setting memory threshold on {} to {value} ...", call.node)
        },
        run: |call| set(call, memory(call)?),
    },
    Verb {
        name: "set_disk_free_limit",
        tools: CTL,
        section: SECTION,
        about: "Sets below which rest of the disk publishers have to wait",
        usage: "<disk_limit> | mem_relative <fraction>",
        switches: &[],
        words: (1, 2),
        banner: |call| {
            let value = match fraction_of_memory(call) {
                Ok(Some(part)) => format!("{part:?} times the total RAM"),
                Ok(None) => format!("{} bytes", call.word(0)),
                Err(_) => return String::new(),
            };
            format!("Setting disk free limit on {} to {value} ...", call.node)
        },
        run: |call| {
            let bytes = match fraction_of_memory(call)? {
                None => json!(call.word(0)),
                Some(part) => {
                    let total = call.get("/watermarks")?["memory_bytes_total"].as_u64().unwrap_or_default();
                    json!((total as f64 * part) as u64)
                }
            };
            set(call, json!({"disk_free_bytes_min": bytes}))
        },
    },
];

/// What the words say of memory.
fn memory(call: &Call) -> Result<Value> {
    match (call.word(0), call.words.len()) {
        ("absolute", 2) if !is_octets(call.word(1)) => {
            Err(misused(call, code::DATA, "Bad argument: Invalid units."))
        }
        ("absolute", 2) => Ok(json!({"memory_bytes_max": call.word(1)})),
        ("absolute", _) => Err(misused(call, code::USAGE, "not enough arguments.")),
        (text, 1) => match text.parse::<f64>() {
            Ok(part) if (0.0..=1.0).contains(&part) => Ok(json!({"memory_high_watermark": part})),
            Ok(_) => Err(misused(call, code::DATA, FRACTION)),
            Err(_) => Err(misused(call, code::DATA, "Bad argument.")),
        },
        _ => Err(misused(call, code::USAGE, "too many arguments.")),
    }
}

/// Which part of the memory is to be free on the disk, if the words say it so.
fn fraction_of_memory(call: &Call) -> Result<Option<f64>> {
    match (call.word(0), call.words.len()) {
        ("mem_relative", 2) => match call.word(1).parse::<f64>() {
            Ok(part) if part.is_finite() && part >= 0.0 => Ok(Some(part)),
            _ => Err(misused(call, code::DATA, "Bad argument.")),
        },
        ("mem_relative", _) => Err(misused(call, code::USAGE, "not enough arguments.")),
        (text, 1) if is_octets(text) => Ok(None),
        (_, 1) => Err(misused(call, code::DATA, "Bad argument.")),
        _ => Err(misused(call, code::USAGE, "too many arguments.")),
    }
}

/// A number, perhaps with a unit that the broker knows.
fn is_octets(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let unit_lower = unit.to_ascii_lowercase();
    let is_unit = match unit_lower.strip_suffix('b').unwrap_or(&unit_lower) {
        "" => true,
        prefix => prefix.len() <= 2 && "kmgt".contains(&prefix[..1]) && matches!(&prefix[1..], "" | "i"),
    };
    unit.len() < text.len() && unit.is_ascii() && is_unit
}

fn set(call: &Call, watermarks: Value) -> Result<Output> {
    call.put("/watermarks", &watermarks).map(|_| Output::Nothing)
}

fn misused(call: &Call, code: u8, reason: &str) -> Fault {
    let given: Vec<String> =
        [call.verb.name.to_string()].into_iter().chain(call.words.iter().cloned()).collect();
    call.misused(code, reason, &given)
}
