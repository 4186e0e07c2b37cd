//! The number of threads that compute.

use std::io::{Write, stderr};
use std::net::IpAddr;
use std::sync::Once;

/// The largest number of threads that an engine has.
pub const THREADS: usize = 64;

/// The number of processes that torchrun has started on this machine.
pub const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";

/// The number of threads to compute with: `asked`, or a default if `asked` is 0; at most 64.
///
/// The default is `OMP_NUM_THREADS`, as in PyTorch. If that is not set, it is the number of cores
/// that the process may use (by its affinity and its control group), divided by the number of
/// processes that train together on this machine (`LOCAL_WORLD_SIZE`), and at least 1. If
/// `OMP_NUM_THREADS` is not a number from 1 on, it is ignored, and a warning is printed once to
/// standard error.
///
/// torchrun sets `OMP_NUM_THREADS` to 1 for each of several processes if it is not set.
pub fn threads(asked: usize) -> usize {
    let threads = match asked {
        0 => by_default(|name| std::env::var(name).ok(), available()),
        asked => asked,
    };
    threads.min(THREADS)
}

/// This process's share of the cores. With more threads than these, some wait for others.
pub fn own_cores() -> usize {
    share(&|name| std::env::var(name).ok(), available())
}

fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn by_default(variable: impl Fn(&'static str) -> Option<String>, cores: usize) -> usize {
    const NAME: &str = "OMP_NUM_THREADS";
    if let Some(value) = variable(NAME) {
        if let Some(threads) = first_number(&value) {
            return threads;
        }
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let warning = format!(
                "warning: {NAME} is `{value}`, which is not a number of threads; it is ignored\n"
            );
            // A message that cannot be written must not stop a run.
            let _ = stderr().write_all(warning.as_bytes());
        });
    }
    share(&variable, cores)
}

/// OpenMP accepts a list. The first number is for us; the others are for nested teams.
fn first_number(value: &str) -> Option<usize> {
    let first = value.split(',').next()?;
    first.trim().parse().ok().filter(|&threads| threads > 0)
}

fn share(variable: &impl Fn(&'static str) -> Option<String>, cores: usize) -> usize {
    (cores / processes_here(variable)).max(1)
}

/// The number of processes that train together on this machine, this one included:
/// `LOCAL_WORLD_SIZE`, or, if that is not set and rank 0 is reached without a network,
/// `WORLD_SIZE`.
pub fn processes_here(variable: impl Fn(&'static str) -> Option<String>) -> usize {
    let count = |name| {
        variable(name)?
            .trim()
            .parse()
            .ok()
            .filter(|&count| count > 0)
    };
    count(LOCAL_WORLD_SIZE).unwrap_or_else(|| {
        let near = variable("MASTER_ADDR").is_some_and(|master| is_loopback(&master));
        near.then(|| count("WORLD_SIZE")).flatten().unwrap_or(1)
    })
}

/// Whether an address is reached without a network.
fn is_loopback(address: &str) -> bool {
    let number = address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    number || address.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)], cores: usize) -> usize {
        let variable = |name: &'static str| {
            let found = set.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        by_default(variable, cores)
    }

    #[test]
    fn a_process_that_is_alone_has_a_thread_for_each_core() {
        assert_eq!(of(&[], 6), 6);
    }

    #[test]
    fn processes_on_one_machine_share_its_cores() {
        assert_eq!(of(&[("LOCAL_WORLD_SIZE", "2")], 6), 3);
        assert_eq!(of(&[("LOCAL_WORLD_SIZE", "4")], 6), 1);
        assert_eq!(of(&[("LOCAL_WORLD_SIZE", "8")], 6), 1);
    }

    #[test]
    fn openmps_number_comes_first() {
        for value in ["3", " 3 ", "3,2"] {
            let set = [("OMP_NUM_THREADS", value), ("LOCAL_WORLD_SIZE", "2")];
            assert_eq!(of(&set, 8), 3, "{value}");
        }
    }

    #[test]
    fn a_number_of_threads_that_is_none_is_ignored() {
        for value in ["", "0", "-1", "many", "1.5", "99999999999999999999"] {
            let set = [("OMP_NUM_THREADS", value), ("LOCAL_WORLD_SIZE", "2")];
            assert_eq!(of(&set, 8), 4, "{value}");
        }
        assert_eq!(of(&[("LOCAL_WORLD_SIZE", "0")], 8), 8);
        assert_eq!(of(&[("LOCAL_WORLD_SIZE", "x")], 8), 8);
    }

    #[test]
    fn a_number_that_is_asked_for_is_taken_up_to_the_most() {
        assert_eq!(threads(3), 3);
        assert_eq!(threads(1 << 40), THREADS);
    }
}
