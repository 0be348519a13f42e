//! The program: configuration, links, clients, control and command line around the core.

#[macro_use]
mod out;

pub mod attach;
pub mod cli;
pub mod companions;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod driver;
pub mod hooks;
pub mod logs;
mod marks;
pub mod recording;
pub mod seed;
pub mod tls;
mod views;
