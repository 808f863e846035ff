//! The headers exchange: a binding wants the messages whose headers have what its arguments say.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};

use crate::error::Error;
use crate::marks::Marks;
use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Proposal, Routing};
use crate::slab::Slab;
use crate::targets::{Slot, Targets};
use crate::value::{Arguments, Value};

const MATCH: &[u8] = b"x-match";

/// Bindings by the headers they ask for (section 3.1.3.4).
///
/// Nothing scans the bindings. Each header of a message looks up the rules that ask for exactly it,
/// and a rule matches when it has been met as often as it needs: once for `any`, by each of its
/// conditions for `all`. Only the rules of `none`, which match unless they are met, are gone through.
#[derive(Debug, Default)]
pub(crate) struct HeaderMatch {
    /// Targets of `all` and `none` bindings without conditions: they want everything.
    always: Targets,
    /// Bindings of `any` without conditions: they want nothing, and are only counted.
    never: usize,
    rules: Slab<Rule>,
    /// The rules that are not to be met.
    unmet: BTreeSet<u32>,
    known: HashMap<(Slot, Arguments), u32>,
    names: HashMap<Box<[u8]>, u32>,
    tests: Slab<Test>,
}

/// One target with one set of arguments, whatever the routing keys.
#[derive(Debug)]
struct Rule {
    target: Slot,
    /// How many conditions must hold; 0 if none may.
    needed: u32,
    bindings: u32,
}

/// The rules that ask for a header of one name.
#[derive(Debug, Default)]
struct Test {
    present: HashSet<u32>,
    equal: HashMap<Value<'static>, HashSet<u32>>,
}

/// What one message's headers have met so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    seen: Marks,
    touched: Marks,
    met: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    All,
    Any,
    None,
}

impl Routing for HeaderMatch {
    fn is_by_keys(&self) -> bool {
        false
    }

    fn check(&self, proposal: Proposal<'_>) -> Result<(), Error> {
        let reason = match proposal.arguments.get(MATCH) {
            None => return Ok(()),
            Some(Value::Bytes(mode)) if mode_of(mode).is_some() => return Ok(()),
            Some(mode @ Value::Bytes(_)) => {
                format!("Invalid x-match field value {mode}; expected all, any, all-with-x, or any-with-x")
            }
            Some(other) => {
                format!("Invalid x-match field type {} (value {other}); expected longstr", other.type_name())
            }
        };
        Err(Error::Invalid { reason })
    }

    fn bind(&mut self, link: Link<'_>) {
        let Some(needed) = needed(link.arguments) else {
            match mode(link.arguments) {
                (Mode::Any, _) => self.never += 1,
                (Mode::All | Mode::None, _) => self.always.add(link.target),
            }
            return;
        };

        let identity = (link.target, link.arguments.clone());
        if let Some(&rule) = self.known.get(&identity) {
            self.rules[rule].bindings += 1;
            return;
        }
        let rule = self.rules.insert(Rule { target: link.target, needed, bindings: 1 });
        self.known.insert(identity, rule);
        if needed == 0 {
            self.unmet.insert(rule);
        }
        for (name, value) in conditions(link.arguments) {
            self.test_mut(name).rules_mut(value).insert(rule);
        }
    }

    fn unbind(&mut self, link: Link<'_>) {
        if needed(link.arguments).is_none() {
            match mode(link.arguments) {
                (Mode::Any, _) => self.never -= 1,
                (Mode::All | Mode::None, _) => self.always.remove(link.target),
            }
            return;
        }

        let identity = (link.target, link.arguments.clone());
        let rule = *self.known.get(&identity).expect("only what was bound is unbound");
        self.rules[rule].bindings -= 1;
        if self.rules[rule].bindings > 0 {
            return;
        }
        self.known.remove(&identity);
        self.unmet.remove(&rule);
        self.rules.remove(rule);
        for (name, value) in conditions(link.arguments) {
            self.forget(name, value, rule);
        }
    }

