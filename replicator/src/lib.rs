//! The program: configuration, links, clients, control and command line around the core.

pub mod config;
pub mod driver;
pub mod tls;
