//! What is varied: keys with their values, and seeds.

use super::SweepError;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// Most seeds, and values of a key.
const VALUES_MAX: u64 = 100_000;

/// A key of the scenario, and the values that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// Dotted, as in `policy.window`.
    pub key: String,
    /// At least one, no two alike.
    pub values: Vec<Value>,
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// As an assignment takes it: a value of TOML, or bare text.
    pub text: String,
    /// As rows show it: text without its quotes.
    pub shown: String,
}

/// Seeds of random draws: at least one, no two alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

impl Axis {
    fn new(key: &str, values: Vec<Value>) -> Result<Self, String> {
        let key = key.trim();
        if key.is_empty() || values.is_empty() || values.iter().any(|value| value.text.is_empty()) {
            return Err("a key or a value is empty; write it as KEY=V1,V2, as in policy.window=30,300".into());
        }
        if key == "seed" {
            return Err("seeds are no key of the grid; pass --seeds".into());
        }
        let mut shown: Vec<&str> = values.iter().map(|value| value.shown.as_str()).collect();
        shown.sort_unstable();
        if let Some(pair) = shown.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("`{key}` has the value {} twice; leave one out", pair[0]));
        }
        if values.iter().any(|value| value.shown.contains(['\n', '\r'])) {
            return Err(format!("a value of `{key}` has several lines; rows have room for one"));
        }
        Ok(Self { key: key.to_owned(), values })
    }
}

impl FromStr for Axis {
    type Err = String;

    /// `KEY=V1,V2,…`; commas in quotes, lists and tables belong to the value.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').ok_or("write it as KEY=V1,V2, as in policy.window=30,300")?;
        Self::new(key, split(values).into_iter().map(Value::new).collect())
    }
}

impl Value {
    fn new(text: &str) -> Self {
        let text = text.trim();
        let parsed = toml::from_str::<toml::Table>(&format!("v = {text}")).ok();
        let shown = match parsed.as_ref().and_then(|table| table.get("v")) {
            Some(toml::Value::String(inner)) => inner.clone(),
            _ => text.to_owned(),
        };
        Self { text: text.to_owned(), shown }
    }
}

/// At the commas that stand by themselves.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0u32, None);
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), _) if is_escaped => is_escaped = false,
            (Some('"'), '\\') => is_escaped = true,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Reads a grid from TOML: each key of a scenario with the list of its values, in tables or dotted. Keys come in the order
/// of the alphabet.
///
/// # Errors
/// [`SweepError::Read`], and [`SweepError::Grid`] for a key without a list.
pub fn axes_from_file(path: &Path) -> Result<Vec<Axis>, SweepError> {
    let text = fs::read_to_string(path).map_err(|source| SweepError::Read { path: path.to_owned(), source })?;
    let wrong = |message: &str| SweepError::Grid(format!("{}: {message}", path.display()));
    let table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.message()))?;
    let mut axes = Vec::new();
    flatten(&mut axes, "", &table).map_err(|message| wrong(&message))?;
    Ok(axes)
}

fn flatten(axes: &mut Vec<Axis>, prefix: &str, table: &toml::Table) -> Result<(), String> {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(axes, &format!("{key}."), inner)?,
            toml::Value::Array(values) => {
                let values = values.iter().map(|value| Value::new(&value.to_string())).collect();
                axes.push(Axis::new(&key, values)?);
            }
            _ => return Err(format!("`{key}` is no list; write it as in window = [30, 300]")),
        }
    }
    Ok(())
}

impl FromStr for Seeds {
    type Err = String;

    /// `1..5` for 1 to 5, both included; several with commas between them, as in `1..5,9`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut seeds = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u64>();
            let (Ok(first), Ok(last)) = (number(first), number(last)) else {
                return Err(format!("`{part}` is no seed; write it as 1..5 or 1,2,7"));
            };
            if last < first || last - first >= VALUES_MAX || seeds.len() as u64 >= VALUES_MAX {
                return Err(format!("`{part}` are no seeds, or more than {VALUES_MAX}; write the smaller first"));
            }
            seeds.extend(first..=last);
        }
        let mut sorted = seeds.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("seed {} is there twice; leave one out", pair[0]));
        }
        Ok(Self(seeds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        text.parse::<Axis>().unwrap().values.into_iter().map(|value| value.shown).collect()
    }

    #[test]
    fn commas_in_quotes_and_lists_belong_to_the_value() {
        assert_eq!(shown("network.rack-rtt=1ms, 10ms"), ["1ms", "10ms"]);
        assert_eq!(shown(r#"name="a,b",'c,"d',"e\",f""#), ["a,b", "c,\"d", "e\",f"]);
        assert_eq!(shown(r#"fault=[],[{what="crash",at="1s"}]"#), ["[]", r#"[{what="crash",at="1s"}]"#]);
    }

    #[test]
    fn what_is_no_axis_is_refused() {
        for (text, part) in [
            ("policy.window", "KEY=V1,V2"),
            ("=1", "is empty"),
            ("a=", "is empty"),
            ("a=1,,2", "is empty"),
            ("a=1,\"1\"", "1 twice"),
            ("seed=1,2", "--seeds"),
            ("a=\"b\\nc\"", "several lines"),
        ] {
            let error = text.parse::<Axis>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn seeds_are_ranges_and_lists() {
        assert_eq!("1..5".parse::<Seeds>().unwrap().0, [1, 2, 3, 4, 5]);
        assert_eq!("7,1..2".parse::<Seeds>().unwrap().0, [7, 1, 2]);
        for text in ["", "5..1", "1..", "x", "1,1", "0..999999999999", "1..2,2"] {
            assert!(text.parse::<Seeds>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_grid_can_be_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.toml");
        let axes = |text: &str| {
            fs::write(&path, text).unwrap();
            axes_from_file(&path)
        };
        let read = axes("policy.window = [30, 300]\ngroup.0.up = [\"1gbit\", \"10mbit\"]\n").unwrap();
        let written = ["group.0.up=1gbit,10mbit", "policy.window=30,300"].map(|text| text.parse::<Axis>().unwrap());
        let shown = |axes: &[Axis]| {
            let values = |axis: &Axis| axis.values.iter().map(|value| value.shown.clone()).collect::<Vec<_>>();
            axes.iter().map(|axis| (axis.key.clone(), values(axis))).collect::<Vec<_>>()
        };
        assert_eq!(shown(&read), shown(&written));
        assert!(axes("seeds.count = 1\n").unwrap_err().to_string().contains("`seeds.count` is no list"));
    }
}
