//! Lists: of one vhost or of all, whole or by pages, sorted, and with only the columns that are printed.

use serde_json::Value;

use super::client::{path, with_query};
use super::command::{Argument, Given, Session, flag, number, optional};
use super::failure::{Failure, Result};
use super::table::{Answer, Format};

pub const PAGES: &[Argument] = &[
    number("page", "which page"),
    number("page-size", "how many a page (at most 500)"),
    optional("name-pattern", "only those whose name matches this regular expression"),
    optional("sort", "the column to sort by"),
    flag("sort-reverse", "sort downwards"),
];

const PAGE_SIZE_MAX: u64 = 500;

/// `/queues`, or `/queues/{vhost}` when a vhost was named.
pub fn scoped(session: &Session, what: &str) -> String {
    match &session.named_vhost {
        Some(vhost) => path(&[what, vhost]),
        None => path(&[what]),
    }
}

pub fn list(
    session: &Session,
    given: &Given,
    path: String,
    columns: &'static [&'static str],
) -> Result<Answer> {
    let rows = fetch(session, given, &path, columns)?;
    Ok(Answer::Rows { rows, columns })
}

fn fetch(session: &Session, given: &Given, path: &str, columns: &[&str]) -> Result<Vec<Value>> {
    // The broker leaves out what will not be printed: a list of many queues is mostly that.
    let wanted = match (&session.columns, session.format) {
        (Some(columns), _) => Some(columns.join(",")),
        (None, Format::Json) => None,
        (None, Format::Table | Format::Csv) => Some(columns.join(",")),
    };
    let pattern = given.maybe("name-pattern").map(String::from);
    let page = |page: Option<u64>, size: Option<u64>| {
        with_query(
            path.to_string(),
            &[
                ("columns", wanted.clone().filter(|columns| !columns.is_empty())),
                ("page", page.map(|page| page.to_string())),
                ("page_size", size.map(|size| size.to_string())),
                ("use_regex", pattern.as_ref().map(|_| "true".to_string())),
                ("name", pattern.clone()),
                ("sort", given.maybe("sort").map(String::from)),
                ("sort_reverse", given.flag("sort-reverse").then(|| "true".to_string())),
            ],
        )
    };
    match (given.number("page"), given.number("page-size"), &pattern) {
        (None, None, None) => rows_of(session.client.get(&page(None, None))?, path),
        (None, size, Some(_)) => {
            let size = size.unwrap_or(PAGE_SIZE_MAX);
            let mut rows = Vec::new();
            for number in 1.. {
                let answer = session.client.get(&page(Some(number), Some(size)))?;
                let pages = answer.get("page_count").and_then(Value::as_u64).unwrap_or(1);
                rows.extend(rows_of(answer, path)?);
                if number >= pages {
                    break;
                }
            }
            Ok(rows)
        }
        (number, size, _) => {
            let answer = session.client.get(&page(Some(number.unwrap_or(1)), size))?;
            rows_of(answer, path)
        }
    }
}

/// A list is an array, or an object with one among its pages.
pub fn rows_of(answer: Value, path: &str) -> Result<Vec<Value>> {
    let items = match answer {
        Value::Object(mut paged) => paged.remove("items").unwrap_or(Value::Null),
        other => other,
    };
    match items {
        Value::Array(rows) => Ok(rows),
        other => {
            let shown: String = other.to_string().chars().take(80).collect();
            Err(Failure::Answer {
                url: path.to_string(),
                reason: format!("a list was expected, not {shown}"),
            })
        }
    }
}
