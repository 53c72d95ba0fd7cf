//! Where log lines go, and their shape.

use std::fs::OpenOptions;
use std::io;
use std::sync::Mutex;

use gonfalon_server::config::{Log, LogFormat, LogLevel, LogOutput};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
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
                .with_filter(targets)
                .boxed(),
        );
    }
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(io::Error::other)
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
