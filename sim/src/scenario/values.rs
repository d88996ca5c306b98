//! Values as scenarios write them: sizes, rates, times and shares, checked as they are read, so that an error is told with
//! the line where the value stands.
//!
//! *Units*: as each type says; text as on the command line of `swarmdisk` (`64K`, `100mbit`, `200ms`).

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use swarmdisk_common::units;

/// A size in bytes.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A rate in bytes a second on the wire.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// A span of time in nanoseconds.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

/// A part of a whole, in millionths: 0 to 1 in text.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

/// A positive number, in millionths.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(pub u64);

const MILLION: f64 = 1e6;
/// With these, sums and small multiples of what a scenario says fit 64 bits.
const RATE_MAX: Rate = Rate(100_000_000_000_000);
const SPAN_MAX: Span = Span::secs(50 * 366 * 24 * 3600);

impl Span {
    /// So many microseconds.
    pub const fn micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// So many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }
}

impl Share {
    /// All of it.
    pub const ALL: Self = Self(1_000_000);

    /// This part of a number, rounded down.
    pub fn of(self, number: u64) -> u64 {
        (u128::from(number) * u128::from(self.0) / 1_000_000) as u64
    }
}

impl Factor {
    /// As it is.
    pub const ONE: Self = Self(1_000_000);

    /// As a float, for those who want one.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / MILLION
    }
}

/// Text, or a number where there is no doubt about the unit.
struct Text<T> {
    what: &'static str,
    parse: fn(&str) -> Result<T, String>,
    number: fn(f64) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::custom(format_args!("{number} is not {}", self.what)))
    }
}

macro_rules! value {
    ($type:ident, $what:literal, $parse:expr, $number:expr, $write:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text { what: $what, parse: $parse, number: $number })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let write: fn(&Self, S) -> Result<S::Ok, S::Error> = $write;
                write(self, serializer)
            }
        }
    };
}

fn size(text: &str) -> Result<Size, String> {
    units::parse_size(text).map(Size).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<Rate, String> {
    let rate = units::parse_rate(text).map(Rate).map_err(|error| error.to_string())?;
    if rate > RATE_MAX {
        return Err(format!("`{text}` is too fast; 100000GB a second is the most"));
    }
    Ok(rate)
}

fn span(text: &str) -> Result<Span, String> {
    let span = units::parse_time(text).map_err(|error| error.to_string())?;
    let span = u64::try_from(span.as_nanos()).map(Span).ok().filter(|span| *span <= SPAN_MAX);
    span.ok_or_else(|| format!("`{text}` is too long; 50 years is the most"))
}

fn no_text<T>(text: &str) -> Result<T, String> {
    Err(format!("`{text}` is text, not a number; leave out the quotes"))
}

value!(Size, "a size, as in \"64K\" or \"2G\"", size, |number| whole(number).map(Size), |value, to| to
    .serialize_u64(value.0));
value!(Rate, "a rate, as in \"100mbit\" or \"12MB\"", rate, |_| None, |value, to| {
    to.collect_str(&format_args!("{}B", value.0))
});
value!(Span, "a time, as in \"200ms\" or \"30s\"", span, |_| None, |value, to| {
    to.collect_str(&format_args!("{}ns", value.0))
});
value!(Share, "a number from 0 to 1", no_text, share, |value, to| to.serialize_f64(f64::from(value.0) / MILLION));
value!(Factor, "a positive number", no_text, factor, |value, to| to.serialize_f64(value.as_f64()));

fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number <= 2f64.powi(53) && number.fract() == 0.0).then_some(number as u64)
}

fn share(number: f64) -> Option<Share> {
    (0.0..=1.0).contains(&number).then(|| Share((number * MILLION).round() as u32))
}

fn factor(number: f64) -> Option<Factor> {
    let millionths = (number * MILLION).round();
    (1.0..=1e15).contains(&millionths).then_some(Factor(millionths as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct All {
        size: Size,
        rate: Rate,
        span: Span,
        share: Share,
        factor: Factor,
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "size = \"64K\"\nrate = \"100mbit\"\nspan = \"1.5ms\"\nshare = 0.25\nfactor = 10\n";
        let text = text.replace("1.5ms", "1ms 500us");
        let all: All = toml::from_str(&text).unwrap();
        let expected = All {
            size: Size(65536),
            rate: Rate(12_500_000),
            span: Span(1_500_000),
            share: Share(250_000),
            factor: Factor(10_000_000),
        };
        assert_eq!(all, expected);
        assert_eq!(toml::from_str::<All>(&toml::to_string(&all).unwrap()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        #[derive(Debug, Deserialize)]
        struct One<T> {
            #[allow(dead_code)]
            v: T,
        }
        for (error, part) in [
            (toml::from_str::<One<Rate>>("v = 100").unwrap_err(), "a rate, as in"),
            (toml::from_str::<One<Share>>("v = 1.5").unwrap_err(), "a number from 0 to 1"),
            (toml::from_str::<One<Share>>("v = \"1\"").unwrap_err(), "leave out the quotes"),
            (toml::from_str::<One<Factor>>("v = 0").unwrap_err(), "a positive number"),
            (toml::from_str::<One<Size>>("v = \"lots\"").unwrap_err(), "no size"),
            (toml::from_str::<One<Rate>>("v = \"100001GB\"").unwrap_err(), "too fast"),
            (toml::from_str::<One<Span>>("v = \"51years\"").unwrap_err(), "too long"),
        ] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
