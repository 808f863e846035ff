//! Kills: of a child process under load, and at each step of a checkpoint.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use std::{env, thread};

use common::*;
use garenne_store::*;

#[test]
fn a_crash_at_any_step_of_a_checkpoint_leaves_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let copies = Arc::new(Mutex::new(Vec::new()));
    let (done, checkpoints) = mpsc::channel();
    let fault = {
        let (copies, path) = (Arc::clone(&copies), dir.path().to_owned());
        Arc::new(move |step: &'static str| {
            if step.starts_with("checkpoint.") {
                copies.lock().unwrap().push((step, crash(&path)));
            }
            if step == "checkpoint.done" {
                let _ = done.send(());
            }
            Ok(())
        })
    };
    let interval = Duration::from_millis(100);
    let quick = Options { checkpoint_interval: interval, fault: Some(fault), ..options() };
    let (store, _) = Store::open(dir.path(), quick).unwrap();
    store.append_and_wait(vec![create(1), publish(&[(1, 0)], "zero")]).unwrap();
    checkpoints.recv().unwrap();
    copies.lock().unwrap().clear();

    // One group, so that every copy holds all of it.
    let mut group: Vec<_> = (1..200).map(|seq| publish(&[(1, seq)], vec![seq as u8; 500])).collect();
    group.push(settle(1, 50..200));
    group.push(define("a", "b"));
    store.append_and_wait(group).unwrap();
    checkpoints.recv().unwrap();
    // Takes the segments that died before the last checkpoint.
    store.append_and_wait(vec![settle(1, 1..40)]).unwrap();
    checkpoints.recv().unwrap();
    store.close().unwrap();

    let copies = std::mem::take(&mut *copies.lock().unwrap());
    let steps: BTreeSet<_> = copies.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps.len(), 7, "{steps:?}");
    for (count, (step, copy)) in copies.iter().take(13).enumerate() {
        let recovered = reopen(copy.path());

        let found = seqs(&recovered, 1);
        let first: Vec<u64> = (0..50).collect();
        let second: Vec<u64> = [0].into_iter().chain(40..50).collect();
        let expected = if count < 7 { first.clone() } else { second.clone() };
        // The group after the checkpoint may be in a copy of its last steps.
        assert!(found == expected || found == second, "{step}: {found:?}");
        assert!(recovered.damage.is_empty(), "{step}: {:?}", recovered.damage);
        assert_eq!(recovered.definitions.len(), 1, "{step}");
    }
}

const CHILD_DIR: &str = "GARENNE_STORE_CRASH_DIR";
/// Each worker has a queue for messages, one that shares them, one emptied by atomics, and one that
/// these fill.
const QUEUES_PER_WORKER: u64 = 4;
const WORKERS: u64 = 2;

fn body(queue: u64, seq: u64) -> Vec<u8> {
    let len = [40, 300, 1024, 6000][(seq % 4) as usize];
    format!("{queue}/{seq}/").into_bytes().into_iter().cycle().take(len).collect()
}

/// Two of three messages are due at some time.
fn due_at_ms(seq: u64) -> Option<u64> {
    (seq % 3 != 1).then_some(1 + seq * 7919 % 10_007)
}

fn timed(seq: u64, message: Operation) -> Operation {
    let Operation::Publish(message) = message else { unreachable!() };
    Operation::Publish(Publish { due_at_ms: due_at_ms(seq), ..message })
}

/// Not a test by itself: the process that the next test kills.
#[test]
fn child_under_load() {
    let Ok(dir) = env::var(CHILD_DIR) else { return };
    let options = Options {
        segment_bytes: 256 << 10,
        checkpoint_interval: Duration::from_millis(20),
        ..Options::default()
    };
    let (store, recovered) = Store::open(Path::new(&dir), options).unwrap();
    for queue in 1..=WORKERS * QUEUES_PER_WORKER {
        store.append_and_wait(vec![create(queue)]).unwrap();
    }
    let next: BTreeMap<u64, u64> =
        recovered.queues.iter().map(|queue| (queue.queue.0, queue.next_seq.0)).collect();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (store, next) = (&store, &next);
            scope.spawn(move || load(store, worker, next));
        }
    });
}

