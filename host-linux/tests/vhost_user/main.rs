//! A vhost-user device against a frontend: what a guest may ask, and what it must not get away with.

mod driver;
