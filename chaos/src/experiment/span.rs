//! Lengths of time as files write them: `500ms`, `30s`, `1.5s`, `5m`, `2h`, `1d`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in whole milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Units, the longest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest that a file may name: a year. Sums of a few of them cannot overflow.
const SPAN_MAX_MS: u64 = 365 * 86_400_000;

/// Why a text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not a number with a unit.
    #[error("{0:?} is no length of time: write a number and ms, s, m, h or d, such as 30s or 500ms")]
    Form(String),
    /// A part of a millisecond.
    #[error("{0:?} is not a whole number of milliseconds")]
    Fraction(String),
    /// Longer than a year.
    #[error("{0:?} is longer than 365 days")]
    Long(String),
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as u64 * 1_000)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.duration()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.into_iter().find(|(_, ms)| self.0 != 0 && self.0.is_multiple_of(*ms));
        match exact {
            None => f.write_str("0s"),
            // Seconds with a fraction read better than thousands of milliseconds.
            Some(("ms", _)) if self.0 > 1_000 => {
                let fraction = format!("{:03}", self.0 % 1_000);
                write!(f, "{}.{}s", self.0 / 1_000, fraction.trim_end_matches('0'))
            }
            Some((unit, ms)) => write!(f, "{}{unit}", self.0 / ms),
        }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let form = || SpanError::Form(text.to_owned());
        let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(form)?;
        let (number, unit) = text.split_at(split);
        let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
            return Err(form());
        }
        let long = || SpanError::Long(text.to_owned());
        let whole_ms =
            whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit_ms)).ok_or_else(long)?;
        let fraction_ms =
            fraction_ms(fraction, unit_ms).ok_or_else(|| SpanError::Fraction(text.to_owned()))?;
        match whole_ms.checked_add(fraction_ms) {
            Some(ms) if ms <= SPAN_MAX_MS => Ok(Self(ms)),
            _ => Err(long()),
        }
    }
}

/// Milliseconds of the digits behind the point, or none if they are not whole.
fn fraction_ms(digits: &str, unit_ms: u64) -> Option<u64> {
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let scale = 10_u64.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let product = digits.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    product.is_multiple_of(scale).then_some(product / scale)
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: a number and ms, s, m, h or d.",
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$",
        })
    }
}
