//! Bytes that are nearly right: the same ones each time.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Replacements for a number in a text.
const WORDS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "4294967295",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "1e38",
    "-1e308",
    "1e999",
    "null",
    "[]",
];

/// This many mutations of some bytes: flipped bits, cuts, other lengths, pieces that are missing,
/// repeated or from `others`.
pub fn of<'a>(
    bytes: &'a [u8],
    others: &'a [Vec<u8>],
    count: usize,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let mut random = StdRng::seed_from_u64(bytes.len() as u64);
    (0..count).map(move |_| {
        let mut mutant = bytes.to_vec();
        // Mostly one change: more hide each other.
        let changes = [1, 1, 1, 2, 4].choose(&mut random).copied().unwrap_or(1);
        for _ in 0..changes {
            change(&mut mutant, others, &mut random);
        }
        mutant
    })
}

fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
    if bytes.is_empty() {
        bytes.push(random.r#gen());
        return;
    }
    let at = random.gen_range(0..bytes.len());
    match random.gen_range(0..10) {
        0..=2 => bytes[at] ^= 1 << random.gen_range(0..8),
        3 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(random).unwrap_or(&0),
        4 => bytes.truncate(at),
        5 | 6 => length(bytes, at, random),
        7 => {
            let end = (at + random.gen_range(1..=32)).min(bytes.len());
            let piece: Vec<u8> = bytes.drain(at..end).collect();
            if random.r#gen() {
                let again = random.gen_range(0..=bytes.len());
                bytes.splice(again..again, piece.repeat(2));
            }
        }
        8 => {
            if let Some(other) = others.choose(random).filter(|other| !other.is_empty()) {
                let from = random.gen_range(0..other.len());
                let to = (from + random.gen_range(1..=64)).min(other.len());
                let end = (at + random.gen_range(0..=64)).min(bytes.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
        _ => number(bytes, at, random),
    }
}

/// Another length, or whatever stands there, of 2, 4 or 8 bytes.
fn length(bytes: &mut [u8], at: usize, random: &mut StdRng) {
    let values = [
        0,
        1,
        bytes.len() as u64,
        0x7fff,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 40,
        u64::MAX >> 1,
        u64::MAX,
    ];
    let value = values.choose(random).copied().unwrap_or(0);
    let width = [2, 4, 8].choose(random).copied().unwrap_or(4);
    let written = match random.r#gen() {
        true => value.to_le_bytes()[..width].to_vec(),
        false => value.to_be_bytes()[8 - width..].to_vec(),
    };
    for (byte, value) in bytes[at..].iter_mut().zip(written) {
        *byte = value;
    }
}

/// Another number in the place of the next one of a text.
fn number(bytes: &mut Vec<u8>, at: usize, random: &mut StdRng) {
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let Some(from) = bytes[at..].iter().position(is_part) else {
        return;
    };
    let from = at + from;
    let digits = bytes[from..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    let word = WORDS.choose(random).copied().unwrap_or("0");
    bytes.splice(from..from + digits, word.bytes());
}
