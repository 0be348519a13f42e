//! Rules of growth: who has which sizes when.

use super::{Mutant, mutant};

const GROW: &str = "protocol/src/node/grow.rs";
const SESSION: &str = "protocol/src/node/session.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "clients use the new part before every standby has it",
        "§2.4",
        GROW,
        "                if left == 0 {\n",
        "                if left < usize::MAX {\n",
    ),
    mutant(
        "a member that was away while a volume grew is taken as it is",
        "§2.4",
        GROW,
        "        if own == theirs {\n",
        "        if own == theirs || own.grow_to(theirs) || theirs.grow_to(own) {\n",
    ),
    mutant(
        "sizes are told before they are durable",
        "I8",
        SESSION,
        "            sizes: self.growing.durable().clone(),\n",
        "            sizes: self.state.sizes(),\n",
    ),
];
