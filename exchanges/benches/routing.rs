//! What routing one message costs, by kind of exchange.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use garenne_exchanges::{Arguments, Declaration, Envelope, Exchanges, Kind, Matches, Table, Target, Value};

type Graph = Exchanges<Arc<str>>;

fn bind(graph: &mut Graph, source: &str, queue: usize, key: &str, arguments: &Arguments) {
    let queue = Target::Queue(format!("queue {queue}").into());
    graph.bind(source.as_bytes(), &queue, key.as_bytes(), arguments).unwrap();
}

/// Routes to `exchange` with one key after the other; `name` says how many queues a message reaches.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    graph: &Graph,
    exchange: &str,
    messages: &[(String, Table<'_>)],
) {
    let mut matches = Matches::new();
    let mut reached = 0;
    for (key, headers) in messages {
        let envelope = Envelope::new(key.as_bytes(), headers);
        graph.route(exchange.as_bytes(), &envelope, &mut matches).unwrap();
        reached += matches.queues().len();
    }
    let each = reached as f64 / messages.len() as f64;

    let mut next = messages.iter().cycle();
    criterion.bench_function(&format!("{name}, {each:.1} queues"), |bencher| {
        bencher.iter(|| {
            let (key, headers) = next.next().unwrap();
            let envelope = Envelope::new(black_box(key.as_bytes()), headers);
            graph.route(exchange.as_bytes(), &envelope, &mut matches).unwrap();
            black_box(matches.queues().len())
        });
    });
}

fn keys(keys: impl Iterator<Item = String>) -> Vec<(String, Table<'static>)> {
    keys.map(|key| (key, Table::default())).collect()
}

fn default(criterion: &mut Criterion) {
    let mut graph = Graph::new();
    for number in 0..1000 {
        graph.add_queue(format!("queue {number}").as_bytes(), format!("queue {number}").into());
    }
    let messages = keys((0..1000).map(|number| format!("queue {number}")));
    measure(criterion, "default, 1000 queues", &graph, "", &messages);
}

fn direct(criterion: &mut Criterion) {
    let mut graph = Graph::new();
    for number in 0..1000 {
        bind(&mut graph, "amq.direct", number, &format!("key.{number}"), &Arguments::default());
    }
    let messages = keys((0..1000).map(|number| format!("key.{number}")));
    measure(criterion, "direct, 1000 bindings", &graph, "amq.direct", &messages);
}

fn fanout(criterion: &mut Criterion) {
    for queues in [10, 1000] {
        let mut graph = Graph::new();
        for number in 0..queues {
            bind(&mut graph, "amq.fanout", number, "", &Arguments::default());
        }
        let messages = keys(std::iter::once("any".to_owned()));
        let name = format!("fanout, {queues} bindings");
        measure(criterion, &name, &graph, "amq.fanout", &messages);
    }
}

fn topic(criterion: &mut Criterion) {
    let mut graph = Graph::new();
    for number in 0..1000 {
        let (region, device, metric) = (number % 20, number % 50, number % 30);
        let key = match number % 5 {
            0 => format!("region{region}.*.metric{metric}"),
            1 => format!("region{region}.device{device}.#"),
            2 => format!("#.metric{metric}.high{number}"),
            3 => format!("*.device{device}.#.metric{metric}"),
            _ => format!("region{region}.device{device}.metric{number}"),
        };
        bind(&mut graph, "amq.topic", number % 100, &key, &Arguments::default());
    }
    let short = (0..997).map(|number| {
        let (region, device, metric) = (number % 20, number % 50, number % 30);
        format!("region{region}.device{device}.metric{metric}")
    });
    measure(criterion, "topic, 1000 bindings", &graph, "amq.topic", &keys(short));
    let long = (0..20).map(|region| {
        let words = (0..30).map(|number| format!("metric{number}")).collect::<Vec<_>>().join(".");
        format!("region{region}.device{region}.{words}")
    });
    measure(criterion, "topic, keys of 32 words", &graph, "amq.topic", &keys(long));

    let mut graph = Graph::new();
    for number in 0..100 {
        let key = ["#.a"; 30].join(".") + &format!(".b{number}");
        bind(&mut graph, "amq.topic", number, &key, &Arguments::default());
    }
    let hostile = keys(std::iter::once(["a"; 128].join(".")));
    measure(criterion, "topic, hostile", &graph, "amq.topic", &hostile);
}

fn headers(criterion: &mut Criterion) {
    let mut graph = Graph::new();
    let table = |number: usize, mode: &'static str| -> Table<'static> {
        let (format, kind, size) = (number % 10, number % 25, number % 40);
        [
            ("x-match", Value::text(mode)),
            ("format", Value::Bytes(format!("format{format}").into_bytes().into())),
            ("kind", Value::Bytes(format!("kind{kind}").into_bytes().into())),
            ("size", Value::Uint(size as u64)),
        ]
        .into_iter()
        .map(|(name, value)| (name.as_bytes(), value))
        .collect()
    };
    for number in 0..1000 {
        let mode = if number % 100 == 0 { "any" } else { "all" };
        bind(&mut graph, "amq.headers", number % 100, "", &table(number, mode));
    }
    let messages: Vec<_> = (0..997).map(|number| (String::new(), table(number, "all"))).collect();
    measure(criterion, "headers, 1000 bindings", &graph, "amq.headers", &messages);
}

fn consistent_hash(criterion: &mut Criterion) {
    let kind = Kind::parse(b"x-consistent-hash").unwrap();
    for algorithm in ["jump", "ring"] {
        for queues in [10, 100] {
            let mut graph = Graph::new();
            let arguments = [(b"x-algorithm".as_slice(), Value::text(algorithm))].into_iter().collect();
            graph.declare(b"x", Declaration { arguments, ..Declaration::durable(kind) }).unwrap();
            for number in 0..queues {
                bind(&mut graph, "x", number, "10", &Arguments::default());
            }
            let messages = keys((0..1000).map(|number| format!("session.{number}")));
            let name = format!("consistent hash, {algorithm}, {queues} bindings");
            measure(criterion, &name, &graph, "x", &messages);
        }
    }
}

criterion_group!(benches, default, direct, fanout, topic, headers, consistent_hash);
criterion_main!(benches);
