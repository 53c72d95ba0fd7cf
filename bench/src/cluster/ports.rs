//! Hands out ports that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// How many ports from the first one may be used.
const RANGE: u16 = 500;

/// A range of ports on 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    next: u16,
}

impl Ports {
    /// Ports from `first` on.
    pub(crate) fn from(first: u16) -> Self {
        Self { first, next: 0 }
    }

    /// A port that was free just now, and that was not handed out recently.
    ///
    /// # Errors
    ///
    /// All ports of the range are in use.
    pub(crate) fn take(&mut self) -> Result<u16> {
        for _ in 0..RANGE {
            let port = self.first.saturating_add(self.next);
            self.next = (self.next + 1) % RANGE;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("all of the {RANGE} ports from {} on are in use", self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_handed_out() {
        // Whichever port the system gives us is in use while we hold it.
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let held_port = held.local_addr().unwrap().port();
        let mut ports = Ports::from(held_port);
        assert_ne!(ports.take().unwrap(), held_port);
    }
}
