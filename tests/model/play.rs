//! A run: steps drawn from a seed, done to the broker and to the model, and compared after each.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use amqp::method::{Cold, FieldTable, basic, channel, confirm, connection, exchange, queue};
use amqp::{Properties, Table, Value};
use garenne::vhost::policy::{ApplyTo, Policy};

use crate::broker::{Broker, START_MS};
use crate::client::{Client, Heard, What};
use crate::dice::Dice;
use crate::model::{How, Message, Model, Seen};
use crate::settings::{DEAD, DEAD_EXCHANGE, QUEUE, Rules, Settings, one_of};

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// So many steps are shown of a run that failed.
const SHOWN: usize = 30;

/// Who publishes, gets and looks; all others consume.
const CONTROL: usize = 0;
const CLIENTS: usize = 4;

/// The channel that a client works on, and one to ask questions on, which is never closed.
const WORK: u16 = 1;
const ASK: u16 = 2;
/// The channel of basic.get.
const GET: u16 = 3;

const POLICY: &str = "p";

/// Plays a seed.
///
/// # Errors
/// What broker and model do not agree on, and how it came to it.
pub fn play(seed: u64, steps: u64) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let settings = Settings::draw(&mut dice.fork());
    let mut game = Game::begin(dice, settings).map_err(|error| format!("the run does not begin: {error}"))?;
    for step in 1..=steps {
        game.model.step = step;
        if let Err(error) = game.step() {
            let shown: Vec<String> = game.shown.iter().cloned().collect();
            return Err(format!(
                "in step {step}: {error}\nplayed with {:?}\nthe last steps:\n  {}\nthe model: {}",
                game.settings,
                shown.join("\n  "),
                game.model.in_words(),
            ));
        }
    }
    Ok(())
}

/// The headers of a dead letter, and what they tell: counts and reasons.
struct Ghost {
    headers: Vec<u8>,
    deaths: Vec<(i64, &'static str)>,
}

struct Game {
    dice: Dice,
    settings: Settings,
    // Before the broker, which would wait for them to leave.
    clients: Vec<Client>,
    broker: Broker,
    model: Model,
    last_client: u64,
    tell: Sender<Heard>,
    line: Receiver<Heard>,
    /// What has been heard and not been asked for yet, by client and channel.
    heard: HashMap<(usize, u16), VecDeque<What>>,
    arrived: Vec<Seen>,
    /// Publishes so far on the control channel.
    published: u64,
    last_message: u64,
    last_consumer: u64,
    /// Messages by number, as they were published: priority and size.
    sent: HashMap<u64, (u8, usize)>,
    /// Dead letters to be published again.
    ghosts: Vec<Ghost>,
    /// What to look for in deliveries: counts in the headers, by message.
    told: HashMap<u64, (Option<i64>, Option<i64>)>,
    shown: VecDeque<String>,
}

impl Game {
    fn begin(dice: Dice, settings: Settings) -> Result<Game, String> {
        let broker = Broker::start(settings.memory_bytes)?;
        let (tell, line) = mpsc::channel();
        let mut game = Game {
            dice,
            model: Model::new(&settings, START_MS),
            settings,
            broker,
            clients: Vec::new(),
            last_client: 0,
            tell,
            line,
            heard: HashMap::new(),
            arrived: Vec::new(),
            published: 0,
            last_message: 0,
            last_consumer: 0,
            sent: HashMap::new(),
            ghosts: Vec::new(),
            told: HashMap::new(),
            shown: VecDeque::new(),
        };
        game.arrive()?;
        Ok(game)
    }

    // Coming and going ------------------------------------------------------------------------------

