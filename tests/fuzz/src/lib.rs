//! Code that the fuzzers of all parsers share.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::{Mutex, PoisonError};

use densenet_tests::memory::Counting;
use densenet_tests::parsers::{Desk, Parser};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the latest panic said.
static SAID: Mutex<String> = Mutex::new(String::new());

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(desk());
}

/// A desk whose panics are caught, because those of decoders are not findings. The fuzzer ends the
/// process at any panic.
fn desk() -> Desk {
    panic::set_hook(Box::new(|info| {
        *SAID.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
    Desk::new()
}

/// Feeds a parser, and ends the process where it panics.
pub fn feed(parser: &str, bytes: &[u8]) {
    let parser = Parser::named(parser);
    DESK.with_borrow_mut(|desk| {
        if panic::catch_unwind(AssertUnwindSafe(|| parser.feed(desk, bytes))).is_err() {
            eprintln!("{}", SAID.lock().unwrap_or_else(PoisonError::into_inner));
            process::abort();
        }
    });
}
