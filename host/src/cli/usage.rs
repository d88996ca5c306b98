//! Arguments that cannot be right, in one line; help and version, as `clap` writes them.

use super::args::Args;
use super::output::remark;
use clap::error::ErrorKind;
use clap::{CommandFactory, Error};
use std::ffi::OsString;
use std::process::ExitCode;

/// Says what `clap` has to say of these arguments, the program's name first.
pub(super) fn tell(error: &Error, arguments: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody is left to be told if that fails.
            let _ = error.print();
        }
        _ => remark(format_args!("swarmdisk: {}", line(&error.to_string(), arguments))),
    }
    ExitCode::from(error.exit_code() as u8)
}

/// Its first paragraph, and those tips that correct a spelling, joined; then where to read on.
fn line(text: &str, arguments: &[OsString]) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut paragraphs = text.split("\n\n").map(str::trim);
    let mut said: Vec<&str> = paragraphs.next().into_iter().collect();
    let has_advice = |paragraph: &&str| paragraph.starts_with("tip: a similar") || paragraph.starts_with("tip: some");
    said.extend(paragraphs.filter(has_advice).map(|tip| tip.trim_start_matches("tip: ")));
    let said: Vec<String> = said.iter().map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    format!("{}; see `{} --help`", said.join("; "), command(arguments))
}

/// As much of the arguments as names a command.
fn command(arguments: &[OsString]) -> String {
    let mut known = Args::command();
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
    use clap::Parser;

    fn of(arguments: &str) -> String {
        let arguments: Vec<OsString> = arguments.split(' ').map(Into::into).collect();
        line(&Args::try_parse_from(&arguments).unwrap_err().to_string(), &arguments)
    }

    #[test]
    fn one_line_says_what_is_wrong() {
        for (arguments, expected) in [
            (
                "sd pack",
                "the following required arguments were not provided: <IMAGE> <OUT.swarm>; see `swarmdisk pack --help`",
            ),
            (
                "sd pack a b --levle 3",
                "unexpected argument '--levle' found; a similar argument exists: '--level'; see `swarmdisk pack --help`",
            ),
            ("sd pac", "unrecognized subcommand 'pac'; a similar subcommand exists: 'pack'; see `swarmdisk --help`"),
            (
                "sd profile show",
                "the following required arguments were not provided: <FILE>; see `swarmdisk profile show --help`",
            ),
            ("sd attach x --ublk", "unexpected argument '--ublk' found; see `swarmdisk attach --help`"),
            (
                "sd pack a b --codec lz4",
                "invalid value 'lz4' for '--codec <CODEC>' [possible values: zstd, none]; see `swarmdisk pack --help`",
            ),
        ] {
            assert_eq!(of(arguments), expected);
        }
    }
}
