//! Notices that another rank was lost, while this one waits for something else.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The time between looks at a connection that has something to read.
const PAUSE: Duration = Duration::from_millis(100);

/// Watches connections, each in a thread of its own. Dropping it closes them.
pub(crate) struct Watch {
    streams: Vec<TcpStream>,
    quiet: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Calls `lost`, once, when one of the connections ends.
    pub(super) fn over(
        streams: Vec<TcpStream>,
        lost: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let lost = Arc::new(Mutex::new(Some(lost)));
        let mut own = Self {
            streams,
            quiet: Arc::default(),
            threads: Vec::new(),
        };
        for stream in &own.streams {
            let (stream, lost, quiet) = (stream.try_clone()?, lost.clone(), own.quiet.clone());
            let thread = thread::Builder::new().name("ranks".into()).spawn(move || {
                wait_for_end(&stream);
                if quiet.load(Ordering::SeqCst) {
                    return;
                }
                let lost = lost.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(lost) = lost {
                    lost();
                }
            })?;
            own.threads.push(thread);
        }
        Ok(own)
    }

    /// Connections that end from now on are not reported.
    pub fn quiet(&self) {
        self.quiet.store(true, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.quiet();
        for stream in &self.streams {
            // This fails for a connection that has already ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads nothing from the connection: what arrives is for others.
fn wait_for_end(stream: &TcpStream) {
    loop {
        match stream.peek(&mut [0]) {
            Ok(0) => return,
            Ok(_) => thread::sleep(PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{self, RecvTimeoutError};

    use super::*;

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, there)
    }

    #[test]
    fn a_lost_rank_is_noticed_once_and_what_it_sent_before_can_be_read() {
        let ((mut here, mut there), (second, second_there)) = (connected(), connected());
        let (sender, receiver) = mpsc::channel();
        let streams = vec![here.try_clone().unwrap(), second];
        let watch = Watch::over(streams, move || sender.send(()).unwrap()).unwrap();
        there.write_all(b"last").unwrap();
        let early = receiver.recv_timeout(3 * PAUSE);
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "nobody has left");
        let mut words = [0; 4];
        here.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"last");
        drop((there, second_there));
        receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(watch);
        assert!(receiver.recv().is_err(), "called once");
    }

    #[test]
    fn a_rank_that_leaves_at_the_end_is_not_reported() {
        let (here, there) = connected();
        let (sender, receiver) = mpsc::channel::<()>();
        let watch = Watch::over(vec![here], move || sender.send(()).unwrap()).unwrap();
        watch.quiet();
        drop(there);
        drop(watch);
        assert!(receiver.recv().is_err(), "not called");
    }
}
