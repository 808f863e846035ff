//! Definitions out to a file and in from one; feature flags.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::CTL;
use super::arguments::{flag, text};
use super::call::{Call, Fault, READING, Result, Verb, code};
use super::lists::columns;
use super::output::{Output, Rows};
use crate::cli::client::path;

const DEFINITIONS: &str = "Definitions";
const FLAGS: &str = "Feature flags";

pub const VERBS: &[Verb] = &[
    Verb {
        name: "export_definitions",
        tools: CTL,
        section: DEFINITIONS,
        about: "Writes everything but messages to a file of JSON",
        usage: "<file_path | \"-\"> [--format <json | erlang>] [--timeout <timeout>]",
        switches: &[text("format")],
        words: (1, 1),
        banner: |call| match call.word(0) {
            "-" => String::new(),
            file if is_lost(file) => String::new(),
            file => format!("Exporting definitions in JSON to a file at \"{file}\" ..."),
        },
        run: export,
    },
    Verb {
        name: "import_definitions",
        tools: CTL,
        section: DEFINITIONS,
        about: "Makes what a file of JSON defines",
        usage: "<file_path | \"-\"> [--format <json | erlang>] [--skip-if-unchanged] [--timeout <timeout>]",
        switches: &[text("format"), flag("skip-if-unchanged")],
        words: (0, 1),
        banner: |call| match call.words.first().map_or("-", String::as_str) {
            "-" => "Importing definitions in JSON from standard input ...".into(),
            // What is wrong with the command line is said without a banner.
            file if !Path::new(file).exists() => String::new(),
            file => format!("Importing definitions in JSON from a file at \"{file}\" ..."),
        },
        run: import,
    },
    Verb {
        name: "list_feature_flags",
        tools: READING,
        section: FLAGS,
        about: "Lists feature flags",
        usage: "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |_| "Listing feature flags ...".into(),
        run: |call| {
            let columns = columns(call, &["name", "state"]);
            let all = call.list("/feature-flags")?;
            let rows =
                all.iter().map(|flag| columns.iter().map(|name| flag[name].clone()).collect()).collect();
            Ok(Output::Rows(Rows { columns, rows, is_stream: false }))
        },
    },
    Verb {
        name: "enable_feature_flag",
        tools: CTL,
        section: FLAGS,
        about: "Enables a feature flag, or all",
        usage: "<all | feature_flag>",
        switches: &[],
        words: (1, 1),
        banner: |call| match call.word(0) {
            "all" => "Enabling all feature flags ...".into(),
            name => format!("Enabling feature flag \"{name}\" ..."),
        },
        run: enable,
    },
];

/// A file in a folder that is not there.
fn is_lost(file: &str) -> bool {
    let folder = Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty());
    file != "-" && folder.is_some_and(|folder| !folder.is_dir())
}

fn export(call: &Call) -> Result<Output> {
    let file = call.word(0);
    let bad = |reason: String| {
        let given = [vec![call.verb.name.to_string()], call.words.clone()].concat();
        call.misused(code::DATA, &format!("Bad argument: {reason}"), &given)
    };
    if call.given.text("format").is_some_and(|format| !format.eq_ignore_ascii_case("json")) {
        return Err(bad("definitions are exported as json only".into()));
    }
    if is_lost(file) {
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        return Err(bad(format!("Directory {} does not exist", folder.display())));
    }
    let json = call.get("/definitions")?;
    if file == "-" {
        return Ok(Output::Page { text: json.to_string(), json });
    }
    fs::write(file, json.to_string())
        .map_err(|error| Fault::error(code::DATA, format!("{file} cannot be written: {error}")))?;
    Ok(Output::Nothing)
}

fn import(call: &Call) -> Result<Output> {
    let file = call.words.first().map_or("-", String::as_str);
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = match text {
        Ok(text) => text,
        Err(_) if file != "-" && !Path::new(file).exists() => {
            let given = [vec![call.verb.name.to_string()], call.words.clone()].concat();
            let reason = format!("Bad argument: File {file} does not exist");
            return Err(call.misused(code::DATA, &reason, &given));
        }
        Err(error) => return Err(Fault::error(code::DATA, format!("{file} cannot be read: {error}"))),
    };
    let definitions: Value = serde_json::from_str(&text).map_err(|error| {
        Fault::error(code::DATA, format!("Failed to deserialise input (format: JSON) (error: {error})"))
    })?;
    call.client
        .without_timeout()
        .post("/definitions", &definitions)
        .map_err(|failure| call.fault(failure))?;
    Ok(Output::said(
        "Successfully started definition import. This process is asynchronous and can take some time.",
    ))
}

fn enable(call: &Call) -> Result<Output> {
    let all = call.list("/feature-flags")?;
    let names: Vec<&str> = match call.word(0) {
        "all" => all
            .iter()
            .filter(|flag| flag["state"] == "disabled" && flag["stability"] != "experimental")
            .filter_map(|flag| flag["name"].as_str())
            .collect(),
        name if all.iter().any(|flag| flag["name"] == name) => vec![name],
        _ => {
            let text = format!("This feature flag is not supported by node {}", call.node);
            return Err(Fault::error(code::USAGE, text));
        }
    };
    for name in names {
        call.put(&path(&["feature-flags", name, "enable"]), &json!({ "name": name }))?;
    }
    Ok(Output::Nothing)
}
