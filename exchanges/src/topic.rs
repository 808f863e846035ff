//! The topic exchange: bindings are patterns of words, and a message finds them down a tree.

use hashbrown::HashMap;

use crate::marks::Marks;
use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Routing};
use crate::slab::Slab;
use crate::targets::Targets;

/// No node.
const NONE: u32 = u32::MAX;

/// Patterns as a tree of words (section 3.1.3.3): `*` is exactly one word, `#` none or more.
///
/// ```text
///  a.*.c   a.#   a.#.c          root ─a─ (1) ─*─ (2) ─c─ (3) a.*.c
///                                        └─#─ (4) a.# ─c─ (5) a.#.c
/// ```
///
/// A message walks all patterns at once, word by word, holding the nodes it can be at. A `#` node once
/// reached stays reached, since it may take any number of words; so each node is held at most once, and
/// a walk costs at most words times nodes, however the patterns are made. Keys have at most 256 words.
#[derive(Debug)]
pub(crate) struct Topic {
    nodes: Slab<Node>,
    /// From a node by a word to the next.
    edges: HashMap<(u32, u32), u32>,
    /// Each word of any pattern has a number, so that a message's word is hashed once and not per node.
    words: HashMap<Box<[u8]>, Word>,
    free_words: Vec<u32>,
    root: u32,
}

#[derive(Debug)]
struct Node {
    /// The child by `*`.
    one: u32,
    /// The child by `#`. A `#` node has none itself: a run of `#` means the same as a single one.
    many: u32,
    /// How many children there are by plain words.
    plain: u32,
    targets: Targets,
}

#[derive(Debug)]
struct Word {
    number: u32,
    edges: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Plain(&'a [u8]),
    One,
    Many,
}

/// Where one message is in the tree.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Nodes reached by exactly the words so far.
    here: Vec<u32>,
    next: Vec<u32>,
    /// `#` nodes reached at any time: they stay.
    many: Marks,
}

impl Routing for Topic {
    fn bind(&mut self, link: Link<'_>) {
        let mut node = self.root;
        for step in steps(link.routing_key) {
            node = self.child(node, step).unwrap_or_else(|| self.grow(node, step));
        }
        self.nodes[node].targets.add(link.target);
    }

    fn unbind(&mut self, link: Link<'_>) {
        let mut path = Vec::new();
        let mut node = self.root;
        for step in steps(link.routing_key) {
            path.push((node, step));
            node = self.child(node, step).expect("only what was bound is unbound");
        }
        self.nodes[node].targets.remove(link.target);

        while self.nodes[node].is_bare() {
            let Some((parent, step)) = path.pop() else { break };
            self.prune(parent, step, node);
            node = parent;
        }
    }

    fn visit(&self, envelope: &Envelope<'_>, scratch: &mut Scratch, found: &mut Found<'_>) {
        for key in envelope.keys() {
            self.walk(key, &mut scratch.topic, found);
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes[self.root].is_bare()
    }
}

impl Topic {
    /// Takes one key through the tree.
    fn walk(&self, key: &[u8], walk: &mut Walk, found: &mut Found<'_>) {
        walk.next.clear();
        walk.many.clear();

        self.arrive(self.root, walk, found);
        for word in words(key) {
            std::mem::swap(&mut walk.here, &mut walk.next);
            walk.next.clear();
            let number = self.words.get(word).map(|word| word.number);

            // A `#` node reached by this word is not to take it again as the word that follows.
            let stayed = walk.many.list().len();
            for place in 0..stayed {
                self.advance(walk.many.list()[place], number, walk, found);
            }
            for place in 0..walk.here.len() {
                self.advance(walk.here[place], number, walk, found);
            }
        }
        for &node in &walk.next {
            self.nodes[node].targets.iter().for_each(|target| found.add(target));
        }
    }

    /// Takes one word from `node` to all children that accept it.
    #[inline]
    fn advance(&self, node: u32, word: Option<u32>, walk: &mut Walk, found: &mut Found<'_>) {
        let Node { one, plain, .. } = self.nodes[node];
        if one != NONE {
            self.arrive(one, walk, found);
        }
        if plain == 0 {
            return;
        }
        let Some(word) = word else { return };
        let Some(&child) = self.edges.get(&(node, word)) else { return };
        self.arrive(child, walk, found);
    }

    /// Holds `node`, and its `#` child with it. What ends with that `#` matches now: it can take the
    /// rest of the words.
    #[inline]
    fn arrive(&self, node: u32, walk: &mut Walk, found: &mut Found<'_>) {
        walk.next.push(node);
        let many = self.nodes[node].many;
        if many != NONE && walk.many.mark(many) {
            self.nodes[many].targets.iter().for_each(|target| found.add(target));
        }
    }

    fn child(&self, node: u32, step: Step<'_>) -> Option<u32> {
        let child = match step {
            Step::One => self.nodes[node].one,
            Step::Many => self.nodes[node].many,
            Step::Plain(word) => {
                let word = self.words.get(word)?.number;
                return self.edges.get(&(node, word)).copied();
            }
        };
        (child != NONE).then_some(child)
    }

