//! What a run is played with: the arguments of the queue, and how much memory the broker has.

use amqp::{Table, Value};
use serde_json::{Map, json};

use crate::dice::Dice;

/// The queue that is played with, where its dead letters end, and the exchange that leads there.
pub const QUEUE: &str = "q";
pub const DEAD: &str = "dead";
pub const DEAD_EXCHANGE: &str = "dlx";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

impl Overflow {
    fn name(self) -> &'static str {
        match self {
            Overflow::DropHead => "drop-head",
            Overflow::RejectPublish => "reject-publish",
            Overflow::RejectPublishDlx => "reject-publish-dlx",
        }
    }
}

/// What arguments and policies can both say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub ttl_ms: Option<u64>,
    pub length_max: Option<u64>,
    pub bytes_max: Option<u64>,
    pub overflow: Option<Overflow>,
    pub dead_letter_exchange: Option<&'static str>,
    pub dead_letter_key: Option<&'static str>,
    pub delivery_limit: Option<u64>,
}

impl Rules {
    /// Each thing is said about once in `n` times. The default exchange only leads somewhere with a key.
    pub fn draw(dice: &mut Dice, n: u64) -> Rules {
        let mut rules = Rules::default();
        let says = |dice: &mut Dice| dice.once_in(n);
        if says(dice) {
            rules.ttl_ms = Some(one_of(dice, &[0, 50, 200, 1000, 5000, 20_000]));
        }
        if says(dice) {
            rules.length_max = Some(one_of(dice, &[0, 1, 3, 8, 20]));
        }
        if says(dice) {
            rules.bytes_max = Some(one_of(dice, &[0, 100, 700, 3000]));
        }
        if says(dice) {
            let all = [Overflow::DropHead, Overflow::RejectPublish, Overflow::RejectPublishDlx];
            rules.overflow = Some(one_of(dice, &all));
        }
        if says(dice) {
            let ways = [("", Some(DEAD)), (DEAD_EXCHANGE, None), (DEAD_EXCHANGE, Some("other"))];
            let (exchange, key) = one_of(dice, &ways);
            (rules.dead_letter_exchange, rules.dead_letter_key) = (Some(exchange), key);
        }
        if says(dice) {
            rules.delivery_limit = Some(one_of(dice, &[0, 1, 2, 5]));
        }
        rules
    }

    /// These rules, with what a policy says: the smaller number counts, of other things our own word.
    pub fn within(&self, policy: &Rules) -> Rules {
        let least = |own: Option<u64>, policy: Option<u64>| own.into_iter().chain(policy).min();
        Rules {
            ttl_ms: least(self.ttl_ms, policy.ttl_ms),
            length_max: least(self.length_max, policy.length_max),
            bytes_max: least(self.bytes_max, policy.bytes_max),
            overflow: self.overflow.or(policy.overflow),
            dead_letter_exchange: self.dead_letter_exchange.or(policy.dead_letter_exchange),
            dead_letter_key: self.dead_letter_key.or(policy.dead_letter_key),
            delivery_limit: least(self.delivery_limit, policy.delivery_limit),
        }
    }

    /// Names, as policies have them, and values.
    fn entries(&self) -> Vec<(&'static str, Value)> {
        let number = |n: Option<u64>| n.map(|n| Value::Int(n as i64));
        let text = |text: Option<&str>| text.map(Value::text);
        let all = [
            ("message-ttl", number(self.ttl_ms)),
            ("max-length", number(self.length_max)),
            ("max-length-bytes", number(self.bytes_max)),
            ("overflow", text(self.overflow.map(Overflow::name))),
            ("dead-letter-exchange", text(self.dead_letter_exchange)),
            ("dead-letter-routing-key", text(self.dead_letter_key)),
            ("delivery-limit", number(self.delivery_limit)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// As the definition of a policy.
    pub fn definition(&self) -> Map<String, serde_json::Value> {
        let value = |value: Value| match value {
            Value::Int(n) => json!(n),
            other => json!(other.as_str()),
        };
        self.entries().into_iter().map(|(name, v)| (name.to_string(), value(v))).collect()
    }
}

/// Which messages rest before they are delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    All,
    Failed,
    Returned,
}

/// How long they do.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    pub retry: Retry,
    pub min_ms: u64,
    pub max_ms: u64,
    pub doubles: bool,
}

/// Everything that is the same for a whole run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub quorum: bool,
    pub durable: bool,
    pub priority_max: u8,
    pub single: bool,
    pub rest: Option<Rest>,
    pub rules: Rules,
    /// Policies come and go.
    pub has_policies: bool,
    /// Octets of messages that stay in memory though the store has them; nothing for the usual.
    pub memory_bytes: Option<usize>,
}

impl Settings {
    pub fn draw(dice: &mut Dice) -> Settings {
        let quorum = dice.once_in(3);
        let priority_max = if quorum || !dice.once_in(3) { 0 } else { one_of(dice, &[1, 2, 5, 10]) };
        let rest = Rest {
            retry: one_of(dice, &[Retry::All, Retry::Failed, Retry::Returned]),
            min_ms: one_of(dice, &[1, 100, 1000]),
            max_ms: one_of(dice, &[1000, 3500]),
            doubles: dice.once_in(2),
        };
        let mut rules = Rules::draw(dice, 3);
        if rules.dead_letter_exchange.is_none() && dice.once_in(2) {
            (rules.dead_letter_exchange, rules.dead_letter_key) = (Some(""), Some(DEAD));
        }
        Settings {
            quorum,
            durable: quorum || !dice.once_in(3),
            priority_max,
            single: dice.once_in(4),
            rest: (priority_max == 0 && dice.once_in(4)).then_some(rest),
            rules,
            has_policies: dice.once_in(3),
            memory_bytes: one_of(dice, &[None, None, Some(0), Some(2000)]),
        }
    }

    /// The arguments that the queue is declared with.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        if self.quorum {
            table.insert("x-queue-type", Value::text("quorum"));
        }
        if self.priority_max > 0 {
            table.insert("x-max-priority", Value::Int(self.priority_max.into()));
        }
        if self.single {
            table.insert("x-single-active-consumer", Value::Bool(true));
        }
        if let Some(Rest { retry, min_ms, max_ms, doubles }) = self.rest {
            let kind = match retry {
                Retry::All => "all",
                Retry::Failed => "failed",
                Retry::Returned => "returned",
            };
            table.insert("x-delayed-retry-type", Value::text(kind));
            table.insert("x-delayed-retry-min", Value::Int(min_ms as i64));
            table.insert("x-delayed-retry-max", Value::Int(max_ms as i64));
            if doubles {
                table.insert("x-delayed-retry-multiplier", Value::Int(2));
            }
        }
        for (name, value) in self.rules.entries() {
            table.insert(format!("x-{name}"), value);
        }
        table
    }
}

/// One of them.
pub fn one_of<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[dice.roll(0, choices.len() as u64) as usize]
}
