//! Output that never ends the program.
//!
//! `println!` and `eprintln!` panic when they cannot write: when the reader of a pipe is gone, as
//! with `| head`, or the disk is full. A run of several days must not end because of a message, so
//! this crate and its examples use these macros instead.
//!
//! - [`tell!`](crate::tell) writes a message to standard error. A failure is ignored.
//! - [`say!`](crate::say) writes a result to standard output. After a failure nothing more is
//!   written. A program whose purpose is its output calls [`check`] to know when to stop, and
//!   [`exit_code`] turns a full disk into a failure at the end.
//!
//! ```no_run
//! use std::error::Error;
//! use std::process::ExitCode;
//!
//! use densenet_runtime::{console, say};
//!
//! fn run() -> Result<ExitCode, Box<dyn Error>> { for number in 0.. { say!("{number}");
//! console::check()?; } Ok(ExitCode::SUCCESS) }
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
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes a line to standard error, like `eprintln!`; if it cannot be written, it is dropped.
#[macro_export]
macro_rules! tell {
    ($($message:tt)*) => {
        $crate::console::tell(::std::format_args!($($message)*))
    };
}

/// Writes a line to standard output, like `println!`; see [`console`](crate::console) for what
/// happens if it cannot be written.
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => {
        $crate::console::say(::std::format_args!($($line)*))
    };
}

/// The first failure to write to standard output.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Whether standard output is left to another process.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Drops everything that [`say!`](crate::say) writes from now on: only one of several equal processes prints.
pub(crate) fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Standard output could not be written to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct StdoutError(&'static io::Error);

impl StdoutError {
    /// Whether the reader of a pipe has closed it: it has read what it wanted.
    pub fn is_closed_pipe(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// The function that [`tell!`](crate::tell) calls.
pub fn tell(message: fmt::Arguments<'_>) {
    // One write, so that the lines of several processes do not mix.
    let line = format!("{message}\n");
    // There is nowhere left to report a failure to.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// The function that [`say!`](crate::say) calls.
pub fn say(line: fmt::Arguments<'_>) {
    say_bytes(line.to_string().as_bytes());
}

/// Writes a line that need not be UTF-8, such as a path, to standard output; otherwise like
/// [`say!`](crate::say).
pub fn say_bytes(line: &[u8]) {
    if FAILURE.get().is_some() || SILENT.load(Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(&[line, b"\n"].concat());
    if let Err(error) = written.and_then(|()| out.flush()) {
        // Another thread may have failed first.
        let _ = FAILURE.set(error);
    }
}

/// Checks that all lines so far have been written to standard output.
///
/// # Errors
/// If one could not be written.
pub fn check() -> Result<(), StdoutError> {
    FAILURE
        .get()
        .map_or(Ok(()), |error| Err(StdoutError(error)))
}

/// An error's message and those of its causes that it does not contain, one on each line.
///
/// The messages of this crate's errors contain those of their causes, which
/// [`source`](Error::source) returns for programs to match; other crates' may not.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text += &format!("\ncaused by: {cause}");
        }
    }
    text
}

/// The exit code of a program. An error is printed to standard error, [with its
/// causes](with_causes), and makes it a failure; so does a failure to write standard output. A pipe
/// whose reader has closed it is not an error.
pub fn exit_code(result: Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    let error = match (result, check()) {
        (Ok(code), Err(error)) if error.is_closed_pipe() => return code,
        (Ok(_), Err(error)) => error.into(),
        (Ok(code), Ok(())) => return code,
        (Err(error), _) => error,
    };
    match error.downcast_ref::<StdoutError>() {
        Some(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        _ => {
            tell!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::executor::ExecutorError;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer layer failed")]
    struct Outer(#[source] ExecutorError);

    #[test]
    fn each_cause_is_printed_once() {
        let cause = ExecutorError::Device(io::Error::other("out of paper").into());
        // The message of `cause` is that of its own cause.
        assert_eq!(with_causes(&cause), "out of paper");
        assert_eq!(
            with_causes(&Outer(cause)),
            "the outer layer failed\ncaused by: out of paper"
        );
    }
}
