//! What the hosts of Windows have and others have not. Elsewhere only what can be tested there is left of it.

#[cfg(windows)]
pub mod service;
#[cfg(windows)]
mod sys;
pub mod wnbd;
