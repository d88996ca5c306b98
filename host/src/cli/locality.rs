//! Where a node stands, as people say it: `zone=a,rack=7`.
//!
//! *Invariants*: order does not matter; what is not said is not known. *Bounds*: each of the three at most once.

use swarmdisk_core::locality::Locality;

const HOW: &str = "write it as in zone=a,rack=7,host=x, or leave out what there is no name for";

/// Reads it; the error is for people.
pub(super) fn parse(text: &str) -> Result<Locality, String> {
    let (mut zone, mut rack, mut host) = (None, None, None);
    for part in text.split(',') {
        let (key, name) = part.split_once('=').map_or((part, ""), |(key, name)| (key.trim(), name.trim()));
        let place = match key {
            "zone" => &mut zone,
            "rack" => &mut rack,
            "host" => &mut host,
            _ => return Err(format!("`{key}` is none of zone, rack and host; {HOW}")),
        };
        if name.is_empty() {
            return Err(format!("the {key} has no name; {HOW}"));
        }
        if place.replace(name).is_some() {
            return Err(format!("the {key} is named twice; {HOW}"));
        }
    }
    Ok(Locality::new(zone, rack, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_in_any_order() {
        let expected = Locality::new(Some("a"), Some("7"), None);
        assert_eq!(parse("zone=a,rack=7"), Ok(expected));
        assert_eq!(parse(" rack = 7 , zone=a"), Ok(expected));
        assert_eq!(parse("host=x=y"), Ok(Locality::new(None, None, Some("x=y"))));
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for (text, says) in [
            ("row=3", "`row` is none of zone, rack and host; write it as in zone=a,rack=7"),
            ("", "`` is none of"),
            ("rack", "the rack has no name"),
            ("zone=a,rack=", "the rack has no name"),
            ("rack=1,rack=1", "the rack is named twice"),
            ("zone=a,", "`` is none of"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
