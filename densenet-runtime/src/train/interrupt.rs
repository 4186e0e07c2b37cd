//! Ctrl-C: finish the step, write the checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::TrainError;

/// A request to stop after the step at hand. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Nobody asks for it but [`request`](Self::request).
    pub fn new() -> Self {
        Self::default()
    }

    /// Ctrl-C, and the signals to terminate and to hang up, ask for it. The second Ctrl-C ends
    /// the process at once. A process can have one of these.
    ///
    /// # Errors
    /// When the process handles Ctrl-C already.
    pub fn on_ctrl_c() -> Result<Self, TrainError> {
        let interrupt = Self::new();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            if handler.0.swap(true, Ordering::SeqCst) {
                // What a shell reports for a process that Ctrl-C ended.
                std::process::exit(130);
            }
        })?;
        Ok(interrupt)
    }

    /// Asks to stop after the step at hand.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
