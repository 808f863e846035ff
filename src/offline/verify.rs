//! `verify`: whether a data directory is whole. Every damage is told with its place, what it costs, and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stdout};

use store::{Damage, DamageKind, Depth, QueueId, RecoveredQueue, Seq};

use super::contents::{Contents, Of};
use super::{Error, Verify};
use crate::vhost::definitions::Definition;

/// What was found wrong.
struct Finding {
    /// Where: a file of the directory and a place in it, or what it is about.
    place: String,
    what: String,
    costs: String,
    next: &'static str,
}

/// What all messages come to.
#[derive(Default)]
struct Totals {
    queues: u64,
    messages: u64,
    body_bytes: u64,
}

const RESTORE: &str = "a broker starts all the same and keeps what is around it; a backup may have more";
const DECLARE: &str = "declare it anew, or import definitions that have it";

/// Prints it. Whether it is whole.
pub fn run(asked: &Verify) -> Result<bool, Error> {
    let out = &mut stdout().lock();
    let mut contents = Contents::read(&asked.dir, Depth::Everything)?;
    writeln!(out, "{}: a data directory of format {}", asked.dir.display(), contents.store.format)?;
    let records: u64 = contents.store.segments.iter().map(|segment| segment.records).sum();
    writeln!(
        out,
        "log: {} segments, {} bytes, {records} records",
        contents.store.segments.len(),
        contents.store.log_bytes
    )?;
    writeln!(out, "definitions: {}", counted(&contents.definitions))?;
    let mut lost = Vec::new();
    let totals = look_at_queues(&mut contents, &mut lost, out)?;
    writeln!(
        out,
        "queues: {}, messages: {}, bytes of bodies: {}",
        totals.queues, totals.messages, totals.body_bytes
    )?;

    if !contents.store.clean {
        writeln!(
            out,
            "note: the next start reads the log from the last checkpoint on, as after a crash, and in every backup"
        )?;
    }
    let (torn, damage): (Vec<&Damage>, Vec<&Damage>) =
        contents.store.damage.iter().partition(|damage| damage.kind == DamageKind::TornTail);
    for tail in torn {
        writeln!(
            out,
            "note: {}, byte {}: {}, {} bytes. A crash looks like this. Nobody was promised it; the next start cuts it off",
            file(tail.segment),
            tail.offset,
            tail.detail,
            tail.bytes
        )?;
    }
    let mut findings: Vec<Finding> = damage.into_iter().map(|damage| of_damage(damage, &lost)).collect();
    findings.extend(of_messages(&contents, &lost));
    findings.extend(of_definitions(&contents));
    for Finding { place, what, costs, next } in &findings {
        writeln!(out, "DAMAGE {place}: {what}\n  costs: {costs}\n  next: {next}")?;
    }
    match findings.len() {
        0 => writeln!(out, "it is whole")?,
        n => writeln!(out, "it is damaged: {n} findings")?,
    }
    Ok(findings.is_empty())
}

/// Reads all messages, and prints a line for each queue.
fn look_at_queues(
    contents: &mut Contents,
    lost: &mut Vec<Damage>,
    out: &mut impl Write,
) -> Result<Totals, Error> {
    let queues: Vec<RecoveredQueue> = contents.store.queues.clone();
    let mut by_name: BTreeMap<String, (u64, u64, bool)> = BTreeMap::new();
    for queue in &queues {
        let (mut messages, mut body_bytes) = (0, 0);
        lost.extend(contents.messages(queue, |_, message| {
            messages += 1;
            body_bytes += message.parts[2].len() as u64;
            Ok(())
        })?);
        let of = contents.owner(queue.queue);
        if matches!(of, Of::Queue(..)) || messages > 0 {
            // The others are for the broker's own use.
            let counts = matches!(of, Of::Queue(..) | Of::Delays(_) | Of::Nothing);
            let sum = by_name.entry(of.to_string()).or_default();
            *sum = (sum.0 + messages, sum.1 + body_bytes, counts);
        }
    }
    let mut totals = Totals::default();
    for (name, (messages, body_bytes, counts)) in by_name {
        writeln!(out, "  {name}: {messages} messages, {body_bytes} bytes")?;
        if !counts {
            continue;
        }
        totals.queues += 1;
        totals.messages += messages;
        totals.body_bytes += body_bytes;
    }
    Ok(totals)
}