    /// All clients connect, and declare what there is to declare.
    fn arrive(&mut self) -> Result<(), String> {
        self.heard.clear();
        self.published = 0;
        self.clients.clear();
        for peer in 0..CLIENTS {
            let client = self.connect()?;
            self.clients.push(client);
            self.shake_hands(peer)?;
        }
        let dead = queue::Declare { queue: DEAD.into(), durable: true, ..queue::Declare::default() };
        self.call(CONTROL, ASK, Cold::Queue(queue::AMQPMethod::Declare(dead)))?;
        let exchange = exchange::Declare {
            exchange: DEAD_EXCHANGE.into(),
            kind: "fanout".into(),
            durable: true,
            ..exchange::Declare::default()
        };
        self.call(CONTROL, ASK, Cold::Exchange(exchange::AMQPMethod::Declare(exchange)))?;
        let (queue, exchange) = (DEAD.into(), DEAD_EXCHANGE.into());
        let bind = queue::Bind { queue, exchange, ..queue::Bind::default() };
        self.call(CONTROL, ASK, Cold::Queue(queue::AMQPMethod::Bind(bind)))?;
        let select = confirm::Select { nowait: false };
        self.call(CONTROL, WORK, Cold::Confirm(confirm::AMQPMethod::Select(select)))?;
        self.declare()
    }

    fn declare(&mut self) -> Result<(), String> {
        let declare = queue::Declare {
            queue: QUEUE.into(),
            durable: self.settings.durable,
            arguments: FieldTable::from(&self.settings.table()),
            ..queue::Declare::default()
        };
        match self.call(CONTROL, ASK, Cold::Queue(queue::AMQPMethod::Declare(declare)))? {
            What::Method(method) if matches!(*method, Cold::Queue(queue::AMQPMethod::DeclareOk(_))) => Ok(()),
            other => Err(format!("queue.declare is answered by {other:?}")),
        }
    }

    fn connect(&mut self) -> Result<Client, String> {
        self.last_client += 1;
        let client = Client::connect(self.broker.address(), self.last_client, self.tell.clone());
        client.map_err(|error| format!("no connection: {error}"))
    }

    fn shake_hands(&mut self, peer: usize) -> Result<(), String> {
        let channels: &[u16] = if peer == CONTROL { &[WORK, ASK, GET] } else { &[WORK, ASK] };
        for &number in channels {
            self.say(peer, number, Cold::Channel(channel::AMQPMethod::Open(channel::Open {})));
        }
        // start, tune and open-ok
        for _ in 0..3 {
            self.reply(peer, 0)?;
        }
        for &number in channels {
            self.reply(peer, number)?;
        }
        Ok(())
    }

    /// A client that has gone comes again as another.
    fn reconnect(&mut self, peer: usize) -> Result<(), String> {
        self.heard.retain(|(other, _), _| *other != peer);
        self.clients[peer] = self.connect()?;
        self.shake_hands(peer)
    }

    // Saying and hearing ----------------------------------------------------------------------------

    fn say(&mut self, peer: usize, channel: u16, method: Cold) {
        self.clients[peer].say(channel, method);
    }

    fn call(&mut self, peer: usize, channel: u16, method: Cold) -> Result<What, String> {
        self.say(peer, channel, method);
        self.reply(peer, channel)
    }

    /// The next that a channel hears beside deliveries.
    fn reply(&mut self, peer: usize, channel: u16) -> Result<What, String> {
        let began = Instant::now();
        loop {
            if let Some(what) = self.heard.get_mut(&(peer, channel)).and_then(VecDeque::pop_front) {
                return Ok(what);
            }
            if !self.listen(began)? {
                return Err(format!("client {peer} waits for an answer on channel {channel}"));
            }
        }
    }

    /// Waits for something to be heard; false if the patience is over.
    fn listen(&mut self, began: Instant) -> Result<bool, String> {
        for client in &mut self.clients {
            client.flush().map_err(|error| format!("a socket: {error}"))?;
        }
        let left = PATIENCE.saturating_sub(began.elapsed());
        let Ok(Heard { client, channel, what }) = self.line.recv_timeout(left) else { return Ok(false) };
        // One that has been replaced may still have heard something.
        let Some(peer) = self.clients.iter().position(|other| other.number == client) else {
            return Ok(true);
        };
        match what {
            What::Message(method, properties, body) => match *method {
                Cold::Basic(basic::AMQPMethod::Deliver(deliver)) => {
                    let number = self.check_content(&properties, &body)?;
                    self.arrived.push(Seen {
                        number,
                        peer,
                        consumer: deliver.consumer_tag.to_string(),
                        tag: deliver.delivery_tag,
                        redelivered: deliver.redelivered,
                    });
                    self.told.insert(number, counts(&properties));
                }
                other => {
                    let what = What::Message(Box::new(other), properties, body);
                    self.heard.entry((peer, channel)).or_default().push_back(what);
                }
            },
            What::Method(method) if is_close(&method) => {
                return Err(format!("client {peer} hears {method:?}"));
            }
            other => self.heard.entry((peer, channel)).or_default().push_back(other),
        }
        Ok(true)
    }

