//! `check perf`.

mod load;

use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::commands::defrag::Defrag;
use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::{Format, Out, Page, Show, text};
use crate::parse;
use crate::range::Range;
use load::{Load, Measured};

/// A cluster passes with at least this share of the rate that was asked for.
const RATE_SHARE_MIN: f64 = 0.9;
/// ... with no write slower than this ...
const SLOWEST_MAX: Duration = Duration::from_millis(500);
/// ... and with times that differ no more than this.
const DEVIATION_MAX: Duration = Duration::from_millis(100);

/// Measure the cluster
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Check {
    /// Write at a given rate and tell whether the cluster keeps up
    ///
    /// Limits are etcdctl's: 90% of the rate, no write slower than 500 ms, standard deviation at most
    /// 100 ms. Writes below --prefix, which must be empty, and deletes its keys in the end.
    Perf(Perf),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Perf {
    /// How much: s: 150/s from 50 clients, m: 1000/s from 200, l: 8000/s from 500, xl: 15000/s from 1000
    #[arg(long, value_enum, default_value_t = Size::S)]
    load: Size,
    /// Where to write
    #[arg(long, value_parser = parse::raw(), default_value = "/gonfalon-check-perf/")]
    prefix: Bytes,
    /// How long
    #[arg(long, value_parser = parse::timeout, default_value = "60s")]
    duration: Duration,
    /// Compact afterwards
    #[arg(long)]
    auto_compact: bool,
    /// Defragment afterwards
    #[arg(long)]
    auto_defrag: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Size {
    #[value(alias = "small")]
    S,
    #[value(alias = "medium")]
    M,
    #[value(alias = "large")]
    L,
    #[value(name = "xl", alias = "xLarge")]
    Xl,
}

impl Size {
    fn rate_and_clients(self) -> (u32, usize) {
        match self {
            Self::S => (150, 50),
            Self::M => (1000, 200),
            Self::L => (8000, 500),
            Self::Xl => (15_000, 1000),
        }
    }
}

impl Check {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("check perf")?;
        let Self::Perf(perf) = self;
        perf.run(connection, out).await
    }
}

impl Perf {
    async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        self.refuse_to_overwrite(connection).await?;
        let (rate, clients) = self.load.rate_and_clients();
        if out.format() == Format::Human {
            let time = text::took(self.duration);
            note(format_args!(
                "Writing {rate}/s from {clients} clients for {time}..."
            ));
        }
        let load = Load {
            rate,
            clients,
            duration: self.duration,
            prefix: self.prefix.clone(),
        };
        let measured = load.run(connection).await?;
        let revision = self.clean_up(connection).await?;
        let verdict = Verdict { measured, rate };
        out.show(&verdict)?;
        if self.auto_compact {
            let request = pb::CompactionRequest {
                revision,
                physical: true,
            };
            connection
                .call(Repeat::Never, async |channel| {
                    connection::kv(channel).compact(request).await
                })
                .await?;
        }
        if self.auto_defrag {
            Defrag { cluster: false }.run(connection, out).await?;
        }
        if verdict.passes() {
            Ok(())
        } else {
            Err(Failure::unhealthy())
        }
    }

    /// Keys of somebody else below the prefix would be deleted in the end.
    async fn refuse_to_overwrite(&self, connection: &Connection) -> Result<(), Failure> {
        let range = Range::prefix(&self.prefix);
        let request = pb::RangeRequest {
            key: range.key,
            range_end: range.end,
            count_only: true,
            ..Default::default()
        };
        let response = connection
            .call(Repeat::Safe, async |channel| {
                connection::kv(channel).range(request.clone()).await
            })
            .await?;
        if response.count == 0 {
            return Ok(());
        }
        let (prefix, keys) = (
            text::escape(&self.prefix),
            text::count(response.count, "key"),
        );
        Err(
            Failure::failed(format!("below {prefix} there is {keys} already")).next(format!(
                "Choose another --prefix, or `gonfalon del --prefix {prefix}`."
            )),
        )
    }

    /// Deletes what was written; gives the revision of that.
    async fn clean_up(&self, connection: &Connection) -> Result<i64, Failure> {
        let range = Range::prefix(&self.prefix);
        let request = pb::DeleteRangeRequest {
            key: range.key,
            range_end: range.end,
            prev_kv: false,
        };
        let response = connection
            .call(Repeat::Safe, async |channel| {
                connection::kv(channel).delete_range(request.clone()).await
            })
            .await?;
        Ok(response.header.as_ref().map_or(0, |header| header.revision))
    }
}