    fn grow(&mut self, parent: u32, step: Step<'_>) -> u32 {
        let child = self.nodes.insert(Node::default());
        match step {
            Step::One => self.nodes[parent].one = child,
            Step::Many => self.nodes[parent].many = child,
            Step::Plain(word) => {
                let word = self.hold_word(word);
                self.edges.insert((parent, word), child);
                self.nodes[parent].plain += 1;
            }
        }
        child
    }

    fn prune(&mut self, parent: u32, step: Step<'_>, child: u32) {
        self.nodes.remove(child);
        match step {
            Step::One => self.nodes[parent].one = NONE,
            Step::Many => self.nodes[parent].many = NONE,
            Step::Plain(word) => {
                let word = self.release_word(word);
                self.edges.remove(&(parent, word));
                self.nodes[parent].plain -= 1;
            }
        }
    }

    /// The number of a word, for one more edge.
    fn hold_word(&mut self, word: &[u8]) -> u32 {
        let known = u32::try_from(self.words.len()).expect("memory ends long before 2^32 words");
        let free_words = &mut self.free_words;
        let word = self.words.entry(word.into()).or_insert_with(|| {
            // Without a freed number, the numbers given out are exactly those below `known`.
            Word { number: free_words.pop().unwrap_or(known), edges: 0 }
        });
        word.edges += 1;
        word.number
    }

    /// The number of a word, for one edge less.
    fn release_word(&mut self, word: &[u8]) -> u32 {
        let held = self.words.get_mut(word).expect("an edge holds its word");
        let number = held.number;
        held.edges -= 1;
        if held.edges == 0 {
            self.words.remove(word);
            self.free_words.push(number);
        }
        number
    }
}

impl Default for Topic {
    fn default() -> Self {
        let mut nodes = Slab::default();
        let root = nodes.insert(Node::default());
        Self { nodes, edges: HashMap::new(), words: HashMap::new(), free_words: Vec::new(), root }
    }
}

impl Node {
    /// Whether nothing hangs on this node.
    fn is_bare(&self) -> bool {
        let childless = self.one == NONE && self.many == NONE && self.plain == 0;
        childless && self.targets.is_empty()
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { one: NONE, many: NONE, plain: 0, targets: Targets::default() }
    }
}

/// The words between dots. Empty words count, yet the empty key has none.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = (!key.is_empty()).then(|| key.split(|&byte| byte == b'.'));
    words.into_iter().flatten()
}

