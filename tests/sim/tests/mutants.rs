//! The table of bugs fits the sources: each changes one place that is there.

#[path = "../mutants/table/mod.rs"]
mod table;

use std::fs;
use std::path::Path;

#[test]
fn every_bug_of_the_table_has_its_place_in_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let units = sources(&root.join("protocol/src"));
    let disks = sources(&root.join("blockdev/src"));
    for mutant in table::mutants() {
        let text = fs::read_to_string(root.join(mutant.file)).unwrap();
        let places = text.matches(mutant.find).count();
        assert_eq!(places, 1, "{} ({}): in {}", mutant.name, mutant.rule, mutant.file);
        let again = mutant.also.map_or(1, |(find, _)| text.matches(find).count());
        assert_eq!(again, 1, "{}: its second place", mutant.name);
        if let table::Witness::Story(file, story) = mutant.witness {
            let stories = fs::read_to_string(root.join(format!("tests/sim/tests/{file}.rs")));
            assert!(stories.unwrap().contains(&format!("fn {story}()")), "{story} in {file}");
        }
        if let table::Witness::Unit(test) = mutant.witness {
            assert!(units.contains(&format!("fn {test}()")), "{test} in the core");
        }
        if let table::Witness::Disk(test) = mutant.witness {
            assert!(disks.contains(&format!("fn {test}()")), "{test} of a replica");
        }
        assert_ne!(mutant.find, mutant.put, "{}", mutant.name);
    }
}

/// Everything below a folder.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = entries.map(|path| match path.is_dir() {
        true => sources(&path),
        false => fs::read_to_string(&path).unwrap(),
    });
    text.collect()
}
