//! The flag that ends the process.
//!
//! One for the whole member: the log's sync thread, the state's writers and the background workers
//! raise it; the node waits for it. It is raised once and never lowered.

use tokio::sync::watch;

use super::StorageError;

/// Where storage says that the member must stop. Cheap to clone; all clones are one flag.
#[derive(Debug, Clone)]
pub struct FailStop {
    first: watch::Sender<Option<StorageError>>,
}

impl FailStop {
    /// A flag that nobody has raised.
    pub fn new() -> Self {
        Self {
            first: watch::Sender::new(None),
        }
    }

    /// Raises the flag; later errors are mostly echoes of the first, which is the one that is kept.
    pub fn raise(&self, error: &StorageError) {
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(%error, "storage failed; this member must stop");
                *first = Some(error.clone());
            }
            is_first
        });
    }

    /// The error that raised the flag, if it is raised.
    pub fn error(&self) -> Option<StorageError> {
        self.first.borrow().clone()
    }

    /// Fails if the flag is raised: nothing is written after a failure.
    pub fn check(&self) -> Result<(), StorageError> {
        self.error().map_or(Ok(()), Err)
    }

    /// Waits until the flag is raised.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn raised(&self) -> StorageError {
        let mut first = self.first.subscribe();
        loop {
            if let Some(error) = first.borrow_and_update().clone() {
                return error;
            }
            // Fails only when every sender is gone, and `self` holds one.
            if first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for FailStop {
    fn default() -> Self {
        Self::new()
    }
}
