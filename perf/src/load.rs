//! A run under load: opens the connections, starts the threads, measures, and counts what is missing.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::board::{Board, Stage};
use crate::consumer::{self, Consumer};
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::host::{Desk, Work, host};
use crate::ledger::Ledger;
use crate::measure::Measure;
use crate::producer::{self, Producer};
use crate::report::{Cost, Latency, round};
use crate::routes::Routes;
use crate::session::Session;
use crate::setup;
use crate::stamp;
use crate::topology::Topology;
use crate::uri::Uri;
use crate::usage::Processes;

/// What is to be done.
pub struct Plan {
    /// `run`, `fill` or `drain`.
    pub mode: &'static str,
    /// Which broker.
    pub uri: Uri,
    /// Names of everything.
    pub topology: Topology,
    /// Who publishes; `producers` may be 0.
    pub producers: producer::Options,
    /// Who consumes; `consumers` may be 0.
    pub consumers: consumer::Options,
    /// Threads of each kind.
    pub threads: usize,
    /// When it ends.
    pub until: Until,
    /// How long nothing may move before the run gives up.
    pub patience: Duration,
    /// Whether the queues stay.
    pub must_keep_queues: bool,
    /// The broker's process.
    pub broker: Option<u32>,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After a time. What happens before `warm_up` is over does not count.
    Elapsed {
        /// Not measured.
        warm_up: Duration,
        /// Measured.
        duration: Duration,
    },
    /// When the producers have published their count.
    Published,
    /// When the queues are empty; they must hold `count` messages, if that is said.
    Drained {
        /// Messages in all queues together.
        count: Option<u64>,
    },
}

/// Does what the plan says. Faults of the broker are in the report; an error is what kept it from
/// beginning.
pub fn run(plan: &Plan) -> Result<Figures> {
    let broker = plan.broker.map(Processes::tree).transpose()?;
    let mut session = Session::open(&plan.uri)?;
    let board = Board::new();
    match plan.until {
        Until::Drained { count } => {
            let mut waiting = 0;
            for queue in &plan.topology.queues {
                waiting += setup::waiting(&mut session, queue)?;
            }
            board.expect(count.unwrap_or(waiting));
            board.enter(Stage::Stopping);
        }
        _ => setup::declare(&mut session, &plan.topology)?,
    }
    let (consumers, producers) = (consumers(plan)?, producers(plan, &board)?);
    let mut measure = Measure::new(&board, broker.as_ref());
    if !matches!(plan.until, Until::Elapsed { .. }) {
        measure.begin();
    }
    let mut report = thread::scope(|scope| {
        let (board, queues) = (&board, plan.topology.queues.len());
        let consumers = consumers.into_iter().map(|works| scope.spawn(move || staff(works, queues, board)));
        let producers = producers.into_iter().map(|works| scope.spawn(move || staff(works, 0, board)));
        conduct(plan, board, &mut measure, producers.collect(), consumers.collect())
    });
    if !plan.must_keep_queues {
        let done = setup::delete(&mut session, &plan.topology.shape.prefix, &plan.topology.queues);
        report.errors.extend(done.err().map(|error| error.to_string()));
    }
    let done = session.close();
    report.errors.extend(done.err().map(|error| error.to_string()));
    report.errors.dedup();
    Ok(report)
}

/// Opened consumers, by thread. All consumers of a queue share a thread, so that nobody else touches its
/// ledger.
fn consumers(plan: &Plan) -> Result<Vec<Vec<Consumer>>> {
    let mut threads: Vec<Vec<Consumer>> = Vec::new();
    threads.resize_with(plan.threads.min(plan.consumers.consumers), Vec::new);
    for index in 0..plan.consumers.consumers {
        let session = Session::open(&plan.uri)?;
        let thread = index % plan.topology.queues.len() % threads.len();
        threads[thread].push(Consumer::new(session, &plan.topology, &plan.consumers, index)?);
    }
    Ok(threads)
}

/// Opened producers, by thread.
fn producers(plan: &Plan, board: &Board) -> Result<Vec<Vec<Producer>>> {
    let count = plan.producers.producers;
    let sessions: Vec<Session> = (0..count).map(|_| Session::open(&plan.uri)).collect::<Result<_>>()?;
    let mut threads: Vec<Vec<Producer>> = Vec::new();
    threads.resize_with(plan.threads.min(count), Vec::new);
    // One start for all, so that paced producers take turns.
    let now_ns = board.now_ns();
    for (index, session) in sessions.into_iter().enumerate() {
        let producer = Producer::new(session, &plan.topology, &plan.producers, index, now_ns)?;
        threads[index % plan.threads].push(producer);
    }
    Ok(threads)
}

