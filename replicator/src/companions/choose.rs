//! What becomes of a file that is not what the set holds (design: never silent, nothing lost).

use serde::{Deserialize, Serialize};

use super::Digest;

/// What a member has last seen of a file: what the set held, and what its host had for it. They
/// differ where an owner of the set is not known on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Of the set.
    pub set: Digest,
    /// Of the host.
    pub host: Digest,
}

/// What is done with one file by a member that becomes primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It is as it should be.
    InStep,
    /// It was changed on this host, and nobody else has changed it: it goes to the others.
    Mine,
    /// It was changed elsewhere only: it is replaced.
    Theirs,
    /// It was changed on both sides: the set's counts, and this host's is kept beside it.
    Both,
    /// It was changed here and taken away elsewhere: it stays, goes to the others, and is told of.
    StaysHere,
}

/// Decides by what the set holds now, what the host has, and what was last known of both.
#[must_use]
pub fn choose(known: Option<Known>, set: Digest, host: Digest) -> Choice {
    let absent = Digest::of(None);
    match known {
        _ if set == host => Choice::InStep,
        Some(known) if known.set == set && known.host == host => Choice::InStep,
        Some(known) if known.set == set => Choice::Mine,
        Some(known) if known.host == host => Choice::Theirs,
        // There is nothing of this host's that could be lost.
        _ if host == absent => Choice::Theirs,
        _ if set == absent => Choice::StaysHere,
        _ => Choice::Both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::companions::{File, Owner};

    fn digest(content: &str) -> Digest {
        let owner = || Owner { id: 0, name: String::new() };
        let (user, group, content) = (owner(), owner(), content.into());
        Digest::of(Some(&File { mode: 0o600, user, group, content }))
    }

    #[test]
    fn whoever_changed_a_file_alone_is_right_and_two_changes_lose_nothing() {
        let (old, here, there, absent) =
            (digest("old"), digest("here"), digest("there"), Digest::of(None));
        let known = Some(Known { set: old, host: old });
        for (known, set, host, wanted) in [
            (known, old, old, Choice::InStep),
            (known, there, there, Choice::InStep),
            (known, old, here, Choice::Mine),
            (known, old, absent, Choice::Mine),
            (known, there, old, Choice::Theirs),
            (known, absent, old, Choice::Theirs),
            (known, there, here, Choice::Both),
            (known, there, absent, Choice::Theirs),
            (known, absent, here, Choice::StaysHere),
            (None, there, here, Choice::Both),
            (None, there, absent, Choice::Theirs),
            (None, absent, here, Choice::StaysHere),
            (None, absent, absent, Choice::InStep),
        ] {
            assert_eq!(choose(known, set, host), wanted, "{known:?} {set:?} {host:?}");
        }
    }

    /// The set names a user whom this host does not know, so that the two never look the same.
    #[test]
    fn a_file_that_was_put_in_place_is_in_step_even_if_its_owner_is_another() {
        let (set, host) = (digest("by name"), digest("by number"));
        let known = Some(Known { set, host });
        assert_eq!(choose(known, set, host), Choice::InStep);
        assert_eq!(choose(known, digest("newer"), host), Choice::Theirs);
    }
}
