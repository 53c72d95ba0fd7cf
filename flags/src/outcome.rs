//! What an evaluation says, in OpenFeature's words.

use std::fmt;

use serde_json::{Map, Value};

/// What an evaluation says. It borrows from the flag, so that nothing is copied.
#[derive(Debug, Clone, PartialEq)]
pub struct Details<'a, T> {
    /// The value; the caller's fallback if there is none for him.
    pub value: T,
    /// The name of the variant that has this value; none if the value is a fallback or has no name.
    pub variant: Option<&'a str>,
    /// Why it is this value.
    pub reason: Reason,
    /// What went wrong; none unless something did.
    pub error: Option<ErrorCode>,
    /// What went wrong, for people.
    pub message: Option<&'a str>,
    /// The revision of the store that the flags were of; 0 if they are of no store.
    pub revision: i64,
    /// What the definition says beside the value; none if it says nothing.
    pub metadata: Option<&'a Map<String, Value>>,
}

impl<'a, T> Details<'a, T> {
    /// The same about another value.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Details<'a, U> {
        Details {
            value: with(self.value),
            variant: self.variant,
            reason: self.reason,
            error: self.error,
            message: self.message,
            revision: self.revision,
            metadata: self.metadata,
        }
    }
}

macro_rules! names {
    ($(#[$outer:meta])* $kind:ident { $($(#[$meta:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $kind {
            $($(#[$meta])* $name,)*
        }

        impl $kind {
            /// Its name in OpenFeature.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

names! {
    /// Why an evaluation gave its value.
    Reason {
        /// The flag has no rules: everybody gets this.
        Static = "STATIC",
        /// No rule applied: this is the default.
        Default = "DEFAULT",
        /// A rule applied.
        TargetingMatch = "TARGETING_MATCH",
        /// A percentage or a split decided.
        Split = "SPLIT",
        /// It was evaluated before, for the same context.
        Cached = "CACHED",
        /// The flag is off.
        Disabled = "DISABLED",
        /// Nobody knows.
        Unknown = "UNKNOWN",
        /// The flag may have changed since.
        Stale = "STALE",
        /// Something went wrong.
        Error = "ERROR",
    }
}

names! {
    /// What went wrong in an evaluation.
    ErrorCode {
        /// The flags have not been read yet.
        ProviderNotReady = "PROVIDER_NOT_READY",
        /// There is no flag of this name.
        FlagNotFound = "FLAG_NOT_FOUND",
        /// The definition of the flag makes no sense.
        ParseError = "PARSE_ERROR",
        /// The flag's value is of another type than was asked for.
        TypeMismatch = "TYPE_MISMATCH",
        /// A percentage was to be taken of a targeting key, and there is none.
        TargetingKeyMissing = "TARGETING_KEY_MISSING",
        /// The context has a value that cannot be used for what the flag asks of it.
        InvalidContext = "INVALID_CONTEXT",
        /// The flags cannot be had, and that will not change.
        ProviderFatal = "PROVIDER_FATAL",
        /// Anything else.
        General = "GENERAL",
    }
}
