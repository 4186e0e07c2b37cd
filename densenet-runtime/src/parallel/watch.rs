//! Noticing that another rank has gone, while this one waits for something else.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between looks at a connection that has something to read.
const PAUSE: Duration = Duration::from_millis(100);

/// Watches connections, a thread each. Dropping it closes them.
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

    /// Who goes from now on is not missed.
    pub fn quiet(&self) {
        self.quiet.store(true, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.quiet();
        for stream in &self.streams {
            // One that has ended already cannot be ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Takes nothing from the connection: what comes is for others.
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
    fn who_has_gone_is_noticed_once_and_what_came_before_is_left_to_read() {
        let ((mut here, mut there), (second, second_there)) = (connected(), connected());
        let (sender, receiver) = mpsc::channel();
        let streams = vec![here.try_clone().unwrap(), second];
        let watch = Watch::over(streams, move || sender.send(()).unwrap()).unwrap();
        there.write_all(b"last").unwrap();
        let early = receiver.recv_timeout(3 * PAUSE);
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "nobody has gone");
        let mut words = [0; 4];
        here.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"last");
        drop((there, second_there));
        receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(watch);
        assert!(receiver.recv().is_err(), "called once");
    }

    #[test]
    fn who_goes_at_the_end_is_not_missed() {
        let (here, there) = connected();
        let (sender, receiver) = mpsc::channel::<()>();
        let watch = Watch::over(vec![here], move || sender.send(()).unwrap()).unwrap();
        watch.quiet();
        drop(there);
        drop(watch);
        assert!(receiver.recv().is_err(), "not called");
    }
}
