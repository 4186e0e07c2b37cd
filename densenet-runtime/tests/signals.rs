//! Signals ask a run to end, and those that were ignored at its start stay ignored.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use densenet_runtime::say;
use densenet_runtime::train::Interrupt;

const CHILD: &str = "DENSENET_SIGNALS_CHILD";

/// The child process of these tests: it answers each line with whether an end was asked for.
#[test]
fn child() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let interrupt = Interrupt::on_ctrl_c().unwrap();
    say!("\nANSWER ready");
    for line in std::io::stdin().lines() {
        line.unwrap();
        say!("ANSWER {}", interrupt.is_requested());
    }
}

struct Program {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Program {
    /// Starts a child by a shell that ignores some signals, and no others: whoever started the tests
    /// may ignore some.
    fn ignoring(signals: &str) -> Self {
        let trap = match signals {
            "" => String::new(),
            signals => format!("trap '' {signals}; "),
        };
        let mut child = Command::new("env")
            .args(["--default-signal=HUP,INT,TERM", "sh", "-c"])
            .arg(trap + "exec \"$0\" --exact child --nocapture")
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut own = Self { child, answers };
        assert_eq!(own.answer(), "ready");
        own
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.answers.read_line(&mut line).unwrap(),
                0,
                "it has ended"
            );
            if let Some(answer) = line.trim().strip_prefix("ANSWER ") {
                return answer.to_owned();
            }
        }
    }

    /// Sends a signal by the shell's own `kill`; a program of this name is not on every machine.
    fn signal(&self, name: &str) {
        let mut kill = Command::new("sh");
        kill.args(["-c", &format!("kill -s {name} {}", self.child.id())]);
        assert!(kill.status().unwrap().success());
    }

    /// Whether an end has been asked for; a signal takes a moment to arrive.
    fn is_asked(&mut self) -> bool {
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
            if self.answer() == "true" {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Lets it end by itself.
    fn ends_well(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn each_signal_asks_for_an_end() {
    for signal in ["INT", "TERM", "HUP"] {
        let mut program = Program::ignoring("");
        assert!(!program.is_asked());
        program.signal(signal);
        assert!(program.is_asked(), "{signal}");
        program.ends_well();
    }
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    for signal in ["INT", "TERM", "HUP"] {
        let mut program = Program::ignoring(signal);
        program.signal(signal);
        program.signal(signal);
        assert!(!program.is_asked(), "{signal}");
        // The others are heard.
        for other in ["INT", "TERM", "HUP"] {
            if other != signal {
                program.signal(other);
            }
        }
        assert!(program.is_asked(), "not {signal}");
        program.ends_well();
    }
    let mut program = Program::ignoring("HUP INT TERM");
    for signal in ["INT", "TERM", "HUP"] {
        program.signal(signal);
    }
    assert!(!program.is_asked());
    program.ends_well();
}

#[test]
fn the_second_ctrl_c_ends_the_process_at_once() {
    let mut program = Program::ignoring("");
    program.signal("INT");
    assert!(program.is_asked());
    program.signal("INT");
    let status = program.child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}

#[test]
fn a_terminal_that_hangs_up_twice_asks_once() {
    let mut program = Program::ignoring("");
    for signal in ["HUP", "HUP", "TERM", "TERM", "INT"] {
        program.signal(signal);
        assert!(program.is_asked(), "{signal}");
    }
    program.ends_well();
}
