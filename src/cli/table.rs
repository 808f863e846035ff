//! How answers are printed: tables for people, JSON and CSV for programs.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, TableStyle, presets};
use serde_json::{Map, Value};

use super::failure::{Failure, Result};

/// What a command found.
#[derive(Debug)]
pub enum Answer {
    /// A list of objects and the columns of it that people want to see.
    Rows { rows: Vec<Value>, columns: &'static [&'static str] },
    /// One object: a line a field. Without names: all of them.
    Fields { object: Value, columns: &'static [&'static str] },
    /// It is done; a sentence for people. Programs see the exit code.
    Done(String),
    /// Printed as it is, whatever the format.
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Style {
    Modern,
    Borderless,
    Ascii,
    Dots,
    Psql,
    Markdown,
    Sharp,
}

pub const FORMATS: &[&str] = &["table", "json", "csv"];
pub const STYLES: &[&str] = &["modern", "borderless", "ascii", "dots", "psql", "markdown", "sharp"];

impl Format {
    pub fn named(name: &str) -> Format {
        match name {
            "json" => Format::Json,
            "csv" => Format::Csv,
            _ => Format::Table,
        }
    }
}

impl Style {
    pub fn named(name: &str) -> Style {
        match name {
            "borderless" => Style::Borderless,
            "ascii" => Style::Ascii,
            "dots" => Style::Dots,
            "psql" => Style::Psql,
            "markdown" => Style::Markdown,
            "sharp" => Style::Sharp,
            _ => Style::Modern,
        }
    }

    fn preset(self) -> TableStyle {
        match self {
            Style::Modern => presets::UTF8_FULL_CONDENSED,
            Style::Sharp => presets::UTF8_FULL,
            Style::Borderless => presets::NOTHING,
            Style::Ascii => presets::ASCII_FULL_CONDENSED,
            Style::Dots => presets::ASCII_HORIZONTAL_ONLY,
            Style::Psql => presets::ASCII_NO_BORDERS,
            Style::Markdown => presets::ASCII_MARKDOWN,
        }
    }
}

pub struct Printing {
    pub format: Format,
    pub style: Style,
    /// No sentences, no borders that carry no data.
    pub is_quiet: bool,
    /// For scripts: neither borders nor a header.
    pub is_bare: bool,
    /// `--columns`.
    pub columns: Option<Vec<String>>,
    /// Somebody looks: long cells are wrapped at the width of the terminal.
    pub is_terminal: bool,
}

impl Printing {
    pub fn print(&self, answer: Answer) -> Result<()> {
        let text = self.render(answer)?;
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // `garennectl ... | head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::Output(error.to_string())),
        }
    }

    pub fn render(&self, answer: Answer) -> Result<String> {
        match answer {
            Answer::Text(text) => Ok(text),
            Answer::Done(sentence) if self.is_quiet || self.format != Format::Table => {
                drop(sentence);
                Ok(String::new())
            }
            Answer::Done(sentence) => Ok(format!("{sentence}\n")),
            Answer::Rows { rows, columns } => match self.format {
                Format::Json => Ok(pretty(&Value::Array(self.reduced(rows)))),
                Format::Csv => csv_of(&self.names(columns, &rows), &rows),
                Format::Table => Ok(self.table(&self.names(columns, &rows), &rows)),
            },
            Answer::Fields { object, columns } => match self.format {
                Format::Json => Ok(pretty(&self.reduced(vec![object]).pop().unwrap_or(Value::Null))),
                Format::Csv | Format::Table => {
                    let one = [object];
                    let lines: Vec<Value> = self
                        .names(columns, &one)
                        .iter()
                        .map(|name| serde_json::json!({"key": name, "value": cell(at(&one[0], name))}))
                        .collect();
                    let header = ["key".to_string(), "value".to_string()];
                    if self.format == Format::Csv {
                        csv_of(&header, &lines)
                    } else {
                        Ok(self.table(&header, &lines))
                    }
                }
            },
        }
    }

    /// The columns asked for, or those that the command suggests, or all that there are.
    fn names(&self, suggested: &[&str], rows: &[Value]) -> Vec<String> {
        if let Some(columns) = &self.columns {
            return columns.clone();
        }
        if !suggested.is_empty() {
            return suggested.iter().map(|name| name.to_string()).collect();
        }
        let mut names: Vec<String> = Vec::new();
        for key in rows.iter().filter_map(Value::as_object).flat_map(Map::keys) {
            if !names.contains(key) {
                names.push(key.clone());
            }
        }
        names
    }

    fn reduced(&self, rows: Vec<Value>) -> Vec<Value> {
        let Some(columns) = &self.columns else { return rows };
        let pick = |row: &Value| columns.iter().map(|name| (name.clone(), at(row, name).clone())).collect();
        rows.iter().map(|row| Value::Object(pick(row))).collect()
    }

    fn table(&self, names: &[String], rows: &[Value]) -> String {
        if rows.is_empty() && !self.is_bare {
            return if self.is_quiet { String::new() } else { "nothing to list\n".to_string() };
        }
        let mut table = Table::new();
        table.load_style(if self.is_bare { presets::NOTHING } else { self.style.preset() });
        let arrangement =
            if self.is_terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        table.set_content_arrangement(arrangement);
        if !self.is_bare {
            table.set_header(names);
        }
        for row in rows {
            table.add_row(names.iter().map(|name| printable(&cell(at(row, name)))));
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
        if lines.is_empty() { String::new() } else { lines.join("\n") + "\n" }
    }
}