    fn visit(&self, envelope: &Envelope<'_>, scratch: &mut Scratch, found: &mut Found<'_>) {
        self.always.iter().for_each(|target| found.add(target));
        if self.names.is_empty() {
            return;
        }

        let tally = &mut scratch.headers;
        tally.seen.clear();
        tally.touched.clear();
        envelope.properties.headers(&mut |name, value| {
            let Some(&number) = self.names.get(name) else { return };
            // A name that comes twice must not count twice.
            if !tally.seen.mark(number) {
                return;
            }
            let test = &self.tests[number];
            let equal = test.equal_to(value).into_iter().flatten();
            for &rule in test.present.iter().chain(equal) {
                let Rule { target, needed, .. } = self.rules[rule];
                if tally.meet(rule) == needed {
                    found.add(target);
                }
            }
        });
        for &rule in self.unmet.iter().filter(|rule| !tally.touched.has(**rule)) {
            found.add(self.rules[rule].target);
        }
    }

    fn is_empty(&self) -> bool {
        self.always.is_empty() && self.never == 0 && self.known.is_empty()
    }
}

impl HeaderMatch {
    fn test_mut(&mut self, name: &[u8]) -> &mut Test {
        let tests = &mut self.tests;
        let number = *self.names.entry(name.into()).or_insert_with(|| tests.insert(Test::default()));
        &mut self.tests[number]
    }

    fn forget(&mut self, name: &[u8], value: &Value<'static>, rule: u32) {
        let number = *self.names.get(name).expect("a rule is listed under its names");
        let test = &mut self.tests[number];
        let rules = test.rules_mut(value);
        rules.remove(&rule);
        if rules.is_empty() {
            test.equal.remove(value);
        }
        if test.present.is_empty() && test.equal.is_empty() {
            self.tests.remove(number);
            self.names.remove(name);
        }
    }
}

impl Test {
    fn rules_mut(&mut self, value: &Value<'static>) -> &mut HashSet<u32> {
        match value {
            Value::Void => &mut self.present,
            value => self.equal.entry_ref(value).or_default(),
        }
    }

    fn equal_to<'v>(&'v self, value: &Value<'v>) -> Option<&'v HashSet<u32>> {
        // The map's keys borrow for longer than the value asked for, which is all the compiler must see.
        let equal: &HashMap<Value<'v>, HashSet<u32>> = &self.equal;
        equal.get(value)
    }
}

impl Tally {
    /// Notes that one more condition of `rule` holds, and returns how many do.
    fn meet(&mut self, rule: u32) -> u32 {
        let place = rule as usize;
        if place >= self.met.len() {
            self.met.resize(place + 1, 0);
        }
        if self.touched.mark(rule) {
            self.met[place] = 0;
        }
        self.met[place] += 1;
        self.met[place]
    }
}

/// The mode, and whether headers beginning `x-` are conditions like any other.
fn mode_of(name: &[u8]) -> Option<(Mode, bool)> {
    match name {
        b"all" => Some((Mode::All, false)),
        b"any" => Some((Mode::Any, false)),
        b"all-with-x" => Some((Mode::All, true)),
        b"any-with-x" => Some((Mode::Any, true)),
        b"none" | b"not-any" => Some((Mode::None, false)),
        _ => None,
    }
}

fn mode(arguments: &Arguments) -> (Mode, bool) {
    let named = arguments.bytes(MATCH).map(|name| mode_of(name).expect("checked when bound"));
    named.unwrap_or((Mode::All, false))
}

/// What a message must have, or must not: names and values.
fn conditions(arguments: &Arguments) -> impl Iterator<Item = (&[u8], &Value<'static>)> {
    let (_, with_x) = mode(arguments);
    arguments.iter().filter(move |(name, _)| {
        let skipped = if with_x { *name == MATCH } else { name.starts_with(b"x-") };
        !skipped
    })
}

