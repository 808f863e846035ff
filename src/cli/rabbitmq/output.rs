//! What RabbitMQ's tools print: tables with tabs, JSON by lines, CSV in quotes, and tables with borders.

use comfy_table::{Table, presets};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Formatter {
    Table,
    PrettyTable,
    Json,
    Csv,
}

impl Formatter {
    pub fn named(name: &str) -> Option<Formatter> {
        match name {
            // "string" prints a message as it is, which the table does too.
            "table" | "string" | "string_per_line" | "plugins" | "report" => Some(Formatter::Table),
            "pretty_table" => Some(Formatter::PrettyTable),
            // JSON of a stream is a line a row; so is "json_stream".
            "json" | "json_stream" => Some(Formatter::Json),
            "csv" => Some(Formatter::Csv),
            _ => None,
        }
    }
}

/// What a command found out.
#[derive(Debug, PartialEq)]
pub enum Output {
    Nothing,
    /// A sentence, and the same for programs.
    Message {
        text: String,
        json: Value,
    },
    /// Rows in the order of the columns.
    Rows(Rows),
    /// A page of text, and an object for programs.
    Page {
        text: String,
        json: Value,
    },
}

#[derive(Debug, PartialEq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    /// Without rows nothing is printed at all; other lists print an empty line.
    pub is_stream: bool,
}

impl Output {
    pub fn said(text: impl Into<String>) -> Output {
        let text = text.into();
        let json = serde_json::json!({ "message": text });
        Output::Message { text, json }
    }

    pub fn render(&self, formatter: Formatter, has_header: bool, node: &str) -> String {
        match (self, formatter) {
            (Output::Nothing, Formatter::Json) => {
                format!("{}\n", serde_json::json!({ "node": node, "result": "ok" }))
            }
            (Output::Nothing, _) => String::new(),
            (Output::Message { json, .. } | Output::Page { json, .. }, Formatter::Json) => {
                format!("{json}\n")
            }
            (Output::Message { text, .. }, _) => format!("{text}\n"),
            (Output::Page { text, .. }, _) => text.clone(),
            (Output::Rows(rows), Formatter::Json) => json_lines(rows),
            (Output::Rows(rows), Formatter::Csv) => csv(rows),
            (Output::Rows(rows), Formatter::Table) => tabs(rows, has_header),
            (Output::Rows(rows), Formatter::PrettyTable) => pretty(rows),
        }
    }
}

fn tabs(rows: &Rows, has_header: bool) -> String {
    if rows.rows.is_empty() {
        return if rows.is_stream { String::new() } else { "\n".to_string() };
    }
    let header = has_header && !rows.columns.is_empty();
    let mut lines: Vec<String> = if header { vec![rows.columns.join("\t")] } else { Vec::new() };
    for row in &rows.rows {
        lines.push(row.iter().map(term).collect::<Vec<_>>().join("\t"));
    }
    lines.join("\n") + "\n"
}

/// A value as Erlang would write it, in a table.
pub fn term(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escaped(text),
        Value::Array(items) => format!("[{}]", items.iter().map(term).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => arguments(map),
        other => other.to_string(),
    }
}

