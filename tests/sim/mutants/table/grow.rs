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
    )
    .told("grow_stories", "a_volume_grows_on_all_members_while_clients_write_and_again"),
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
    )
    .told("grow_stories", "a_hello_tells_of_no_size_that_a_crash_could_take_back"),
    mutant(
        "who has not acted on the word of new sizes goes on in a session that began with others",
        "§2.4: two that work together have the same sizes",
        GROW,
        "                slow.into_iter().for_each(|session| self.begin_anew(session));",
        "                drop(slow);",
    )
    .tested(
        "a_primary_that_is_overtaken_while_it_tells_of_the_sizes_leaves_that_to_the_next_hellos",
    ),
];
