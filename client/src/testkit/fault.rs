//! What a test lets go wrong, and what it can count.

use std::collections::BTreeMap;
use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::Refusal;
use tonic::{Code, Status};

use super::FakeServer;

macro_rules! rpcs {
    ($($(#[doc = $doc:literal])* $name:ident = $path:literal;)*) => {
        /// A call of the API, by the name that the protocol has for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rpc {
            $($(#[doc = $doc])* $name,)*
            /// One that this server does not know.
            Other,
        }

        impl Rpc {
            pub(super) fn of(path: &str) -> Self {
                match path {
                    $($path => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

rpcs! {
    /// Reading keys.
    Range = "/etcdserverpb.KV/Range";
    /// Writing a key.
    Put = "/etcdserverpb.KV/Put";
    /// Deleting keys.
    DeleteRange = "/etcdserverpb.KV/DeleteRange";
    /// A transaction; locks and elections are made of them.
    Txn = "/etcdserverpb.KV/Txn";
    /// Dropping history.
    Compact = "/etcdserverpb.KV/Compact";
    /// Opening a stream of watches.
    Watch = "/etcdserverpb.Watch/Watch";
    /// Granting a lease.
    LeaseGrant = "/etcdserverpb.Lease/LeaseGrant";
    /// Revoking a lease.
    LeaseRevoke = "/etcdserverpb.Lease/LeaseRevoke";
    /// Opening a stream of renewals.
    LeaseKeepAlive = "/etcdserverpb.Lease/LeaseKeepAlive";
    /// Asking how long a lease has.
    LeaseTimeToLive = "/etcdserverpb.Lease/LeaseTimeToLive";
    /// Listing leases.
    LeaseLeases = "/etcdserverpb.Lease/LeaseLeases";
    /// Listing members.
    MemberList = "/etcdserverpb.Cluster/MemberList";
    /// Asking how a member is.
    Status = "/etcdserverpb.Maintenance/Status";
    /// Fetching a token.
    Authenticate = "/etcdserverpb.Auth/Authenticate";
}

/// A message that the server sends on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Frame {
    /// Any message about watches.
    Any,
    /// A watch was created.
    Created,
    /// Events, of which more are to come before they are whole.
    Fragment,
    /// Events; or the last of them, if they came in fragments.
    Events,
    /// There is nothing to tell up to a revision.
    Progress,
    /// A watch has ended, or was not created.
    Canceled,
    /// A lease was renewed, or is not there.
    Renewal,
}

impl Frame {
    pub(super) fn of(response: &pb::WatchResponse) -> Self {
        if response.canceled {
            Self::Canceled
        } else if response.created {
            Self::Created
        } else if response.events.is_empty() {
            Self::Progress
        } else if response.fragment {
            Self::Fragment
        } else {
            Self::Events
        }
    }

    /// Whether `self`, as a test says it, stands for a message of the kind `sent`.
    fn covers(self, sent: Self) -> bool {
        self == sent || (self == Self::Any && sent != Self::Renewal)
    }
}

/// What becomes of a call.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    DropRequest,
    DropResponse,
    Delay(Duration),
    Refuse(Status),
}

/// All that is to go wrong, and what has been counted.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: Vec<(Rpc, Fault, usize)>,
    cuts: Vec<(Frame, usize)>,
    refused_watches: Vec<String>,
    received: BTreeMap<Rpc, usize>,
    sent: BTreeMap<Frame, usize>,
}

impl Faults {
    /// A call has arrived; what becomes of it, if that is anything special.
    pub(super) fn call(&mut self, rpc: Rpc) -> Option<Fault> {
        *self.received.entry(rpc).or_default() += 1;
        let at = self.calls.iter().position(|(of, ..)| *of == rpc)?;
        let (_, fault, times) = &mut self.calls[at];
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.calls.remove(at);
        }
        Some(fault)
    }

    /// A message is sent; whether its stream breaks after it.
    pub(super) fn frame(&mut self, frame: Frame) -> bool {
        *self.sent.entry(frame).or_default() += 1;
        let mut is_cut = false;
        self.cuts.retain_mut(|(of, left)| {
            if !of.covers(frame) {
                return true;
            }
            *left -= 1;
            is_cut |= *left == 0;
            *left > 0
        });
        is_cut
    }

    /// Why the next watch is not created, if a test wants that.
    pub(super) fn refused_watch(&mut self) -> Option<String> {
        (!self.refused_watches.is_empty()).then(|| self.refused_watches.remove(0))
    }

    pub(super) fn refuse_watch(&mut self, reason: String) {
        self.refused_watches.push(reason);
    }

    pub(super) fn cut_after(&mut self, frame: Frame, count: usize) {
        assert!(
            count > 0,
            "a stream breaks after a message, not before the first"
        );
        self.cuts.push((frame, count));
    }

    pub(super) fn received(&self, rpc: Rpc) -> usize {
        self.received.get(&rpc).copied().unwrap_or_default()
    }

    pub(super) fn sent(&self, frame: Frame) -> usize {
        let of = self.sent.iter().filter(|(sent, _)| frame.covers(**sent));
        of.map(|(_, count)| count).sum()
    }
}

/// What becomes of the next calls of a kind; see [`FakeServer::on_next`].
#[derive(Debug)]
#[must_use = "nothing goes wrong until it is said what"]
pub struct OnNext<'a> {
    pub(super) server: &'a FakeServer,
    pub(super) rpc: Rpc,
    pub(super) times: usize,
}

impl OnNext<'_> {
    /// It is to happen so many times. Default: once.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn times(mut self, times: usize) -> Self {
        assert!(times > 0, "what happens no times needs not be asked for");
        self.times = times;
        self
    }

    /// The connection breaks before the server has done anything. A write that was lost so has the
    /// [`Outcome::Unknown`](crate::Outcome::Unknown): the client cannot know.
    pub fn drop_request(self) {
        self.add(Fault::DropRequest);
    }

    /// The server does it, and the connection breaks before it has answered.
    pub fn drop_response(self) {
        self.add(Fault::DropResponse);
    }

    /// The server waits for so long before it does it.
    pub fn delay(self, time: Duration) {
        self.add(Fault::Delay(time));
    }

    /// The server does nothing, and says `text`: one of etcd's texts, such as
    /// `"etcdserver: no leader"`, goes with its code, any other with `Unknown`.
    pub fn refuse(self, text: &str) {
        let known = Refusal::ALL.iter().find(|refusal| refusal.text() == text);
        let code = known.map_or(Code::Unknown, |refusal| refusal.code());
        self.add(Fault::Refuse(Status::new(code, text)));
    }

    fn add(self, fault: Fault) {
        let mut world = self.server.shared.world();
        world.faults.calls.push((self.rpc, fault, self.times));
    }
}
