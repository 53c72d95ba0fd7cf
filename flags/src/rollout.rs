//! A percentage as a function of time.
//!
//! There is no state and no schedule that somebody must run: whoever evaluates says what time it is.

use serde_json::Value;

use crate::bucket::Percent;
use crate::fields::{DefinitionError, Field, Fields};
use crate::moment::Moment;

/// A percentage as a function of time.
#[derive(Debug, Clone)]
pub(crate) struct Rollout {
    schedule: Schedule,
    /// From then on the schedule runs backwards, as fast as it ran: who came last leaves first.
    rollback_at: Option<Moment>,
}

#[derive(Debug, Clone)]
enum Schedule {
    Fixed(Percent),
    /// From each moment on, its percentage; nobody before the first. The moments grow strictly.
    Steps(Box<[(Moment, Percent)]>),
    /// A straight line, level before `start` and after `end`, which is later.
    Ramp {
        from: Percent,
        to: Percent,
        start: Moment,
        end: Moment,
    },
}

impl Rollout {
    pub(crate) const ALL: Self = Self::fixed(Percent::ALL);

    const fn fixed(percent: Percent) -> Self {
        Self {
            schedule: Schedule::Fixed(percent),
            rollback_at: None,
        }
    }

    /// Reads `rollout_percent` or `rollout`; none if neither is there.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, DefinitionError> {
        match (fields.get("rollout_percent"), fields.get("rollout")) {
            (None, None) => Ok(None),
            (Some(field), None) => Ok(Some(Self::fixed(field.percent()?))),
            (None, Some(field)) => Self::read_object(field.object()?).map(Some),
            (Some(field), Some(_)) => {
                field.refuse("rollout and rollout_percent exclude each other")
            }
        }
    }

    fn read_object(mut fields: Fields<'_>) -> Result<Self, DefinitionError> {
        let (name, field) = fields.one_of(&["percent", "steps", "ramp"])?;
        let schedule = match name {
            "percent" => Schedule::Fixed(field.percent()?),
            "steps" => Schedule::read_steps(&field)?,
            _ => Schedule::read_ramp(field.object()?)?,
        };
        let rollback_at = fields.get("rollback_at");
        if let (Some(field), Schedule::Fixed(_)) = (&rollback_at, &schedule) {
            return field.refuse("only steps and a ramp can be rolled back; lower the percentage");
        }
        let rollback_at = rollback_at.map(|field| field.moment()).transpose()?;
        fields.end()?;
        Ok(Self {
            schedule,
            rollback_at,
        })
    }

    /// The percentage, if it is the same at all times.
    pub(crate) fn fixed_percent(&self) -> Option<Percent> {
        match self.schedule {
            Schedule::Fixed(percent) => Some(percent),
            Schedule::Steps(_) | Schedule::Ramp { .. } => None,
        }
    }

    /// The percentage at a moment.
    #[inline]
    pub(crate) fn at(&self, now: Moment) -> Percent {
        match self.schedule {
            Schedule::Fixed(percent) => percent,
            _ => self.scheduled(now),
        }
    }

    fn scheduled(&self, now: Moment) -> Percent {
        let now = match self.rollback_at {
            Some(pivot) if now > pivot => now.mirrored(pivot),
            _ => now,
        };
        match &self.schedule {
            Schedule::Fixed(percent) => *percent,
            Schedule::Steps(steps) => {
                let past = steps.partition_point(|(at, _)| *at <= now);
                past.checked_sub(1).map_or(Percent::NONE, |at| steps[at].1)
            }
            Schedule::Ramp {
                from,
                to,
                start,
                end,
            } => between(*from, *to, *start, *end, now),
        }
    }
}

impl Schedule {
    fn read_steps(field: &Field<'_>) -> Result<Self, DefinitionError> {
        let mut steps: Vec<(Moment, Percent)> = Vec::new();
        for field in field.some()? {
            let mut fields = field.object()?;
            let at = fields.need("at")?;
            let moment = at.moment()?;
            if steps.last().is_some_and(|(before, _)| *before >= moment) {
                return at.refuse("this step is not after the one before it");
            }
            steps.push((moment, fields.need("percent")?.percent()?));
            fields.end()?;
        }
        Ok(Self::Steps(steps.into()))
    }

    fn read_ramp(mut fields: Fields<'_>) -> Result<Self, DefinitionError> {
        let percent =
            |field: Option<Field<'_>>, default| field.map_or(Ok(default), |field| field.percent());
        let from = percent(fields.get("from"), Percent::NONE)?;
        let to = percent(fields.get("to"), Percent::ALL)?;
        let start = fields.need("start")?.moment()?;
        let end_field = fields.need("end")?;
        let end = end_field.moment()?;
        if end <= start {
            return end_field.refuse("the end is not after the start");
        }
        fields.end()?;
        Ok(Self::Ramp {
            from,
            to,
            start,
            end,
        })
    }
}

/// The point of a straight line, rounded towards its beginning.
fn between(from: Percent, to: Percent, start: Moment, end: Moment, now: Moment) -> Percent {
    if now <= start {
        return from;
    }
    if now >= end {
        return to;
    }
    let ms = |moment: Moment| i128::from(moment.unix_ms());
    let percent = |percent: Percent| i128::from(percent.thousandths());
    let risen = (percent(to) - percent(from)) * (ms(now) - ms(start)) / (ms(end) - ms(start));
    let thousandths = u32::try_from(percent(from) + risen);
    let point = thousandths.ok().and_then(Percent::from_thousandths);
    point.expect("a point of the line is between its ends")
}

