//! What the hosts of Windows have and others have not. Elsewhere it is empty.
#![cfg(windows)]
