//! The `x-consistent-hash` exchange: a message goes to one of the bound targets, the same for the same key,
//! and nearly the same when targets come and go.

use hashbrown::HashMap;

use crate::arguments::text;
use crate::digest::Digest;
use crate::error::Error;
use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Properties, Property, Proposal, Routing};
use crate::shares::{Lots, Member, Ring, Shares};
use crate::targets::Slot;
use crate::value::{Arguments, Value};

const HEADER: &str = "hash-header";
/// What LavinMQ calls the same.
const HASH_ON: &str = "x-hash-on";
const PROPERTY: &str = "hash-property";
const ALGORITHM: &str = "x-algorithm";

/// Targets that share out the keys by weight; the weight of a binding is its key.
///
/// As in RabbitMQ a target has one weight: that of its oldest binding. Another takes effect when those
/// before it are gone.
pub(crate) struct ConsistentHash {
    hash_on: HashOn,
    /// The bindings of each target, the oldest first.
    bindings: HashMap<Slot, Vec<Terms>>,
    shares: Box<dyn Shares>,
}

/// What a binding says, apart from where it leads.
#[derive(PartialEq)]
struct Terms {
    routing_key: Box<[u8]>,
    arguments: Arguments,
}

/// What of a message is hashed.
#[derive(Debug, PartialEq)]
enum HashOn {
    RoutingKey,
    Header(Box<[u8]>),
    Property(Property),
}

impl ConsistentHash {
    /// An exchange as it is declared.
    pub(crate) fn declared(arguments: &Arguments) -> Result<Self, Error> {
        let hash_on = HashOn::parse(arguments)?;
        let shares: Box<dyn Shares> = match text(arguments, ALGORITHM)? {
            None | Some(b"jump") => Box::<Lots>::default(),
            Some(b"ring") => Box::<Ring>::default(),
            Some(other) => {
                let value = Value::Bytes(other.into());
                let reason = format!("Invalid {ALGORITHM} field value {value}; expected ring or jump");
                return Err(Error::Invalid { reason });
            }
        };
        Ok(Self { hash_on, bindings: HashMap::new(), shares })
    }
}

impl Routing for ConsistentHash {
    fn check(&self, proposal: Proposal<'_>) -> Result<(), Error> {
        match weight(proposal.routing_key)? {
            weight if weight <= self.shares.weight_max() => Ok(()),
            _ => Err(too_heavy(self.shares.weight_max())),
        }
    }

    fn bind(&mut self, link: Link<'_>) {
        let bindings = self.bindings.entry(link.target).or_default();
        if bindings.is_empty() {
            self.shares.add(member(link, link.routing_key));
        }
        bindings.push(terms(link));
    }

    fn unbind(&mut self, link: Link<'_>) {
        const BOUND: &str = "only what was bound is unbound";
        let bindings = self.bindings.get_mut(&link.target).expect(BOUND);
        let terms = terms(link);
        let place = bindings.iter().position(|other| *other == terms).expect(BOUND);
        bindings.remove(place);
        if place > 0 {
            return;
        }
        self.shares.remove(member(link, link.routing_key));
        match bindings.first() {
            Some(next) => self.shares.add(member(link, &next.routing_key)),
            None => drop(self.bindings.remove(&link.target)),
        }
    }

    fn visit(&self, envelope: &Envelope<'_>, _: &mut Scratch, found: &mut Found<'_>) {
        self.shares.owner(self.hash_on.digest(envelope)).into_iter().for_each(|target| found.add(target));
    }

    fn is_by_keys(&self) -> bool {
        self.hash_on == HashOn::RoutingKey
    }

    fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
}

impl HashOn {
    fn parse(arguments: &Arguments) -> Result<Self, Error> {
        let mut given = Vec::new();
        for name in [HEADER, HASH_ON, PROPERTY] {
            given.extend(text(arguments, name)?.map(|text| (name, text)));
        }
        match given[..] {
            [] => Ok(Self::RoutingKey),
            [(PROPERTY, b"message_id")] => Ok(Self::Property(Property::MessageId)),
            [(PROPERTY, b"correlation_id")] => Ok(Self::Property(Property::CorrelationId)),
            [(PROPERTY, b"timestamp")] => Ok(Self::Property(Property::Timestamp)),
            [(PROPERTY, other)] => {
                let reason = format!("Unsupported property: {}", String::from_utf8_lossy(other));
                Err(Error::Invalid { reason })
            }
            [(_, header)] => Ok(Self::Header(header.into())),
            [(one, _), .., (two, _)] => {
                Err(Error::Invalid { reason: format!("{one} and {two} are mutually exclusive") })
            }
        }
    }

    /// The digest of what is hashed; that of nothing if the message does not have it.
    fn digest(&self, envelope: &Envelope<'_>) -> u64 {
        let value = match self {
            Self::RoutingKey => return Digest::of(envelope.routing_key),
            Self::Header(header) => return header_digest(header, envelope.properties),
            Self::Property(property) => envelope.properties.property(*property),
        };
        value.map_or_else(|| Digest::of(b""), |value| Digest::of_value(&value))
    }
}

