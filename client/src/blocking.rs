//! The same client for programs without an async runtime: what others await, they wait for.
//!
//! There is no second set of types. [`connect`] makes an ordinary [`Client`], whose background work
//! runs on threads of this crate; [`Wait`] has a method for whatever can be awaited, and
//! [`WaitEach`] makes iterators of streams:
//!
//! ```
//! use std::time::Duration;
//!
//! use gonfalon::KeyRange;
//! use gonfalon::blocking::{self, Next, Wait as _, WaitEach as _};
//!
//! # fn main() -> Result<(), gonfalon::Error> {
//! # mod blocking {
//! #     // A server in memory instead of the one that is named.
//! #     pub fn connect(_: &str) -> Result<gonfalon::Client, gonfalon::Error> {
//! #         let runtime = Box::leak(Box::new(tokio::runtime::Runtime::new().expect("threads")));
//! #         let entered = runtime.enter();
//! #         let server = Box::leak(Box::new(gonfalon::testkit::FakeServer::start()));
//! #         let builder = server.client_builder();
//! #         drop(entered);
//! #         gonfalon::blocking::build(builder)
//! #     }
//! # }
//! let client = blocking::connect("http://127.0.0.1:2379")?;
//! let lease = client.grant(Duration::from_secs(30)).wait()?;
//! client.put("/services/auth/a1", "10.0.1.5:8080").lease(&lease).wait()?;
//!
//! let mut changes = client.watch(KeyRange::prefix("/config/")).wait()?.wait_each();
//! # client.put("/config/limit", "100").wait()?;
//! loop {
//!     match changes.next_within(Duration::from_secs(1)) {
//!         Next::Item(batch) => println!("{:?}", batch?.events),
//!         Next::TimedOut => println!("nothing for a second"),
//!         Next::Interrupted | Next::Ended => break,
//!     }
//! #   break;
//! }
//! client.close().wait()
//! # }
//! ```
//!
//! Caches need no waiting once they are there: [`Cache::get`](crate::Cache::get) and
//! [`Cached::load`](crate::Cached::load) are not async.
//!
//! # Inside of an async runtime
//!
//! Waiting would block a thread that others need, so it is refused with
//! [`ErrorKind::WouldBlock`]: await the same thing there. That goes for the threads of
//! `tokio::task::spawn_blocking` too, which cannot be told from the others; there
//! `tokio::runtime::Handle::block_on` does what [`Wait::wait`] does.
//!
//! # Interrupting
//!
//! A thread that waits can be freed by another one, or by a handler of Ctrl-C, with an
//! [`Interrupt`]. Dropping a handle never waits, here as elsewhere.

use std::sync::OnceLock;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::options::{ClientBuilder, IntoEndpoints};

/// Threads that look after the connections of every client that is waited for; leases have their
/// own.
const THREADS: usize = 2;

/// One for the process, from the first use on: clients come and go without threads coming and going.
fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let started = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("gonfalon-io")
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, "wait", "no threads").because(error))?;
    let mut started = Some(started);
    let runtime = RUNTIME.get_or_init(|| started.take().expect("this is called once at most"));
    if let Some(unused) = started {
        // Another thread was faster.
        unused.shutdown_background();
    }
    Ok(runtime)
}

/// Ends waiting: every wait that was given one of its clones, now and later.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    token: CancellationToken,
}

impl Interrupt {
    /// One that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every wait that was given it. From any thread; not from within a signal handler proper,
    /// where hardly anything may be called.
    pub fn interrupt(&self) {
        self.token.cancel();
    }

    /// Whether it was used.
    pub fn is_interrupted(&self) -> bool {
        self.token.is_cancelled()
    }
}

/// The same as [`Client::connect`], waited for.
///
/// # Errors
///
/// As [`Client::connect`]; [`ErrorKind::WouldBlock`] inside of an async runtime.
pub fn connect(endpoints: impl IntoEndpoints) -> Result<Client, Error> {
    let client = build(Client::builder().endpoints(endpoints))?;
    client.maintenance().status().wait()?;
    Ok(client)
}

/// The same as [`ClientBuilder::build`], for a program without a runtime.
///
/// # Errors
///
/// As [`ClientBuilder::build`]; [`ErrorKind::WouldBlock`] inside of an async runtime, where a client
/// can be built without this.
pub fn build(builder: ClientBuilder) -> Result<Client, Error> {
    let runtime = allowed()?;
    let _context = runtime.enter();
    builder.build()
}

/// The runtime, if this thread may wait.
fn allowed() -> Result<&'static Runtime, Error> {
    if Handle::try_current().is_ok() {
        let message = "this thread belongs to an async runtime: await instead";
        return Err(Error::new(ErrorKind::WouldBlock, "wait", message));
    }
    runtime()
}

/// What comes of waiting: results stay as they are, all else becomes one that is well.
///
/// It is implemented for everything that this crate's futures return.
pub trait Answer {
    /// What there is if all is well.
    type Value;

