//! How the examples are told to end.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when somebody wants the program to end: Ctrl-C or SIGTERM. One that comes
/// before this is polled, or after it is dropped, is missed: in a loop, make it once.
pub(crate) async fn interrupted() {
    let mut term = signal(SignalKind::terminate()).expect("the runtime handles signals");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
