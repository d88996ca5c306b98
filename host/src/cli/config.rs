//! A service's configuration: a TOML file with a table for each command that it is to run.
//!
//! *Purpose*: `[[seed]]` and `[[attach]]`, whose keys are those commands' long options (and `files`, `target`): they are taken
//! from the command line's own description, so that whatever it has is there. *Invariants*: an error names file and line.
//! *Bounds*: a file is at most [`FILE_BYTES_MAX`] long.

use super::Failure;
use super::args::{Attach, Seed};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use swarmdisk_common::usage;
use toml::de::{DeTable, DeValue};

/// Far more than anybody writes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What makes no sense in a file.
const LEFT_OUT: [&str; 1] = ["json"];

/// What is to be run.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name that messages give it.
    pub(super) name: String,
    pub(super) job: Job,
}

/// One command.
#[derive(Debug)]
pub(super) enum Job {
    Seed(Box<Seed>),
    Attach(Box<Attach>),
}

/// What the file lists, in its order for each command.
///
/// # Errors
/// [`Failure`]: it cannot be read, or says what cannot be.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    let cannot = |error| Failure::new(format!("cannot read {}: {error}; check --config", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is too long for a configuration", path.display())));
    }
    parse(&text).map_err(|wrong| {
        let place = wrong.at.map(|at| format!(":{}", line(&text, at))).unwrap_or_default();
        Failure::usage(format!("{}{place}: {}", path.display(), wrong.what))
    })
}

/// What is wrong, and where.
#[derive(Debug)]
struct Wrong {
    at: Option<usize>,
    what: String,
}

impl Wrong {
    fn new(at: Range<usize>, what: impl Into<String>) -> Self {
        Self { at: Some(at.start), what: what.into() }
    }
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn parse(text: &str) -> Result<Vec<Entry>, Wrong> {
    let file = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map(|span| span.start),
        what: error.message().split_whitespace().collect::<Vec<_>>().join(" "),
    })?;
    let mut entries = Vec::new();
    for (key, value) in file.get_ref() {
        let kind: &str = key.get_ref();
        if kind != "seed" && kind != "attach" {
            return Err(Wrong::new(key.span(), format!("there is no `{kind}`; write [[seed]] or [[attach]]")));
        }
        let tables = value.get_ref().as_array();
        let tables = tables.ok_or_else(|| Wrong::new(key.span(), format!("write [[{kind}]], in two brackets")))?;
        for table in tables.iter() {
            let at = table.span();
            let keys = table.get_ref().as_table();
            let keys = keys.ok_or_else(|| Wrong::new(at.clone(), format!("write [[{kind}]] above its options")))?;
            let job = match kind {
                "seed" => Job::Seed(Box::new(command("seed", at.clone(), keys)?)),
                _ => Job::Attach(Box::new(command("attach", at.clone(), keys)?)),
            };
            entries.push(Entry { name: format!("[[{kind}]] of line {}", line(text, at.start)), job });
        }
    }
    if entries.is_empty() {
        return Err(Wrong { at: None, what: "it lists nothing; write [[seed]] or [[attach]]".into() });
    }
    Ok(entries)
}

/// The command's arguments, as its line would have given them.
fn command<T: Args + FromArgMatches>(name: &'static str, at: Range<usize>, keys: &DeTable<'_>) -> Result<T, Wrong> {
    let described = T::augment_args(Command::new(name).no_binary_name(true).disable_help_flag(true));
    let (mut words, mut places) = (Vec::new(), Vec::new());
    for (key, value) in keys {
        let option: &str = key.get_ref();
        let is_this =
            |arg: &&Arg| arg.get_long().map_or(arg.is_positional() && arg.get_id() == option, |long| long == option);
        let arg = described.get_arguments().find(is_this).filter(|_| !LEFT_OUT.contains(&option));
        let unknown = || format!("`{name}` has no option `{option}`; see `swarmdisk {name} --help`");
        let arg = arg.ok_or_else(|| Wrong::new(key.span(), unknown()))?;
        let values =
            values(arg, value.get_ref()).map_err(|what| Wrong::new(value.span(), format!("{option}: {what}")))?;
        match arg.is_positional() {
            true => places.extend(values.into_iter().flatten()),
            false => words.extend(values.into_iter().map(|value| match value {
                Some(value) => format!("--{option}={value}"),
                None => format!("--{option}"),
            })),
        }
    }
    words.push("--".into());
    words.append(&mut places);
    let parsed = described.try_get_matches_from(words).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| Wrong::new(place(&error, keys).unwrap_or(at), usage::sentence(&error)))
}

