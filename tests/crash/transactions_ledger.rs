//! What each transaction promised, and where its parts were seen.

use crate::findings::Findings;

/// Each transaction publishes one message to each of these.
pub const SOURCES: [&str; 3] = ["crash.tx.a", "crash.tx.b", "crash.tx.c"];
/// Where the third is moved to, in a transaction of the mover.
pub const MOVED: &str = "crash.tx.moved";

pub const HALF: &str = "half-applied";
pub const LOST: &str = "committed and lost";
pub const UNDONE: &str = "an acknowledgement that was committed is undone";
pub const GHOST: &str = "never committed and there all the same";

/// A number of a transaction.
pub type Id = u64;

/// How far something went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nothing that may last.
    Open,
    /// tx.commit was sent.
    Asked,
    /// tx.commit-ok has come.
    Done,
    /// tx.rollback was sent.
    Undone,
}

struct Transaction {
    publish: Stage,
    /// In which sources it was seen, a bit each.
    seen: u8,
    /// The commit that acknowledges it in the first two sources.
    pair: Stage,
    /// In which of these it came again after that was asked.
    pair_again: u8,
    /// The commit that moves it out of the third.
    moving: Stage,
    moved: u32,
}

/// The book of one run.
#[derive(Default)]
pub struct Ledger {
    transactions: Vec<Transaction>,
    /// Commits of acknowledgements (pairs) and of moves that were confirmed.
    pub pairs: u64,
    pub moves: u64,
    pub rollbacks_of_moves: u64,
    /// Came again because their commit was not answered.
    pub again: u64,
}

impl Ledger {
    /// A transaction begins.
    pub fn begin(&mut self) -> Id {
        self.transactions.push(Transaction {
            publish: Stage::Open,
            seen: 0,
            pair: Stage::Open,
            pair_again: 0,
            moving: Stage::Open,
            moved: 0,
        });
        self.transactions.len() as Id - 1
    }

    pub fn published(&mut self, id: Id, stage: Stage) {
        self.transactions[id as usize].publish = stage;
    }

    pub fn count(&self, stage: Stage) -> usize {
        self.transactions.iter().filter(|t| t.publish == stage).count()
    }

    /// Commits of acknowledgements and moves: grows while there is something to settle.
    pub fn settled(&self) -> u64 {
        self.pairs + self.moves
    }

    pub fn begun(&self) -> usize {
        self.transactions.len()
    }

    /// A part of it has come out of a source.
    pub fn receive(&mut self, source: usize, id: Id, findings: &Findings) {
        let about = || format!("{}, transaction {id}", SOURCES[source]);
        let Some(t) = self.transactions.get_mut(id as usize) else {
            findings.add("never published", about());
            return;
        };
        if matches!(t.publish, Stage::Open | Stage::Undone) {
            findings.add(GHOST, format!("{}, its publisher was {:?}", about(), t.publish));
        }
        t.seen |= 1 << source;
        let settled = if source < 2 { t.pair } else { t.moving };
        match settled {
            Stage::Done => findings.add(UNDONE, about()),
            Stage::Asked => {
                self.again += 1;
                t.pair_again |= 1 << source;
            }
            Stage::Open | Stage::Undone => {}
        }
    }

    /// The acknowledgement of both halves of a pair goes a step on.
    pub fn pair(&mut self, id: Id, stage: Stage) {
        let t = &mut self.transactions[id as usize];
        t.pair = stage;
        t.pair_again &= !0b11;
        self.pairs += u64::from(stage == Stage::Done);
    }

    /// Its move goes a step on.
    pub fn moving(&mut self, id: Id, stage: Stage) {
        self.transactions[id as usize].moving = stage;
        self.moves += u64::from(stage == Stage::Done);
        self.rollbacks_of_moves += u64::from(stage == Stage::Undone);
    }

    /// A copy of it was found where it was moved to.
    pub fn found_moved(&mut self, id: Id, findings: &Findings) {
        match self.transactions.get_mut(id as usize) {
            Some(t) => t.moved += 1,
            None => findings.add("never published", format!("{MOVED}, transaction {id}")),
        }
    }

    /// How many of a source must be there after a restart: committed, and no commit took them out.
    pub fn check_count(&self, source: usize, count: u64, life: u64, findings: &Findings) {
        let is_there = |t: &&Transaction| {
            let settled = if source < 2 { t.pair } else { t.moving };
            t.publish == Stage::Done && matches!(settled, Stage::Open | Stage::Undone)
        };
        let can_be_there = |t: &&Transaction| {
            let settled = if source < 2 { t.pair } else { t.moving };
            matches!(t.publish, Stage::Done | Stage::Asked) && settled != Stage::Done
        };
        let least = self.transactions.iter().filter(is_there).count() as u64;
        let most = self.transactions.iter().filter(can_be_there).count() as u64;
        if count < least || count > most {
            let detail =
                format!("life {life}, {} has {count}, which must be {least} to {most}", SOURCES[source]);
            findings.add("a wrong number of messages after a restart", detail);
        }
    }

    /// After everything was drained.
    pub fn check(&self, findings: &Findings) {
        for (id, t) in self.transactions.iter().enumerate() {
            let about = format!(
                "transaction {id}: publish {:?}, seen in {:03b}, pair {:?}, again in {:02b}, move {:?}, moved {} times",
                t.publish, t.seen, t.pair, t.pair_again, t.moving, t.moved
            );
            if t.publish == Stage::Done && t.seen != 0b111 {
                findings.add(LOST, about.clone());
            }
            let is_half_published = t.seen != 0 && t.seen != 0b111;
            let is_half_acknowledged = t.pair == Stage::Asked && !matches!(t.pair_again & 0b11, 0 | 0b11);
            let is_half_moved = t.moved != u32::from(t.seen & 0b100 != 0);
            if is_half_published || is_half_acknowledged || is_half_moved {
                findings.add(HALF, about);
            }
        }
    }
}