/// How many there are of each kind.
fn counted(definitions: &[Definition]) -> String {
    let kinds = [
        "vhosts",
        "users",
        "permissions",
        "topic permissions",
        "global parameters",
        "policies",
        "exchanges",
        "delaying exchanges",
        "deduplicating exchanges",
        "queues",
        "bindings",
    ];
    let mut counts = [0; 11];
    for definition in definitions {
        let kind = match definition {
            Definition::Vhost(_) => 0,
            Definition::User(_) => 1,
            Definition::Permission(_) => 2,
            Definition::TopicPermission(_) => 3,
            Definition::GlobalParameter(_) => 4,
            Definition::Policy(_) => 5,
            Definition::Exchange(_) => 6,
            Definition::Delays(_) => 7,
            Definition::Window(_) => 8,
            Definition::Queue(_) => 9,
            Definition::Binding(_) => 10,
        };
        counts[kind] += 1;
    }
    let some = kinds.iter().zip(counts).filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(kind, count)| format!("{count} {kind}")).collect();
    if some.is_empty() { "none".into() } else { some.join(", ") }
}

/// A segment's file, below the data directory.
fn file(segment: u64) -> String {
    format!("log/{segment:016}.seg")
}

fn of_damage(damage: &Damage, lost: &[Damage]) -> Finding {
    let place = match damage.segment {
        0 => "state".to_string(),
        segment => format!("{}, byte {}, {} bytes", file(segment), damage.offset, damage.bytes),
    };
    let what = damage.detail.clone();
    let within = lost.iter().filter(|lost| {
        lost.segment == damage.segment && (damage.offset..damage.offset + damage.bytes).contains(&lost.offset)
    });
    let messages: usize = within.map(|lost| lost.messages.len()).sum();
    let (costs, next) = match damage.kind {
        DamageKind::Header => ("nothing: its records were read".into(), "nothing; the file goes with its messages"),
        DamageKind::Hole if messages > 0 => (format!("{messages} messages, which are named below"), RESTORE),
        DamageKind::Hole => (
            "no message that the state database knows; if it was written after the last checkpoint, what it held \
             is not known: messages, acknowledgements or definitions"
                .into(),
            RESTORE,
        ),
        DamageKind::Missing => (
            "all messages in it, which are named below, and what came after the last checkpoint".into(),
            "put the file back if it was moved away; else a backup may have it",
        ),
        DamageKind::State => (
            "time at the next start; where the log no longer reaches back, settled messages may come again".into(),
            "nothing; a broker that starts rebuilds it from the log",
        ),
        _ => ("what it held".into(), RESTORE),
    };
    Finding { place, what, costs, next }
}

/// A finding for each segment and queue that have lost messages together.
fn of_messages(contents: &Contents, lost: &[Damage]) -> Vec<Finding> {
    let mut together: BTreeMap<(u64, QueueId), (u64, Vec<Seq>)> = BTreeMap::new();
    for damage in lost {
        for (queue, seq) in &damage.messages {
            let (offset, seqs) =
                together.entry((damage.segment, *queue)).or_insert((damage.offset, Vec::new()));
            *offset = (*offset).min(damage.offset);
            seqs.push(*seq);
        }
    }
    let finding = |((segment, queue), (offset, mut seqs)): (_, (u64, Vec<Seq>))| {
        seqs.sort_unstable();
        Finding {
            place: format!("{}, from byte {offset} on", file(segment)),
            what: "records of messages cannot be read".into(),
            costs: format!("{} messages of {}: {}", seqs.len(), contents.owner(queue), numbers(&seqs)),
            next: "a broker starts all the same, and forgets them when they are wanted; a backup may have them",
        }
    };
    together.into_iter().map(finding).collect()
}

