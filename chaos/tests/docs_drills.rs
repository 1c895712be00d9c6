//! `docs/drills.md` is what the shipped drills, the faults and the types say.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use baton_chaos::experiment::catalogue;

/// The page is what the code says, or is written so under `REWRITE=1`.
#[test]
fn drills_page_is_made_from_the_drills() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/drills.md");
    let wanted = catalogue::markdown().unwrap();
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "docs/drills.md differs from the code (line {:?}); write it anew with REWRITE=1 cargo test --workspace --test docs_drills",
        differs.map(|line| line + 1)
    );
}