fn header_digest(header: &[u8], properties: &dyn Properties) -> u64 {
    let mut digest = None;
    properties.headers(&mut |name, value| {
        if digest.is_none() && name == header {
            digest = Some(Digest::of_value(value));
        }
    });
    digest.unwrap_or_else(|| Digest::of(b""))
}

/// The weight that a binding's key says.
fn weight(key: &[u8]) -> Result<u32, Error> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};

    let invalid = |reason: String| Err(Error::Invalid { reason });
    let number = std::str::from_utf8(key).ok().map(str::parse::<i64>);
    match number {
        Some(Ok(weight @ 1..)) => u32::try_from(weight).map_err(|_| too_heavy(u32::MAX)),
        Some(Ok(_)) => invalid("The binding key must be greater than 0".into()),
        Some(Err(e)) if *e.kind() == NegOverflow => invalid("The binding key must be greater than 0".into()),
        Some(Err(e)) if *e.kind() == PosOverflow => Err(too_heavy(u32::MAX)),
        _ => invalid(format!("The binding key must be an integer: {}", Value::Bytes(key.into()))),
    }
}

fn too_heavy(weight_max: u32) -> Error {
    Error::Invalid { reason: format!("The binding key must be at most {weight_max}") }
}

fn terms(link: Link<'_>) -> Terms {
    Terms { routing_key: link.routing_key.into(), arguments: link.arguments.clone() }
}

