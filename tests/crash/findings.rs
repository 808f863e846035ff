//! What was found that must not be: counted by kind, the first ones in detail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Details beyond this many of a kind are only counted.
const DETAILS_MAX: usize = 12;

/// The violations of one run; clones write into the same.
#[derive(Clone)]
pub struct Findings {
    run: &'static str,
    kinds: Arc<Mutex<BTreeMap<&'static str, Kind>>>,
}

#[derive(Default)]
struct Kind {
    count: u64,
    details: Vec<String>,
}

impl Findings {
    pub fn new(run: &'static str) -> Findings {
        Findings { run, kinds: Arc::default() }
    }

    /// Something that must not be.
    pub fn add(&self, kind: &'static str, detail: String) {
        let mut kinds = self.kinds.lock().expect("no thread panics with it");
        let kind = kinds.entry(kind).or_default();
        kind.count += 1;
        if kind.details.len() < DETAILS_MAX {
            kind.details.push(detail);
        }
    }

    pub fn count(&self, kind: &'static str) -> u64 {
        self.kinds.lock().expect("no thread panics with it").get(kind).map_or(0, |kind| kind.count)
    }

    pub fn is_empty(&self) -> bool {
        self.kinds.lock().expect("no thread panics with it").is_empty()
    }

    pub fn print(&self) {
        for (name, Kind { count, details }) in self.kinds.lock().expect("no thread panics with it").iter() {
            println!("VIOLATION ({}): {name}: {count}", self.run);
            for detail in details {
                println!("    {detail}");
            }
        }
    }
}
