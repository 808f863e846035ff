//! Garenne from the outside: conversations on the wire, frame by frame, each with a broker of its own.

mod support;

mod clients;
mod conversations;
mod floors;
mod paging;
mod recovery;
mod spec;
