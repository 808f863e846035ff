//! `rabbitmq.conf` as text: lines of `key = value`, and in which file and line each stands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A line that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's parts, which stand between its dots.
    pub key: Vec<String>,
    /// What it is set to.
    pub value: String,
    /// Where it stands.
    pub at: Place,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Entry {
    /// The key as it is written.
    pub fn name(&self) -> String {
        self.key.join(".")
    }
}

/// Reads a file. Lines that are none are told of in `errors`.
pub fn read(file: &Path, errors: &mut Vec<String>) -> Vec<Entry> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse(file, &text, errors),
        Err(error) => {
            errors.push(format!("{}: {error}", file.display()));
            Vec::new()
        }
    }
}

fn parse(file: &Path, text: &str, errors: &mut Vec<String>) -> Vec<Entry> {
    let file: Arc<Path> = file.into();
    let mut entries = Vec::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let at = Place { file: file.clone(), line: at + 1 };
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '%']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            errors.push(format!("{at}: '{line}' is no line of the form key = value"));
            continue;
        };
        match value_of(value.trim()) {
            Ok(value) => entries.push(Entry { key: parts(key.trim()), value, at }),
            Err(error) => errors.push(format!("{at}: {}: {error}", key.trim())),
        }
    }
    entries
}

/// What stands before a comment, or between single quotes.
fn value_of(text: &str) -> Result<String, String> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or("the closing quote is missing")?;
        let rest = rest.trim();
        return match rest.is_empty() || rest.starts_with('#') {
            true => Ok(value.into()),
            false => Err(format!("'{rest}' stands after the closing quote")),
        };
    }
    let value = text.split('#').next().unwrap_or_default().trim_end();
    if value.is_empty() {
        return Err("there is no value".into());
    }
    Ok(value.into())
}

/// The parts of a key; `\.` is a dot in a part.
fn parts(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = key.chars();
    while let Some(letter) = letters.next() {
        match (letter, parts.last_mut()) {
            ('.', _) => parts.push(String::new()),
            ('\\', Some(last)) => last.extend(letters.next()),
            (letter, Some(last)) => last.push(letter),
            (_, None) => {}
        }
    }
    parts
}

/// All `*.conf` of a directory, by name.
pub fn files_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "conf")).collect();
    files.sort();
    files
}

/// Later lines win over earlier ones of the same key; then all are in the order of their keys, numbers as
/// numbers.
pub fn settle(entries: Vec<Entry>) -> Vec<Entry> {
    let mut settled: Vec<Entry> = Vec::new();
    for entry in entries {
        match settled.iter_mut().find(|earlier| earlier.key == entry.key) {
            Some(earlier) => *earlier = entry,
            None => settled.push(entry),
        }
    }
    let rank = |part: &String| (part.parse::<u64>().unwrap_or(u64::MAX), part.clone());
    settled.sort_by_cached_key(|entry| entry.key.iter().map(rank).collect::<Vec<_>>());
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_and_values_or_comments() {
        let check = |text: &str, expected: Result<(&str, &str), &str>| {
            let mut errors = Vec::new();
            let entries = parse(Path::new("a.conf"), text, &mut errors);
            match expected {
                Ok((key, value)) => {
                    assert_eq!(errors, Vec::<String>::new(), "{text}");
                    assert_eq!(
                        entries.iter().map(|e| (e.key.join("|"), e.value.as_str())).collect::<Vec<_>>(),
                        [(key.to_string(), value)]
                    );
                }
                Err(part) => assert!(errors[0].contains(part), "{text}: {errors:?}"),
            }
        };

        check("heartbeat = 60", Ok(("heartbeat", "60")));
        check("# nothing\n\n  a.b.c=x y # comment", Ok(("a|b|c", "x y")));
        check("default_pass = 'a#b c' # it is quoted", Ok(("default_pass", "a#b c")));
        check("default_users.a\\.b.tags = x", Ok(("default_users|a.b|tags", "x")));
        check("loopback_users.guest = false\r\n", Ok(("loopback_users|guest", "false")));
        check("\nheartbeat 60", Err("a.conf:2: 'heartbeat 60' is no line"));
        check("heartbeat =", Err("heartbeat: there is no value"));
        check("default_pass = 'a", Err("closing quote"));
    }

    #[test]
    fn the_last_line_of_a_key_wins_and_numbers_are_in_order() {
        let text = "c.10 = ten\nc.2 = two\nc.2 = again\nb = x";

        let settled = settle(parse(Path::new("a.conf"), text, &mut Vec::new()));

        assert_eq!(settled.iter().map(|e| &*e.value).collect::<Vec<_>>(), ["x", "again", "ten"]);
    }
}
