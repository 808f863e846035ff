//! Publishing without a channel, and what every publish is asked: may this user say that, and what does it ask for.

use amqp::{Properties, Value, method, table};
use bytes::Bytes;
use exchanges::Matches;
use store::Urgency;

use super::arguments::{BCC, CC};
use super::schedule::{SCHEDULE, schedule_id};
use super::{Caller, Party, Pending, Step, Verdict, Vhost};
use crate::auth::User;
use crate::error::Error;
use crate::message::{Keys, Message, StoredBy, parse_ttl};
use crate::parts::Parts;
use crate::queue::{self, Origin};
use crate::tally::{Count, Delta};

/// What the properties of a publish ask for.
#[derive(Debug)]
pub struct Asked {
    /// How long it may wait, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Further keys it is routed with.
    pub copies: Option<Keys>,
}

impl Asked {
    /// Checks what properties may be.
    ///
    /// # Errors
    /// `Invalid`: which of them cannot be.
    pub fn read(user: &User, properties: &Properties<'_>) -> Result<Asked, Error> {
        if let Some(user_id) = properties.user_id
            && user_id != user.name.as_bytes()
            && !user.has_tag("impersonator")
        {
            return Err(Error::Invalid(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(user_id),
                user.name
            )));
        }
        if let Some(mode) = properties.delivery_mode.filter(|mode| !matches!(mode, 1 | 2)) {
            return Err(Error::Invalid(format!("invalid message: {{delivery_mode_unknown,{mode}}}")));
        }
        let ttl_ms = properties.expiration.map(|expiration| {
            parse_ttl(expiration).map_err(|reason| {
                Error::Invalid(format!(
                    "invalid expiration '{}': {reason}",
                    String::from_utf8_lossy(expiration)
                ))
            })
        });
        Ok(Asked { ttl_ms: ttl_ms.transpose()?, copies: properties.headers.map_or(Ok(None), copies)? })
    }
}

/// The keys in `CC` and `BCC`; `None` if there are none.
fn copies(headers: &[u8]) -> Result<Option<Keys>, Error> {
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    for (name, raw) in table::raw_entries(headers).filter(|(name, _)| *name == CC || *name == BCC) {
        let malformed = |kind: &str| {
            let name = String::from_utf8_lossy(name);
            Error::Invalid(format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}"))
        };
        match table::decode_value(raw) {
            Ok(Value::Array(values)) => keys.extend(values.into_iter().filter_map(|value| match value {
                Value::Bytes(key) => Some(key.into()),
                _ => None,
            })),
            Ok(other) => return Err(malformed(queue::type_name(&other))),
            Err(_) => return Err(malformed("unknown")),
        }
    }
    Ok((!keys.is_empty()).then(|| keys.into()))
}

/// The queues that a message would reach, and the exchanges that would hold it back, and how long, in milliseconds.
pub type Preview = (Vec<String>, Vec<(String, u64)>);

/// What became of a message that was published without a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in its queues, or waits for its hour; the store has been told.
    Routed,
    /// It led nowhere.
    Unroutable,
    /// A queue had no room for it, or it was a duplicate where that is an error.
    Refused,
}