fn load(store: &Store, worker: u64, next: &BTreeMap<u64, u64>) {
    let own = worker * QUEUES_PER_WORKER + 1;
    let (shared, atomic, target) = (own + 1, own + 2, own + 3);
    let mut seq = (own..=target).filter_map(|queue| next.get(&queue)).copied().max().unwrap_or(0);
    let me = thread::current();
    let mut session = store.session(Arc::new(move || me.unpark()));
    loop {
        // Ten messages to two queues and ten to the third, some of them settled at once.
        let group = seq..seq + 10;
        let mut operations = Vec::new();
        for seq in group.clone() {
            operations.push(timed(seq, publish(&[(own, seq), (shared, seq)], body(own, seq))));
            operations.push(timed(seq, publish(&[(atomic, seq)], body(atomic, seq))));
        }
        let settled = group.clone().filter(|seq| seq % 3 != 0);
        tell(&format!("trying {own} {}", numbers(settled.clone())));
        operations.push(settle(own, settled.clone()));
        let ticket = session.append(operations, Urgency::Sync);
        wait(&session, ticket);
        tell(&format!("published {own} {}", numbers(group.clone())));
        tell(&format!("published {shared} {}", numbers(group.clone())));
        tell(&format!("published {atomic} {}", numbers(group.clone())));
        tell(&format!("settled {own} {}", numbers(settled)));

        // Out of the third queue and into the fourth one, all or nothing.
        let moved = group.clone().filter(|seq| seq % 5 == 0);
        let parts = moved.clone().flat_map(|seq| {
            [settle(atomic, [seq]), timed(seq, publish(&[(target, seq)], body(atomic, seq)))]
        });
        tell(&format!("trying {atomic} {}", numbers(moved.clone())));
        let ticket = session.append([Operation::Atomic(parts.collect())], Urgency::Sync);
        wait(&session, ticket);
        tell(&format!("settled {atomic} {}", numbers(moved)));
        seq += 10;
    }
}

fn wait(session: &Session, ticket: Ticket) {
    while session.durable() < ticket {
        thread::park();
    }
}

fn numbers(seqs: impl Iterator<Item = u64>) -> String {
    seqs.map(|seq| seq.to_string()).collect::<Vec<_>>().join(" ")
}

fn tell(fact: &str) {
    // One write: a line is told whole or not at all.
    let _ = std::io::stdout().lock().write_all(format!("@{fact}\n").as_bytes());
}

#[derive(Default)]
struct Facts {
    published: BTreeSet<(u64, u64)>,
    tried: HashSet<(u64, u64)>,
    settled: HashSet<(u64, u64)>,
}

impl Facts {
    fn learn(&mut self, line: &str) {
        let Some(fact) = line.strip_prefix('@') else { return };
        let mut words = fact.split(' ');
        let verb = words.next().unwrap();
        let queue: u64 = words.next().unwrap().parse().unwrap();
        let messages = words.map(|seq| (queue, seq.parse::<u64>().unwrap()));
        match verb {
            "published" => self.published.extend(messages),
            "trying" => self.tried.extend(messages),
            "settled" => self.settled.extend(messages),
            _ => panic!("{line}"),
        }
    }

    fn check(&self, recovered: Reopened) {
        assert!(recovered.damage.iter().all(|damage| damage.kind == DamageKind::TornTail));
        let mut present = HashSet::new();
        for (queue, messages) in recovered.contents {
            assert!(messages.is_sorted_by_key(|(seq, _, _)| *seq), "queue {queue} is out of order");
            let live = messages.iter().map(|(seq, _, _)| *seq);
            let mut due: Vec<(u64, Seq)> = live.filter_map(|seq| Some((due_at_ms(seq)?, Seq(seq)))).collect();
            due.sort_unstable();
            let listed = recovered.due.get(&queue).cloned().unwrap_or_default();
            assert!(listed == due, "queue {queue}: {} listed, {} due", listed.len(), due.len());
            for (seq, _, found) in messages {
                assert!(present.insert((queue, seq)), "{queue}/{seq} is there twice");
                let origin = match queue % QUEUES_PER_WORKER {
                    2 | 0 => body(queue - 1, seq),
                    _ => body(queue, seq),
                };
                assert!(found == origin, "{queue}/{seq} has another body");
            }
        }
        for message in &self.settled {
            assert!(!present.contains(message), "{message:?} was settled");
        }
        for message in &self.published {
            let there = present.contains(message);
            assert!(there || self.tried.contains(message), "{message:?} is lost");
        }
        for worker in 0..WORKERS {
            let own = worker * QUEUES_PER_WORKER + 1;
            let moved = self.tried.iter().filter(|(queue, _)| *queue == own + 2);
            for (atomic, seq) in moved {
                let is_known = self.published.contains(&(*atomic, *seq));
                let here = present.contains(&(*atomic, *seq));
                let there = present.contains(&(own + 3, *seq));
                assert!(!is_known || here != there, "half of an atomic: {atomic}/{seq}");
            }
        }
    }
}

#[test]
fn a_killed_process_has_lost_nothing_it_called_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut facts = Facts::default();

    for round in 0..6 {
        run_and_kill(dir.path().to_owned(), 400 + round * 170, &mut facts);

        let recovered = reopen(crash(dir.path()).path());
        facts.check(recovered);
    }
    assert!(facts.published.len() > 1000);
}

fn run_and_kill(dir: PathBuf, lines: usize, facts: &mut Facts) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["child_under_load", "--exact", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut heard = 0;
    while {
        line.clear();
        output.read_line(&mut line).unwrap()
    } > 0
    {
        if line.ends_with('\n') {
            facts.learn(line.trim_end());
        }
        heard += 1;
        if heard == lines {
            // SIGKILL; what it has said until then is still read.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(heard >= lines, "the child ended by itself");
}
