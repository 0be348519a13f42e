//! The legality tables, as a person can read them.

use super::super::picture;

#[test]
fn the_tables_are_as_they_were_looked_over() {
    insta::assert_snapshot!(picture());
}
