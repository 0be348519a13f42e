//! Bugs that somebody could make: a rule of the contract each, taken out of the code.

mod back;
mod disk;
mod grow;
mod marks;
mod members;
mod resync;
mod seeds;
mod set;

/// One bug, as a change of one place in the sources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// The rule that is missing.
    pub(crate) name: &'static str,
    /// Where it stands in the contract, or the story of what happens without it.
    pub(crate) rule: &'static str,
    /// The file, from the top of the workspace.
    pub(crate) file: &'static str,
    /// A text that stands there once.
    pub(crate) find: &'static str,
    /// What stands there instead.
    pub(crate) put: &'static str,
    /// A second place in the same file, where the rule is held twice.
    pub(crate) also: Option<(&'static str, &'static str)>,
    /// Who must notice.
    pub(crate) witness: Witness,
}

/// Who must notice a bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Witness {
    /// The simulator, by its seeds.
    Seeds,
    /// The simulator, by its seeds of clusters with marks.
    Marked,
    /// The exploration: so rare an order of events that seeds do not meet it.
    Exploration,
    /// A story that the simulator is told, in this file and of this name: seeds met it once in
    /// thousands.
    Story(&'static str, &'static str),
    /// A test of the core itself: what it takes is so rare that nobody else meets it.
    Unit(&'static str),
    /// A test of a replica on its disk, for the same reason.
    Disk(&'static str),
}

const fn mutant(
    name: &'static str,
    rule: &'static str,
    file: &'static str,
    find: &'static str,
    put: &'static str,
) -> Mutant {
    Mutant { name, rule, file, find, put, also: None, witness: Witness::Seeds }
}

impl Mutant {
    const fn and(mut self, find: &'static str, put: &'static str) -> Self {
        self.also = Some((find, put));
        self
    }

    const fn marked(mut self) -> Self {
        self.witness = Witness::Marked;
        self
    }

    const fn explored(mut self) -> Self {
        self.witness = Witness::Exploration;
        self
    }

    const fn tested(mut self, test: &'static str) -> Self {
        self.witness = Witness::Unit(test);
        self
    }

    const fn on_disk(mut self, test: &'static str) -> Self {
        self.witness = Witness::Disk(test);
        self
    }

    const fn told(mut self, file: &'static str, story: &'static str) -> Self {
        self.witness = Witness::Story(file, story);
        self
    }
}

/// All of them.
pub(crate) fn mutants() -> impl Iterator<Item = &'static Mutant> {
    [
        members::MUTANTS,
        set::MUTANTS,
        disk::MUTANTS,
        marks::MUTANTS,
        resync::MUTANTS,
        seeds::MUTANTS,
        grow::MUTANTS,
        back::MUTANTS,
    ]
    .into_iter()
    .flatten()
}
