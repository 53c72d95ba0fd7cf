//! Where log lines go, and their shape.

use std::fs::OpenOptions;
use std::io;
use std::sync::Mutex;

use gonfalon_server::config::{Log, LogFormat, LogLevel, LogOutput};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, filter::Targets};

/// Our own crates; what libraries say below a warning is about their insides.
const OURS: [&str; 3] = ["gonfalon", "gonfalon_server", "gonfalon_core"];

/// Starts logging as configured.
pub(crate) fn start(log: &Log) -> io::Result<()> {
    let level = match log.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let mut layers = Vec::new();
    for output in &log.outputs {
        let theirs = level.min(LevelFilter::WARN);
        // A member that is silent makes openraft warn ten times a second; that is said once, by us.
        let openraft = if level < LevelFilter::DEBUG {
            LevelFilter::ERROR
        } else {
            theirs
        };
        let targets = Targets::new()
            .with_default(theirs)
            .with_target("openraft", openraft)
            .with_targets(OURS.map(|ours| (ours, level)));
        layers.push(
            layer(log.format, writer(output)?)
                .with_filter(Stopping(targets))
                .boxed(),
        );
    }
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(io::Error::other)
}

/// What `0` lets pass, but for the end of Raft that was asked for: a member that stops goes on
/// hearing of the others for a moment, and openraft calls it an error that nobody takes that in. A
/// Raft that ends because of a failure has another text.
#[derive(Debug)]
struct Stopping<F>(F);

/// How openraft's messages about that end.
const STOPPED: &str = "raft stopped";

impl<S: Subscriber, F: Filter<S>> Filter<S> for Stopping<F> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.0.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.0.callsite_enabled(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        let is_noise = event.metadata().target().starts_with("openraft::") && {
            let mut message = Message::default();
            event.record(&mut message);
            message.0.ends_with(STOPPED)
        };
        !is_noise && self.0.event_enabled(event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }
}

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

fn writer(output: &LogOutput) -> io::Result<BoxMakeWriter> {
    Ok(match output {
        LogOutput::Stderr => BoxMakeWriter::new(io::stderr),
        LogOutput::Stdout => BoxMakeWriter::new(io::stdout),
        LogOutput::File(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let file = file.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("log file {}: {error}", path.display()),
                )
            })?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    })
}

fn layer(format: LogFormat, writer: BoxMakeWriter) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Console => layer.with_target(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_openrafts_errors_only_the_end_that_was_asked_for_is_left_out() {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let layer = layer.with_filter(Stopping(LevelFilter::ERROR));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(target: "openraft::raft", "one: RaftCore stopped: {STOPPED}");
            tracing::error!(target: "openraft::raft", "two: {STOPPED}, or was it?");
            tracing::error!(target: "openraft::raft", "three: the disk is full");
            tracing::error!(target: "gonfalon_server::node", "four: {STOPPED}");
            tracing::warn!(target: "openraft::raft", "five: no error");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let said: Vec<_> = ["one", "two", "three", "four", "five"]
            .into_iter()
            .filter(|word| text.contains(word))
            .collect();
        assert_eq!(said, ["two", "three", "four"], "{text}");
    }
}
