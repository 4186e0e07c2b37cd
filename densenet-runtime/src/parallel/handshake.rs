//! How the processes of a job recognise each other: each proves that it has the job's secret, which
//! is never sent.
//!
//! Rank 0 sends a [`Challenge`], an unpredictable number. A rank sends a [`Greeting`]: its rank, a
//! number of its own, and a keyed hash of both numbers and the rank. Rank 0's [`answer`] is a keyed
//! hash of both numbers, so that a rank knows whom it has reached. All messages have fixed lengths.

use std::fmt;
use std::io;

/// The first bytes of a message of this protocol.
pub(super) const MAGIC: [u8; 8] = *b"densenet";

const NONCE: usize = 32;
const HASH: usize = 32;

type Nonce = [u8; NONCE];

/// A secret that only the processes of a job know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Option<String>);

impl Secret {
    /// A secret that all processes of the job are given, and nobody else.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Some(secret.into()))
    }

    /// No secret: whoever can reach rank 0 may join. Ranks on one machine need none.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether there is a secret.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    fn hash(&self, who: &str, parts: [&[u8]; 2]) -> blake3::Hash {
        let secret = self.0.as_deref().unwrap_or_default();
        // The context separates this key from keys that are derived from the same secret elsewhere.
        let key = blake3::derive_key("densenet: processes that train together", secret.as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(who.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// Does not print the secret itself.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.as_ref().map(|_| format_args!("..").to_string());
        f.debug_tuple("Secret").field(&kept).finish()
    }
}

/// What rank 0 sends to a process that has connected.
pub(super) struct Challenge(Nonce);

impl Challenge {
    pub const BYTES: usize = MAGIC.len() + NONCE;

    pub fn new() -> io::Result<Self> {
        Ok(Self(nonce()?))
    }

    pub fn bytes(&self) -> [u8; Self::BYTES] {
        joined(&[&MAGIC, &self.0])
    }

    /// `None` if the bytes are something else.
    pub fn read(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (magic, nonce) = bytes.split_at(MAGIC.len());
        (magic == MAGIC).then_some(Self(nonce.try_into().ok()?))
    }
}

/// A rank's number, and the proof that it has the secret.
pub(super) struct Greeting {
    pub rank: u64,
    pub world_size: u64,
    nonce: Nonce,
}

impl Greeting {
    /// Magic, rank, world size, nonce, hash.
    pub const BYTES: usize = MAGIC.len() + WHO + HASH;

    pub fn new(rank: usize, world_size: usize) -> io::Result<Self> {
        Ok(Self {
            rank: rank as u64,
            world_size: world_size as u64,
            nonce: nonce()?,
        })
    }

    pub fn bytes(&self, secret: &Secret, challenge: &Challenge) -> [u8; Self::BYTES] {
        let who = self.who();
        let hash = secret.hash("rank", [&challenge.0, &who]);
        joined(&[&MAGIC, &who, hash.as_bytes()])
    }

    /// `None` if the sender does not have the secret. The comparison takes constant time.
    pub fn read(bytes: &[u8; Self::BYTES], secret: &Secret, challenge: &Challenge) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (who, hash) = rest.split_first_chunk::<WHO>()?;
        let hash = blake3::Hash::from_bytes(hash.try_into().ok()?);
        // blake3 compares hashes in constant time.
        if *magic != MAGIC || secret.hash("rank", [&challenge.0, who]) != hash {
            return None;
        }
        let (rank, rest) = who.split_first_chunk()?;
        let (world_size, nonce) = rest.split_first_chunk()?;
        Some(Self {
            rank: u64::from_le_bytes(*rank),
            world_size: u64::from_le_bytes(*world_size),
            nonce: nonce.try_into().ok()?,
        })
    }

    fn who(&self) -> [u8; WHO] {
        joined(&[
            &self.rank.to_le_bytes(),
            &self.world_size.to_le_bytes(),
            &self.nonce,
        ])
    }
}

/// Rank, world size, nonce.
const WHO: usize = 8 + 8 + NONCE;

/// What rank 0 sends when all ranks have joined.
pub(super) fn answer(
    secret: &Secret,
    challenge: &Challenge,
    greeting: &Greeting,
) -> [u8; ANSWER_BYTES] {
    let hash = secret.hash("rank 0", [&challenge.0, &greeting.who()]);
    *hash.as_bytes()
}

/// Whether the answer comes from rank 0. The comparison takes constant time.
pub(super) fn is_answer(
    bytes: [u8; ANSWER_BYTES],
    secret: &Secret,
    challenge: &Challenge,
    greeting: &Greeting,
) -> bool {
    blake3::Hash::from_bytes(bytes) == answer(secret, challenge, greeting)
}

pub(super) const ANSWER_BYTES: usize = HASH;

/// What rank 0 sends to a process without the secret.
pub(super) const REFUSAL: [u8; ANSWER_BYTES] = [0; ANSWER_BYTES];

fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(io::Error::from)?;
    Ok(nonce)
}

/// Joins parts; together they must be as long as the whole.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut whole = [0; N];
    let bytes = parts.iter().copied().flatten();
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_with_the_secret_and_rank_0_recognise_each_other() {
        let secret = Secret::new("of this job");
        let challenge = Challenge::read(&Challenge::new().unwrap().bytes()).unwrap();
        let greeting = Greeting::new(3, 5).unwrap();
        let read = Greeting::read(&greeting.bytes(&secret, &challenge), &secret, &challenge);
        let read = read.unwrap();
        assert_eq!((read.rank, read.world_size), (3, 5));
        let answer = answer(&secret, &challenge, &read);
        assert!(is_answer(answer, &secret, &challenge, &greeting));
    }

    #[test]
    fn any_changed_bit_of_a_greeting_is_noticed() {
        let secret = Secret::new("of this job");
        let challenge = Challenge::new().unwrap();
        let bytes = Greeting::new(1, 2).unwrap().bytes(&secret, &challenge);
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Greeting::read(&bytes, &secret, &challenge).is_none(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn another_secret_and_a_greeting_that_was_overheard_are_refused() {
        let secret = Secret::new("of this job");
        let challenge = Challenge::new().unwrap();
        let greeting = Greeting::new(1, 2).unwrap();
        let bytes = greeting.bytes(&secret, &challenge);
        for other in [Secret::none(), Secret::new(""), Secret::new("of this job ")] {
            assert!(Greeting::read(&bytes, &other, &challenge).is_none());
            let answer = answer(&other, &challenge, &greeting);
            assert!(!is_answer(answer, &secret, &challenge, &greeting));
        }
        let next = Challenge::new().unwrap();
        assert!(Greeting::read(&bytes, &secret, &next).is_none());
        // A rank's own hash, sent back, is not an answer.
        let own = bytes[bytes.len() - ANSWER_BYTES..].try_into().unwrap();
        assert!(!is_answer(own, &secret, &challenge, &greeting));
        assert!(!is_answer(REFUSAL, &secret, &challenge, &greeting));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let shown = format!("{:?}", Secret::new("of this job"));
        assert!(!shown.contains("job"), "{shown}");
    }
}
