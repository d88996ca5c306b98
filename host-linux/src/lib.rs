//! What the hosts of Linux have and others have not.

mod sys;
pub mod ublk;
pub mod vhost_user;
