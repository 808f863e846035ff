//! Saying a conversation: in what pieces, how fast, listening or not, and how it ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use amqp::frame::{self, Frames};
use amqp::method::{self, Cold, channel, connection};
use amqp::{FrameKind, Method};

use crate::broker::HANDSHAKE_TIMEOUT_SECS;
use crate::grammar::{Conversation, HANDSHAKE};
use crate::random::Random;

/// How long the broker may take to hang up on somebody who has.
const GOODBYE: Duration = Duration::from_secs(15);

/// How long a client that does not listen tries to go on talking.
const STUCK: Duration = Duration::from_millis(400);

/// connection.close-ok, the frame.
const CLOSE_OK: &[u8] = &[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51, 0xce];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listening {
    All,
    /// A little now and then.
    Slowly,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Says no more and listens until the broker hangs up.
    Finish,
    /// Is gone, with things unread: a reset.
    Reset,
    /// Says no more, listens no more, stays.
    Silence,
}

/// A socket that its owner has forgotten.
pub struct Silent {
    pub stream: TcpStream,
    pub seed: u64,
    pub until: Instant,
    /// By then the broker must have hung up.
    pub must_end: bool,
}

impl Silent {
    /// Once its time has come: whether the broker did what it must.
    pub fn check(mut self) -> Result<(), String> {
        if !self.must_end {
            return Ok(());
        }
        let _ = self.stream.set_nonblocking(true);
        let mut room = [0; 4096];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(format!(
                        "seed {}: the broker keeps a client that has been silent",
                        self.seed
                    ));
                }
                Err(_) => return Ok(()),
            }
        }
    }
}

/// Says it all. A socket comes back if it is to be left alone for a while.
pub fn play(address: SocketAddr, mut conversation: Conversation) -> Result<Option<Silent>, String> {
    let random = &mut conversation.random;
    let is_valid = conversation.is_valid;
    let (listening, ending) = match is_valid {
        true => (Listening::All, Ending::Finish),
        false => (
            random.one_of(&[Listening::All, Listening::All, Listening::Slowly, Listening::Never]),
            random.one_of(&[
                Ending::Finish,
                Ending::Finish,
                Ending::Finish,
                Ending::Reset,
                Ending::Reset,
                Ending::Silence,
            ]),
        ),
    };
    // Some stop in the middle of the handshake, or of a frame.
    let mut is_unfinished = false;
    if ending == Ending::Silence && random.once_in(3) {
        conversation.frames.truncate(random.below(HANDSHAKE));
        is_unfinished = true;
    }
    let mut bytes = conversation.frames.concat();
    if !is_valid && !is_unfinished && random.once_in(4) {
        bytes.truncate(random.below(bytes.len()));
    }

    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        Err(e) => return Err(format!("seed {}: cannot connect: {e}", conversation.seed)),
    };
    stream.set_nonblocking(true).map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(random.once_in(2));
    let mut heard = Vec::new();
    let mut said = Saying { random, listening, stream: &mut stream, heard: is_valid.then_some(&mut heard) };
    said.say(&bytes);
    match ending {
        Ending::Reset => {
            // At once the broker is still shaking hands; later it has something to lose.
            std::thread::sleep(Duration::from_millis([0, 5, 20, 50][conversation.seed as usize % 4]));
            Ok(None)
        }
        Ending::Silence => {
            let secs = if is_unfinished { HANDSHAKE_TIMEOUT_SECS + 6 } else { 1 + conversation.seed % 8 };
            let until = Instant::now() + Duration::from_secs(secs);
            Ok(Some(Silent { stream, seed: conversation.seed, until, must_end: is_unfinished }))
        }
        Ending::Finish => {
            if !is_valid {
                let _ = stream.shutdown(Shutdown::Write);
            }
            if heard.ends_with(CLOSE_OK) {
                let _ = stream.shutdown(Shutdown::Write);
            }
            listen_to_the_end(&mut stream, is_valid.then_some(&mut heard))
                .map_err(|e| format!("seed {}: {e}", conversation.seed))?;
            if is_valid {
                check_valid(&heard).map_err(|e| format!("seed {}: {e}", conversation.seed))?;
            }
            Ok(None)
        }
    }
}

struct Saying<'a> {
    random: &'a mut Random,
    listening: Listening,
    stream: &'a mut TcpStream,
    heard: Option<&'a mut Vec<u8>>,
}

impl Saying<'_> {
    /// In pieces. An error is the broker's good right, and ends it.
    fn say(&mut self, mut bytes: &[u8]) {
        let pieces = self.random.one_of(&[usize::MAX, usize::MAX, 7, 4096, 60_000]);
        let pieces = if bytes.len() > 20_000 && pieces == 7 { 1000 } else { pieces };
        let pause = Duration::from_micros(self.random.one_of(&[0, 0, 0, 200]));
        let mut last_progress = Instant::now();
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(pieces)];
            let written = match self.stream.write(piece) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return,
            };
            bytes = &bytes[written..];
            let Some(read) = self.listen() else { return };
            if written + read > 0 {
                last_progress = Instant::now();
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                continue;
            }
            let patience = if self.listening == Listening::All { GOODBYE } else { STUCK };
            if last_progress.elapsed() > patience {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn listen(&mut self) -> Option<usize> {
        let mut room = [0; 16 * 1024];
        let room = match self.listening {
            Listening::All => &mut room[..],
            Listening::Slowly => &mut room[..64],
            Listening::Never => return Some(0),
        };
        match self.stream.read(room) {
            Ok(0) => None,
            Ok(n) => {
                if let Some(heard) = &mut self.heard {
                    heard.extend_from_slice(&room[..n]);
                }
                Some(n)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }
}

/// Until the broker hangs up. A valid conversation has said everything, and hangs up itself at close-ok.
fn listen_to_the_end(stream: &mut TcpStream, mut heard: Option<&mut Vec<u8>>) -> Result<(), String> {
    let until = Instant::now() + GOODBYE;
    stream.set_nonblocking(false).map_err(|e| e.to_string())?;
    let mut room = vec![0; 64 * 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("the broker has not hung up after {GOODBYE:?}"));
        }
        let _ = stream.set_read_timeout(Some(left));
        match stream.read(&mut room) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                let Some(heard) = &mut heard else { continue };
                heard.extend_from_slice(&room[..n]);
                if heard.ends_with(CLOSE_OK) {
                    // Who closes the connection hangs up.
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// A valid conversation ends with close-ok, and nothing was closed before.
fn check_valid(heard: &[u8]) -> Result<(), String> {
    let (n, bad) = frame::whole(heard, 0);
    if n != heard.len() || bad.is_some() {
        return Err(format!("the broker's bytes are no frames: {n} of {} good, {bad:?}", heard.len()));
    }
    let mut is_closed = false;
    for frame in Frames::new(heard).filter(|f| f.kind == FrameKind::Method) {
        let Ok(Method::Cold(method)) = method::decode(frame.payload) else { continue };
        match *method {
            Cold::Channel(channel::AMQPMethod::Close(close)) => {
                return Err(format!("a valid conversation was answered with {close:?} on {}", frame.channel));
            }
            Cold::Connection(connection::AMQPMethod::Close(close)) => {
                return Err(format!("a valid conversation was answered with {close:?}"));
            }
            Cold::Connection(connection::AMQPMethod::CloseOk(_)) => is_closed = true,
            _ => {}
        }
    }
    is_closed.then_some(()).ok_or_else(|| "a valid conversation was not closed well".to_string())
}
