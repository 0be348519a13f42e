//! Names that operators give to points of a history (design §8.5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: what an entry of a frame's record table has room for. The time is noted
/// beside it, so no name needs to hold one.
pub const POINT_NAME_MAX: usize = 30;

/// The name of a point: 1 to [`POINT_NAME_MAX`] letters, digits, dots, dashes and underscores, the
/// first a letter. So it is never taken for a position or a time, and fits file and export names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointName(Box<str>);

/// It is no name of a point.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of a point: use a letter, then letters, digits, dots, dashes or \
     underscores, at most {POINT_NAME_MAX} in all"
)]
pub struct NoPointName(pub String);

impl PointName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in `bytes`, as a log holds it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

impl FromStr for PointName {
    type Err = NoPointName;

    fn from_str(text: &str) -> Result<Self, NoPointName> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let whole = text.len() <= POINT_NAME_MAX
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(good);
        // What is told of a name that is far too long is not far too long.
        let shown = || text.chars().take(2 * POINT_NAME_MAX).collect();
        if whole { Ok(Self(text.into())) } else { Err(NoPointName(shown())) }
    }
}

impl TryFrom<String> for PointName {
    type Error = NoPointName;

    fn try_from(text: String) -> Result<Self, NoPointName> {
        text.parse()
    }
}

impl From<PointName> for String {
    fn from(name: PointName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_no_position_time_or_path_looks_like() {
        for good in ["a", "before-upgrade_2.1", "Z9", &"n".repeat(POINT_NAME_MAX)] {
            assert_eq!(good.parse::<PointName>().map(String::from), Ok(good.to_owned()));
        }
        let long = "n".repeat(POINT_NAME_MAX + 1);
        for bad in ["", "1st", "-x", ".", "a b", "a/b", "grün", "a\0", "2026-11-28", &long] {
            assert_eq!(bad.parse::<PointName>(), Err(NoPointName(bad.to_owned())));
        }
        assert_eq!(PointName::from_bytes(b"a\xff"), None);
    }

    #[test]
    fn a_name_that_comes_as_json_is_checked() {
        let good: PointName = serde_json::from_str("\"monday\"").unwrap();
        assert_eq!(good.as_str(), "monday");
        assert!(serde_json::from_str::<PointName>("\"mon day\"").is_err());
    }
}
