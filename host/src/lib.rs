//! What swarmdisk's hosts share.