/// The steps of a pattern, with every run of `#` as one.
fn steps(pattern: &[u8]) -> impl Iterator<Item = Step<'_>> {
    let mut last = None;
    let steps = words(pattern).map(|word| match word {
        b"*" => Step::One,
        b"#" => Step::Many,
        word => Step::Plain(word),
    });
    steps.filter(move |&step| {
        let repeated = step == Step::Many && last == Some(Step::Many);
        last = Some(step);
        !repeated
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::Bench;

    fn check(pattern: &str, key: &str, expected: bool) {
        let mut bench = Bench::new(Topic::default());
        bench.bind(1, pattern);

        assert_eq!(!bench.matches(key).is_empty(), expected, "{pattern:?} on {key:?}");
        assert_eq!(naive(pattern, key), expected, "the oracle: {pattern:?} on {key:?}");

        bench.unbind(1, pattern);
        assert!(bench.routing.is_empty());
    }

    #[test]
    fn plain_words_match_themselves() {
        check("a.b.c", "a.b.c", true);
        check("a.b.c", "a.b", false);
        check("a.b.c", "a.b.c.d", false);
        check("a.b", "a.B", false);
        check("a*", "ab", false);
        check("a#.b", "a.b", false);
    }

    #[test]
    fn a_star_is_exactly_one_word() {
        check("*", "a", true);
        check("*", "a.b", false);
        check("*.b", "a.b", true);
        check("a.*", "a", false);
        check("a.*.c", "a.b.c", true);
        check("a.*.c", "a.b.b.c", false);
        check("*.*", "a.b", true);
    }

    #[test]
    fn a_hash_is_no_word_or_more() {
        check("#", "a.b.c", true);
        check("a.#", "a", true);
        check("a.#", "a.b.c", true);
        check("#.c", "c", true);
        check("#.c", "c.d", false);
        check("a.#.c", "a.c", true);
        check("a.#.c", "a.b.b.c", true);
        check("#.#", "a", true);
    }

    #[test]
    fn empty_words_count() {
        check("", "", true);
        check("#", "", true);
        check("#.#.#", "", true);
        check("*", "", false);
        check("", "a", false);
        check("*.*", ".", true);
        check("*", ".", false);
        check("a.*", "a.", true);
        check("a.", "a.", true);
        check("a.", "a", false);
        check("a..b", "a..b", true);
        check("a..b", "a.b", false);
        check("a.*.b", "a..b", true);
        check(".a", ".a", true);
        check("#.a", ".a", true);
    }

    #[test]
    fn several_wildcards_work_together() {
        check("*.#", "a", true);
        check("*.#", "", false);
        check("#.*", "a.b", true);
        check("#.*", "", false);
        check("#.*.#", "a", true);
        check("*.#.*", "a", false);
        check("*.#.*", "a.b", true);
        check("#.a.#.b.#", "x.a.x.x.b", true);
        check("#.a.#.b.#", "x.b.x.a", false);
        check("#.b.a.#", "b.b.a", true);
        check("*.#.b", "b", false);
    }

    #[test]
    fn many_bindings_are_matched_at_once() {
        let mut bench = Bench::new(Topic::default());
        let patterns = ["a.b.c", "a.*.c", "a.#.b", "a.b.b", "#", "#.#", "*.a", "a.b", "*.b.#", ""];
        for (target, pattern) in (0..).zip(patterns) {
            bench.bind(target, pattern);
        }

        assert_eq!(bench.matches("a.b.c"), [0, 1, 4, 5, 8]);
        assert_eq!(bench.matches("a.b"), [2, 4, 5, 7, 8]);
        assert_eq!(bench.matches("a.b.b"), [2, 3, 4, 5, 8]);
        assert_eq!(bench.matches(""), [4, 5, 9]);
        assert_eq!(bench.matches("b.c.a"), [4, 5]);
    }

    #[test]
    fn patterns_that_mean_the_same_are_counted() {
        let mut bench = Bench::new(Topic::default());
        bench.bind(1, "#");
        bench.bind(1, "#.#");

        bench.unbind(1, "#");
        assert_eq!(bench.matches("a"), [1]);

        bench.unbind(1, "#.#");
        assert!(bench.matches("a").is_empty());
        assert!(bench.routing.is_empty());
    }

    #[test]
    fn hostile_patterns_do_not_blow_up() {
        let mut bench = Bench::new(Topic::default());
        bench.bind(1, &["#"; 100].join("."));
        bench.bind(2, &["#.*"; 60].join("."));
        bench.bind(3, &["#.a"; 60].join("."));
        bench.bind(4, &format!("{}.b", ["#.a"; 60].join(".")));
        bench.bind(5, &format!("{}.b", ["#.*.a"; 40].join(".")));

        assert_eq!(bench.matches(&["a"; 128].join(".")), [1, 2, 3]);
    }

    #[test]
    fn words_that_come_and_go_leave_nothing_behind() {
        let mut bench = Bench::new(Topic::default());
        for round in 0..100 {
            let pattern = format!("x.{round}.#.y{round}");
            bench.bind(1, &pattern);
            bench.bind(1, "x.*");
            bench.unbind(1, &pattern);
            bench.unbind(1, "x.*");
        }

        assert!(bench.routing.is_empty());
        assert!(bench.routing.words.is_empty());
        assert!(bench.routing.edges.is_empty());
        assert!(bench.routing.free_words.len() <= 3);
    }

    /// The definition, by trying everything.
    fn naive(pattern: &str, key: &str) -> bool {
        fn matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
            match (pattern, key) {
                ([], _) => key.is_empty(),
                ([b"#", rest @ ..], _) => (0..=key.len()).any(|taken| matches(rest, &key[taken..])),
                (_, []) => false,
                ([b"*", rest @ ..], [_, key @ ..]) => matches(rest, key),
                ([word, rest @ ..], [first, key @ ..]) => word == first && matches(rest, key),
            }
        }
        let pattern: Vec<_> = words(pattern.as_bytes()).collect();
        let key: Vec<_> = words(key.as_bytes()).collect();
        matches(&pattern, &key)
    }

    fn joined(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        vec(prop::sample::select(words), 0..7).prop_map(|words| words.join("."))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_tree_agrees_with_the_definition(
            patterns in vec(joined(&["a", "b", "", "*", "#", "#", "*"]), 1..20),
            keys in vec(joined(&["a", "b", "c", ""]), 1..10),
            gone in vec(any::<bool>(), 20),
        ) {
            let mut bench = Bench::new(Topic::default());
            for (target, pattern) in (0..).zip(&patterns) {
                bench.bind(target, pattern);
            }
            for (target, pattern) in (0..).zip(&patterns) {
                if gone[target as usize] {
                    bench.unbind(target, pattern);
                }
            }

            for key in &keys {
                let expected: Vec<u32> = (0..)
                    .zip(&patterns)
                    .filter(|(target, pattern)| !gone[*target as usize] && naive(pattern, key))
                    .map(|(target, _)| target)
                    .collect();
                prop_assert_eq!(bench.matches(key), expected, "{:?}", key);
            }

            for (target, pattern) in (0..).zip(&patterns) {
                if !gone[target as usize] {
                    bench.unbind(target, pattern);
                }
            }
            prop_assert!(bench.routing.is_empty());
            prop_assert!(bench.routing.edges.is_empty());
        }
    }
}
