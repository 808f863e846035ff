//! The version of everything on disk, and the refusal of versions unknown.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::definitions::BACKUP_FILE;
use crate::error::Error;
use crate::segment::{self, sync_directory};

/// The format this version writes: of the directory, the segments, the state database and the backup. A
/// change of any byte in docs/DATA.md makes it grow.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format this version reads.
const FORMAT_MIN: u32 = 1;

const VERSION_FILE: &str = "VERSION";
const PREFIX: &str = "garenne-store ";
/// What the file's absence means where there is something else.
const UNFINISHED: &str = "it is not there although other files are: most likely a backup was not finished";

/// The format of a directory that is not changed.
pub(crate) fn read(dir: &Path) -> Result<u32, Error> {
    let path = dir.join(VERSION_FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_used(dir) => {
            return Err(Error::corrupt(&path, UNFINISHED));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoData { dir: dir.to_owned() });
        }
        read => read.map_err(Error::io(&path))?,
    };
    let found = format_of(&path, &text)?;
    require(&path, found)?;
    Ok(found)
}

fn format_of(path: &Path, text: &str) -> Result<u32, Error> {
    let found = text.strip_prefix(PREFIX).and_then(|rest| rest.trim().parse().ok());
    found.ok_or_else(|| Error::corrupt(path, format!("it should say '{PREFIX}{FORMAT}'")))
}

/// Whether there is anything of a store in it.
fn is_used(dir: &Path) -> bool {
    let has_segments = || segment::list(&dir.join("log"), "seg").is_ok_and(|segments| !segments.is_empty());
    ["state", BACKUP_FILE].iter().any(|name| dir.join(name).exists()) || has_segments()
}

/// Refuses a directory of an unknown format, and a backup that was not finished. Marks a new one, and an old one,
/// which from now on gets parts of this format.
pub(crate) fn check(dir: &Path) -> Result<(), Error> {
    let path = dir.join(VERSION_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found = format_of(&path, &text)?;
            require(&path, found)?;
            if found == FORMAT { Ok(()) } else { mark(dir) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_used(dir) => mark(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::corrupt(&path, UNFINISHED)),
        Err(error) => Err(Error::io(&path)(error)),
    }
}

/// Whether this version can read it.
pub(crate) fn is_known(format: u32) -> bool {
    (FORMAT_MIN..=FORMAT).contains(&format)
}

/// Refuses a format that this version cannot read.
pub(crate) fn require(path: &Path, found: u32) -> Result<(), Error> {
    if is_known(found) {
        return Ok(());
    }
    Err(Error::Version { path: path.to_owned(), found, supported: FORMAT })
}

/// Takes the mark of a backup that did not come to its end, so far as it has one.
pub(crate) fn unmark(dir: &Path) {
    for name in [VERSION_FILE, "VERSION.tmp"] {
        // Most often it is not there.
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Says that a directory is one of this format, as the first thing in a new one and the last in a backup.
pub(crate) fn mark(dir: &Path) -> Result<(), Error> {
    let path = dir.join(VERSION_FILE);
    let tmp = dir.join("VERSION.tmp");
    let mut file = File::create(&tmp).map_err(Error::io(&tmp))?;
    file.write_all(format!("{PREFIX}{FORMAT}\n").as_bytes()).map_err(Error::io(&tmp))?;
    file.sync_all().map_err(Error::io(&tmp))?;
    fs::rename(&tmp, &path).map_err(Error::io(&path))?;
    sync_directory(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_directory_becomes_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(VERSION_FILE), "garenne-store 1\n").unwrap();

        check(dir.path()).unwrap();

        let found = fs::read_to_string(dir.path().join(VERSION_FILE)).unwrap();
        assert_eq!(found, format!("{PREFIX}{FORMAT}\n"));
    }

    #[test]
    fn a_new_directory_is_marked_and_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        check(dir.path()).unwrap();

        fs::write(dir.path().join(VERSION_FILE), "garenne-store 99\n").unwrap();

        let error = check(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Version { found: 99, supported: FORMAT, .. }));
        fs::write(dir.path().join(VERSION_FILE), "what").unwrap();
        assert!(matches!(check(dir.path()).unwrap_err(), Error::Corrupt { .. }));
    }
}
