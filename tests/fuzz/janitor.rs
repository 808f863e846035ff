//! Deletes, now and then, what all conversations share, so that queues neither fill nor stay the same.

use std::io;
use std::net::SocketAddr;

use amqp::method::{Cold, exchange, queue};

use crate::client::Client;
use crate::grammar::{EXCHANGES, QUEUES};

/// One sweep. What is refused (a queue may be exclusive to somebody) costs a channel, so each deletion has
/// its own.
pub fn sweep(address: SocketAddr) -> io::Result<()> {
    let mut client = Client::connect(address, "guest")?;
    for number in 0..QUEUES {
        let delete = queue::Delete { queue: format!("fz-q{number}").as_str().into(), ..Default::default() };
        let number = 1 + number as u16;
        client.open_channel(number)?;
        client.call(number, &Cold::Queue(queue::AMQPMethod::Delete(delete)))?;
    }
    for number in 0..EXCHANGES {
        let delete =
            exchange::Delete { exchange: format!("fz-x{number}").as_str().into(), ..Default::default() };
        let number = 100 + number as u16;
        client.open_channel(number)?;
        client.call(number, &Cold::Exchange(exchange::AMQPMethod::Delete(delete)))?;
    }
    Ok(())
}