/// A thread's connections after their work.
struct Staff<W> {
    works: Vec<W>,
    desk: Desk,
    error: Option<Error>,
}

/// What a thread does: its connections work until they are done.
fn staff<W: Work>(mut works: Vec<W>, queues: usize, board: &Board) -> Staff<W> {
    let mut desk = Desk::new(queues);
    let error = host(&mut works, &mut desk, board).err();
    if error.is_some() {
        // The others would wait for what will not come.
        board.enter(Stage::Aborted);
    }
    Staff { works, desk, error }
}

type Handles<'scope, W> = Vec<ScopedJoinHandle<'scope, Staff<W>>>;

fn are_finished<W>(handles: &Handles<'_, W>) -> bool {
    handles.iter().all(|handle| handle.is_finished())
}

fn join<W>(handles: Handles<'_, W>) -> Vec<Staff<W>> {
    let join = |handle: ScopedJoinHandle<'_, Staff<W>>| handle.join().expect("a thread that does not panic");
    handles.into_iter().map(join).collect()
}

/// Takes a run through its stages, and gathers what came of it.
fn conduct(
    plan: &Plan,
    board: &Board,
    measure: &mut Measure<'_>,
    producers: Handles<'_, Producer>,
    consumers: Handles<'_, Consumer>,
) -> Figures {
    let mut errors = Vec::new();
    let ran = match plan.until {
        Until::Elapsed { warm_up, duration } => {
            let begin = Instant::now();
            let warm = measure.wait(None, || begin.elapsed() >= warm_up);
            measure.begin();
            let ran = measure.wait(None, || begin.elapsed() >= warm_up + duration);
            measure.stop();
            warm.and(ran)
        }
        Until::Published => {
            // At a fixed rate silence may be what was asked for.
            let patience = plan.producers.per_second.is_none().then_some(plan.patience);
            measure.wait(patience, || are_finished(&producers))
        }
        Until::Drained { .. } => Ok(()),
    };
    errors.extend(ran.err());
    board.enter(Stage::Stopping);
    errors.extend(measure.wait(Some(plan.patience), || are_finished(&producers)).err());
    let producers = join(producers);
    let routes = Routes::new(&plan.topology, sent(plan, &producers));
    if !matches!(plan.until, Until::Drained { .. }) {
        board.expect(routes.deliveries());
    }
    errors.extend(measure.wait(Some(plan.patience), || are_finished(&consumers)).err());
    measure.stop();
    let consumers = join(consumers);

    let mut figures = figures(plan, board, measure, &producers, &consumers);
    let (producers, failures, _) = dismiss(producers);
    errors.extend(failures);
    let (consumers, failures, desks) = dismiss(consumers);
    errors.extend(failures);
    faults(&mut figures, plan, &routes, &gathered_ledgers(plan, desks));
    if board.stage() != Stage::Aborted {
        let goodbyes = producers.into_iter().map(Producer::close);
        let goodbyes = goodbyes.chain(consumers.into_iter().map(Consumer::close));
        errors.extend(goodbyes.filter_map(Result::err));
    }
    figures.errors.extend(errors.iter().map(Error::to_string));
    figures
}

/// How many messages of each stream were published.
fn sent(plan: &Plan, producers: &[Staff<Producer>]) -> Vec<u64> {
    // The producers were made, so there are not too many streams; and without any there are none.
    let mut sent = vec![0; plan.topology.streams(plan.producers.producers).unwrap_or(0)];
    let all = producers.iter().flat_map(|staff| &staff.works).flat_map(Producer::sent);
    all.for_each(|(stream, messages)| sent[stream] = messages);
    sent
}

/// Takes threads apart: their connections, what went wrong, and their desks.
fn dismiss<W>(staffs: Vec<Staff<W>>) -> (Vec<W>, Vec<Error>, Vec<Desk>) {
    let (mut works, mut errors, mut desks) = (Vec::new(), Vec::new(), Vec::new());
    for staff in staffs {
        works.extend(staff.works);
        errors.extend(staff.error);
        desks.push(staff.desk);
    }
    (works, errors, desks)
}

/// The ledger of each queue: one thread has it, the others have an empty one.
fn gathered_ledgers(plan: &Plan, desks: Vec<Desk>) -> Vec<Ledger> {
    let mut ledgers: Vec<Ledger> = plan.topology.queues.iter().map(|_| Ledger::default()).collect();
    for desk in desks {
        let used = desk.ledgers.into_iter().enumerate().filter(|(_, ledger)| ledger.total() > 0);
        used.for_each(|(queue, ledger)| ledgers[queue] = ledger);
    }
    ledgers
}

