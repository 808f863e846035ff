//! Durable state: all that must survive a crash, behind one small face.
//!
//! The store keeps two kinds of things: *definitions*, sorted names and values that are looked up,
//! and *queues* of messages, which stream through. It has never heard of AMQP.
//!
//! All changes are [`Operation`]s. One writer thread gathers those of all sessions, writes them to a
//! segmented log, syncs once for the whole group, tells the sessions, and only then applies them to
//! its memory. Every few seconds the changed part of that memory goes to sled, the state database,
//! and log segments without a live message go away. A start reads the state database, applies the
//! log's tail with the same function, and tells the caller what is there as [`Recovered`]. Messages
//! themselves stay in the log: a reading thread brings them a [`Page`] at a time. So do the times at which
//! messages are due, a [`DuePage`] at a time.
//!
//! ```text
//! session ─┐                     ┌─ write ─ sync ─ tell sessions ─ apply ─┐
//! session ─┼─> intake ─> group ──┤        log/0000000000000001.seg        ├─> checkpoint ─> state/
//! session ─┘                     └───────────────── again ────────────────┘
//! ```
//!
//! docs/DATA.md lists every file, key and record byte by byte.
//!
//! A failed write or sync poisons the store: it is never tried again, since the operating system may
//! have dropped what it could not write. Only a full disk is waited out: what did not fit has not been
//! written, and nobody has been told of it.

#![deny(missing_docs)]

mod backup;
mod block;
mod checkpoint;
mod commit;
mod definitions;
mod due;
mod error;
mod fault;
mod full;
mod inspect;
mod intake;
mod keys;
mod log;
mod meter;
mod operation;
mod pages;
mod places;
mod pool;
mod queues;
mod read;
mod record;
mod recovery;
mod rewrite;
mod schema;
mod segment;
mod slots;
mod state;
mod store;
mod table;
mod varint;
mod walk;
mod worker;

pub use crate::backup::BackedUp;
pub use crate::due::{DueFigures, DuePage, DueWanted};
pub use crate::error::Error;
pub use crate::full::OnFull;
pub use crate::inspect::{Depth, Inspection, SegmentLook};
pub use crate::intake::{Session, SyncMode, Ticket, Urgency};
pub use crate::meter::{SYNC_CLASSES_US, Syncs};
pub use crate::operation::{Held, Operation, Parts, Publish, QueueId, Run, Runs, Seq};
pub use crate::read::{DueThen, Page, Stored, Then, Wanted, WantedEach};
pub use crate::recovery::{Damage, DamageKind, Recovered, RecoveredQueue};
pub use crate::store::{Options, Space, Store};