/// What was measured, against the limits.
struct Verdict {
    measured: Measured,
    rate: u32,
}

impl Verdict {
    fn keeps_up(&self) -> bool {
        self.measured.per_second() >= f64::from(self.rate) * RATE_SHARE_MIN
    }

    fn is_quick(&self) -> bool {
        self.measured.slowest() <= SLOWEST_MAX
    }

    fn is_steady(&self) -> bool {
        self.measured.deviation() <= DEVIATION_MAX
    }

    fn passes(&self) -> bool {
        self.measured.errors == 0 && self.keeps_up() && self.is_quick() && self.is_steady()
    }
}

fn word(pass: bool) -> &'static str {
    if pass { "PASS" } else { "FAIL" }
}

impl Show for Verdict {
    fn human(&self, page: &mut Page) {
        let measured = &self.measured;
        let (per_second, rate) = (measured.per_second(), self.rate);
        let (slowest, deviation) = (
            text::took(measured.slowest()),
            text::took(measured.deviation()),
        );
        let (half, most) = (
            text::took(measured.quantile(50)),
            text::took(measured.quantile(99)),
        );
        page.line(format!(
            "{}  {per_second:.0} writes/s of {rate}/s",
            word(self.keeps_up())
        ));
        page.line(format!(
            "{}  slowest {slowest} (half {half}, 99% {most})",
            word(self.is_quick())
        ));
        page.line(format!(
            "{}  standard deviation {deviation}",
            word(self.is_steady())
        ));
        if measured.errors > 0 {
            let why = measured.error.as_deref().unwrap_or_default();
            page.line(format!("FAIL  {} writes failed: {why}", measured.errors));
        }
        page.line(word(self.passes()));
    }

    fn simple(&self, page: &mut Page) {
        let measured = &self.measured;
        if measured.errors > 0 {
            page.line(format!("FAIL: too many errors: {}", measured.errors));
        }
        let (keeps_up, per_second) = (word(self.keeps_up()), measured.per_second());
        page.line(format!(
            "{keeps_up}: Throughput is {per_second:.0} writes/s"
        ));
        let (quick, slowest) = (word(self.is_quick()), measured.slowest().as_secs_f64());
        page.line(format!("{quick}: Slowest request took {slowest:.6}s"));
        let (steady, deviation) = (word(self.is_steady()), measured.deviation().as_secs_f64());
        page.line(format!("{steady}: Stddev is {deviation:.6}s"));
        page.line(word(self.passes()));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.add("Pass", self.passes());
        fields.add("Writes", self.measured.count());
        fields.add("Errors", self.measured.errors);
        fields.add(
            "Throughput",
            format_args!("{:.1}", self.measured.per_second()),
        );
        fields.add("Slowest", text::go_duration(self.measured.slowest()));
        fields.add("Stddev", text::go_duration(self.measured.deviation()));
        fields
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json {
            pass: bool,
            writes: usize,
            errors: u64,
            writes_per_second: f64,
            p50_seconds: f64,
            p99_seconds: f64,
            slowest_seconds: f64,
            stddev_seconds: f64,
        }
        Json {
            pass: self.passes(),
            writes: self.measured.count(),
            errors: self.measured.errors,
            writes_per_second: self.measured.per_second(),
            p50_seconds: self.measured.quantile(50).as_secs_f64(),
            p99_seconds: self.measured.quantile(99).as_secs_f64(),
            slowest_seconds: self.measured.slowest().as_secs_f64(),
            stddev_seconds: self.measured.deviation().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rate: u32, millis: &[u64], errors: u64) -> Verdict {
        let times = millis.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Verdict {
            measured: Measured::of(times, Duration::from_secs(1), errors),
            rate,
        }
    }

    #[test]
    fn a_cluster_passes_within_all_limits() {
        assert!(verdict(10, &[5; 9], 0).passes());
        assert!(!verdict(10, &[5; 8], 0).keeps_up());
        assert!(!verdict(1, &[5, 501], 0).is_quick());
        assert!(!verdict(1, &[1, 250], 0).is_steady());
        assert!(!verdict(10, &[5; 9], 1).passes(), "a write failed");
        assert!(!verdict(10, &[], 0).passes(), "nothing was written");
    }
}