/// The field of a definition that says this percentage.
pub(crate) fn to_json(percent: Percent) -> Value {
    let thousandths = percent.thousandths();
    if thousandths.is_multiple_of(1000) {
        return Value::from(thousandths / 1000);
    }
    Value::from(percent.percent())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(rollout: &Value) -> Result<Rollout, DefinitionError> {
        let root = json!({"rollout": rollout});
        let mut fields = Fields::root(root.as_object().unwrap());
        Ok(Rollout::read(&mut fields)?.expect("there is one"))
    }

    fn at(rollout: &Rollout, moment: &str) -> u32 {
        rollout.at(Moment::parse(moment).unwrap()).thousandths()
    }

    #[test]
    fn steps_hold_from_their_moment_on() {
        let steps = json!({"steps": [
            {"at": "2026-01-01T00:00:00Z", "percent": 1},
            {"at": "2026-01-02T00:00:00Z", "percent": 20.5},
            {"at": "2026-01-03T00:00:00Z", "percent": 100},
        ]});
        let steps = read(&steps).unwrap();
        for (moment, want) in [
            ("2025-12-31T23:59:59.999Z", 0),
            ("2026-01-01T00:00:00Z", 1_000),
            ("2026-01-01T23:59:59.999Z", 1_000),
            ("2026-01-02T00:00:00Z", 20_500),
            ("2026-01-03T00:00:00Z", 100_000),
            ("2036-01-03T00:00:00Z", 100_000),
        ] {
            assert_eq!(at(&steps, moment), want, "{moment}");
        }
    }

    #[test]
    fn a_ramp_is_level_outside_and_straight_inside_and_rolls_back_as_it_came() {
        let ramp = json!({
            "ramp": {"from": 10, "to": 50, "start": "2026-01-01T00:00:00Z", "end": "2026-01-05T00:00:00Z"},
            "rollback_at": "2026-01-04T00:00:00Z",
        });
        let ramp = read(&ramp).unwrap();
        for (moment, want) in [
            ("2025-01-01T00:00:00Z", 10_000),
            ("2026-01-01T00:00:00Z", 10_000),
            ("2026-01-02T00:00:00Z", 20_000),
            ("2026-01-02T12:00:00Z", 25_000),
            ("2026-01-04T00:00:00Z", 40_000),
            ("2026-01-05T12:00:00Z", 25_000),
            ("2026-01-06T00:00:00Z", 20_000),
            ("2026-01-08T00:00:00Z", 10_000),
        ] {
            assert_eq!(at(&ramp, moment), want, "{moment}");
        }
    }

    #[test]
    fn a_rollout_that_makes_no_sense_is_refused_at_its_field() {
        let time = "2026-01-01T00:00:00Z";
        for (rollout, pointer) in [
            (json!(20), "/rollout"),
            (json!({}), "/rollout"),
            (json!({"percent": "20"}), "/rollout/percent"),
            (json!({"percent": -1}), "/rollout/percent"),
            (json!({"percent": 101}), "/rollout/percent"),
            (json!({"percent": 0.0001}), "/rollout/percent"),
            (json!({"percent": 5, "by": "id"}), "/rollout/by"),
            (
                json!({"percent": 5, "rollback_at": time}),
                "/rollout/rollback_at",
            ),
            (json!({"steps": []}), "/rollout/steps"),
            (
                json!({"steps": [{"at": "soon", "percent": 1}]}),
                "/rollout/steps/0/at",
            ),
            (json!({"steps": [{"at": time}]}), "/rollout/steps/0/percent"),
            (
                json!({"steps": [{"at": time, "percent": 1}, {"at": time, "percent": 2}]}),
                "/rollout/steps/1/at",
            ),
            (
                json!({"ramp": {"start": time, "end": time}}),
                "/rollout/ramp/end",
            ),
            (json!({"ramp": {"start": time}}), "/rollout/ramp/end"),
        ] {
            let error = read(&rollout).expect_err("the rollout makes no sense");
            assert_eq!(error.pointer(), pointer, "{rollout}: {error}");
        }
    }

    proptest! {
        /// A ramp upwards never sends anybody away, and never leaves its ends.
        #[test]
        fn a_ramp_upwards_only_rises(
            from in 0..50_000_u32, to in 50_000..=100_000_u32,
            start in any::<i64>(), length in 1..i64::MAX, mut moments in prop::array::uniform2(any::<i64>()),
        ) {
            moments.sort_unstable();
            let percent = |thousandths| Percent::from_thousandths(thousandths).unwrap();
            let (from, to) = (percent(from), percent(to));
            let (start, end) = (Moment::from_unix_ms(start), start.saturating_add(length));
            prop_assume!(end > start.unix_ms());
            let end = Moment::from_unix_ms(end);
            let [earlier, later] = moments.map(|ms| between(from, to, start, end, Moment::from_unix_ms(ms)));
            prop_assert!(from <= earlier && earlier <= later && later <= to);
        }
    }
}