    /// As a result.
    fn into_result(self) -> Result<Self::Value, Error>;
}

impl<T> Answer for Result<T, Error> {
    type Value = T;

    fn into_result(self) -> Self {
        self
    }
}

impl<T> Answer for Option<T> {
    type Value = Self;

    fn into_result(self) -> Result<Self, Error> {
        Ok(self)
    }
}

macro_rules! well {
    ($($type:ty),*) => {$(
        impl Answer for $type {
            type Value = Self;

            fn into_result(self) -> Result<Self, Error> {
                Ok(self)
            }
        }
    )*};
}

well!((), crate::LostReason);

/// Waiting for what others await. See the [module](self).
pub trait Wait: IntoFuture<Output: Answer> + Sized {
    /// Waits until it is there.
    ///
    /// # Errors
    ///
    /// Its own; [`ErrorKind::WouldBlock`] inside of an async runtime.
    fn wait(self) -> Result<Value<Self>, Error> {
        allowed()?.block_on(self.into_future()).into_result()
    }

    /// Waits for `time` at most; none if it is not there by then. It is given up then: its
    /// documentation says under "Cancel safety" what that means.
    ///
    /// # Errors
    ///
    /// As [`Wait::wait`].
    fn wait_within(self, time: Duration) -> Result<Option<Value<Self>>, Error> {
        let limited = async { tokio::time::timeout(time, self.into_future()).await };
        let answer = allowed()?.block_on(limited).ok();
        answer.map(Answer::into_result).transpose()
    }

    /// Waits until it is there, or until `interrupt` is used: then there is none, and it is given
    /// up as in [`Wait::wait_within`].
    ///
    /// # Errors
    ///
    /// As [`Wait::wait`].
    fn wait_unless(self, interrupt: &Interrupt) -> Result<Option<Value<Self>>, Error> {
        let limited = interrupt.token.run_until_cancelled(self.into_future());
        let answer = allowed()?.block_on(limited);
        answer.map(Answer::into_result).transpose()
    }
}

/// What [`Wait`] returns.
type Value<F> = <<F as IntoFuture>::Output as Answer>::Value;

impl<F: IntoFuture<Output: Answer>> Wait for F {}

/// A stream as an iterator that waits.
#[derive(Debug)]
pub struct Each<S> {
    stream: S,
    interrupt: Interrupt,
    is_over: bool,
}

/// What comes next, if it comes in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<T> {
    /// This.
    Item(T),
    /// Not in time; it may come yet.
    TimedOut,
    /// The [`Interrupt`] was used.
    Interrupted,
    /// Nothing more.
    Ended,
}

/// Waiting for each item of a stream: of a [`Watch`](crate::Watch), or of
/// [`Pages`](crate::Pages).
pub trait WaitEach<T>: Stream<Item = Result<T, Error>> + Unpin + Sized {
    /// An iterator over what comes, which ends after the first error.
    fn wait_each(self) -> Each<Self> {
        self.wait_each_unless(&Interrupt::new())
    }

    /// The same; when `interrupt` is used, it ends.
    fn wait_each_unless(self, interrupt: &Interrupt) -> Each<Self> {
        Each {
            stream: self,
            interrupt: interrupt.clone(),
            is_over: false,
        }
    }
}

impl<T, S: Stream<Item = Result<T, Error>> + Unpin> WaitEach<T> for S {}

impl<T, S: Stream<Item = Result<T, Error>> + Unpin> Each<S> {
    /// What comes within `time`.
    pub fn next_within(&mut self, time: Duration) -> Next<Result<T, Error>> {
        self.next_unless(Some(time))
    }

    /// The stream itself, which has lost nothing.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn next_unless(&mut self, time: Option<Duration>) -> Next<Result<T, Error>> {
        if self.is_over {
            return Next::Ended;
        }
        let runtime = match allowed() {
            Ok(runtime) => runtime,
            Err(error) => return Next::Item(Err(self.over(error))),
        };
        let token = self.interrupt.token.clone();
        let item = async {
            let next = token.run_until_cancelled(self.stream.next());
            match time {
                Some(time) => tokio::time::timeout(time, next).await.ok(),
                None => Some(next.await),
            }
        };
        match runtime.block_on(item) {
            Some(Some(Some(Ok(item)))) => Next::Item(Ok(item)),
            Some(Some(Some(Err(error)))) => Next::Item(Err(self.over(error))),
            Some(Some(None)) => {
                self.is_over = true;
                Next::Ended
            }
            Some(None) => Next::Interrupted,
            None => Next::TimedOut,
        }
    }

    fn over(&mut self, error: Error) -> Error {
        self.is_over = true;
        error
    }
}

impl<T, S: Stream<Item = Result<T, Error>> + Unpin> Iterator for Each<S> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_unless(None) {
            Next::Item(item) => Some(item),
            Next::TimedOut | Next::Interrupted | Next::Ended => None,
        }
    }
}
