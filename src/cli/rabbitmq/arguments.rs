//! The arguments of RabbitMQ's tools: switches anywhere, before or after the command, as Elixir parses them.

use std::collections::BTreeMap;

#[derive(Clone, Copy)]
pub struct Switch {
    pub long: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Flag,
    Text,
    Number,
}

pub const fn flag(long: &'static str) -> Switch {
    Switch { long, short: None, kind: Kind::Flag }
}

pub const fn text(long: &'static str) -> Switch {
    Switch { long, short: None, kind: Kind::Text }
}

pub const fn number(long: &'static str) -> Switch {
    Switch { long, short: None, kind: Kind::Number }
}

impl Switch {
    pub const fn short(self, short: char) -> Switch {
        Switch { short: Some(short), ..self }
    }
}

/// What every command takes.
pub const GLOBAL: &[Switch] = &[
    text("node").short('n'),
    flag("quiet").short('q'),
    flag("silent").short('s'),
    number("timeout").short('t'),
    flag("longnames").short('l'),
    text("vhost").short('p'),
    text("formatter"),
    text("printer"),
    text("script-name"),
    text("rabbitmq-home"),
    text("mnesia-dir"),
    text("erlang-cookie"),
    flag("dry-run"),
    flag("no-table-headers"),
    flag("help").short('?'),
    flag("version"),
];

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Parsed {
    /// What is no switch: the command and its arguments.
    pub words: Vec<String>,
    pub values: BTreeMap<&'static str, String>,
    /// Unknown ones, and numbers that are none, with what they were given.
    pub invalid: Vec<(String, String)>,
}

impl Parsed {
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// None also for a timeout that never ends.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}

/// Reads arguments with the switches that are known to every command and to this one.
pub fn parse(arguments: &[String], own: &[Switch]) -> Parsed {
    let find =
        |is_it: &dyn Fn(&Switch) -> bool| GLOBAL.iter().chain(own).find(|switch| is_it(switch)).copied();
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter().peekable();
    while let Some(word) = rest.next() {
        if word == "--" {
            parsed.words.extend(rest.cloned());
            break;
        }
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_string())),
            _ => (word.as_str(), None),
        };
        let switch = if let Some(long) = name.strip_prefix("--") {
            let long = long.replace('_', "-");
            find(&|switch| switch.long == long)
        } else if let (Some(letter), true) = (name.strip_prefix('-'), name.len() == 2) {
            find(&|switch| switch.short.is_some_and(|short| letter.starts_with(short)))
        } else {
            parsed.words.push(word.clone());
            continue;
        };
        let Some(switch) = switch else {
            parsed.invalid.push((name.to_string(), inline.unwrap_or_default()));
            continue;
        };
        let value = match (switch.kind, inline) {
            (Kind::Flag, _) => "true".to_string(),
            (_, Some(value)) => value,
            (_, None) => match rest.next() {
                Some(value) => value.clone(),
                None => {
                    parsed.invalid.push((name.to_string(), String::new()));
                    continue;
                }
            },
        };
        if switch.kind == Kind::Number && value != "infinity" && value.parse::<i64>().is_err() {
            parsed.invalid.push((name.to_string(), value));
            continue;
        }
        parsed.values.insert(switch.long, value);
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, own: &[Switch]) -> Parsed {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse(&words, own)
    }

    #[test]
    fn switches_stand_before_and_after_the_command() {
        let own = &[number("priority"), text("apply-to")];
        let parsed = parsed("-p v1 -q set_policy p ^q {} --priority=3 --apply-to queues -t 5", own);

        assert_eq!(parsed.words, ["set_policy", "p", "^q", "{}"]);
        assert_eq!(parsed.text("vhost"), Some("v1"));
        assert_eq!(parsed.number("priority"), Some(3));
        assert_eq!(parsed.text("apply-to"), Some("queues"));
        assert!(parsed.is_set("quiet") && !parsed.is_set("silent"));
        assert_eq!(parsed.invalid, []);
    }

    #[test]
    fn unknown_switches_and_bad_numbers_are_told_apart_from_words() {
        let parsed = parsed("list_queues --nosuch -t x name", &[]);

        assert_eq!(parsed.words, ["list_queues", "name"]);
        let expected = [("--nosuch".to_string(), String::new()), ("-t".to_string(), "x".to_string())];
        assert_eq!(parsed.invalid, expected);
    }

    #[test]
    fn patterns_and_passwords_are_no_switches() {
        let parsed = parsed("set_permissions u1 - -1x .* -- -q", &[]);

        assert_eq!(parsed.words, ["set_permissions", "u1", "-", "-1x", ".*", "-q"]);
    }
}
