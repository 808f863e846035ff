//! The definitions of a data directory as the HTTP API gives them: a broker is opened on a copy that has nothing else,
//! and asked.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use serde_json::Value as Json;
use store::{Inspection, Operation, Store};

use super::Error;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::Config;
use crate::queue::is_spill;

/// A directory of this process that goes with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn definitions(store: &Inspection) -> Result<Json, Error> {
    let dir = std::env::temp_dir().join(format!("garenne-export-{}", std::process::id()));
    let cannot = |error: &dyn std::fmt::Display| Error::Asked(format!("{}: {error}", dir.display()));
    // There are passwords in it, if only their hashes.
    DirBuilder::new().mode(0o700).create(&dir).map_err(|error| cannot(&error))?;
    let _scratch = Scratch(dir.clone());
    let data_dir = dir.join("data");
    let defined = store.definitions.iter();
    let defined = defined.map(|(key, value)| Operation::Define { key: key.clone(), value: value.clone() });
    let queues = store.queues.iter().map(|queue| queue.queue).filter(|queue| !is_spill(*queue));
    let operations = defined.chain(queues.map(|queue| Operation::QueueCreate { queue })).collect();
    let (copy, _) = Store::open(&data_dir, store::Options::default())?;
    copy.append_and_wait(operations)?;
    copy.close()?;
    drop(copy);

    let config = Config { data_dir, ..Config::default() };
    let (broker, _siren) =
        Broker::open(config, store::Options::default(), Clock::system()).map_err(|error| cannot(&error))?;
    let exported = broker.export_definitions(None).map_err(|error| cannot(&error));
    broker.store().close()?;
    exported
}