impl Vhost {
    /// Publishes a message. The caller waits for the store before it says that it is safe.
    ///
    /// # Errors
    /// `Refused`, `RefusedTopic`, `NotFound`, `InternalExchange`; `Invalid`: what is wrong with its properties.
    pub fn publish(
        &self,
        caller: &Caller,
        exchange: &str,
        routing_key: &str,
        properties: &[u8],
        body: Bytes,
    ) -> Result<Fate, Error> {
        self.check_publish(caller, exchange)?;
        self.check_topic(caller, exchange, routing_key)?;
        if exchange == SCHEDULE {
            let text =
                "delayed messages are cancelled over HTTP with DELETE /api/exchanges/VHOST/NAME/delayed/ID";
            return Err(Error::Invalid(text.into()));
        }
        let invalid = |_| Error::Invalid("the properties of the message are malformed".into());
        let read = Properties::parse(properties).map_err(invalid)?;
        let Asked { ttl_ms, copies } = Asked::read(&caller.user, &read)?;
        let now_ms = self.surroundings.clock.now_ms();
        let delay = self.delay(exchange, &read, now_ms)?;
        let visible = read.headers.filter(|_| delay.is_none()).map(|headers| table::without(headers, BCC));
        let stays = Properties { headers: visible.as_deref().or(read.headers), ..read }.encode();
        let message = Message {
            parts: Parts::gathered(&method::address(exchange, routing_key), &stays, body),
            persistent: read.is_persistent(),
            taken_at_ms: now_ms,
            ttl_ms,
            priority: read.priority.unwrap_or_default(),
            copies,
            stored_by: StoredBy::none(),
        };
        let mut matches = Matches::default();
        let not_found = || Error::NotFound(crate::error::Resource::exchange(exchange, self.name()));
        let held = self.route(&message, &mut matches).ok_or_else(not_found)?;
        let leads_nowhere = matches.is_empty() && held.is_empty();
        if self.is_traced() {
            let connection = caller.connection.to_string();
            let party = Party { connection: &connection, channel: 1, user: &caller.user.name };
            let mut copy = queue::Batch::default();
            let step = Step::Published(matches.queues());
            self.trace(&party, &step, &message, &mut Matches::default(), &mut copy);
            copy.flush(None, |operations, _| {
                self.surroundings.store.append(operations.collect(), Urgency::Lazy)
            });
        }
        self.count_publish(exchange, matches.queues().len(), leads_nowhere, now_ms);
        if leads_nowhere {
            return Ok(Fate::Unroutable);
        }
        let is_certain = matches.queues().iter().all(|queue| !queue.may_refuse());
        let with = match self.look_at(&message, &read, Pending { connection: caller.connection, is_certain })
        {
            Verdict::New(with) => with,
            Verdict::Duplicate(queue::OnDuplicate::Ack | queue::OnDuplicate::DeadLetter) => {
                return Ok(Fate::Routed);
            }
            Verdict::Duplicate(_) => return Ok(Fate::Refused),
        };
        let mut batch = queue::Batch::default();
        let origin = Origin { channel: 1, tag: 1 };
        match delay {
            Some((delays, ms)) => {
                let message = Message { ttl_ms: Some(ms), ..message };
                match read.headers.map_or(Ok(None), schedule_id)? {
                    None => batch.add(message, &[delays], origin, with),
                    Some(id) => match self.schedule(&delays, &id, message) {
                        Err(refused) => return Err(Error::Invalid(refused.1)),
                        Ok(Some((message, operations, sync))) => {
                            batch.tell_of(message, operations, with, sync)
                        }
                        Ok(None) => with.into_iter().for_each(|with| batch.add_with(with, origin)),
                    },
                }
            }
            None => {
                held.into_iter()
                    .for_each(|(delays, ms)| batch.add(message.held_back(ms), &[delays], origin, None));
                batch.add(message, matches.queues(), origin, with);
            }
        }
        let store = &self.surroundings.store;
        let (_, outcome) =
            batch.flush(None, |operations, sync| store.append(operations.collect(), Urgency::Written(sync)));
        let is_refused = !outcome.refused.is_empty() || !outcome.returned.is_empty();
        Ok(if is_refused { Fate::Refused } else { Fate::Routed })
    }

    fn count_publish(&self, exchange: &str, queues: usize, leads_nowhere: bool, now_ms: u64) {
        let mut of_exchange = Delta::default();
        of_exchange.add(Count::PublishIn, 1);
        of_exchange.add(Count::PublishOut, queues);
        self.exchange_tally(exchange).add(&of_exchange, now_ms);
        let mut published = Delta::default();
        published.add(Count::Publish, 1);
        published.add(Count::Routed, queues);
        if leads_nowhere {
            published.add(Count::ReturnUnroutable, 1);
        }
        self.tallies().published.add(&published, now_ms);
    }

    /// Where a message would go: the queues that it would reach now, and the exchanges that would hold it back, and
    /// how long, in milliseconds.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: what is wrong with its properties.
    pub fn preview(&self, exchange: &str, routing_key: &str, properties: &[u8]) -> Result<Preview, Error> {
        let invalid = |_| Error::Invalid("the properties of the message are malformed".into());
        let read = Properties::parse(properties).map_err(invalid)?;
        let now_ms = self.surroundings.clock.now_ms();
        let copies: Keys = read.headers.map_or(Ok(None), copies)?.unwrap_or_default();
        let copies: Vec<&[u8]> = copies.iter().map(|key| &**key).collect();
        let headers = super::arguments::MessageProperties(properties);
        let envelope = exchanges::Envelope {
            copies: &copies,
            ..exchanges::Envelope::new(routing_key.as_bytes(), &headers)
        };
        let mut held: Vec<(String, u64)> = Vec::new();
        let topology = self.read();
        let not_found = |_| Error::NotFound(crate::error::Resource::exchange(exchange, self.name()));
        let mut matches = Matches::default();
        let mut first = true;
        let ms = read.headers.map_or(Ok(None), |headers| super::delay::delay_ms(headers, now_ms))?;
        let lets_pass = |other: &exchanges::Exchange| {
            let is_first = std::mem::take(&mut first);
            match ms.filter(|_| topology.delays_messages_of(other)) {
                Some(ms) => {
                    held.push((other.name.to_string(), ms));
                    // Of the first it is shown where the message will go then.
                    is_first
                }
                None => true,
            }
        };
        topology
            .exchanges
            .route_past(exchange.as_bytes(), &envelope, &mut matches, lets_pass)
            .map_err(not_found)?;
        let queues = matches.queues().iter().map(|queue| queue.name().to_string()).collect();
        Ok((queues, held))
    }
}
