//! Stub.
use crate::cli::Failure;
use std::process::ExitCode;
/// Stub.
pub fn run(_args: &crate::cli::DemoArgs) -> Result<ExitCode, Failure> {
    Err(Failure::new("not yet"))
}
