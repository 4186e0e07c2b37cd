//! Ctrl-C: finish the step, write the checkpoint.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::TrainError;

/// The signals that ask a run to end.
#[cfg(unix)]
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// What a shell reports for a process that Ctrl-C ended.
const ENDED_BY_CTRL_C: i32 = 130;

/// A request to stop after the step at hand. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Only [`request`](Self::request) asks for a stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ctrl-C and the signals SIGTERM and SIGHUP ask for a stop. A second Ctrl-C ends the process
    /// at once, with status 130. The other signals may arrive twice without that: when a terminal
    /// is closed, both it and its shell send SIGHUP.
    ///
    /// A signal that was ignored when the program started stays ignored: `nohup` protects a run
    /// from a closed terminal, and a script's background job is not interrupted by Ctrl-C.
    ///
    /// # Errors
    /// When the system does not allow a signal handler.
    pub fn on_ctrl_c() -> Result<Self, TrainError> {
        let interrupt = Self::new();
        interrupt.listen().map_err(TrainError::CtrlC)?;
        Ok(interrupt)
    }

    fn listen(&self) -> io::Result<()> {
        for signal in SIGNALS {
            if is_ignored(signal)? {
                continue;
            }
            if signal == SIGINT {
                // Handlers run in this order, so that the first Ctrl-C only arms the second.
                let pressed = Arc::new(AtomicBool::new(false));
                flag::register_conditional_shutdown(signal, ENDED_BY_CTRL_C, pressed.clone())?;
                flag::register(signal, pressed)?;
            }
            flag::register(signal, self.0.clone())?;
        }
        Ok(())
    }

    /// Asks to stop after the step at hand.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Whether the process ignores a signal, as it does from its start if its parent did.
#[cfg(unix)]
fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action `sigaction` changes nothing; it writes the current one to a
    // place that is large and aligned enough for it.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `sigaction` has succeeded, so it has written it.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Other systems have no signals that a parent ignores.
#[cfg(not(unix))]
fn is_ignored(_: i32) -> io::Result<bool> {
    Ok(false)
}
