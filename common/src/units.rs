//! Sizes, rates and times as people write them, and as they like to read them.
//!
//! *Purpose*: value parsers for the command line (`fn(&str) -> Result<T, UnitError>`) and the rendering beside them.
//! *Units*: SIZE is binary (`64K` is 65,536 bytes); RATE is decimal, bits or bytes a second on the wire (`100mbit`,
//! `12MB`); TIME is a number with a unit (`200ms`, `30s`, `5m`, `1h30m`). *Bounds*: all fit 64 bits.

use std::fmt;
use std::time::Duration;

/// What was written is no size, rate or time. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {kind}; write it as in {examples}")]
pub struct UnitError {
    given: String,
    kind: &'static str,
    examples: &'static str,
}

impl UnitError {
    fn new(given: &str, kind: &'static str, examples: &'static str) -> Self {
        Self { given: given.chars().take(40).collect(), kind, examples }
    }
}

const SIZES: &[(&str, u64)] = &[("", 1), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30), ("t", 1 << 40)];
// Eighths of a byte a second, so that bits need no fraction.
const RATES: &[(&str, u64)] = &[
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("b", 8),
    ("kb", 8_000),
    ("mb", 8_000_000),
    ("gb", 8_000_000_000),
];

/// A size in bytes: `512`, `64K`, `1.5M`, `2G`, `1T`, with `iB` or `B` after the letter if one likes.
///
/// # Errors
/// [`UnitError`] for anything else, or if it is over 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError::new(text, "size", "64K or 2G");
    let (number, unit) = split(text);
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    scaled(number, unit, SIZES).and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(fail)
}

/// A rate in bytes a second, at least 1: `100mbit`, `1gbit`, `12MB`, with `/s` after it if one likes.
///
/// # Errors
/// [`UnitError`] for anything else, if it is under a byte a second, or over 64 bits.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError::new(text, "rate", "100mbit or 12MB (a second)");
    let (number, unit) = split(text);
    let unit = unit.strip_suffix("/s").unwrap_or(&unit);
    let bits = scaled(number, unit, RATES).ok_or_else(fail)?;
    u64::try_from(bits / 8).ok().filter(|&rate| rate > 0).ok_or_else(fail)
}

/// A span of time: `200ms`, `30s`, `5m`, `1h30m`.
///
/// # Errors
/// [`UnitError`] for anything else, a bare number included.
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text.trim()).map_err(|_| UnitError::new(text, "time", "200ms, 30s or 5m"))
}

/// A number, perhaps with a fraction, and its unit in small letters.
fn split(text: &str) -> (&str, String) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start().to_ascii_lowercase())
}

/// `number` times what `unit` stands for, rounded down. Without floats: sizes must be exact.
fn scaled(number: &str, unit: &str, units: &[(&str, u64)]) -> Option<u128> {
    let factor = u128::from(units.iter().find(|(name, _)| *name == unit)?.1);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = fraction.parse::<u128>().ok()? * factor / 10u128.pow(fraction.len() as u32);
    Some(u128::from(whole.parse::<u64>().ok()?) * factor + part)
}

/// Renders bytes for people: `512 B`, `1.5 MiB`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Renders bytes a second for people: `12.5 MB/s`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BytesPerSecond(pub u64);

/// Renders microseconds for people: `340 µs`, `12.0 ms`, `3.4 s`, `2 min 5 s`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Micros(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scale(f, self.0, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scale(f, self.0, 1000, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"])
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            micros @ 0..60_000_000 => scale(f, micros, 1000, &["µs", "ms", "s"]),
            micros => {
                let seconds = micros / 1_000_000;
                write!(f, "{} min {} s", seconds / 60, seconds % 60)
            }
        }
    }
}

/// `value` in the largest of `units`, each `step` of the one before, that leaves at least 1; one decimal but for the first.
fn scale(f: &mut fmt::Formatter<'_>, value: u64, step: u64, units: &[&str]) -> fmt::Result {
    let mut unit = 0;
    let mut divisor = 1;
    while unit + 1 < units.len() && value / divisor >= step {
        divisor *= step;
        unit += 1;
    }
    let text = match unit {
        0 => format!("{value} {}", units[0]),
        _ => {
            let tenths = u128::from(value) * 10 / u128::from(divisor);
            format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
        }
    };
    f.pad(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64K", 65536),
            ("64k", 65536),
            ("64KiB", 65536),
            ("1.5M", 3 << 19),
            ("2G", 2 << 30),
            (" 1 T ", 1 << 40),
            ("7B", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "64X", "-1", "1.K", "1.2.3K", ".5K", "20000000T", "18446744073709551616", "64 K K", "½K"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
        let error = parse_size("lots").unwrap_err().to_string();
        assert_eq!(error, "`lots` is no size; write it as in 64K or 2G");
    }

    #[test]
    fn rates() {
        for (text, rate) in [
            ("100mbit", 12_500_000),
            ("1Gbit", 125_000_000),
            ("12MB", 12_000_000),
            ("12MB/s", 12_000_000),
            ("1.5kB", 1500),
            ("8bit", 1),
            ("9B", 9),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["", "12", "7bit", "0MB", "mbit", "12MiB", "12M"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_time("1h30m"), Ok(Duration::from_secs(5400)));
        for text in ["", "5", "m", "-5s", "99999999999999999999s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn for_people() {
        let sizes: Vec<String> = [0, 1023, 1024, 1536 << 10, u64::MAX].iter().map(|b| Bytes(*b).to_string()).collect();
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "15.9 EiB"]);
        assert_eq!(BytesPerSecond(12_500_000).to_string(), "12.5 MB/s");
        let times: Vec<String> = [340, 12_000, 3_400_000, 125_000_000].iter().map(|m| Micros(*m).to_string()).collect();
        assert_eq!(times, ["340 µs", "12.0 ms", "3.4 s", "2 min 5 s"]);
    }
}