/// The target of a binding with the weight that this key says.
fn member(link: Link<'_>, key: &[u8]) -> Member {
    let weight = weight(key).expect("checked when bound");
    Member { target: link.target, identity: link.identity, weight }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{Bench, counts, table};

    fn bench(arguments: &[(&'static str, Value<'static>)]) -> Bench<ConsistentHash> {
        Bench::new(ConsistentHash::declared(&table(arguments)).expect("accepted"))
    }

    fn refused(arguments: &[(&'static str, Value<'static>)]) -> String {
        ConsistentHash::declared(&table(arguments)).err().expect("refused").to_string()
    }

    fn text(text: &'static str) -> Value<'static> {
        Value::text(text)
    }

    #[test]
    fn every_target_gets_as_many_keys_as_its_weight_says() {
        for algorithm in ["jump", "ring"] {
            let mut bench = bench(&[(ALGORITHM, text(algorithm))]);
            bench.bind(1, "1");
            bench.bind(2, "2");
            bench.bind(3, "3");

            let counts = counts(&mut bench, 6000);

            for target in 1..=3 {
                assert!(counts[target].abs_diff(target * 1000) < target * 200, "{algorithm}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_key_that_does_not_move_to_a_new_target_stays() {
        let mut bench = bench(&[]);
        (1..=3).for_each(|target| bench.bind(target, "10"));
        let keys: Vec<String> = (0..1000).map(|key| key.to_string()).collect();
        let before: Vec<_> = keys.iter().map(|key| bench.matches(key)).collect();

        bench.bind(4, "10");
        let after: Vec<_> = keys.iter().map(|key| bench.matches(key)).collect();

        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(_, after)| *after == [4]));
        assert!(moved.count().abs_diff(250) < 70);
    }

    #[test]
    fn of_a_target_bound_twice_the_oldest_weight_counts() {
        let mut bench = bench(&[]);
        bench.bind(1, "1");
        bench.bind(2, "1");
        let even = counts(&mut bench, 1000);

        let arguments = table(&[("again", Value::Void)]);
        bench.bind(1, "1000");
        bench.bind_with(1, "1", &arguments).unwrap();
        assert_eq!(counts(&mut bench, 1000), even);

        bench.unbind_with(1, "1", &arguments);
        assert_eq!(counts(&mut bench, 1000), even);

        bench.unbind(1, "1");
        assert!(counts(&mut bench, 1000)[1] > 980);

        bench.unbind(1, "1000");
        assert_eq!(counts(&mut bench, 1000)[2], 1000);
    }

    #[test]
    fn headers_are_hashed_where_asked_for() {
        for name in [HEADER, HASH_ON] {
            let mut bench = bench(&[(name, text("session"))]);
            (1..=4).for_each(|target| bench.bind(target, "1"));
            let mut go =
                |key: &str, value: Value<'static>| bench.matches_with(key, &table(&[("session", value)]));

            let targets: Vec<_> = (0..50).map(|session| go("k", Value::Int(session))).collect();
            assert!((1..=4).all(|target| targets.contains(&vec![target])));
            assert!(
                (0..50).zip(&targets).all(|(session, target)| go("other", Value::Int(session)) == *target)
            );
            assert!(!bench.routing.is_by_keys());
        }
    }

    #[test]
    fn properties_are_hashed_where_asked_for() {
        struct With(Property, Value<'static>);
        impl Properties for With {
            fn headers(&self, _: &mut dyn FnMut(&[u8], &Value<'_>)) {
                panic!("headers are not asked for");
            }

            fn property(&self, property: Property) -> Option<Value<'_>> {
                (property == self.0).then(|| self.1.clone())
            }
        }
        for (name, property) in [
            ("message_id", Property::MessageId),
            ("correlation_id", Property::CorrelationId),
            ("timestamp", Property::Timestamp),
        ] {
            let mut bench = bench(&[(PROPERTY, text(name))]);
            (1..=4).for_each(|target| bench.bind(target, "1"));

            let targets: Vec<_> = (0..50)
                .map(|time| bench.matches_with("k", &With(property, Value::Timestamp(time))))
                .collect();

            assert!((1..=4).all(|target| targets.contains(&vec![target])), "{name}");
        }
    }

    #[test]
    fn what_lacks_the_header_or_property_goes_where_nothing_goes() {
        for argument in [(HEADER, text("h")), (PROPERTY, text("message_id"))] {
            let mut bench = bench(&[argument]);
            (1..=4).for_each(|target| bench.bind(target, "1"));

            let empty = bench.matches_with("", &table(&[("h", text(""))]));
            assert!((0..20).all(|key| bench.matches(&key.to_string()) == empty));
        }
    }

    #[test]
    fn the_routing_key_alone_decides_unless_something_else_is_asked_for() {
        assert!(bench(&[]).routing.is_by_keys());
        assert!(!bench(&[(PROPERTY, text("timestamp"))]).routing.is_by_keys());
    }

    #[test]
    fn declarations_that_make_no_sense_are_refused() {
        let property = (PROPERTY, text("message_id"));
        let header = (HEADER, text("h"));

        assert_eq!(refused(&[(PROPERTY, text("nonsense"))]), "Unsupported property: nonsense");
        assert_eq!(
            refused(&[header.clone(), property.clone()]),
            "hash-header and hash-property are mutually exclusive"
        );
        assert_eq!(
            refused(&[(HASH_ON, text("h")), property]),
            "x-hash-on and hash-property are mutually exclusive"
        );
        assert_eq!(
            refused(&[(HEADER, Value::Int(1))]),
            "Invalid hash-header field type signedint (value 1); expected longstr"
        );
        assert_eq!(
            refused(&[(ALGORITHM, text("dice"))]),
            r#"Invalid x-algorithm field value <<"dice">>; expected ring or jump"#
        );
    }

    #[test]
    fn a_binding_key_is_a_whole_number_above_zero() {
        let checked = |key: &[u8]| weight(key).map_err(|error| error.to_string());
        let integer = |key: &str| Err(format!("The binding key must be an integer: {key}"));
        let too_small = Err("The binding key must be greater than 0".to_owned());
        let too_large = Err("The binding key must be at most 4294967295".to_owned());

        assert_eq!(checked(b"1"), Ok(1));
        assert_eq!(checked(b"+007"), Ok(7));
        assert_eq!(checked(b"4294967295"), Ok(u32::MAX));
        for key in ["0", "-1", "-0", "-99999999999999999999"] {
            assert_eq!(checked(key.as_bytes()), too_small);
        }
        for key in ["4294967296", "99999999999999999999"] {
            assert_eq!(checked(key.as_bytes()), too_large);
        }
        assert_eq!(checked(b""), integer("<<>>"));
        assert_eq!(checked(b"1.5"), integer(r#"<<"1.5">>"#));
        assert_eq!(checked(b" 1"), integer(r#"<<" 1">>"#));
        assert_eq!(checked(b"-"), integer(r#"<<"-">>"#));
        assert_eq!(checked(b"\xff\x01"), integer("<<255,1>>"));
    }

    #[test]
    fn a_weight_that_would_fill_the_ring_is_refused() {
        let arguments = Arguments::default();
        let too_heavy = bench(&[(ALGORITHM, text("ring"))]).bind_with(1, "1001", &arguments);

        assert_eq!(too_heavy.unwrap_err().to_string(), "The binding key must be at most 1000");
        assert_eq!(bench(&[]).bind_with(1, "1001", &arguments), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn only_what_is_bound_counts_whatever_came_and_went(
            bound in vec((0..4u32, 1..4u32), 1..12),
            gone in vec(any::<bool>(), 12),
            is_ring in any::<bool>(),
        ) {
            let algorithm = if is_ring { "ring" } else { "jump" };
            let mut changed = bench(&[(ALGORITHM, text(algorithm))]);
            let mut fresh = bench(&[(ALGORITHM, text(algorithm))]);
            // The same binding is never there twice.
            let mut bindings = bound.clone();
            bindings.sort_unstable();
            bindings.dedup();
            let (gone, kept): (Vec<_>, Vec<_>) = bindings.iter().zip(gone).partition(|(_, gone)| *gone);
            bindings.iter().for_each(|(target, weight)| changed.bind(*target, &weight.to_string()));
            gone.iter().for_each(|((target, weight), _)| changed.unbind(*target, &weight.to_string()));
            kept.iter().for_each(|((target, weight), _)| fresh.bind(*target, &weight.to_string()));

            for key in 0..50 {
                let key = key.to_string();
                prop_assert_eq!(changed.matches(&key), fresh.matches(&key));
            }
            kept.iter().for_each(|((target, weight), _)| changed.unbind(*target, &weight.to_string()));
            prop_assert!(changed.routing.is_empty() && changed.matches("k").is_empty());
        }
    }
}
