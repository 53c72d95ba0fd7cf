//! Which part of all ids gets which variant, in ranges that stay where they are.
//!
//! If a range began where the one before it ends, growing the first variant would push everybody
//! behind it into another one. Here a range has its own beginning, and a variant that grows takes
//! ids that nobody had.
//!
//! Invariant: the ranges are in order, none is empty and no two overlap.

use serde_json::{Value, json};

use crate::bucket::{Bucket, Percent};
use crate::fields::{DefinitionError, Field};
use crate::rollout;

/// Which part of all ids gets which variant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    /// The first bucket, in thousandths of a percent.
    start: u32,
    /// The first bucket after it.
    end: u32,
    variant: String,
}

/// Where a variant has no room to grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only {0} of all ids belong to no variant")]
pub struct NoRoom(
    /// What belongs to no variant.
    pub Percent,
);

impl Split {
    /// Reads a list of `{"variant", "percent", "from"}`; a range without `from` begins where the
    /// one before it ends. Ranges of no ids are left out.
    pub(crate) fn read(field: &Field<'_>) -> Result<Self, DefinitionError> {
        let mut ranges: Vec<Range> = Vec::new();
        let mut next = 0;
        for field in field.some()? {
            let mut fields = field.object()?;
            let variant = fields.need("variant")?.text()?.to_owned();
            let percent = fields.need("percent")?.percent()?.thousandths();
            let start = match fields.get("from") {
                Some(from) => from.percent()?.thousandths(),
                None => next,
            };
            let end = start + percent;
            if end > Percent::ALL.thousandths() {
                return field.refuse("this range ends after 100 percent");
            }
            let overlaps = |range: &&Range| range.start < end && start < range.end;
            if percent > 0
                && let Some(other) = ranges.iter().find(overlaps)
            {
                let other = &other.variant;
                return field.refuse(format_args!("this range overlaps another one of {other:?}"));
            }
            fields.end()?;
            next = end;
            ranges.push(Range {
                start,
                end,
                variant,
            });
        }
        ranges.retain(|range| range.start < range.end);
        ranges.sort_unstable_by_key(|range| range.start);
        Ok(Self { ranges })
    }

    /// As a definition has it.
    pub fn to_json(&self) -> Value {
        let percent = |thousandths| {
            let percent = Percent::from_thousandths(thousandths);
            rollout::to_json(percent.expect("a range is within 100 percent"))
        };
        let ranges = self.ranges.iter().map(|range| {
            json!({
                "variant": range.variant,
                "from": percent(range.start),
                "percent": percent(range.end - range.start),
            })
        });
        ranges.collect()
    }

    /// Each range: its first bucket, the first one after it, and its variant.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u32, u32, &str)> {
        let ranges = self.ranges.iter();
        ranges.map(|range| (range.start, range.end, range.variant.as_str()))
    }

    /// The variant of a bucket; none if the bucket belongs to no variant.
    pub fn variant(&self, bucket: Bucket) -> Option<&str> {
        let bucket = bucket.thousandths();
        let after = self.ranges.partition_point(|range| range.start <= bucket);
        let range = &self.ranges[after.checked_sub(1)?];
        (bucket < range.end).then_some(&range.variant)
    }

    /// The share of a variant.
    pub fn share(&self, variant: &str) -> Percent {
        let own = self.ranges.iter().filter(|range| range.variant == variant);
        percent(own.map(|range| range.end - range.start).sum())
    }

    /// The same with another share for one variant. If it grows, nobody who has a variant gets
    /// another one; if it shrinks, nobody gets a variant that he had not, and the highest buckets
    /// of the variant are the first to go.
    ///
    /// # Errors
    /// There are not enough ids without a variant.
    pub fn resized(&self, variant: &str, share: Percent) -> Result<Self, NoRoom> {
        let (before, after) = (self.share(variant).thousandths(), share.thousandths());
        let mut ranges = self.ranges.clone();
        if after < before {
            shrink(&mut ranges, variant, before - after);
            return Ok(Self { ranges });
        }
        let mut wanted = after - before;
        // The gaps lie before each range and behind the last one.
        let ends = self.ranges.iter().map(|range| (range.start, range.end));
        let mut start = 0;
        for (gap_end, next) in ends.chain([(Percent::ALL.thousandths(), 0)]) {
            let end = gap_end.min(start + wanted);
            if start < end {
                wanted -= end - start;
                ranges.push(Range {
                    start,
                    end,
                    variant: variant.to_owned(),
                });
            }
            start = next;
        }
        if wanted > 0 {
            return Err(NoRoom(percent(after - before - wanted)));
        }
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, range| {
            let one = range.end == next.start && range.variant == next.variant;
            if one {
                range.end = next.end;
            }
            one
        });
        Ok(Self { ranges })
    }
}

