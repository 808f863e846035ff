//! Definitions: everything but messages, as one file of JSON, out of a broker and into one.

use std::fs;
use std::io::Read;

use serde_json::{Value, json};

use super::client::path;
use super::command::{Argument, Given, Noun, Session, Verb, default, flag, optional};
use super::failure::{Failure, Result};
use super::table::Answer;

const FILE: Argument = optional("file", "the file; - is standard input");
const STDIN: Argument = flag("stdin", "read standard input");
const DRY_RUN: Argument = flag("dry-run", "only say what would be made and changed");
const OUT: Argument = default("file", "-", "the file; - is standard output");
const STDOUT: Argument = flag("stdout", "print to standard output");

pub const EXPORT: Verb = Verb {
    name: "export",
    about: "Writes the definitions of all vhosts to a file",
    example: "definitions export --file definitions.json",
    arguments: &[OUT, STDOUT],
    run: export,
};

pub const IMPORT: Verb = Verb {
    name: "import",
    about: "Makes what a file defines; what is there already is kept or changed, nothing is deleted",
    example: "definitions import --file definitions.json --dry-run",
    arguments: &[FILE, STDIN, DRY_RUN],
    run: import,
};

pub const NOUN: Noun = Noun {
    name: "definitions",
    aliases: &[],
    about: "Definitions: vhosts, users, queues, exchanges, bindings, policies and more, as one file of JSON",
    verbs: &[
        EXPORT,
        IMPORT,
        Verb {
            name: "export_from_vhost",
            about: "Writes the definitions of one vhost to a file",
            example: "--vhost orders definitions export_from_vhost --file orders.json",
            arguments: &[OUT, STDOUT],
            run: export_vhost,
        },
        Verb {
            name: "import_into_vhost",
            about: "Makes in one vhost what a file of one vhost defines",
            example: "--vhost orders definitions import_into_vhost --file orders.json --dry-run",
            arguments: &[FILE, STDIN, DRY_RUN],
            run: import_vhost,
        },
    ],
};

fn export(session: &Session, given: &Given) -> Result<Answer> {
    write(session.client.get("/definitions")?, given)
}

fn export_vhost(session: &Session, given: &Given) -> Result<Answer> {
    write(session.client.get(&path(&["definitions", session.vhost()]))?, given)
}

fn write(definitions: Value, given: &Given) -> Result<Answer> {
    let text = serde_json::to_string_pretty(&definitions).unwrap_or_else(|_| definitions.to_string()) + "\n";
    match given.text("file") {
        file if file != "-" && !given.flag("stdout") => {
            fs::write(file, text)
                .map_err(|error| Failure::Input(format!("{file} cannot be written: {error}")))?;
            Ok(Answer::Done(format!("definitions written to {file}")))
        }
        _ => Ok(Answer::Text(text)),
    }
}

fn import(session: &Session, given: &Given) -> Result<Answer> {
    send(session, given, "/definitions".into())
}

fn import_vhost(session: &Session, given: &Given) -> Result<Answer> {
    send(session, given, path(&["definitions", session.vhost()]))
}

fn send(session: &Session, given: &Given, path: String) -> Result<Answer> {
    let definitions = read(given)?;
    if !given.flag("dry-run") {
        session.client.without_timeout().post(&path, &definitions)?;
        return Ok(Answer::Done("definitions imported".into()));
    }
    // IMPORTANT: a RabbitMQ passes over ?dry_run and would import.
    let overview = session.client.get("/overview")?;
    if overview["product_name"] != "Garenne" {
        let text =
            format!("{} is no Garenne: it has no dry run, and nothing was sent", session.client.base());
        return Err(Failure::Input(text));
    }
    let answer = session.client.post(&format!("{path}?dry_run=true"), &definitions)?;
    let rows_of = |what: &str| -> Vec<Value> {
        let items = answer[what].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|item| json!({ "action": what, "what": item })).collect()
    };
    let mut rows = [rows_of("create"), rows_of("change")].concat();
    rows.push(json!({ "action": "same", "what": answer["same"] }));
    Ok(Answer::Rows { rows, columns: &["action", "what"] })
}

fn read(given: &Given) -> Result<Value> {
    let (name, text) = match (given.maybe("file"), given.flag("stdin")) {
        (Some("-"), _) | (None, true) => {
            let mut text = String::new();
            ("standard input", std::io::stdin().read_to_string(&mut text).map(|_| text))
        }
        (Some(file), false) => (file, fs::read_to_string(file)),
        (Some(_), true) => return Err(Failure::Usage("--file and --stdin exclude each other".into())),
        (None, false) => return Err(Failure::Usage("say what to import: --file FILE or --stdin".into())),
    };
    let text = text.map_err(|error| Failure::Input(format!("{name} cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::Input(format!("{name} is no JSON: {error}")))
}
