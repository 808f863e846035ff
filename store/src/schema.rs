//! The version of everything on disk, and the refusal of versions unknown.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::Error;
use crate::log::sync_directory;

/// The format this version writes: of the directory, the segments, the state database and the backup. A
/// change of any byte in docs/DATA.md makes it grow.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format this version reads.
const FORMAT_MIN: u32 = 1;

const VERSION_FILE: &str = "VERSION";
const PREFIX: &str = "garenne-store ";

/// Refuses a directory of an unknown format. Marks a new one, and an old one, which from now on gets parts
/// of this format.
pub(crate) fn check(dir: &Path) -> Result<(), Error> {
    let path = dir.join(VERSION_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.strip_prefix(PREFIX).and_then(|rest| rest.trim().parse().ok());
            let found: u32 =
                found.ok_or_else(|| Error::corrupt(&path, format!("it should say '{PREFIX}{FORMAT}'")))?;
            require(&path, found)?;
            if found == FORMAT { Ok(()) } else { mark(dir, &path) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => mark(dir, &path),
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

fn mark(dir: &Path, path: &Path) -> Result<(), Error> {
    let tmp = dir.join("VERSION.tmp");
    let mut file = File::create(&tmp).map_err(Error::io(&tmp))?;
    file.write_all(format!("{PREFIX}{FORMAT}\n").as_bytes()).map_err(Error::io(&tmp))?;
    file.sync_all().map_err(Error::io(&tmp))?;
    fs::rename(&tmp, path).map_err(Error::io(path))?;
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
