//! Garenne from the outside: conversations on the wire, frame by frame, each with a broker of its own.

mod support;

mod administration;
mod admission;
mod altered;
mod cli;
mod clients;
mod configuration;
mod conversations;
mod dead_letter;
mod definitions;
mod delays;
mod failures;
mod floors;
mod http;
mod limits;
mod memories;
mod news;
mod paging;
mod policies;
mod proxy;
mod recovery;
mod semantics;
mod spec;
mod tls;
mod turns;
mod users;
