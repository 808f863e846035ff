//! What becomes of good frames in bad hands.

use crate::random::Random;

/// No conversation grows beyond this by repeating itself.
const BYTES_MAX: usize = 4 << 20;

/// Changes a few things. `frames` are as they would go out, the handshake first.
pub fn mutate(frames: &mut Vec<Vec<u8>>, handshake: usize, random: &mut Random) {
    for _ in 0..1 + random.below(6) {
        if frames.is_empty() {
            return;
        }
        // Mostly behind the handshake: there is more to break.
        let from = if random.once_in(5) { 0 } else { handshake.min(frames.len() - 1) };
        let at = from + random.below(frames.len() - from);
        once(frames, at, random);
    }
}

fn once(frames: &mut Vec<Vec<u8>>, at: usize, random: &mut Random) {
    let other = random.below(frames.len());
    let frame = &mut frames[at];
    let len = frame.len();
    match random.below(18) {
        0 | 1 => flip(frame, random),
        2 => {
            let value = random.one_of(&[0, 1, 0x7f, 0x80, 0xce, 0xff]);
            let place = random.below(len);
            put(frame, place, value);
        }
        3 => frame.truncate(random.below(len)),
        4 => {
            let more = random.below(40);
            frame.extend(random.bytes(more));
        }
        5 => frames.swap(at, other),
        6 => frames.insert(other, frames[at].clone()),
        7 => drop(frames.remove(at)),
        8 => set(frame, 1, &random.one_of(&[0u16, 1, 2, 3, 2047, 2048, 65535]).to_be_bytes()),
        9 => {
            let real = len.saturating_sub(8) as u32;
            let size = random.one_of(&[
                0,
                1,
                real.wrapping_sub(1),
                real + 1,
                4089,
                131_064,
                131_073,
                u32::MAX,
                1 << 31,
            ]);
            set(frame, 3, &size.to_be_bytes());
        }
        10 => put(frame, len.wrapping_sub(1), random.one_of(&[0, 0xcd, 0xff])),
        11 => put(frame, 0, random.one_of(&[0, 1, 2, 3, 4, 8, 255])),
        // Another method with these arguments.
        12 => {
            let class = random.one_of(&[10u16, 20, 30, 40, 50, 60, 85, 90, 0, 0xffff]);
            let method = random
                .one_of(&[10u16, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 70, 71, 80, 90, 100, 110, 120]);
            set(frame, 7, &class.to_be_bytes());
            set(frame, 9, &method.to_be_bytes());
        }
        // A wrong length of a string or a table somewhere inside.
        13 => {
            let place = random.below(len);
            set(frame, place, &random.one_of(&[0u32, 1, 255, 65_536, u32::MAX]).to_be_bytes());
        }
        14 => {
            let times = random.one_of(&[2, 10, 300]).min(BYTES_MAX / len.max(1));
            let copy = frames[at].clone();
            frames.splice(at..at, std::iter::repeat_n(copy, times));
        }
        // The rest of another frame in the middle of this one.
        15 => {
            let tail = frames[other].clone();
            let (cut, from) = (random.below(len), random.below(tail.len()));
            frames[at].truncate(cut);
            frames[at].extend_from_slice(&tail[from..]);
        }
        // The body size of a content header.
        16 => set(frame, 11, &random.one_of(&[0u64, 1, 1 << 27, (1 << 27) + 1, u64::MAX]).to_be_bytes()),
        _ => {
            let n = random.below(200);
            frames.insert(at, random.bytes(n));
        }
    }
}

fn flip(frame: &mut [u8], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let (place, bit) = (random.below(frame.len()), random.below(8));
        if let Some(byte) = frame.get_mut(place) {
            *byte ^= 1 << bit;
        }
    }
}

fn put(frame: &mut [u8], at: usize, byte: u8) {
    if let Some(place) = frame.get_mut(at) {
        *place = byte;
    }
}

fn set(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
