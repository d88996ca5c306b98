//! Arguments that cannot be right, in one line; help and version, as `clap` writes them.

use crate::output::remark;
use clap::error::ErrorKind;
use clap::{CommandFactory, Error};
use std::ffi::OsString;
use std::process::ExitCode;

/// Says what `clap` has to say of these arguments of the program that `C` describes, its name first. Help and version go to
/// stdout, errors to stderr; gives the status to end with.
pub fn tell<C: CommandFactory>(error: &Error, arguments: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody is left to be told if that fails.
            let _ = error.print();
        }
        _ => remark(format_args!("{}: {}", C::command().get_name(), line::<C>(&error.to_string(), arguments))),
    }
    ExitCode::from(error.exit_code() as u8)
}

/// What `clap` has against something, in one sentence: its first paragraph, and those tips that correct a spelling.
pub fn sentence(error: &Error) -> String {
    said(&error.to_string())
}

/// The sentence, then where to read on.
fn line<C: CommandFactory>(text: &str, arguments: &[OsString]) -> String {
    format!("{}; see `{} --help`", said(text), command::<C>(arguments))
}

fn said(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut paragraphs = text.split("\n\n").map(str::trim);
    let mut said: Vec<&str> = paragraphs.next().into_iter().collect();
    let has_advice = |paragraph: &&str| paragraph.starts_with("tip: a similar") || paragraph.starts_with("tip: some");
    said.extend(paragraphs.filter(has_advice).map(|tip| tip.trim_start_matches("tip: ")));
    let said: Vec<String> = said.iter().map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    said.join("; ")
}

/// As much of the arguments as names a command.
fn command<C: CommandFactory>(arguments: &[OsString]) -> String {
    let mut known = C::command();
    let mut name = known.get_name().to_owned();
    for argument in arguments.iter().skip(1).filter_map(|argument| argument.to_str()) {
        let Some(next) = known.find_subcommand(argument) else { break };
        name = format!("{name} {argument}");
        known = next.clone();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Parser, Subcommand, ValueEnum};

    #[derive(Debug, Parser)]
    #[command(name = "disktool")]
    struct Args {
        #[command(subcommand)]
        _command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Pack {
            _image: String,
            #[arg(value_name = "OUT")]
            _out: String,
            #[arg(long = "codec", value_name = "CODEC")]
            _codec: Option<Codec>,
            #[arg(long = "level")]
            _level: Option<u8>,
        },
        Profile {
            #[command(subcommand)]
            _command: Profile,
        },
    }

    #[derive(Debug, Subcommand)]
    enum Profile {
        Show { _file: String },
    }

    #[derive(Debug, Copy, Clone, ValueEnum)]
    enum Codec {
        Zstd,
        None,
    }

    fn of(arguments: &str) -> String {
        let arguments: Vec<OsString> = arguments.split(' ').map(Into::into).collect();
        line::<Args>(&Args::try_parse_from(&arguments).unwrap_err().to_string(), &arguments)
    }

    #[test]
    fn one_line_says_what_is_wrong() {
        for (arguments, expected) in [
            (
                "dt pack",
                "the following required arguments were not provided: <IMAGE> <OUT>; see `disktool pack --help`",
            ),
            (
                "dt pack a b --levle 3",
                "unexpected argument '--levle' found; a similar argument exists: '--level'; see `disktool pack --help`",
            ),
            ("dt pac", "unrecognized subcommand 'pac'; a similar subcommand exists: 'pack'; see `disktool --help`"),
            (
                "dt profile show",
                "the following required arguments were not provided: <FILE>; see `disktool profile show --help`",
            ),
            ("dt pack x --ublk", "unexpected argument '--ublk' found; see `disktool pack --help`"),
            (
                "dt pack a b --codec lz4",
                "invalid value 'lz4' for '--codec <CODEC>' [possible values: zstd, none]; see `disktool pack --help`",
            ),
        ] {
            assert_eq!(of(arguments), expected);
        }
    }
}
