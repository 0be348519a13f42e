//! The text form: hexadecimal, with offsets, without the many zeroes of padded formats.

use std::fmt::Write as _;

/// Bytes of one line.
const LINE_LEN: usize = 32;
/// Bytes of one group in a line.
const GROUP_LEN: usize = 4;
/// Most bytes that a file may stand for; one line of it could claim any number of zeroes.
const LEN_MAX: usize = 1 << 24;

/// Why a text is no golden file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// A line's offset is not where the line before ended.
    #[error("line {line}: the offset is not {expected:#x}")]
    Offset {
        /// Which line, from 1.
        line: usize,
        /// Where the line before ended.
        expected: usize,
    },
    /// Something in a line is not hexadecimal.
    #[error("line {line}: not hexadecimal")]
    Digits {
        /// Which line, from 1.
        line: usize,
    },
    /// The last line is not the length alone.
    #[error("the last line is not the length")]
    NoLength,
}

/// The text of `bytes`.
#[must_use]
pub fn render(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut skipping = false;
    for (index, line) in bytes.chunks(LINE_LEN).enumerate() {
        let zeroes = line.len() == LINE_LEN && line.iter().all(|byte| *byte == 0);
        if !zeroes {
            let groups: Vec<_> = line.chunks(GROUP_LEN).map(hex::encode).collect();
            // Writing into a text cannot fail.
            let _ = writeln!(text, "{:08x}  {}", index * LINE_LEN, groups.join(" "));
        } else if !skipping {
            text.push_str("*\n");
        }
        skipping = zeroes;
    }
    let _ = writeln!(text, "{:08x}", bytes.len());
    text
}

/// The bytes that `text` stands for.
///
/// # Errors
/// [`DumpError`]
pub fn parse(text: &str) -> Result<Vec<u8>, DumpError> {
    let mut bytes = Vec::new();
    let (mut skipping, mut ended) = (false, false);
    for (line, content) in (1..).zip(text.lines()) {
        if content == "*" {
            skipping = true;
            continue;
        }
        let (offset, groups) = content.split_once("  ").unwrap_or((content, ""));
        let offset = usize::from_str_radix(offset, 16).map_err(|_| DumpError::Digits { line })?;
        if skipping && offset > bytes.len() && offset <= LEN_MAX {
            bytes.resize(offset, 0);
        }
        if offset != bytes.len() || ended {
            return Err(DumpError::Offset { line, expected: bytes.len() });
        }
        let part = hex::decode(groups.replace(' ', "")).map_err(|_| DumpError::Digits { line })?;
        ended = part.is_empty();
        skipping = false;
        bytes.extend(part);
    }
    if ended { Ok(bytes) } else { Err(DumpError::NoLength) }
}
