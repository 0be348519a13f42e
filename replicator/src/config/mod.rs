//! The configuration: one TOML file, the same on every member.
//!
//! `file` is what can be written, `checked` is what is allowed; the rest of the program sees only
//! the latter.

mod checked;
mod file;

pub use checked::{Config, ConfigError, Member, Problem, Resource, Volume};

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
        let raw = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.into(), source })?;
        checked::check(&raw, text, path)
    }
}

#[cfg(test)]
mod tests;
