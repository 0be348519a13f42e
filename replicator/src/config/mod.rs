//! The configuration: one TOML file, the same on every member.
//!
//! `file` is what can be written, `check` says what of it is allowed, `model` is what the rest of
//! the program sees.

mod check;
mod file;
mod model;
mod problem;

pub use check::KEYS;
pub use model::{Config, Fencing, Marks, Member, Resource, Volume};
pub use problem::{ConfigError, Problem};

use std::path::Path;

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem that was found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a configuration's text; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem that was found.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        check::unknown_keys(text, path)?;
        let raw = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.into(), source })?;
        check::check(&raw, text, path)
    }
}

#[cfg(test)]
mod tests;
