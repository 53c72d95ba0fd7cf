//! A barrier: while it is held, others wait in front of it. The same key as etcd's `Barrier`.

use bytes::Bytes;

use super::place::deleted_after;
use crate::client::Client;
use crate::error::Error;
use crate::lease::Lease;
use crate::types::KeyRange;

/// A barrier by its name, which is its key.
#[derive(Debug, Clone)]
pub struct Barrier {
    client: Client,
    key: Bytes,
    lease: Option<Lease>,
}

impl Barrier {
    pub(crate) fn new(client: Client, key: Bytes) -> Self {
        Self {
            client,
            key,
            lease: None,
        }
    }

    /// Held by this handle, it is released when this lease ends. Default: it is held until it is
    /// released, whatever becomes of the holder.
    #[must_use]
    pub fn lease(mut self, lease: &Lease) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// Holds it. False: it was held already, by whomever.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may be held or not, or be held later.
    pub async fn hold(&self) -> Result<bool, Error> {
        let put = self.client.put_if_absent(&self.key, "");
        let put = match &self.lease {
            Some(lease) => put.lease(lease),
            None => put,
        };
        Ok(put.await?.is_done())
    }

    /// Releases it, whoever has held it: all who wait go on.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may be released or not, or be released later.
    pub async fn release(&self) -> Result<(), Error> {
        self.client.delete(&self.key).await.map(drop)
    }

    /// Whether it is held, as of now.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn is_held(&self) -> Result<bool, Error> {
        let page = self.client.range(KeyRange::key(&self.key)).count_only();
        Ok(page.await?.count > 0)
    }

    /// Returns when it is not held: at once, or after it was released once. It may be held again
    /// by then.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait(&self) -> Result<(), Error> {
        loop {
            let page = self.client.range(KeyRange::key(&self.key)).count_only();
            let page = page.await?;
            if page.count == 0 {
                return Ok(());
            }
            if deleted_after(&self.client, &self.key, page.revision).await? {
                return Ok(());
            }
        }
    }
}
