//! The label `CLUSTER.MEMBER`: whose a replica is, in the words of the configuration.

use std::fmt;

/// Most bytes of a label.
pub const LABEL_LEN_MAX: usize = 128;

/// Whose a replica is: the names of a cluster and of one of its members, `CLUSTER.MEMBER`.
///
/// Names hold no dot, so a label is read in one way only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Label {
    text: String,
}

/// Two names that are too long for a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the label {text} is over the limit of {LABEL_LEN_MAX} bytes; choose shorter names")]
pub struct LabelTooLong {
    /// What it would be.
    pub text: String,
}

impl Label {
    /// The label of `member` of `cluster`.
    ///
    /// # Errors
    /// [`LabelTooLong`], which no names of a configuration that was accepted are.
    pub fn new(cluster: &str, member: &str) -> Result<Self, LabelTooLong> {
        let text = format!("{cluster}.{member}");
        if text.len() > LABEL_LEN_MAX { Err(LabelTooLong { text }) } else { Ok(Self { text }) }
    }

    /// As it stands in a header: behind it there are zeroes.
    pub(super) fn to_bytes(&self) -> [u8; LABEL_LEN_MAX] {
        let mut bytes = [0; LABEL_LEN_MAX];
        for (to, from) in bytes.iter_mut().zip(self.text.bytes()) {
            *to = from;
        }
        bytes
    }

    /// What [`Label::to_bytes`] made; none: it is text of no label.
    pub(super) fn from_bytes(bytes: &[u8; LABEL_LEN_MAX]) -> Option<Self> {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(LABEL_LEN_MAX);
        let (text, padding) = bytes.split_at_checked(len)?;
        let plain = |byte: &u8| byte.is_ascii_graphic();
        let whole = text.iter().all(plain) && padding.iter().all(|byte| *byte == 0);
        let text = std::str::from_utf8(text).ok().filter(|_| whole)?;
        Some(Self { text: text.into() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "nobody" } else { &self.text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_and_one_that_is_too_long_is_told() {
        let label = Label::new("orders", "alpha").unwrap();
        assert_eq!(label.to_string(), "orders.alpha");
        assert_eq!(Label::from_bytes(&label.to_bytes()), Some(label));
        let longest = Label::new(&"c".repeat(64), &"m".repeat(63)).unwrap();
        assert_eq!(Label::from_bytes(&longest.to_bytes()), Some(longest));
        let error = Label::new(&"c".repeat(64), &"m".repeat(64)).unwrap_err();
        assert!(error.to_string().contains("over the limit of 128 bytes"));
    }

    #[test]
    fn bytes_behind_a_label_or_that_nobody_can_read_make_it_none() {
        let mut bytes = Label::new("orders", "alpha").unwrap().to_bytes();
        bytes[100] = b'x';
        assert_eq!(Label::from_bytes(&bytes), None);
        assert_eq!(Label::from_bytes(&[0xFF; LABEL_LEN_MAX]), None);
        assert_eq!(Label::from_bytes(&[0; LABEL_LEN_MAX]), Some(Label::default()));
    }
}
