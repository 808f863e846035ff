//! Queues, keys and bindings of a run, and which queues each message must come out of.
//!
//! With the default exchange a key is a queue's name. A fanout exchange has one key and a binding to each
//! queue. With direct and headers exchanges binding `b` takes key `b mod keys` to queue
//! `(b + b / keys) mod queues`, so that the bindings of one key lie on different queues. A topic exchange
//! does the same with patterns: keys are three words, `r3.k7.n73` (region, kind, number), and patterns
//! are in turn `*.k7.n73`, `r3.*.n73`, `#.n73` and `r3.#.n73`, which match one key each; every hundredth
//! is `r3.#`, which matches a tenth of all keys. With the default of half as many keys as bindings, a
//! message matches about two narrow patterns and, from 1,000 bindings on, one or more wide ones.
//!
//! A *stream* is the messages that one producer publishes with one key. A queue that gets one message of
//! a stream gets them all, in order: that is what is checked. There are as many streams as there are
//! producers or keys, whichever is more; stream `s` belongs to producer `s mod producers` and has key
//! `s mod keys`.

use std::collections::BTreeSet;

use amqp::Table;
use clap::ValueEnum;

use crate::error::{Error, Result};

/// The kind of exchange that is published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Exchange {
    /// The default exchange: the key is the queue's name.
    Default,
    /// By equal keys.
    Direct,
    /// To all.
    Fanout,
    /// By patterns of words.
    Topic,
    /// By a header, `key`.
    Headers,
}

impl Exchange {
    /// What exchange.declare calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Exchange::Default | Exchange::Direct => "direct",
            Exchange::Fanout => "fanout",
            Exchange::Topic => "topic",
            Exchange::Headers => "headers",
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Kind of the exchange.
    pub exchange: Exchange,
    /// How many queues.
    pub queues: usize,
    /// How many keys; by default what suits the exchange.
    pub keys: Option<usize>,
    /// How many bindings; by default what suits the exchange.
    pub bindings: Option<usize>,
    /// What names begin with.
    pub prefix: String,
    /// Whether exchange and queues survive a restart.
    pub durable: bool,
    /// Arguments of queue.declare.
    pub queue_arguments: Table,
}

/// A binding to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which queue.
    pub queue: usize,
    /// A key or a pattern.
    pub key: String,
}

/// All names of a run.
#[derive(Clone, Debug)]
pub struct Topology {
    /// What was wanted.
    pub shape: Shape,
    /// Names of the queues.
    pub queues: Vec<String>,
    /// Routing keys; with a headers exchange the values of the header.
    pub keys: Vec<String>,
    /// Bindings; none with the default exchange.
    pub bindings: Vec<Binding>,
}

/// Names end up in short strings of 255 octets, with a number behind them.
const PREFIX_BYTES_MAX: usize = 200;

impl Topology {
    /// Names everything.
    pub fn new(shape: Shape) -> Result<Topology> {
        if shape.queues == 0 || shape.keys == Some(0) || shape.bindings == Some(0) {
            return Err(Error::Usage("--queues, --keys and --bindings are 1 or more".into()));
        }
        if shape.prefix.is_empty() || shape.prefix.len() > PREFIX_BYTES_MAX {
            return Err(Error::Usage(format!("--queue-prefix has 1 to {PREFIX_BYTES_MAX} octets")));
        }
        let queues: Vec<String> = (0..shape.queues).map(|q| queue_name(&shape.prefix, q)).collect();
        let (keys, bindings) = match shape.exchange {
            Exchange::Default => (queues.clone(), Vec::new()),
            Exchange::Fanout => {
                let bindings = (0..shape.queues).map(|queue| Binding { queue, key: String::new() });
                (vec![String::new()], bindings.collect())
            }
            Exchange::Direct | Exchange::Headers => {
                let key = |k: usize| format!("key-{k}");
                let keys = shape.keys.unwrap_or(shape.queues);
                let bindings = shape.bindings.unwrap_or(keys.max(shape.queues));
                ((0..keys).map(key).collect(), spread(bindings, keys, shape.queues, |b| key(b % keys)))
            }
            Exchange::Topic => {
                let bindings = shape.bindings.unwrap_or(2 * shape.queues);
                let keys = shape.keys.unwrap_or(bindings.div_ceil(2));
                (
                    (0..keys).map(topic_key).collect(),
                    spread(bindings, keys, shape.queues, |b| pattern(b, keys)),
                )
            }
        };
        Ok(Topology { shape, queues, keys, bindings })
    }

    /// The exchange to publish to.
    pub fn exchange_name(&self) -> &str {
        match self.shape.exchange {
            Exchange::Default => "",
            _ => &self.shape.prefix,
        }
    }

