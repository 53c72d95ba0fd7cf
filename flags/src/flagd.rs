//! flagd mode: definitions in flagd's format, evaluated as flagd evaluates them.
//!
//! A [`FlagSet`] is read from flagd's JSON (`https://flagd.dev/schema/v0/flags.json`) and evaluates its
//! flags: `JsonLogic` with flagd's operators, `$evaluators`, metadata, and flagd's reasons. [`check`]
//! says what the schema has against a definition; flagd itself only warns of that, and so a set takes
//! every flag that can be evaluated, and a flag that cannot be evaluated breaks no other.
//!
//! ```
//! use gonfalon_flags::{Context, Moment, Reason, flagd::{Bucketing, FlagSet}};
//!
//! let set = FlagSet::parse(
//!     r#"{"flags": {"theme": {
//!         "state": "ENABLED",
//!         "variants": {"dark": "black", "light": "white"},
//!         "defaultVariant": "light",
//!         "targeting": {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "dark"]}
//!     }}}"#,
//!     Bucketing::V2,
//! )?;
//! let context = Context::of("user-1").with("email", "ada@example.com");
//! let now = Moment::from_unix_ms(1_790_000_000_000);
//! let theme = set.details("theme", &context, now, "grey");
//! assert_eq!((theme.value, theme.reason), ("black", Reason::TargetingMatch));
//! # Ok::<(), gonfalon_flags::flagd::Malformed>(())
//! ```
//!
//! # Which flagd
//!
//! There are several programs, and they disagree at the edges. For bucketing the caller chooses
//! ([`Bucketing`]); for the rest the daemon and `JsonLogic`'s own definition, which is a JavaScript
//! program, decide. What differs from one of flagd's programs:
//!
//! | case | here | elsewhere |
//! |---|---|---|
//! | `cat` of null | nothing, as in the daemon | `null` in Python and in compiled JavaScript |
//! | `cat` with spaces at its ends | kept | trimmed by the daemon |
//! | `==` of null and 0 or false | false, as in the daemon and JavaScript | true in Python |
//! | `===` of 1 and true | false | true in Python |
//! | texts in calculations | JavaScript's: `""` is 0, `"abc"` is NaN | the daemon counts both as 0; JavaScript's provider fails on NaN |
//! | division by zero | infinity, as in the daemon | Python and JavaScript fail |
//! | remainder below zero | the sign of the dividend, as in the daemon | that of the divisor in Python |
//! | `missing` and an empty text | missing, as in Python | there, in the daemon and JavaScript |
//! | an empty object as a condition | true, as in Python | false in the daemon and JavaScript's provider |
//! | `in`, an empty text in an empty text | true, as in the daemon | false in JavaScript's provider |
//! | `fractional`, key is null | null: the default variant | the daemon takes the targeting key |
//! | `fractional`, weight 25.0 | 25 | refused in Python |
//! | `sem_ver` of `1-rc` | no version | `1.0.0-rc` in Python |
//! | `$ref` inside an evaluator | replaced; refused if circular | depends on the order of replacement |
//! | one flag that makes no sense | `PARSE_ERROR` for that flag | the whole definition is refused |
//!
//! # Why a `JsonLogic` of our own
//!
//! What is on crates.io does not evaluate as flagd does. `datalogic-rs` is fast and well kept, but its
//! flagd operators know one of the two ways of bucketing, take only texts as variants, and say false
//! where flagd says null, which picks another variant; its versions since 5.5 need a newer Rust than
//! this project does. `jsonlogic-rs` and `jsonlogic` fail about a third of `JsonLogic`'s compatibility
//! tables and are no longer kept. flagd's own engine for Rust compiles the rule again on every call
//! and fails a sixth of flagd's own cases. About thirty operators are less than a wrapper that mends
//! all that.

mod bucket;
mod cbor;
mod check;
mod eval;
mod flag;
mod murmur;
mod rule;
mod set;
mod value;
mod version;

#[cfg(test)]
mod tests;

pub use bucket::Bucketing;
pub use check::{Problem, Schema, check};
pub use flag::{Broken, Flag};
pub use rule::RuleError;
pub use set::{FlagSet, Malformed};
