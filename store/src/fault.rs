//! Named points at which a test makes the store fail, or looks at the disk as a crash would leave it.

use std::io;
use std::sync::Arc;

/// Called with the name of each step that touches the disk; an error makes the step fail.
pub type Hook = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

/// The hook, or nothing.
#[derive(Clone, Default)]
pub(crate) struct Fault(pub(crate) Option<Hook>);

impl Fault {
    pub(crate) fn at(&self, step: &'static str) -> io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(hook) => hook(step),
        }
    }
}