fn shrink(ranges: &mut Vec<Range>, variant: &str, mut surplus: u32) {
    for range in ranges.iter_mut().rev() {
        if range.variant == variant {
            let less = surplus.min(range.end - range.start);
            range.end -= less;
            surplus -= less;
        }
    }
    ranges.retain(|range| range.start < range.end);
}

fn percent(thousandths: u32) -> Percent {
    Percent::from_thousandths(thousandths)
        .expect("ranges do not overlap, so they are 100 % at most")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::Fields;

    fn read(split: &Value) -> Result<Split, DefinitionError> {
        let root = json!({"split": split});
        let field = Fields::root(root.as_object().unwrap())
            .need("split")
            .unwrap();
        Split::read(&field)
    }

    fn ranges(split: &Split) -> Vec<(u32, u32, &str)> {
        split.ranges().collect()
    }

    fn all(thousandths: u32) -> Percent {
        Percent::from_thousandths(thousandths).unwrap()
    }

    #[test]
    fn a_range_begins_where_it_says_or_behind_the_one_before() {
        let split = json!([
            {"variant": "a", "percent": 10, "from": 50},
            {"variant": "b", "percent": 0.5},
            {"variant": "none", "percent": 0},
            {"variant": "c", "percent": 50, "from": 0},
        ]);
        let split = read(&split).unwrap();
        let want = [
            (0, 50_000, "c"),
            (50_000, 60_000, "a"),
            (60_000, 60_500, "b"),
        ];
        assert_eq!(ranges(&split), want);
        assert_eq!(
            read(&split.to_json()).unwrap(),
            split,
            "{}",
            split.to_json()
        );
    }

    #[test]
    fn a_split_that_makes_no_sense_is_refused_at_its_range() {
        for (split, pointer) in [
            (json!([]), "/split"),
            (json!({"a": 50}), "/split"),
            (json!([{"variant": "a"}]), "/split/0/percent"),
            (json!([{"percent": 5}]), "/split/0/variant"),
            (
                json!([{"variant": "a", "weight": 5, "percent": 5}]),
                "/split/0/weight",
            ),
            (
                json!([{"variant": "a", "percent": 60}, {"variant": "b", "percent": 41}]),
                "/split/1",
            ),
            (
                json!([{"variant": "a", "percent": 60}, {"variant": "b", "percent": 1, "from": 59.5}]),
                "/split/1",
            ),
        ] {
            let error = read(&split).expect_err("the split makes no sense");
            assert_eq!(error.pointer(), pointer, "{split}: {error}");
        }
    }

    #[test]
    fn growing_fills_the_gaps_and_shrinking_frees_the_last_ids() {
        let split = read(&json!([
            {"variant": "a", "percent": 20},
            {"variant": "b", "percent": 20},
            {"variant": "c", "percent": 20, "from": 70},
        ]));
        let split = split.unwrap();
        let grown = split.resized("a", all(55_000)).unwrap();
        let want = [
            (0, 20_000, "a"),
            (20_000, 40_000, "b"),
            (40_000, 70_000, "a"),
            (70_000, 90_000, "c"),
            (90_000, 95_000, "a"),
        ];
        assert_eq!(ranges(&grown), want);
        assert_eq!(grown.resized("a", all(20_000)).unwrap(), split);
        assert_eq!(
            ranges(&grown.resized("a", all(10_000)).unwrap())[0],
            (0, 10_000, "a")
        );
        assert_eq!(split.resized("d", all(40_001)), Err(NoRoom(all(40_000))));
    }

    proptest! {
        /// Shares change in any order: ids change variants only by entering or leaving one.
        #[test]
        fn no_id_ever_goes_from_one_variant_to_another(
            steps in prop::collection::vec(("[abc]", 0..=100_000_u32), 1..20),
        ) {
            let mut split = Split::default();
            for (variant, share) in steps {
                let before = split.clone();
                let shares = ["a", "b", "c"].map(|name| if name == variant { 0 } else { split.share(name).thousandths() });
                let free = 100_000 - shares.iter().sum::<u32>();
                match split.resized(&variant, all(share)) {
                    Err(_) => prop_assert!(share > free, "{share} of {free} is refused"),
                    Ok(next) => {
                        prop_assert_eq!(next.share(&variant).thousandths(), share);
                        split = next;
                    }
                }
                let ends = split.ranges.windows(2).all(|two| two[0].end <= two[1].start);
                prop_assert!(ends && split.ranges.iter().all(|range| range.start < range.end), "{split:?}");
                let grows = split.share(&variant) >= before.share(&variant);
                for id in 0..300_u32 {
                    let bucket = crate::bucket::Seed::for_split("s").bucket(id.to_string().as_bytes());
                    match (before.variant(bucket), split.variant(bucket)) {
                        (Some(old), Some(new)) => prop_assert_eq!(old, new),
                        (Some(old), None) => prop_assert!(!grows && old == variant),
                        (None, Some(new)) => prop_assert!(grows && new == variant),
                        (None, None) => {}
                    }
                }
            }
        }
    }
}