/// How many conditions must hold; nothing if there are none.
fn needed(arguments: &Arguments) -> Option<u32> {
    let (mode, _) = mode(arguments);
    let count = u32::try_from(conditions(arguments).count()).expect("a table fits in a frame");
    let needed = match mode {
        Mode::All => count,
        Mode::Any => 1,
        Mode::None => 0,
    };
    (count > 0).then_some(needed)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{Bench, table};
    use crate::routing::{Properties, Property};
    use crate::value::Table;

    fn check(binding: &[(&'static str, Value<'static>)], message: Table<'_>, expected: bool) {
        let mut bench = Bench::new(HeaderMatch::default());
        let arguments = table(binding);
        bench.bind_with(1, "", &arguments).unwrap();

        assert_eq!(!bench.matches_with("", &message).is_empty(), expected, "{binding:?} {message:?}");

        bench.unbind_with(1, "", &arguments);
        assert!(bench.routing.is_empty());
        assert!(bench.routing.names.is_empty());
    }

    fn mode(name: &'static str) -> (&'static str, Value<'static>) {
        ("x-match", Value::text(name))
    }

    const A: (&str, Value) = ("a", Value::Int(1));
    const B: (&str, Value) = ("b", Value::Int(2));

    #[test]
    fn all_is_the_default_and_wants_every_header() {
        check(&[A, B], table(&[A, B, ("c", Value::Void)]), true);
        check(&[A, B], table(&[A]), false);
        check(&[mode("all"), A, B], table(&[A, B]), true);
        check(&[mode("all"), A, B], table(&[A, ("b", Value::Int(3))]), false);
        check(&[mode("all"), A], table(&[]), false);
    }

    #[test]
    fn any_wants_one_header() {
        check(&[mode("any"), A, B], table(&[B]), true);
        check(&[mode("any"), A, B], table(&[A, B]), true);
        check(&[mode("any"), A, B], table(&[("a", Value::Int(2))]), false);
    }

    #[test]
    fn empty_all_wants_everything_and_empty_any_nothing() {
        check(&[], table(&[]), true);
        check(&[mode("all")], table(&[A]), true);
        check(&[mode("any")], table(&[A]), false);
        check(&[mode("all"), ("x-y", Value::Int(1))], table(&[A]), true);
        check(&[mode("any"), ("x-y", Value::Int(1))], table(&[("x-y", Value::Int(1))]), false);
    }

    #[test]
    fn headers_beginning_x_count_only_with_x() {
        let x = ("x-y", Value::Int(1));

        check(&[mode("all"), A, x.clone()], table(&[A]), true);
        check(&[mode("all-with-x"), A, x.clone()], table(&[A]), false);
        check(&[mode("all-with-x"), A, x.clone()], table(&[A, x.clone()]), true);
        check(&[mode("any"), A, x.clone()], table(std::slice::from_ref(&x)), false);
        check(&[mode("any-with-x"), A, x.clone()], table(&[x]), true);
    }

    #[test]
    fn a_void_value_in_the_binding_asks_for_presence() {
        check(&[("a", Value::Void)], table(&[A]), true);
        check(&[("a", Value::Void)], table(&[("a", Value::Void)]), true);
        check(&[("a", Value::Void)], table(&[B]), false);
        check(&[A], table(&[("a", Value::Void)]), false);
    }

    #[test]
    fn values_are_compared_by_value_and_type() {
        check(&[A], table(&[("a", Value::Uint(1))]), true);
        check(&[A], table(&[("a", Value::text("1"))]), false);
        check(&[("a", Value::text("z"))], table(&[("a", Value::Bytes(b"z".to_vec().into()))]), true);
    }

    #[test]
    fn an_unknown_match_mode_is_refused_in_rabbitmqs_words() {
        let reason = |value| match Bench::new(HeaderMatch::default()).bind_with(
            1,
            "",
            &table(&[("x-match", value)]),
        ) {
            Err(Error::Invalid { reason }) => reason,
            other => panic!("{other:?}"),
        };

        assert_eq!(
            reason(Value::text("most")),
            r#"Invalid x-match field value <<"most">>; expected all, any, all-with-x, or any-with-x"#
        );
        assert_eq!(reason(Value::Int(3)), "Invalid x-match field type signedint (value 3); expected longstr");
    }

    #[test]
    fn a_header_that_comes_twice_counts_once() {
        struct Twice;
        impl Properties for Twice {
            fn headers(&self, see: &mut dyn FnMut(&[u8], &Value<'_>)) {
                see(b"a", &Value::Int(1));
                see(b"a", &Value::Int(1));
            }

            fn property(&self, _: Property) -> Option<Value<'_>> {
                None
            }
        }
        let mut bench = Bench::new(HeaderMatch::default());
        bench.bind_with(1, "", &table(&[A, B])).unwrap();

        assert!(bench.matches_with("", &Twice).is_empty());
    }

    #[test]
    fn the_same_arguments_under_two_keys_match_until_both_are_gone() {
        let mut bench = Bench::new(HeaderMatch::default());
        bench.bind_with(1, "one", &table(&[A])).unwrap();
        bench.bind_with(1, "two", &table(&[A])).unwrap();

        bench.unbind_with(1, "one", &table(&[A]));
        assert_eq!(bench.matches_with("", &table(&[A])), [1]);

        bench.unbind_with(1, "two", &table(&[A]));
        assert!(bench.matches_with("", &table(&[A])).is_empty());
    }

    /// The definition, binding by binding.
    fn naive(arguments: &Arguments, message: &Table<'_>) -> bool {
        let mode = arguments.bytes(MATCH).unwrap_or(b"all");
        let with_x = mode.ends_with(b"-with-x");
        let mut conditions =
            arguments.iter().filter(|(name, _)| *name != MATCH && (with_x || !name.starts_with(b"x-")));
        let holds = |(name, wanted): (&[u8], &Value<'static>)| {
            message.get(name).is_some_and(|value| *wanted == Value::Void || wanted == value)
        };
        match mode {
            b"all" | b"all-with-x" => conditions.all(holds),
            b"any" | b"any-with-x" => conditions.any(holds),
            _ => !conditions.any(holds),
        }
    }

    fn entries() -> impl Strategy<Value = Arguments> {
        let names = prop::sample::select(vec!["a", "b", "c", "x-a"]);
        let values = prop::sample::select(vec![
            Value::Void,
            Value::Int(1),
            Value::Uint(1),
            Value::text("1"),
            Value::Bool(true),
        ]);
        vec((names, values), 0..4).prop_map(|values| table(&values))
    }

    fn bindings() -> impl Strategy<Value = Arguments> {
        let modes = ["all", "any", "all-with-x", "any-with-x", "none", "not-any"].map(Some);
        (entries(), prop::sample::select([modes.as_slice(), &[None]].concat())).prop_map(|(entries, mode)| {
            let mode = mode.map(|mode| (MATCH, Value::text(mode)));
            let entries = entries.iter().map(|(name, value)| (name.to_vec(), value.clone()));
            entries.chain(mode.map(|(name, value)| (name.to_vec(), value))).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_index_agrees_with_the_definition(
            bindings in vec(bindings(), 1..12),
            messages in vec(entries(), 1..8),
            gone in vec(any::<bool>(), 12),
        ) {
            let mut bench = Bench::new(HeaderMatch::default());
            for (target, arguments) in (0..).zip(&bindings) {
                bench.bind_with(target, "", arguments).unwrap();
            }
            for (target, arguments) in (0..).zip(&bindings) {
                if gone[target as usize] {
                    bench.unbind_with(target, "", arguments);
                }
            }

            for message in &messages {
                let expected: Vec<u32> = (0..)
                    .zip(&bindings)
                    .filter(|(target, rule)| !gone[*target as usize] && naive(rule, message))
                    .map(|(target, _)| target)
                    .collect();
                prop_assert_eq!(bench.matches_with("", message), expected, "{:?}", message);
            }

            for (target, arguments) in (0..).zip(&bindings).filter(|(target, _)| !gone[*target as usize]) {
                bench.unbind_with(target, "", arguments);
            }
            prop_assert!(bench.routing.is_empty() && bench.routing.unmet.is_empty());
        }
    }
}
