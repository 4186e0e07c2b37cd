//! Lines that a program writes, none of which ends it.
//!
//! `println!` and `eprintln!` panic when they cannot write: when the reader of a pipe has gone, as
//! that of `| head`, or the disk is full. A run of days must not end for a message, so that this
//! crate and its examples write with these instead.
//!
//! - [`tell!`](crate::tell) writes a message to standard error. That nobody reads it changes nothing.
//! - [`say!`](crate::say) writes a result to standard output. After a failure nothing more is
//!   written; [`heard`] tells a program whose output is its purpose to stop, and [`exit_code`] turns
//!   a full disk into a failure at the end.
//!
//! ```no_run
//! use std::error::Error;
//! use std::process::ExitCode;
//!
//! use densenet_runtime::{console, say};
//!
//! fn run() -> Result<ExitCode, Box<dyn Error>> {
//!     for number in 0.. {
//!         say!("{number}");
//!         console::heard()?;
//!     }
//!     Ok(ExitCode::SUCCESS)
//! }
//!
//! fn main() -> ExitCode {
//!     console::exit_code(run())
//! }
//! ```

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

/// Writes a line to standard error, as `eprintln!`; if it cannot be written, it is dropped.
#[macro_export]
macro_rules! tell {
    ($($message:tt)*) => {
        $crate::console::tell(::std::format_args!($($message)*))
    };
}

/// Writes a line to standard output, as `println!`; see [`console`](crate::console) for what
/// happens if it cannot be written.
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => {
        $crate::console::say(::std::format_args!($($line)*))
    };
}

/// Why standard output takes no more, from the first failure on.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Standard output could not be written.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Unheard(&'static io::Error);

impl Unheard {
    /// Whether the reader of a pipe has gone: it has had what it wanted.
    pub fn is_gone(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// What [`tell!`](crate::tell) calls.
pub fn tell(message: fmt::Arguments<'_>) {
    // One write, so that the lines of several processes do not mix.
    let line = format!("{message}\n");
    // There is nowhere left to report a failure to.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// What [`say!`](crate::say) calls.
pub fn say(line: fmt::Arguments<'_>) {
    say_bytes(line.to_string().as_bytes());
}

/// Writes a line that need not be UTF-8, such as a path, to standard output; otherwise as
/// [`say!`](crate::say).
pub fn say_bytes(line: &[u8]) {
    if FAILURE.get().is_some() {
        return;
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(&[line, b"\n"].concat());
    if let Err(error) = written.and_then(|()| out.flush()) {
        // Another thread may have failed first.
        let _ = FAILURE.set(error);
    }
}

/// Whether all lines so far have been written to standard output.
///
/// # Errors
/// When one could not be written.
pub fn heard() -> Result<(), Unheard> {
    FAILURE.get().map_or(Ok(()), |error| Err(Unheard(error)))
}

/// How a program ends: an error is told on standard error and is a failure, and so is standard
/// output that could not be written. A pipe whose reader has gone is no error.
pub fn exit_code(result: Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    let error = match (result, heard()) {
        (Ok(code), Err(unheard)) if unheard.is_gone() => return code,
        (Ok(_), Err(unheard)) => unheard.into(),
        (Ok(code), Ok(())) => return code,
        (Err(error), _) => error,
    };
    match error.downcast_ref::<Unheard>() {
        Some(unheard) if unheard.is_gone() => ExitCode::SUCCESS,
        _ => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
