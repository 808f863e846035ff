//! The habits of the house: who may import whom (docs/ARCHITECTURE.md), and what no file goes without.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Small types that live where they are used: who may look up or beside, and at whom.
const EXCEPTIONS: &[(&str, &str)] = &[("outbox", "delivery"), ("roster", "outbox"), ("roster", "delivery")];

/// A source file: where it is, and its code without comments and unit tests.
struct Source {
    path: PathBuf,
    whole: String,
    code: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    /// The room of the broker that a file below src/ belongs to.
    fn room(&self) -> Option<String> {
        let path = self.path.strip_prefix(root().join("src")).ok()?;
        let first = path.iter().next()?.to_str()?;
        Some(first.trim_end_matches(".rs").to_string())
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| collect(&root().join(folder), &mut paths));
    assert!(!paths.is_empty());
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let whole = fs::read_to_string(&path).expect("a file that can be read");
            let code = code_of(&whole);
            Source { path, whole, code }
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Without comments, and without the unit tests at the foot.
fn code_of(whole: &str) -> String {
    let lines: Vec<&str> = whole.lines().collect();
    let is_test_module = |pair: &[&str]| {
        pair[0].trim() == "#[cfg(test)]" && (pair[1].starts_with("mod ") || pair[1].contains(" mod "))
    };
    let end = lines.windows(2).position(is_test_module).unwrap_or(lines.len());
    let code = lines[..end].iter().map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

const ALL: &[&str] = &["src", "amqp/src", "exchanges/src", "store/src"];

/// The list in docs/ARCHITECTURE.md, top floor first.
fn floors() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    let block = text.split("```floors\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("a block ```floors in docs/ARCHITECTURE.md");
    block.lines().map(|line| line.split_whitespace().map(String::from).collect()).collect()
}

/// The rooms that a file names: `crate::room` and `use crate::{one, two::Thing}`.
fn imports(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => rooms.push(name_at(rest)),
            Some(list) => {
                let (mut depth, mut is_start) = (1, true);
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => is_start = true,
                        c if c.is_alphanumeric() && is_start && depth == 1 => {
                            rooms.push(name_at(&list[at..]));
                            is_start = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    rooms
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_are_found() {
    let code = "use crate::auth::User;\nuse crate::{\n    clock::{self, Clock},\n    error,\n};\nlet x = crate::queue::f();";

    assert_eq!(imports(code), ["auth", "clock", "error", "queue"]);
    assert_eq!(code_of("a // b\n#[cfg(test)]\nmod tests {\nc"), "a ");
}

#[test]
fn rooms_import_only_from_floors_below_their_own() {
    let floors = floors();
    let floor_of = |room: &str| floors.iter().position(|floor| floor.iter().any(|name| name == room));
    let mut wrong = Vec::new();

    for source in sources(&["src"]) {
        let room = source.room().expect("a file below src");
        // The face and the binaries stand above all.
        if room == "lib" || room == "bin" {
            continue;
        }
        let Some(own) = floor_of(&room) else {
            wrong.push(format!("{}: '{room}' has no floor in docs/ARCHITECTURE.md", source.name()));
            continue;
        };
        for other in imports(&source.code) {
            let is_exception = EXCEPTIONS.contains(&(room.as_str(), other.as_str()));
            match floor_of(&other) {
                None => wrong.push(format!("{}: names '{other}', which has no floor", source.name())),
                Some(floor) if floor > own || other == room || is_exception => {}
                Some(_) => wrong.push(format!("{}: '{room}' may not import '{other}'", source.name())),
            }
        }
    }

    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_floor_has_its_rooms() {
    for room in floors().concat() {
        let (file, folder) =
            (root().join(format!("src/{room}.rs")), root().join(format!("src/{room}/mod.rs")));
        assert!(file.exists() || folder.exists(), "docs/ARCHITECTURE.md names '{room}', which is not there");
    }
}

#[track_caller]
fn nobody(what: &str, is_wrong: impl Fn(&Source) -> bool) {
    let wrong: Vec<String> = sources(ALL).iter().filter(|s| is_wrong(s)).map(Source::name).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    nobody("no //! at the top", |source| !source.whole.starts_with("//!"));
}

#[test]
fn nothing_is_left_to_be_done_or_printed() {
    for mark in ["todo!", "unimplemented!", "dbg!"] {
        nobody(mark, |source| source.code.contains(mark));
    }
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    nobody(".unwrap()", |source| source.code.contains(".unwrap()"));
}

#[test]
fn only_amqp_names_the_codec_and_only_store_the_database() {
    let names = |source: &Source, name: &str, but: &str| {
        !source.name().starts_with(but) && source.code.contains(&format!("{name}::"))
    };

    nobody("names amq_protocol", |source| names(source, "amq_protocol", "amqp/"));
    nobody("names sled", |source| names(source, "sled", "store/"));
}

#[test]
fn the_members_do_not_see_each_other() {
    for (member, others) in [
        ("amqp", ["exchanges", "store", "garenne", "tokio"]),
        ("exchanges", ["amqp", "store", "garenne", "tokio"]),
        ("store", ["amqp", "exchanges", "garenne", "tokio"]),
    ] {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for other in others {
            let is_named = dependencies.lines().any(|line| name_at(line.trim()) == other);
            assert!(!is_named, "{member} depends on {other}");
        }
    }
}