/// `[{"x-max-length",10},{"x","y"}]`
fn arguments(map: &Map<String, Value>) -> String {
    let quoted = |value: &Value| match value {
        Value::String(text) => format!("\"{}\"", escaped(text)),
        Value::Null => "undefined".to_string(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items = items.iter().map(|item| format!("\"{}\"", item.as_str().unwrap_or_default()));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        other => term(other),
    };
    let pairs = map.iter().map(|(key, value)| format!("{{\"{}\",{}}}", escaped(key), quoted(value)));
    format!("[{}]", pairs.collect::<Vec<_>>().join(","))
}

/// Control characters and backslashes in octal, so that a line stays a line.
fn escaped(text: &str) -> String {
    let octal = |c: char| format!("\\{:03o}", c as u32);
    let one = |c: char| match c {
        '\\' => "\\\\".to_string(),
        c if c.is_control() => octal(c),
        c => c.to_string(),
    };
    text.chars().map(one).collect()
}

fn json_lines(rows: &Rows) -> String {
    let object = |row: &Vec<Value>| {
        let pair =
            |(key, value): (&String, &Value)| format!("{}:{}", Value::from(key.as_str()), of_rabbitmq(value));
        format!("{{{}}}", rows.columns.iter().zip(row).map(pair).collect::<Vec<_>>().join(","))
    };
    let lines: Vec<String> = rows.rows.iter().map(object).collect();
    match (lines.is_empty(), rows.is_stream) {
        (true, true) => "[\n]\n".to_string(),
        (true, false) => "[]\n".to_string(),
        (false, _) => format!("[\n{}\n]\n", lines.join("\n,")),
    }
}

/// Tables of AMQP as rabbitmqctl has them in JSON: a list of names, types and values.
fn of_rabbitmq(value: &Value) -> Value {
    let Value::Object(map) = value else {
        return if value.is_null() { Value::from("") } else { value.clone() };
    };
    let kind = |value: &Value| match value {
        Value::String(_) => "longstr",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(_) => "signedint",
        Value::Array(_) => "array",
        Value::Object(_) => "table",
        Value::Null => "void",
    };
    let triple = |(key, value): (&String, &Value)| {
        Value::Array(vec![key.as_str().into(), kind(value).into(), of_rabbitmq(value)])
    };
    Value::Array(map.iter().map(triple).collect())
}

fn csv(rows: &Rows) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let cell = |value: &Value| quoted(&term(value));
    let mut lines = vec![rows.columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",")];
    if rows.rows.is_empty() {
        lines.clear();
    }
    lines.extend(rows.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",")));
    lines.into_iter().map(|line| line + "\n").collect()
}

fn pretty(rows: &Rows) -> String {
    if rows.rows.is_empty() {
        return if rows.is_stream { String::new() } else { "\n".to_string() };
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(&rows.columns);
    for row in &rows.rows {
        table.add_row(row.iter().map(term));
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Output {
        Output::Rows(Rows {
            columns: vec!["name".into(), "arguments".into(), "messages".into()],
            rows: vec![
                vec![json!("q1"), json!({"x": "y", "n": 1}), json!(5)],
                vec![json!("a\tb"), json!({}), json!(null)],
            ],
            is_stream: true,
        })
    }

    /// As rabbitmqctl 3.10.8 prints the same rows.
    #[test]
    fn rows_are_printed_as_rabbitmqctl_prints_them() {
        let check = |formatter, has_header, expected: &str| {
            assert_eq!(rows().render(formatter, has_header, "n"), expected);
        };

        check(
            Formatter::Table,
            true,
            "name\targuments\tmessages\nq1\t[{\"n\",1},{\"x\",\"y\"}]\t5\na\\011b\t[]\t\n",
        );
        check(Formatter::Table, false, "q1\t[{\"n\",1},{\"x\",\"y\"}]\t5\na\\011b\t[]\t\n");
        check(
            Formatter::Json,
            true,
            "[\n{\"name\":\"q1\",\"arguments\":[[\"n\",\"signedint\",1],[\"x\",\"longstr\",\"y\"]],\"messages\":5}\n\
             ,{\"name\":\"a\\tb\",\"arguments\":[],\"messages\":\"\"}\n]\n",
        );
        check(
            Formatter::Csv,
            true,
            "\"name\",\"arguments\",\"messages\"\n\"q1\",\"[{\"\"n\"\",1},{\"\"x\"\",\"\"y\"\"}]\",\"5\"\n\"a\\011b\",\"[]\",\"\"\n",
        );
    }

    #[test]
    fn an_empty_stream_prints_nothing_and_an_empty_list_a_line() {
        let empty =
            |is_stream| Output::Rows(Rows { columns: vec!["name".into()], rows: Vec::new(), is_stream });

        assert_eq!(empty(true).render(Formatter::Table, true, "n"), "");
        assert_eq!(empty(false).render(Formatter::Table, true, "n"), "\n");
        assert_eq!(empty(true).render(Formatter::Json, true, "n"), "[\n]\n");
    }

    #[test]
    fn tags_are_a_list_of_words() {
        assert_eq!(term(&json!(["management", "policymaker"])), "[management, policymaker]");
    }
}