/// A field, also one within another: `message_stats.publish`. A key with dots in it wins.
pub fn at<'a>(row: &'a Value, name: &str) -> &'a Value {
    if let Some(value) = row.get(name) {
        return value;
    }
    match name.split_once('.') {
        Some((first, rest)) => row.get(first).map_or(&Value::Null, |inner| at(inner, rest)),
        None => &Value::Null,
    }
}

/// What stands in a table or CSV for a value: text without quotes, lists of words with commas, the rest as JSON.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Value::Object(map) if map.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// Payloads and names may hold anything; a terminal must not obey them.
fn printable(text: &str) -> String {
    let is_harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_harmful) {
        return text.to_string();
    }
    text.chars().map(|c| if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()) + "\n"
}

fn csv_of(names: &[String], rows: &[Value]) -> Result<String> {
    let failed = |error: csv::Error| Failure::Output(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(names).map_err(failed)?;
    for row in rows {
        writer.write_record(names.iter().map(|name| cell(at(row, name)))).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::Output(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Failure::Output(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printing(format: Format) -> Printing {
        Printing {
            format,
            style: Style::Ascii,
            is_quiet: false,
            is_bare: false,
            columns: None,
            is_terminal: false,
        }
    }

    fn rows() -> Answer {
        let rows = vec![
            json!({"name": "a", "messages": 3, "stats": {"publish": 1}}),
            json!({"name": "b, \"c\"", "messages": null, "arguments": {"x-max-length": 10}}),
        ];
        Answer::Rows { rows, columns: &["name", "messages", "stats.publish", "arguments"] }
    }

    #[test]
    fn people_see_a_table_with_the_suggested_columns() {
        let text = printing(Format::Table).render(rows()).expect("text");

        assert!(text.contains("| name   | messages | stats.publish | arguments           |"), "{text}");
        assert!(text.contains("| b, \"c\" |          |               | {\"x-max-length\":10} |"), "{text}");
    }

    #[test]
    fn programs_see_json_and_csv() {
        let csv = printing(Format::Csv).render(rows()).expect("csv");
        let json = printing(Format::Json).render(rows()).expect("json");

        assert_eq!(
            csv,
            "name,messages,stats.publish,arguments\na,3,1,\n\"b, \"\"c\"\"\",,,\"{\"\"x-max-length\"\":10}\"\n"
        );
        let parsed: Value = serde_json::from_str(&json).expect("json");
        assert_eq!(parsed[0]["stats"]["publish"], 1);
    }

    #[test]
    fn columns_are_chosen_in_every_format() {
        let columns = Some(vec!["stats.publish".to_string()]);
        let json =
            Printing { columns: columns.clone(), ..printing(Format::Json) }.render(rows()).expect("json");
        let csv = Printing { columns, ..printing(Format::Csv) }.render(rows()).expect("csv");

        assert_eq!(serde_json::from_str::<Value>(&json).expect("json")[0], json!({"stats.publish": 1}));
        assert_eq!(csv, "stats.publish\n1\n\"\"\n");
    }

    #[test]
    fn an_empty_list_is_an_empty_list_for_programs_and_a_word_for_people() {
        let empty = || Answer::Rows { rows: Vec::new(), columns: &["name"] };

        assert_eq!(printing(Format::Json).render(empty()).expect("json"), "[]\n");
        assert_eq!(printing(Format::Csv).render(empty()).expect("csv"), "name\n");
        assert_eq!(printing(Format::Table).render(empty()).expect("table"), "nothing to list\n");
    }

    #[test]
    fn a_terminal_does_not_obey_what_stands_in_a_message() {
        let rows = vec![json!({"payload": "\u{1b}[2Jx"})];

        let text =
            printing(Format::Table).render(Answer::Rows { rows, columns: &["payload"] }).expect("text");

        assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}[2Jx"), "{text}");
    }

    #[test]
    fn what_was_done_is_said_to_people_only() {
        let done = || Answer::Done("queue 'q' purged".into());

        assert_eq!(printing(Format::Table).render(done()).expect("text"), "queue 'q' purged\n");
        assert_eq!(printing(Format::Json).render(done()).expect("text"), "");
        assert_eq!(Printing { is_quiet: true, ..printing(Format::Table) }.render(done()).expect("text"), "");
    }
}