    /// The number of a message, which has to be as it was published.
    fn check_content(&self, properties: &[u8], body: &[u8]) -> Result<u64, String> {
        let read = Properties::parse(properties).map_err(|error| format!("{error:?}"))?;
        let id = read.message_id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let number: u64 = id.ok_or("a message without its number")?;
        let &(priority, bytes) = self.sent.get(&number).ok_or(format!("nobody has published {number}"))?;
        if read.priority.unwrap_or(0) != priority || body != body_of(number, bytes) {
            return Err(format!("message {number} is not what was published"));
        }
        Ok(number)
    }

    // Comparing -------------------------------------------------------------------------------------

    /// Waits until the broker has done what the model says, and compares. `peer` is who acted: what it has
    /// said is done when its questions are answered.
    fn settle(&mut self, peer: usize) -> Result<(), String> {
        self.ask_counts(peer);
        let began = Instant::now();
        while !self.model.leaving.iter().all(|message| self.has_arrived(message.number)) {
            if !self.listen(began)? {
                let missing = self.model.leaving.iter().map(|message| message.number);
                let missing: Vec<u64> = missing.filter(|number| !self.has_arrived(*number)).collect();
                let counts = (self.counts(peer)?, self.counts(peer)?.0);
                let has = self.all_ready()?;
                return Err(format!(
                    "messages {missing:?} are not delivered; ready messages, consumers and dead letters are \
                     {counts:?}, and the broker has {has:?}"
                ));
            }
        }
        loop {
            let counts = (self.counts(peer)?, self.counts(peer)?.0);
            let expected = ((self.model.ready.len(), self.model.consumers.len()), self.model.dead.len());
            if counts == expected {
                break;
            }
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "ready messages, consumers and dead letters are {counts:?}, not {expected:?}; the broker has {:?}",
                    self.all_ready()?
                ));
            }
            std::thread::sleep(Duration::from_micros(200));
            self.ask_counts(peer);
        }
        self.check_bytes(began)?;
        for message in &self.model.leaving {
            let (told, expected) = (self.told.get(&message.number), self.model.counts_told(message, false));
            if told.is_some_and(|told| *told != expected) {
                return Err(format!(
                    "message {} comes with counts {told:?}, not {expected:?}",
                    message.number
                ));
            }
        }
        let leaving: Vec<u64> = self.model.leaving.iter().map(|message| message.number).collect();
        let arrived = std::mem::take(&mut self.arrived);
        self.told.clear();
        if let Some(other) = arrived.iter().find(|seen| !leaving.contains(&seen.number)) {
            return Err(format!("message {} was delivered to {}", other.number, other.consumer));
        }
        if arrived.len() != leaving.len() {
            return Err(format!("of {leaving:?} one was delivered twice"));
        }
        self.model.compare(&arrived)
    }

    /// What the broker has, for a run that failed.
    fn all_ready(&mut self) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        loop {
            let get = basic::Get { queue: QUEUE.into(), no_ack: true };
            match self.call(CONTROL, GET, Cold::Basic(basic::AMQPMethod::Get(get)))? {
                What::Message(_, properties, body) => numbers.push(self.check_content(&properties, &body)?),
                _ => return Ok(numbers),
            }
        }
    }

    fn has_arrived(&self, number: u64) -> bool {
        self.arrived.iter().any(|seen| seen.number == number)
    }

    fn ask_counts(&mut self, peer: usize) {
        for queue in [QUEUE, DEAD] {
            let declare = queue::Declare { queue: queue.into(), passive: true, ..queue::Declare::default() };
            self.say(peer, ASK, Cold::Queue(queue::AMQPMethod::Declare(declare)));
        }
    }

    fn counts(&mut self, peer: usize) -> Result<(usize, usize), String> {
        match self.reply(peer, ASK)? {
            What::Method(method) => match *method {
                Cold::Queue(queue::AMQPMethod::DeclareOk(ok)) => {
                    Ok((ok.message_count as usize, ok.consumer_count as usize))
                }
                other => Err(format!("a passive declare is answered by {other:?}")),
            },
            other => Err(format!("a passive declare is answered by {other:?}")),
        }
    }

    /// The queue knows how many octets it has, where there is a limit to that.
    fn check_bytes(&self, began: Instant) -> Result<(), String> {
        let queue = self.broker.vhost().queue(QUEUE).map_err(|error| error.to_string())?;
        let settings = queue.settings();
        let Some(max) = settings.body_bytes_max else { return Ok(()) };
        let bytes = self.model.ready_bytes();
        if settings.length_max.is_some_and(|max| self.model.ready.len() as u64 > max) {
            // There is no room for any.
            return Ok(());
        }
        let Some(room) = max.checked_sub(bytes) else { return Ok(()) };
        while !queue.has_room(0, room) || queue.has_room(0, room + 1) {
            if began.elapsed() > PATIENCE {
                return Err(format!("the queue does not know that it has {bytes} octets of {max}"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    // Steps -----------------------------------------------------------------------------------------

    fn show(&mut self, step: String) {
        if self.shown.len() == SHOWN {
            self.shown.pop_front();
        }
        self.shown.push_back(format!("{}: {step}", self.model.step));
    }

    fn step(&mut self) -> Result<(), String> {
        // The queue grows for a while, and shrinks for a while.
        let is_filling = (self.model.step / 150).is_multiple_of(2);
        match self.dice.roll(0, 1000) {
            0..300 => self.publish(is_filling),
            300..360 => self.consume(),
            360..400 => self.cancel(),
            400..580 => self.settle_some(),
            580..700 if is_filling => self.settle_some(),
            580..760 => self.get(),
            760..790 => self.recover(),
            790..810 => self.close_channel(),
            810..820 => self.close_connection(),
            820..825 => self.hang_up(),
            825..830 => self.purge(),
            830..910 => self.advance(),
            910..940 => self.drain_dead(),
            940..950 => self.declare_again(),
            950..970 if self.settings.has_policies => self.change_policy(),
            970..972 => self.restart(),
            _ => self.publish(is_filling),
        }
    }

    fn publish(&mut self, is_filling: bool) -> Result<(), String> {
        let n = match self.dice.roll(0, 6) {
            0 if is_filling => self.dice.roll(2, 12),
            _ => 1,
        };
        let priority = if self.settings.priority_max > 0 { self.dice.roll(0, 12) as u8 } else { 0 };
        let lives = [None, None, None, Some(0), Some(10), Some(100), Some(800), Some(5000)];
        let expiration_ms = if n == 1 { one_of(&mut self.dice, &lives) } else { None };
        let first = self.published + 1;
        let mut refused = Vec::new();
        let mut step = format!("publish {n} from {}, priority {priority}", self.last_message + 1);
        for _ in 0..n {
            let ghost = if self.dice.once_in(4) { self.ghosts.pop() } else { None };
            let (headers, deaths) = ghost.map_or((None, Vec::new()), |g| (Some(g.headers), g.deaths));
            self.last_message += 1;
            self.published += 1;
            let number = self.last_message;
            let persistent = !self.dice.once_in(3);
            let bytes = one_of(&mut self.dice, &[0, 1, 10, 30, 100, 300]);
            let expiration = expiration_ms.map(|ms| ms.to_string());
            let properties = Properties {
                headers: headers.as_deref(),
                delivery_mode: Some(if persistent { 2 } else { 1 }),
                priority: (priority > 0).then_some(priority),
                expiration: expiration.as_ref().map(|text| text.as_bytes()),
                message_id: Some(number.to_string().as_bytes()),
                ..Properties::default()
            }
            .encode();
            let publish = basic::Publish { routing_key: QUEUE.into(), ..basic::Publish::default() };
            self.clients[CONTROL].publish(WORK, publish, &properties, &body_of(number, bytes));
            self.sent.insert(number, (priority, bytes));
            step += &format!(
                "; {bytes} octets{}{}{}",
                if persistent { ", kept" } else { "" },
                expiration.map_or(String::new(), |text| format!(", {text} ms")),
                if deaths.is_empty() { String::new() } else { format!(", died {deaths:?}") },
            );
            let message = Message {
                number,
                level: 0,
                priority,
                persistent,
                bytes,
                taken_at_ms: self.model.now_ms,
                expiration_ms,
                deaths,
                redelivered: false,
                was_out: false,
                acquired: 0,
                failed: 0,
            };
            if !self.model.publish(message) {
                refused.push(self.published);
            }
        }
        self.model.go_round();
        self.show(step);
        self.hear_confirms(first, &refused)?;
        self.settle(CONTROL)
    }

    /// Each publish from this one on is confirmed once, in order, and these are refused.
    fn hear_confirms(&mut self, first: u64, refused: &[u64]) -> Result<(), String> {
        let mut next = first;
        while next <= self.published {
            let What::Method(method) = self.reply(CONTROL, WORK)? else {
                return Err("a confirm was expected".into());
            };
            use basic::AMQPMethod as M;
            let (last, is_nack) = match *method {
                Cold::Basic(M::Ack(ack)) if ack.multiple || ack.delivery_tag == next => {
                    (ack.delivery_tag, false)
                }
                Cold::Basic(M::Nack(nack)) if nack.multiple || nack.delivery_tag == next => {
                    (nack.delivery_tag, true)
                }
                other => return Err(format!("the confirm of {next} was expected, not {other:?}")),
            };
            if last < next || last > self.published {
                return Err(format!("{last} is confirmed, after {next} of {}", self.published));
            }
            if let Some(wrong) = (next..=last).find(|tag| refused.contains(tag) != is_nack) {
                return Err(format!(
                    "publish {wrong} has been {}",
                    if is_nack { "refused" } else { "taken" }
                ));
            }
            next = last + 1;
        }
        Ok(())
    }

    fn consume(&mut self) -> Result<(), String> {
        let peer = self.dice.roll(1, CLIENTS as u64) as usize;
        let of_peer = self.model.consumers.iter().filter(|consumer| consumer.peer == peer).count();
        // Who goes first when a channel with several ends is nobody's business.
        if of_peer >= if self.settings.single { 1 } else { 3 } {
            return self.get();
        }
        self.last_consumer += 1;
        let name = format!("c{}", self.last_consumer);
        let prefetch = if self.dice.once_in(8) { 0 } else { self.dice.roll(1, 6) as u16 };
        let no_ack = self.dice.once_in(8);
        let priority = one_of(&mut self.dice, &[0, 0, 0, 1, -1]);
        self.show(format!(
            "client {peer} consumes as {name}, prefetch {prefetch}, priority {priority}{}",
            if no_ack { ", without acknowledgements" } else { "" }
        ));
        let qos = basic::Qos { prefetch_count: prefetch, global: false };
        self.call(peer, WORK, Cold::Basic(basic::AMQPMethod::Qos(qos)))?;
        let arguments = match priority {
            0 => Table::new(),
            _ => Table::from_iter([("x-priority", Value::Int(priority))]),
        };
        let consume = basic::Consume {
            queue: QUEUE.into(),
            consumer_tag: name.as_str().into(),
            no_ack,
            arguments: FieldTable::from(&arguments),
            ..basic::Consume::default()
        };
        self.call(peer, WORK, Cold::Basic(basic::AMQPMethod::Consume(consume)))?;
        self.model.consume(&name, peer, no_ack, prefetch.into(), priority);
        self.settle(peer)
    }

    fn cancel(&mut self) -> Result<(), String> {
        if self.model.consumers.is_empty() {
            return self.consume();
        }
        let at = self.dice.roll(0, self.model.consumers.len() as u64) as usize;
        let consumer = self.model.consumers[at].clone();
        self.show(format!("client {} cancels {}", consumer.peer, consumer.name));
        let cancel = basic::Cancel { consumer_tag: consumer.name.as_str().into(), nowait: false };
        self.call(consumer.peer, WORK, Cold::Basic(basic::AMQPMethod::Cancel(cancel)))?;
        self.model.cancel(&consumer.name);
        self.settle(consumer.peer)
    }

    /// The channel on which a client has unsettled messages.
    fn channel_of(peer: usize) -> u16 {
        if peer == CONTROL { GET } else { WORK }
    }

    /// Some client acknowledges, rejects or gives back.
    fn settle_some(&mut self) -> Result<(), String> {
        if self.model.held.is_empty() {
            return if self.dice.once_in(2) { self.get() } else { self.consume() };
        }
        let at = self.dice.roll(0, self.model.held.len() as u64) as usize;
        let (peer, held_tag) = (self.model.held[at].peer, self.model.held[at].tag);
        let multiple = self.dice.once_in(4);
        let tag = if multiple && self.dice.once_in(4) { 0 } else { held_tag };
        let (channel, delivery_tag) = (Game::channel_of(peer), tag);
        let how = if multiple { " and all before" } else { "" };
        match self.dice.roll(0, 10) {
            0..4 => {
                self.show(format!("client {peer} acks {tag}{how}"));
                self.say(
                    peer,
                    channel,
                    Cold::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple })),
                );
                self.model.ack(peer, tag, multiple);
            }
            4..6 => {
                self.show(format!("client {peer} nacks {tag}{how} for good"));
                let nack = basic::Nack { delivery_tag, multiple, requeue: false };
                self.say(peer, channel, Cold::Basic(basic::AMQPMethod::Nack(nack)));
                self.model.reject(peer, tag, multiple);
            }
            6..8 => {
                self.show(format!("client {peer} nacks {tag}{how}, to be requeued"));
                let nack = basic::Nack { delivery_tag, multiple, requeue: true };
                self.say(peer, channel, Cold::Basic(basic::AMQPMethod::Nack(nack)));
                self.model.requeue(peer, tag, multiple, How::Nacked);
            }
            roll => {
                let requeue = roll == 8;
                self.show(format!("client {peer} rejects {held_tag}, requeue {requeue}"));
                let reject = basic::Reject { delivery_tag: held_tag, requeue };
                self.say(peer, channel, Cold::Basic(basic::AMQPMethod::Reject(reject)));
                match requeue {
                    true => self.model.requeue(peer, held_tag, false, How::Failed),
                    false => self.model.reject(peer, held_tag, false),
                }
            }
        }
        self.settle(peer)
    }

    fn get(&mut self) -> Result<(), String> {
        let no_ack = self.dice.once_in(2);
        self.show(format!("get{}", if no_ack { " without acknowledgement" } else { "" }));
        let get = basic::Get { queue: QUEUE.into(), no_ack };
        let answer = self.call(CONTROL, GET, Cold::Basic(basic::AMQPMethod::Get(get)))?;
        let expected = self.model.get();
        match (answer, expected) {
            (What::Method(method), None) if is_get_empty(&method) => {}
            (What::Message(method, properties, body), Some((message, remaining))) => {
                let Cold::Basic(basic::AMQPMethod::GetOk(ok)) = *method else {
                    return Err(format!("basic.get is answered by {method:?}"));
                };
                let got = (
                    self.check_content(&properties, &body)?,
                    ok.redelivered,
                    ok.message_count as usize,
                    counts(&properties),
                    deaths(&properties)?,
                );
                let told = self.model.counts_told(&message, true);
                let deaths = message.deaths.clone();
                let expected = (message.number, message.redelivered, remaining, told, deaths);
                if got != expected {
                    return Err(format!(
                        "basic.get brings number, redelivered, remaining, counts and deaths {got:?}, not \
                         {expected:?}"
                    ));
                }
                if !no_ack {
                    self.model.hold(CONTROL, ok.delivery_tag, None, message);
                }
            }
            (answer, expected) => return Err(format!("basic.get brings {answer:?}, not {expected:?}")),
        }
        self.model.go_round();
        self.settle(CONTROL)
    }

    fn recover(&mut self) -> Result<(), String> {
        let peer = self.dice.roll(0, CLIENTS as u64) as usize;
        self.show(format!("client {peer} recovers"));
        let recover = basic::Recover { requeue: true };
        let channel = Game::channel_of(peer);
        self.call(peer, channel, Cold::Basic(basic::AMQPMethod::Recover(recover)))?;
        self.model.requeue(peer, 0, true, How::Recovered);
        self.settle(peer)
    }

    fn close_channel(&mut self) -> Result<(), String> {
        let peer = self.dice.roll(0, CLIENTS as u64) as usize;
        self.show(format!("client {peer} closes its channel"));
        let close = channel::Close { reply_code: 200, ..channel::Close::default() };
        let channel = Game::channel_of(peer);
        self.call(peer, channel, Cold::Channel(channel::AMQPMethod::Close(close)))?;
        self.call(peer, channel, Cold::Channel(channel::AMQPMethod::Open(channel::Open {})))?;
        self.model.close(peer);
        self.settle(peer)
    }

    fn close_connection(&mut self) -> Result<(), String> {
        let peer = self.dice.roll(1, CLIENTS as u64) as usize;
        self.show(format!("client {peer} closes its connection"));
        let close = connection::Close { reply_code: 200, ..connection::Close::default() };
        self.call(peer, 0, Cold::Connection(connection::AMQPMethod::Close(close)))?;
        self.model.close(peer);
        self.reconnect(peer)?;
        self.settle(CONTROL)
    }

    fn hang_up(&mut self) -> Result<(), String> {
        let peer = self.dice.roll(1, CLIENTS as u64) as usize;
        self.show(format!("client {peer} hangs up"));
        self.clients[peer].hang_up();
        self.model.close(peer);
        self.reconnect(peer)?;
        self.settle(CONTROL)
    }

    fn purge(&mut self) -> Result<(), String> {
        self.show("purge".into());
        let purge = queue::Purge { queue: QUEUE.into(), nowait: false };
        let answer = self.call(CONTROL, ASK, Cold::Queue(queue::AMQPMethod::Purge(purge)))?;
        let n = self.model.purge();
        let expected = queue::PurgeOk { message_count: n as u32 };
        match answer {
            What::Method(method) if *method == Cold::Queue(queue::AMQPMethod::PurgeOk(expected)) => {}
            other => return Err(format!("queue.purge is answered by {other:?}, not {n}")),
        }
        self.settle(CONTROL)
    }

    fn advance(&mut self) -> Result<(), String> {
        let ms = match self.dice.roll(0, 4) {
            0 => self.dice.roll(1, 10),
            1 => one_of(&mut self.dice, &[10, 50, 100, 1000]),
            2 => self.dice.roll(1, 1000),
            _ => self.dice.roll(1, 8000),
        };
        self.show(format!("{ms} ms pass"));
        self.broker.advance(ms);
        self.model.advance(ms);
        self.settle(CONTROL)?;
        // All that was to be seen has happened. What cannot be seen has, too, when this is over.
        let queue = self.broker.vhost().queue(QUEUE).map_err(|error| error.to_string())?;
        queue.tick();
        Ok(())
    }

    /// Takes all dead letters, which have to be those of the model.
    fn drain_dead(&mut self) -> Result<(), String> {
        self.show("drain the dead letters".into());
        while !self.model.dead.is_empty() {
            let get = basic::Get { queue: DEAD.into(), no_ack: true };
            let answer = self.call(CONTROL, GET, Cold::Basic(basic::AMQPMethod::Get(get)))?;
            let What::Message(method, properties, body) = answer else {
                return Err(format!("of {} dead letters there is {answer:?}", self.model.dead.len()));
            };
            let Cold::Basic(basic::AMQPMethod::GetOk(ok)) = *method else {
                return Err(format!("basic.get is answered by {method:?}"));
            };
            let number = self.check_content(&properties, &body)?;
            // The first, or one of those that died with it in no order.
            let first = &self.model.dead[0];
            let same = self.model.dead.iter().take_while(|dead| dead.any_order && dead.step == first.step);
            let at = same.clone().position(|dead| dead.message.number == number).unwrap_or(0);
            let dead = self.model.dead.remove(at);
            let read = Properties::parse(&properties).map_err(|error| format!("{error:?}"))?;
            let got = (
                number,
                ok.exchange.to_string(),
                ok.routing_key.to_string(),
                ok.redelivered,
                read.expiration.map(<[u8]>::to_vec),
                counts(&properties),
                deaths(&properties)?,
            );
            let expected = (
                dead.message.number,
                dead.exchange.to_string(),
                dead.key.to_string(),
                false,
                None,
                (None, None),
                dead.message.deaths,
            );
            if got != expected {
                return Err(format!(
                    "the dead letter has number, exchange, key, redelivered, expiration, counts and deaths \
                     {got:?}, not {expected:?}; died in step {}",
                    dead.step
                ));
            }
            let headers = read.headers.unwrap_or_default().to_vec();
            self.ghosts.push(Ghost { headers, deaths: expected.6 });
            self.ghosts.truncate(10);
        }
        self.settle(CONTROL)
    }

    fn declare_again(&mut self) -> Result<(), String> {
        self.show("declare it again".into());
        self.declare()?;
        self.settle(CONTROL)
    }

    fn change_policy(&mut self) -> Result<(), String> {
        let policy = if self.dice.once_in(3) { Rules::default() } else { Rules::draw(&mut self.dice, 3) };
        self.show(format!("the policy says {policy:?}"));
        let definition = policy.definition();
        let vhost = self.broker.vhost();
        if definition.is_empty() {
            vhost.clear_policy(POLICY, false);
        } else {
            let policy = Policy {
                vhost: "/".into(),
                name: POLICY.into(),
                pattern: format!("^{QUEUE}$"),
                apply_to: ApplyTo::Queues,
                priority: 0,
                definition,
                operator: false,
            };
            vhost.set_policy(policy).map_err(|error| error.to_string())?;
        }
        self.model.set_policy(&policy);
        self.settle(CONTROL)
    }

    /// Everybody leaves, the broker stops, and starts again later.
    fn restart(&mut self) -> Result<(), String> {
        let ms = one_of(&mut self.dice, &[1, 1, 100, 3000]);
        self.show(format!("restart, {ms} ms later"));
        for peer in 1..CLIENTS {
            let close = connection::Close { reply_code: 200, ..connection::Close::default() };
            self.call(peer, 0, Cold::Connection(connection::AMQPMethod::Close(close)))?;
            self.model.close(peer);
            self.settle(CONTROL)?;
        }
        // What was taken by basic.get is still out.
        self.clients.clear();
        self.model.close(CONTROL);
        self.broker.stop()?;
        self.broker.advance(ms);
        self.model.restart(ms);
        self.broker.start_again()?;
        self.arrive()?;
        self.settle(CONTROL)
    }
}

/// The body of a message.
fn body_of(number: u64, bytes: usize) -> Vec<u8> {
    vec![b'a' + (number % 26) as u8; bytes]
}

fn is_close(method: &Cold) -> bool {
    matches!(
        method,
        Cold::Connection(connection::AMQPMethod::Close(_)) | Cold::Channel(channel::AMQPMethod::Close(_))
    )
}

fn is_get_empty(method: &Cold) -> bool {
    matches!(method, Cold::Basic(basic::AMQPMethod::GetEmpty(_)))
}

fn headers(properties: &[u8]) -> Table {
    Properties::parse(properties).map(|read| read.header_table()).unwrap_or_default()
}

/// What the headers tell of failures and returns.
fn counts(properties: &[u8]) -> (Option<i64>, Option<i64>) {
    let headers = headers(properties);
    let count = |name| match headers.get(name) {
        Some(&Value::Int(n)) => Some(n),
        _ => None,
    };
    (count("x-delivery-count"), count("x-acquired-count"))
}

/// What the headers tell of deaths: counts and reasons.
fn deaths(properties: &[u8]) -> Result<Vec<(i64, &'static str)>, String> {
    let Some(Value::Array(deaths)) = headers(properties).get("x-death").cloned() else {
        return Ok(Vec::new());
    };
    let death = |death: Value| {
        let Value::Table(death) = death else { return None };
        let Some(&Value::Int(count)) = death.get("count") else { return None };
        let reasons = ["rejected", "expired", "maxlen", "delivery_limit"];
        let reason = reasons.into_iter().find(|reason| death.get_str("reason") == Some(reason))?;
        (death.get_str("queue") == Some(QUEUE)).then_some((count, reason))
    };
    let read: Option<Vec<_>> = deaths.iter().cloned().map(death).collect();
    read.ok_or_else(|| format!("x-death is {deaths:?}"))
}