/// What stands after the option, once for each time that it is to be given.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<Option<String>>, &'static str> {
    let takes_none = matches!(arg.get_action(), ArgAction::SetTrue);
    let may_take_none = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    match value {
        DeValue::Boolean(true) if takes_none || may_take_none => Ok(vec![None]),
        DeValue::Boolean(false) if takes_none || may_take_none => Ok(vec![]),
        _ if takes_none => Err("write true or false"),
        DeValue::Array(values) => values.iter().map(|value| scalar(value.get_ref()).map(Some)).collect(),
        value => Ok(vec![Some(scalar(value)?)]),
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        _ => Err("write a text in quotes, a number, or a list of them"),
    }
}

/// The key that an error is about.
fn place(error: &clap::Error, keys: &DeTable<'_>) -> Option<Range<usize>> {
    let Some(ContextValue::String(about)) = error.get(ContextKind::InvalidArg) else { return None };
    let about = about.split([' ', '=']).next().map(|word| word.trim_start_matches('-'))?;
    keys.keys().find(|key| key.get_ref() == about).map(|key| key.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let wrong = parse(text).unwrap_err();
        format!("{}: {}", wrong.at.map_or(0, |at| line(text, at)), wrong.what)
    }

    #[test]
    fn a_file_lists_what_the_command_line_takes() {
        let entries = parse(
            r#"
            [[seed]]
            files = ['C:\images\a.swarm', 'b.swarm']
            listen = "127.0.0.1:7000"
            learn = true
            open = false
            limit-up = "100mbit"

            [[attach]]
            target = "a.swarm"
            nbd = "127.0.0.1:0"
            peer = ["a:1", "b:2"]
            cache-size = 1000000
            [[attach]]
            target = "a.swarm"
            ublk = true
            "#,
        )
        .unwrap();
        let [first, second, seed] = &entries[..] else { panic!("{entries:?}") };
        let Job::Seed(args) = &seed.job else { panic!("{seed:?}") };
        assert_eq!(args.files, [Path::new(r"C:\images\a.swarm"), Path::new("b.swarm")]);
        assert!(args.learn && !args.open && args.limit_up.is_some() && args.listen.port() == 7000);
        let Job::Attach(args) = &first.job else { panic!("{first:?}") };
        assert_eq!((args.options.peer.len(), args.options.cache_size), (2, Some(1_000_000)));
        assert_eq!(first.name, "[[attach]] of line 9");
        let Job::Attach(args) = &second.job else { panic!("{second:?}") };
        assert_eq!(args.device.ublk, Some(None));
    }

    #[test]
    fn an_error_names_its_line() {
        let attach = "[[attach]]\ntarget = 'a.swarm'\nnbd = '127.0.0.1:0'\n";
        for (text, says) in [
            ("", "0: it lists nothing"),
            ("\n[[sead]]\n", "2: there is no `sead`"),
            ("[seed]\nfiles = 'a'\n", "1: write [[seed]]"),
            ("seed = [1]\n", "1: write [[seed]] above"),
            ("[[seed]]\nfiles = [\n", "2: "),
            (
                "[[seed]]\nlisten = '127.0.0.1:0'\n",
                "1: the following required arguments were not provided: <FILE.swarm>",
            ),
            ("[[attach]]\ntarget = 'a.swarm'\n", "1: the following required arguments were not provided"),
            (&format!("{attach}lisen = 'x'\n"), "4: `attach` has no option `lisen`"),
            (&format!("{attach}json = true\n"), "4: `attach` has no option `json`"),
            ("[[seed]]\nfiles = 'a'\njson = true\n", "3: `seed` has no option `json`"),
            (&format!("{attach}help = true\n"), "4: `attach` has no option `help`"),
            (&format!("{attach}open = 'yes'\n"), "4: open: write true or false"),
            (&format!("{attach}listen = 1979-05-27\n"), "4: listen: write a text"),
            (&format!("{attach}listen = true\n"), "4: listen: write a text"),
            (&format!("{attach}listen = ['a:1', 'b:2']\n"), "4: invalid value 'a:1' for '--listen <ADDR>'"),
            (&format!("{attach}\nlisten = 'nowhere'\n"), "5: invalid value 'nowhere' for '--listen <ADDR>'"),
            (&format!("{attach}\n\nublk = true\n"), "the argument"),
        ] {
            let error = error(text);
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