    /// How many streams there are; they must fit a stamp.
    pub fn streams(&self, producers: usize) -> Result<usize> {
        let streams = producers.max(self.keys.len());
        match streams > usize::from(u16::MAX) + 1 {
            true => {
                Err(Error::Usage(format!("{streams} producers or keys are too many; 65,536 are possible")))
            }
            false => Ok(streams),
        }
    }

    /// The queues that a message with key number `key` must reach.
    pub fn reaches(&self, key: usize) -> BTreeSet<usize> {
        let wanted = &self.keys[key];
        let hits = |binding: &&Binding| match self.shape.exchange {
            Exchange::Topic => matches(&words(&binding.key), &words(wanted)),
            Exchange::Fanout => true,
            _ => binding.key == *wanted,
        };
        match self.shape.exchange {
            Exchange::Default => BTreeSet::from([key]),
            _ => self.bindings.iter().filter(hits).map(|binding| binding.queue).collect(),
        }
    }
}

/// The name of queue number `queue`.
pub fn queue_name(prefix: &str, queue: usize) -> String {
    format!("{prefix}-{queue}")
}

fn spread(bindings: usize, keys: usize, queues: usize, key: impl Fn(usize) -> String) -> Vec<Binding> {
    (0..bindings).map(|b| Binding { queue: (b + b / keys) % queues, key: key(b) }).collect()
}

fn topic_key(key: usize) -> String {
    format!("r{}.k{}.n{key}", key % 10, key / 10 % 10)
}

fn pattern(binding: usize, keys: usize) -> String {
    let key = binding % keys;
    let (region, kind) = (key % 10, key / 10 % 10);
    if binding % 100 == 99 {
        return format!("r{}.#", binding / 100 % 10);
    }
    match binding % 4 {
        0 => format!("*.k{kind}.n{key}"),
        1 => format!("r{region}.*.n{key}"),
        2 => format!("#.n{key}"),
        _ => format!("r{region}.#.n{key}"),
    }
}

fn words(key: &str) -> Vec<&str> {
    key.split('.').collect()
}

/// Whether a pattern matches a key: `*` is one word, `#` any number of them.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), None) => matches(rest, key),
        (Some((&"#", rest)), Some((_, key_rest))) => matches(rest, key) || matches(pattern, key_rest),
        (Some((&word, rest)), Some((&key_word, key_rest))) => {
            (word == "*" || word == key_word) && matches(rest, key_rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(exchange: Exchange, queues: usize, keys: Option<usize>, bindings: Option<usize>) -> Topology {
        let (prefix, queue_arguments) = ("p".to_string(), Table::new());
        let shape = Shape { exchange, queues, keys, bindings, prefix, durable: false, queue_arguments };
        Topology::new(shape).unwrap()
    }

    #[test]
    fn patterns_match_as_the_specification_says() {
        let check = |pattern: &str, key: &str, expected: bool| {
            assert_eq!(matches(&words(pattern), &words(key)), expected, "{pattern} and {key}");
        };
        check("a.b", "a.b", true);
        check("a.b", "a", false);
        check("*.b", "a.b", true);
        check("*", "a.b", false);
        check("#", "a.b", true);
        check("a.#", "a", true);
        check("#.b", "a.c.b", true);
        check("a.#.b", "a.b", true);
        check("a.#.b", "a.c", false);
    }

    #[test]
    fn a_key_of_the_default_exchange_reaches_its_queue_alone() {
        let default = topology(Exchange::Default, 3, None, None);

        assert_eq!(default.queues, ["p-0", "p-1", "p-2"]);
        assert_eq!(default.reaches(2), BTreeSet::from([2]));
    }

    #[test]
    fn fanout_reaches_all_and_direct_one_unless_bound_twice() {
        assert_eq!(topology(Exchange::Fanout, 3, None, None).reaches(0), BTreeSet::from([0, 1, 2]));
        assert_eq!(topology(Exchange::Direct, 3, None, None).reaches(1), BTreeSet::from([1]));
        assert_eq!(topology(Exchange::Headers, 3, None, Some(6)).reaches(1), BTreeSet::from([1, 2]));
    }

    #[test]
    fn a_thousand_topic_bindings_match_a_few_queues_each() {
        let topic = topology(Exchange::Topic, 100, None, Some(1000));
        assert_eq!((topic.keys.len(), topic.bindings.len()), (500, 1000));

        let reached: Vec<usize> = (0..topic.keys.len()).map(|key| topic.reaches(key).len()).collect();

        assert!(reached.iter().all(|n| (1..=3).contains(n)), "{reached:?}");
        let used: BTreeSet<usize> = (0..500).flat_map(|key| topic.reaches(key)).collect();
        assert_eq!(used.len(), 100);
    }

    #[test]
    fn too_many_streams_are_refused() {
        let direct = topology(Exchange::Direct, 1, Some(65_537), None);

        assert!(direct.streams(1).is_err());
        assert_eq!(topology(Exchange::Default, 4, None, None).streams(64).unwrap(), 64);
    }
}