/// `1-3, 7`.
fn numbers(sorted: &[Seq]) -> String {
    let runs = sorted.chunk_by(|a, b| a.0 + 1 == b.0).map(|run| match run {
        [one] => one.0.to_string(),
        _ => format!("{}-{}", run[0].0, run[run.len() - 1].0),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// Definitions that make no sense, or speak of what is not there.
fn of_definitions(contents: &Contents) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |place: String, what: String, costs: &str, next: &'static str| {
        findings.push(Finding { place, what, costs: costs.into(), next });
    };
    for (name, reason) in &contents.senseless {
        tell(
            format!("definition {name:?}"),
            reason.clone(),
            "it is not there after a start",
            "declare it anew; if a later version wrote it, start that one",
        );
    }
    let vhosts: BTreeSet<&str> = contents
        .definitions
        .iter()
        .filter_map(|definition| match definition {
            Definition::Vhost(vhost) => Some(vhost.name.as_str()),
            _ => None,
        })
        .collect();
    let (mut exchanges, mut queues) = (BTreeSet::new(), BTreeSet::new());
    for definition in &contents.definitions {
        match definition {
            Definition::Exchange(exchange) => drop(exchanges.insert((&*exchange.vhost, &*exchange.name))),
            Definition::Queue(queue) => drop(queues.insert((&*queue.vhost, &*queue.name))),
            _ => {}
        }
    }
    // Those that every vhost has are not kept.
    let has_exchange = |vhost: &str, name: &str| {
        name.is_empty() || name.starts_with("amq.") || exchanges.contains(&(vhost, name))
    };
    let stored: BTreeSet<QueueId> = contents.store.queues.iter().map(|queue| queue.queue).collect();
    for definition in &contents.definitions {
        let (place, vhost) = match definition {
            Definition::Exchange(it) => {
                (format!("exchange '{}' in vhost '{}'", it.name, it.vhost), &it.vhost)
            }
            Definition::Queue(it) => (format!("queue '{}' in vhost '{}'", it.name, it.vhost), &it.vhost),
            Definition::Policy(it) => (format!("policy '{}' in vhost '{}'", it.name, it.vhost), &it.vhost),
            Definition::Permission(it) => {
                (format!("permissions of user '{}' in vhost '{}'", it.user, it.vhost), &it.vhost)
            }
            Definition::Binding(it) => (
                format!(
                    "binding from '{}' to '{}' with key '{}' in vhost '{}'",
                    it.source, it.destination, it.routing_key, it.vhost
                ),
                &it.vhost,
            ),
            Definition::Delays(it) | Definition::Window(it) => {
                (format!("the store of exchange '{}' in vhost '{}'", it.exchange, it.vhost), &it.vhost)
            }
            _ => continue,
        };
        let gone = "it is not there after a start";
        if !vhosts.contains(vhost.as_str()) {
            tell(place, "its vhost is not there".into(), gone, DECLARE);
            continue;
        }
        match definition {
            Definition::Queue(it) if !stored.contains(&QueueId(it.id)) => {
                let what = format!("the store does not know its number, {}", it.id);
                tell(place, what, "its messages", RESTORE);
            }
            Definition::Binding(it) if !has_exchange(&it.vhost, &it.source) => {
                tell(place, "the exchange it leaves from is not there".into(), gone, DECLARE);
            }
            Definition::Binding(it) if it.to_queue && !queues.contains(&(&*it.vhost, &*it.destination)) => {
                tell(place, "the queue it leads to is not there".into(), gone, DECLARE);
            }
            Definition::Binding(it) if !it.to_queue && !has_exchange(&it.vhost, &it.destination) => {
                tell(place, "the exchange it leads to is not there".into(), gone, DECLARE);
            }
            Definition::Delays(it) | Definition::Window(it) if !has_exchange(&it.vhost, &it.exchange) => {
                tell(place, "the exchange is not there".into(), "its messages wait for nobody", DECLARE);
            }
            _ => {}
        }
    }
    for queue in &contents.store.queues {
        if queue.live > 0 && matches!(contents.owner(queue.queue), Of::Nothing) {
            tell(
                format!("queue number {}", queue.queue.0),
                format!("{} messages, and no definition names it", queue.live),
                "nobody gets them; a broker leaves them alone",
                "garenne dump prints them; a backup may have the definition",
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_runs() {
        let told = |seqs: &[u64]| numbers(&seqs.iter().map(|seq| Seq(*seq)).collect::<Vec<_>>());

        assert_eq!(told(&[1, 2, 3, 7, 9, 10]), "1-3, 7, 9-10");
        assert_eq!(told(&[]), "");
    }
}