/// Finds out what is missing, so far as it can be known.
fn faults(figures: &mut Figures, plan: &Plan, routes: &Routes, ledgers: &[Ledger]) {
    if let Until::Drained { count } = plan.until {
        let distinct: u64 = ledgers.iter().map(Ledger::total).sum();
        let holes = ledgers.iter().map(Ledger::holes).sum();
        figures.lost = Some(count.map_or(holes, |count| count.saturating_sub(distinct)));
        return;
    }
    if plan.producers.producers == 0 || plan.consumers.consumers == 0 {
        return;
    }
    let (lost, misrouted) = match stamp::fits(plan.producers.body_bytes) {
        true => routes.faults(ledgers),
        false => (routes.deliveries().saturating_sub(figures.received_in_all), 0),
    };
    // What was refused was never promised.
    figures.lost = Some(lost.saturating_sub(figures.nacked));
    figures.misrouted = misrouted;
}

/// All figures but the faults.
fn figures(
    plan: &Plan,
    board: &Board,
    measure: &Measure<'_>,
    producers: &[Staff<Producer>],
    consumers: &[Staff<Consumer>],
) -> Figures {
    let (start, end) = (measure.start, measure.end.unwrap_or_default());
    let total = board.counters.read();
    let counted = end.counts.since(&start.counts);
    let is_elapsed = matches!(plan.until, Until::Elapsed { .. });
    let last = &board.last;
    // A run by count ends for each figure with its own last message.
    let seconds_to = |last_ns: u64| {
        let end_ns = if is_elapsed { end.at_ns } else { last_ns };
        end_ns.saturating_sub(start.at_ns) as f64 / 1e9
    };
    let rate = |count: u64, last_ns: u64| match count {
        0 => 0.0,
        count => round(count as f64 / seconds_to(last_ns).max(1e-9), 1),
    };
    let seconds = end.at_ns.saturating_sub(start.at_ns) as f64 / 1e9;
    let messages = if counted.published > 0 { counted.published } else { counted.received };
    let cost = |cpu_ns, messages| Cost::new(cpu_ns, seconds, messages);
    let own_cpu_ns = end.own_cpu_ns.saturating_sub(start.own_cpu_ns);
    let broker_cpu_ns = end.broker.cpu_ns.saturating_sub(start.broker.cpu_ns);
    let both_ns = own_cpu_ns + broker_cpu_ns;
    let (published_cpu_ns, confirm_us) = gathered(producers);
    let (received_cpu_ns, delivery_us) = gathered(consumers);
    Figures {
        mode: plan.mode,
        broker: plan.uri.to_string(),
        seconds: round(seconds, 3),
        published: counted.published,
        published_per_second: rate(counted.published, last.published_ns.load(Relaxed)),
        confirmed: counted.confirmed,
        confirmed_per_second: rate(counted.confirmed, last.confirmed_ns.load(Relaxed)),
        received: counted.received,
        received_per_second: rate(counted.received, last.received_ns.load(Relaxed)),
        received_in_all: total.received,
        returned: total.returned,
        nacked: total.nacked,
        redelivered: total.redelivered,
        duplicated: total.duplicated,
        out_of_order: total.out_of_order,
        unreadable: total.unreadable,
        delivery_us,
        confirm_us,
        own: Some(cost(own_cpu_ns, messages)),
        own_share_percent: plan.broker.map(|_| round(100.0 * own_cpu_ns as f64 / both_ns.max(1) as f64, 1)),
        own_producers: (!producers.is_empty()).then(|| cost(published_cpu_ns, counted.published)),
        own_consumers: (!consumers.is_empty()).then(|| cost(received_cpu_ns, counted.received)),
        broker_cost: plan.broker.map(|_| cost(broker_cpu_ns, messages)),
        broker_memory: measure.memory,
        ..Figures::default()
    }
}

/// Processor time and latencies of all threads of a kind.
fn gathered<W>(staffs: &[Staff<W>]) -> (u64, Option<Latency>) {
    let mut all: Option<Histogram<u64>> = None;
    for staff in staffs {
        match &mut all {
            None => all = Some(staff.desk.latency.clone()),
            Some(all) => all.add(&staff.desk.latency).expect("histograms of the same bounds"),
        }
    }
    (staffs.iter().map(|staff| staff.desk.cpu_ns).sum(), all.as_ref().and_then(Latency::of))
}
