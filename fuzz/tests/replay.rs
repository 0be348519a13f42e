//! Every input that was ever worth keeping, run again. One test, because memory is measured.

use std::panic::catch_unwind;

use hadrian_fuzz::TARGETS;

#[test]
fn every_kept_input_still_holds() {
    for target in TARGETS {
        let listed = std::fs::read_dir(target.corpus()).expect("every target has a corpus");
        let mut paths: Vec<_> =
            listed.map(|entry| entry.expect("a corpus is read").path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} has no corpus", target.name);
        for path in paths {
            let input = std::fs::read(&path).expect("a corpus is read");
            let result = catch_unwind(|| (target.run)(&input));
            assert!(result.is_ok(), "{} breaks {}", path.display(), target.name);
        }
    }
}
