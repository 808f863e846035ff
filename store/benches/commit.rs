//! Group commit: how many 1 KiB messages a second become durable, and settled by the next group.
//!
//! Each element is one persistent message: its publish waited for, its settlement not.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use garenne_store::*;

const BODY_BYTES: usize = 1024;

fn publish(seq: u64, body: &Bytes) -> Operation {
    let parts = Parts::Own([Bytes::from_static(b"jobs"), Bytes::new(), body.clone()]);
    let destinations = [(QueueId(1), Seq(seq))].into_iter().collect();
    Operation::Publish(Publish { timestamp_ms: 1, due_at_ms: None, destinations, parts })
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish_and_settle_1KiB");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(4));
    for window in [1u64, 256, 4096] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(dir.path(), Options::default()).expect("a new store");
        store.append_and_wait(vec![Operation::QueueCreate { queue: QueueId(1) }]).expect("a healthy disk");
        let me = thread::current();
        let mut session = store.session(Arc::new(move || me.unpark()));
        let body = Bytes::from(vec![b'x'; BODY_BYTES]);
        let mut seq = 0;

        group.throughput(Throughput::Elements(window));
        group.bench_function(BenchmarkId::new("window", window), |bencher| {
            bencher.iter(|| {
                let mut ticket = Ticket(0);
                for _ in 0..window {
                    let settled = [Seq(seq.max(1) - 1)].into_iter().collect();
                    let settle = Operation::Settle { queue: QueueId(1), runs: settled };
                    ticket = session.append([publish(seq, &body), settle], Urgency::Sync);
                    seq += 1;
                }
                while session.durable() < ticket {
                    thread::park();
                }
            });
        });
        store.close().expect("a healthy disk");
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
