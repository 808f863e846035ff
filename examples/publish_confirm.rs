//! x
use amqprs as _;
use futures_lite as _;
use lapin as _;
fn main() {}
