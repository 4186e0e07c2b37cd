//! A process that joins the rendezvous of ranks without the job's secret is refused, delays nobody,
//! and is reported once.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use densenet_runtime::parallel::{Collective, ProcessGroup, Ranks, Secret};
use densenet_tests::ranks::{self, free_port};

const LONG: Duration = Duration::from_secs(60);

fn local_ranks(rank: usize, world_size: usize, port: u16) -> Ranks {
    Ranks {
        secret: Secret::new("of this job"),
        ..ranks::local_ranks(rank, world_size, port)
    }
}

/// Connects to rank 0, which may start later.
fn stranger(port: u16) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(start.elapsed() < LONG, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Two ranks meet and add up, after strangers have done something to rank 0.
fn meet_after(strangers: impl FnOnce(u16)) -> Duration {
    let port = free_port();
    thread::scope(|scope| {
        let sum = |rank| {
            let mut group = ProcessGroup::join(local_ranks(rank, 2, port), LONG).unwrap();
            let mut sum = [rank as f64 + 1.0];
            group.sum(&mut sum).unwrap();
            sum[0]
        };
        let zero = scope.spawn(move || sum(0));
        strangers(port);
        let start = Instant::now();
        assert_eq!(sum(1), 3.0);
        assert_eq!(zero.join().unwrap(), 3.0);
        start.elapsed()
    })
}

#[test]
fn strangers_that_are_silent_delay_nobody() {
    let mut silent = Vec::new();
    let took = meet_after(|port| silent.extend((0..20).map(|_| stranger(port))));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn more_strangers_than_rank_0_keeps_delay_nobody() {
    let mut silent = Vec::new();
    let took = meet_after(|port| silent.extend((0..200).map(|_| stranger(port))));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn strangers_that_say_something_else_are_let_go_at_once() {
    let took = meet_after(|port| {
        let numbers = [u64::MAX, 1 << 40, 0, 1].map(u64::to_le_bytes);
        let junk: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0; 1000],
            &[0xff; 88],
            // The greeting of versions without a secret: rank 1 of 2.
            &[b"densenet".as_slice(), &numbers[3], &2u64.to_le_bytes()].concat(),
            // The right start, sizes beyond all bounds, and an invalid hash.
            &[b"densenet".as_slice(), &numbers[0], &numbers[1], &[7; 64]].concat(),
            b"dense",
        ];
        for junk in junk {
            let mut stream = stranger(port);
            let mut challenge = [0; 40];
            stream.read_exact(&mut challenge).unwrap();
            assert!(challenge.starts_with(b"densenet"));
            stream.write_all(junk).unwrap();
            if junk.len() >= 88 || !junk.starts_with(b"dense") {
                stream.set_read_timeout(Some(LONG)).unwrap();
                let mut rest = Vec::new();
                // The end, or a reset since not all that was sent has been read.
                let _ = stream.read_to_end(&mut rest);
                assert!(rest.iter().all(|&byte| byte == 0), "nothing but a refusal");
            }
        }
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_rank_of_another_job_is_refused_and_told_so() {
    let port = free_port();
    thread::scope(|scope| {
        let zero = scope.spawn(move || ProcessGroup::join(local_ranks(0, 2, port), LONG));
        for secret in [Secret::none(), Secret::new("of another job")] {
            let other = Ranks {
                secret,
                ..local_ranks(1, 2, port)
            };
            let error = ProcessGroup::join(other, Duration::from_millis(500));
            let error = error.err().unwrap().to_string();
            assert!(error.contains("rank 1 of 2 cannot reach rank 0"), "{error}");
            assert!(error.contains("DENSENET_JOB_SECRET"), "{error}");
        }
        ProcessGroup::join(local_ranks(1, 2, port), LONG).unwrap();
        zero.join().unwrap().unwrap();
    });
}

/// What a rank says to one who knows the protocol, and nothing else.
fn greeted(listener: &TcpListener) -> (TcpStream, [u8; 88]) {
    let (mut stream, _) = listener.accept().unwrap();
    stream
        .write_all(&[&b"densenet"[..], &[9; 32]].concat())
        .unwrap();
    let mut greeting = [0; 88];
    stream.read_exact(&mut greeting).unwrap();
    (stream, greeting)
}

#[test]
fn a_rank_0_without_the_secret_is_no_rank_0() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let one = thread::spawn(move || {
        ProcessGroup::join(local_ranks(1, 2, port), Duration::from_millis(500))
            .err()
            .unwrap()
    });
    // It sends the rank's own hash back.
    let (mut stream, greeting) = greeted(&listener);
    stream.write_all(&greeting[56..]).unwrap();
    drop(listener);
    let error = one.join().unwrap().to_string();
    assert!(error.contains("rank 1 of 2 cannot reach rank 0"), "{error}");
}

#[test]
fn the_secret_does_not_cross_the_wire() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let one = thread::spawn(move || {
        let secret = Secret::new("0123456789abcdef");
        let ranks = Ranks {
            secret,
            ..local_ranks(1, 2, port)
        };
        ProcessGroup::join(ranks, Duration::from_millis(300))
            .err()
            .unwrap()
    });
    let (stream, greeting) = greeted(&listener);
    assert!(
        !greeting
            .windows(4)
            .any(|part| b"0123456789abcdef".windows(4).any(|own| own == part))
    );
    drop((stream, listener));
    one.join().unwrap();
}

/// An address of this machine that is not a loopback one, if it has one.
fn outside() -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing; it chooses the address that it would send from.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

#[test]
fn rank_0_listens_at_the_masters_address_alone() {
    let Some(outside) = outside() else {
        return;
    };
    let port = free_port();
    thread::scope(|scope| {
        let zero = scope.spawn(move || ProcessGroup::join(local_ranks(0, 2, port), LONG));
        drop(stranger(port));
        let there = SocketAddr::new(outside, port);
        let reached = TcpStream::connect_timeout(&there, Duration::from_secs(1));
        assert!(reached.is_err(), "it listens at {there}");
        ProcessGroup::join(local_ranks(1, 2, port), LONG).unwrap();
        zero.join().unwrap().unwrap();
    });
}

#[test]
fn without_a_secret_ranks_meet_on_one_machine_alone() {
    let none = |rank, master: String, port| Ranks {
        master,
        secret: Secret::none(),
        ..local_ranks(rank, 2, port)
    };
    let here = free_port();
    thread::scope(|scope| {
        let join = move |rank| ProcessGroup::join(none(rank, "127.0.0.1".into(), here), LONG);
        let zero = scope.spawn(move || join(0).map(drop));
        join(1).unwrap();
        zero.join().unwrap().unwrap();
    });
    for master in [
        "0.0.0.0".into(),
        outside().map_or("0.0.0.0".into(), |ip| ip.to_string()),
    ] {
        let error = ProcessGroup::join(none(0, master, free_port()), LONG)
            .err()
            .unwrap();
        let error = error.to_string();
        assert!(error.contains("strangers could join"), "{error}");
        assert!(error.contains("set DENSENET_JOB_SECRET"), "{error}");
    }
}

/// Debian gives a machine's own name a loopback address; other machines do not find it there.
#[test]
fn a_master_that_leads_back_to_its_own_machine_is_reached_by_others() {
    let Some(outside) = outside() else {
        return;
    };
    let port = free_port();
    let apart = |rank, master: String| Ranks {
        local_rank: 0,
        local_world_size: 1,
        master,
        ..local_ranks(rank, 2, port)
    };
    thread::scope(|scope| {
        let zero = scope.spawn(move || ProcessGroup::join(apart(0, "127.0.1.1".into()), LONG));
        ProcessGroup::join(apart(1, outside.to_string()), LONG).unwrap();
        zero.join().unwrap().unwrap();
    });
}

#[test]
fn a_rank_that_came_and_went_may_come_again() {
    let port = free_port();
    thread::scope(|scope| {
        let zero = scope.spawn(move || ProcessGroup::join(local_ranks(0, 3, port), LONG));
        let patience = Duration::from_millis(300);
        ProcessGroup::join(local_ranks(1, 3, port), patience)
            .err()
            .unwrap();
        let one = scope.spawn(move || ProcessGroup::join(local_ranks(1, 3, port), LONG));
        ProcessGroup::join(local_ranks(2, 3, port), LONG).unwrap();
        one.join().unwrap().unwrap();
        zero.join().unwrap().unwrap();
    });
}

/// The process of the next test.
#[test]
fn a_rank_0() {
    if let Ok(port) = std::env::var("STRANGERS_TEST") {
        let ranks = local_ranks(0, 2, port.parse().unwrap());
        ProcessGroup::join(ranks, LONG).unwrap();
    }
}

#[test]
fn strangers_are_reported_once() {
    let port = free_port();
    let zero = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_rank_0", "--nocapture"])
        .env("STRANGERS_TEST", port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..5 {
        let mut stream = stranger(port);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    ProcessGroup::join(local_ranks(1, 2, port), LONG).unwrap();
    let said = zero.wait_with_output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    assert_eq!(
        said.matches("a stranger from 127.0.0.1:").count(),
        1,
        "{said}"
    );
    assert!(said.contains("it is another kind of program"), "{said}");
}
