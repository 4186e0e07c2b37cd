//! How ranks find each other: rank 0 listens and admits processes that have the job's secret; the
//! others connect to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::handshake::{ANSWER_BYTES, Challenge, Greeting, MAGIC, REFUSAL, answer, is_answer};
use super::{ParallelError, Ranks};
use crate::tell;

/// The time between attempts to reach rank 0, and between looks for new connections.
const PAUSE: Duration = Duration::from_millis(20);
/// The time between attempts to reach a rank 0 that refuses this job's secret.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// How long a process that has connected may take to greet.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// How many connections may wait to greet, besides those of the ranks.
const STRANGERS: usize = 64;

/// An error of a rendezvous.
pub(super) fn failed(ranks: &Ranks, what: &'static str, reason: String) -> ParallelError {
    ParallelError::Rendezvous {
        rank: ranks.rank,
        world_size: ranks.world_size,
        what,
        address: format!("{}:{}", ranks.master, ranks.port),
        reason,
    }
}

/// Rank 0 listens only on the master's address. If that address does not reach this machine from
/// others (Debian gives a machine's own name a loopback address; an address may be a router's), it
/// listens on all addresses of the machine.
pub(super) fn listen(ranks: &Ranks) -> Result<TcpListener, ParallelError> {
    let failed = |reason: String| failed(ranks, "cannot listen at", reason);
    let addresses = (ranks.master.as_str(), ranks.port).to_socket_addrs();
    let addresses = addresses.map_err(|error| failed(error.to_string()))?;
    let all_here = ranks.local_world_size >= ranks.world_size;
    let may_bind = |address: &SocketAddr| {
        if !address.ip().is_loopback() && !ranks.secret.is_some() {
            return Err(failed(NO_SECRET.into()));
        }
        Ok(())
    };
    let mut v6 = false;
    for address in addresses {
        v6 = address.is_ipv6();
        if address.ip().is_loopback() && !all_here {
            continue;
        }
        may_bind(&address)?;
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    let any = match v6 {
        true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let any = SocketAddr::new(any, ranks.port);
    may_bind(&any)?;
    tell!(
        "rank 0 listens on all addresses of this machine: other machines cannot reach it at {}",
        ranks.master
    );
    TcpListener::bind(any).map_err(|error| failed(error.to_string()))
}

const NO_SECRET: &str = "the job has no secret, so strangers could join from other machines; set DENSENET_JOB_SECRET to the same long random text for all ranks, or give torchrun one as --rdzv-id";

/// A process that has connected and has not greeted yet.
struct Guest {
    stream: TcpStream,
    from: SocketAddr,
    since: Instant,
    challenge: Challenge,
    /// The bytes received so far, and their number.
    bytes: [u8; Greeting::BYTES],
    filled: usize,
}

/// The state of a guest.
enum Look {
    Waiting,
    Greeted(Greeting),
    Stranger(&'static str),
}

impl Guest {
    fn welcome(stream: TcpStream, from: SocketAddr) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let challenge = Challenge::new()?;
        let guest = Self {
            stream,
            from,
            since: Instant::now(),
            challenge,
            bytes: [0; Greeting::BYTES],
            filled: 0,
        };
        // This cannot block: the send buffer of a new connection is empty.
        (&guest.stream).write_all(&guest.challenge.bytes())?;
        Ok(guest)
    }

    /// Reads what has arrived, without waiting.
    fn look(&mut self, ranks: &Ranks) -> Look {
        loop {
            match self.stream.read(&mut self.bytes[self.filled..]) {
                Ok(0) => return Look::Stranger("it left without a greeting"),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let late = self.since.elapsed() > GREETING_TIME;
                    return match late {
                        true => Look::Stranger("it said too little"),
                        false => Look::Waiting,
                    };
                }
                Err(_) => return Look::Stranger("it left without a greeting"),
            }
            let known = self.filled.min(MAGIC.len());
            if self.bytes[..known] != MAGIC[..known] {
                return Look::Stranger("it is another kind of program");
            }
            if self.filled == self.bytes.len() {
                let greeting = Greeting::read(&self.bytes, &ranks.secret, &self.challenge);
                return match greeting {
                    Some(greeting) => Look::Greeted(greeting),
                    None => {
                        // A refusal that is not delivered does no harm.
                        let _ = (&self.stream).write_all(&REFUSAL);
                        Look::Stranger("it does not have this job's secret")
                    }
                };
            }
        }
    }
}

/// A rank that has greeted, and the answer it waits for.
struct Member {
    stream: TcpStream,
    answer: [u8; ANSWER_BYTES],
}

impl Member {
    fn is_gone(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Whether all ranks have joined. A rank that has disconnected meanwhile may connect again.
fn are_here(members: &mut [Option<Member>]) -> bool {
    for member in members.iter_mut() {
        member.take_if(|member| member.is_gone());
    }
    members.iter().all(Option::is_some)
}

/// Rank 0's part: admits the others and returns their streams in the order of their ranks.
/// Other processes delay nobody.
pub(super) fn receive(
    ranks: &Ranks,
    listener: &TcpListener,
    until: Instant,
) -> Result<Vec<TcpStream>, ParallelError> {
    let broken = |error: io::Error| failed(ranks, "cannot listen at", error.to_string());
    listener.set_nonblocking(true).map_err(broken)?;
    let mut members: Vec<Option<Member>> = (1..ranks.world_size).map(|_| None).collect();
    let mut guests: Vec<Guest> = Vec::new();
    let mut reported = false;
    while !are_here(&mut members) {
        if Instant::now() >= until {
            let expected = (1..).zip(&members);
            let missing = expected.filter(|(_, member)| member.is_none());
            let missing: Vec<_> = missing.map(|(rank, _)| rank.to_string()).collect();
            let reason = format!("not here in time: {}", missing.join(", "));
            return Err(failed(ranks, "waited for the other ranks at", reason));
        }
        let mut quiet = true;
        match listener.accept() {
            Ok((stream, from)) => {
                quiet = false;
                if guests.len() >= ranks.world_size.saturating_add(STRANGERS) {
                    // Drops the oldest guest. If it was a rank, it connects again.
                    guests.remove(0);
                }
                // A guest that has already left needs no welcome.
                guests.extend(Guest::welcome(stream, from).ok());
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(broken(error)),
        }
        let mut index = 0;
        while index < guests.len() {
            match guests[index].look(ranks) {
                Look::Waiting => index += 1,
                Look::Greeted(greeting) => {
                    let guest = guests.remove(index);
                    admit(ranks, guest, &greeting, &mut members)?;
                }
                Look::Stranger(why) => {
                    let guest = guests.remove(index);
                    if !reported {
                        reported = true;
                        let from = guest.from;
                        tell!(
                            "rank 0 refused a stranger from {from}: {why}; further ones are not reported"
                        );
                    }
                }
            }
        }
        if quiet {
            std::thread::sleep(PAUSE);
        }
    }
    let mut streams = Vec::new();
    for member in members.into_iter().flatten() {
        let mut stream = member.stream;
        stream.set_nonblocking(false).map_err(broken)?;
        stream.write_all(&member.answer).map_err(broken)?;
        streams.push(stream);
    }
    Ok(streams)
}

/// Whether the listener may be asked again: nobody is waiting, a guest has left, or the process has
/// too many open files for now.
fn is_passing(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    ) || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Admits a guest that has the secret. What it says is trusted, so a mistake in it is an error of
/// the job.
fn admit(
    ranks: &Ranks,
    guest: Guest,
    greeting: &Greeting,
    members: &mut [Option<Member>],
) -> Result<(), ParallelError> {
    let (rank, world_size) = (greeting.rank, greeting.world_size);
    let own = usize::try_from(rank)
        .ok()
        .and_then(|rank| rank.checked_sub(1));
    let own = own.and_then(|index| members.get_mut(index));
    let (Some(own), true) = (own, world_size == ranks.world_size as u64) else {
        let reason = format!("a process says that it is rank {rank} of {world_size}");
        return Err(failed(ranks, "met another world at", reason));
    };
    if own.as_ref().is_some_and(|member| !member.is_gone()) {
        let reason = format!("two processes say that they are rank {rank}");
        return Err(failed(ranks, "met a double at", reason));
    }
    *own = Some(Member {
        answer: answer(&ranks.secret, &guest.challenge, greeting),
        stream: guest.stream,
    });
    Ok(())
}

/// Another rank's part: connects to rank 0, which may start later.
pub(super) fn reach(ranks: &Ranks, until: Instant) -> Result<TcpStream, ParallelError> {
    let mut refusal = None;
    loop {
        let error = match attempt(ranks, until) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        // An earlier job that used this port may not have ended yet.
        let refused = error.kind() == ErrorKind::PermissionDenied;
        if Instant::now() >= until {
            // If the last attempt ran out of time, an earlier refusal is the better reason.
            let reason = match error.kind() {
                ErrorKind::TimedOut => refusal.unwrap_or_else(|| error.to_string()),
                _ => error.to_string(),
            };
            return Err(failed(ranks, "cannot reach rank 0 at", reason));
        }
        if refused && refusal.is_none() {
            refusal = Some(error.to_string());
            let Ranks {
                rank, master, port, ..
            } = ranks;
            tell!("rank {rank} tries {master}:{port} again: {error}");
        }
        let pause = if refused { LONG_PAUSE } else { PAUSE };
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
    }
}

fn attempt(ranks: &Ranks, until: Instant) -> io::Result<TcpStream> {
    let addresses = (ranks.master.as_str(), ranks.port).to_socket_addrs()?;
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match greet(ranks, address, until).map_err(in_time) {
            Ok(stream) => return Ok(stream),
            // A refused secret is a better reason than another address that is silent.
            Err(_) if last.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Systems report a timeout in two ways; gives both the same, plain words.
fn in_time(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, "no answer in time")
        }
        _ => error,
    }
}

/// Connects to an address. Each side then proves that it has the secret.
fn greet(ranks: &Ranks, address: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let left = || until.saturating_duration_since(Instant::now()).max(PAUSE);
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(left().min(GREETING_TIME)))?;
    let mut bytes = [0; Challenge::BYTES];
    stream.read_exact(&mut bytes)?;
    let other = || io::Error::new(ErrorKind::InvalidData, "another program listens there");
    let challenge = Challenge::read(&bytes).ok_or_else(other)?;
    let greeting = Greeting::new(ranks.rank, ranks.world_size)?;
    stream.write_all(&greeting.bytes(&ranks.secret, &challenge))?;
    // Rank 0 answers when all ranks have joined.
    stream.set_read_timeout(Some(left()))?;
    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer)?;
    if !is_answer(answer, &ranks.secret, &challenge, &greeting) {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "the process that listens there does not have this job's secret; all ranks need the same DENSENET_JOB_SECRET, or the same run of torchrun",
        ));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}
