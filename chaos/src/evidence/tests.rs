//! The chain of records on trial: whatever is changed, removed or put in another order is found.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::sample::passed;
use super::*;
use crate::experiment::{Form, Source, shipped};

/// A directory with so many records, and the hash of the last.
fn chain(records: u64) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 1..=records {
        let mut record = passed();
        record.who.reason = Some(format!("number {number}"));
        let stored = store.append(record).unwrap();
        assert_eq!(stored.record.number, number);
        assert_eq!(store.head().unwrap(), Some(Head { number, hash: stored.hash }));
    }
    let head = store.head().unwrap().map_or(NO_HASH.to_owned(), |head| head.hash);
    (dir, head)
}

fn file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}-mysqld-killed.json"))
}

#[test]
fn an_untouched_chain_is_sound_and_its_hashes_are_those_of_the_files() {
    let (dir, head) = chain(3);
    let seen = verify(dir.path(), Some(&head)).unwrap();
    assert_eq!((seen.records, seen.after_ledger, &seen.flaws), (3, Some(0), &vec![]), "{seen}");
    let second = fs::read(file(dir.path(), 2)).unwrap();
    let third = Store::at(dir.path()).find("3").unwrap();
    assert_eq!(third.record.previous, hash(&second));
    assert_eq!(third.hash, head);
    assert_eq!(Store::at(dir.path()).find("mysqld-killed").unwrap().record.number, 3);
    assert_eq!(Store::at(dir.path()).find("last").unwrap().record.number, 3);
    assert!(matches!(Store::at(dir.path()).find("4"), Err(StoreError::Unknown(_))));
}

#[test]
fn no_records_are_sound_until_the_ledger_knows_of_one() {
    let dir = tempfile::tempdir().unwrap();
    assert!(verify(dir.path(), None).unwrap().is_sound());
    assert!(verify(&dir.path().join("absent"), Some(NO_HASH)).unwrap().is_sound());
    let gone = verify(dir.path(), Some(&"ab".repeat(32))).unwrap();
    assert!(matches!(gone.flaws[..], [Flaw::Head { .. }]), "{gone}");
}

#[test]
fn a_removed_record_is_missing() {
    let (dir, head) = chain(4);
    fs::remove_file(file(dir.path(), 2)).unwrap();
    let seen = verify(dir.path(), Some(&head)).unwrap();
    assert!(seen.flaws.contains(&Flaw::Missing { from: 2, to: 2 }), "{seen}");
    assert!(seen.flaws.iter().any(|flaw| matches!(flaw, Flaw::Broken { number: 3, .. })), "{seen}");
}

#[test]
fn a_truncated_tail_is_seen_by_the_ledger_and_by_nothing_else() {
    let (dir, head) = chain(4);
    fs::remove_file(file(dir.path(), 4)).unwrap();
    assert!(verify(dir.path(), None).unwrap().is_sound(), "the chain alone cannot know");
    let seen = verify(dir.path(), Some(&head)).unwrap();
    assert!(matches!(seen.flaws[..], [Flaw::Head { .. }]), "{seen}");
}

#[test]
fn a_ledger_that_lags_behind_is_no_flaw_and_is_said() {
    let (dir, _) = chain(3);
    let second = hash(&fs::read(file(dir.path(), 2)).unwrap());
    let seen = verify(dir.path(), Some(&second)).unwrap();
    assert!(seen.is_sound());
    assert_eq!(seen.after_ledger, Some(1));
    assert!(seen.to_string().contains("has not seen the last 1"), "{seen}");
}

#[test]
fn records_in_another_order_are_seen() {
    let (dir, head) = chain(4);
    let (two, three, aside) = (file(dir.path(), 2), file(dir.path(), 3), dir.path().join("aside"));
    fs::rename(&two, &aside).unwrap();
    fs::rename(&three, &two).unwrap();
    fs::rename(&aside, &three).unwrap();
    let seen = verify(dir.path(), Some(&head)).unwrap();
    assert!(seen.flaws.contains(&Flaw::Renamed { name: 2, says: 3 }), "{seen}");
    assert!(seen.flaws.contains(&Flaw::Renamed { name: 3, says: 2 }), "{seen}");
}

#[test]
fn a_record_that_was_made_to_pass_is_found_out_even_if_the_chain_was_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut record = passed();
    record.clients[0].lost = 1;
    assert_eq!(record.judgement.verdict, crate::verdict::Verdict::Pass, "as a forger would leave it");
    store.append(record).unwrap();
    let seen = verify(dir.path(), None).unwrap();
    assert!(matches!(seen.flaws[..], [Flaw::Verdict { number: 1, .. }]), "{seen}");
}

#[test]
fn a_changed_drill_text_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = passed();
    record.experiment.text.push_str("\n# looser\n");
    Store::open(dir.path()).unwrap().append(record).unwrap();
    let seen = verify(dir.path(), None).unwrap();
    assert_eq!(seen.flaws, [Flaw::Experiment { number: 1 }]);
}

/// Records of runners that did not measure something stand in chains and are not written anew.
#[test]
fn an_older_record_has_the_form_in_which_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = passed();
    let text = shipped::text("mysqld-killed").unwrap();
    let limit = |key: &str| format!("[slo.{key}]\nmysql = \"20s\"\nredis = \"20s\"\n\n");
    let older = ["connect_gap", "read_gap"].into_iter().fold(text.to_owned(), |text, key| {
        assert!(text.contains(&limit(key)), "{text}");
        text.replace(&limit(key), "")
    });
    record.experiment = Source::parse("mysqld-killed.toml", Form::Toml, &older).unwrap().reference();
    record.clients.iter_mut().for_each(|client| (client.reconnecting, client.sustained_ms) = (None, None));
    let stored = Store::open(dir.path()).unwrap().append(record).unwrap();
    let text = fs::read_to_string(&stored.path).unwrap();
    assert!(text.contains("outage_ms"), "{text}");
    assert!(!text.contains("reconnecting") && !text.contains("sustained"), "{text}");
    assert!(!text.contains("connect_gap") && !text.contains("read_gap"), "{text}");
    let seen = verify(dir.path(), Some(&stored.hash)).unwrap();
    assert!(seen.is_witnessed(), "{seen}");
}

#[test]
fn a_draft_is_no_record_and_goes_with_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.draft().unwrap(), None);
    store.keep_draft(&passed()).unwrap();
    store.keep_draft(&passed()).unwrap();
    assert_eq!(store.draft().unwrap(), Some(passed()));
    assert_eq!(store.records().unwrap(), []);
    store.append(passed()).unwrap();
    assert_eq!(store.draft().unwrap(), None);
    assert_eq!(store.records().unwrap().len(), 1);
}

#[test]
fn two_writers_do_not_write_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.path().join("lock"))
        .unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert!(matches!(store.append(passed()), Err(StoreError::Busy(_))));
    drop(held);
    store.append(passed()).unwrap();
}

#[test]
fn what_a_crash_left_half_written_is_no_record() {
    let (dir, head) = chain(2);
    fs::write(dir.path().join(".000003-mysqld-killed.json.half"), "{\"version\":").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(verify(dir.path(), Some(&head)).unwrap().is_sound());
    assert_eq!(store.append(passed()).unwrap().record.number, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever byte of whatever record is changed in whatever way: it is seen, the last one by the ledger's hash.
    #[test]
    fn no_byte_can_be_changed_unseen(number in 1_u64..=3, place in 0_usize..20_000, xor in 1_u8..=255) {
        let (dir, head) = chain(3);
        let path = file(dir.path(), number);
        let mut bytes = fs::read(&path).unwrap();
        let place = place % bytes.len();
        bytes[place] ^= xor;
        fs::write(&path, &bytes).unwrap();
        prop_assert!(!verify(dir.path(), Some(&head)).unwrap().is_sound());
    }

    /// One record has one text, whatever strings and numbers stand in it, and reading it gives it back.
    #[test]
    fn a_record_survives_its_canonical_form(reason in any::<String>(), value in any::<f64>(), ms in any::<u64>()) {
        prop_assume!(value.is_finite());
        let mut record = passed();
        record.who.reason = Some(reason);
        record.probes[0].value = Some(value);
        record.faults[0].armed_ms = Some(ms);
        let text = canonical(&record).unwrap();
        let back: Record = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&back, &record);
        prop_assert_eq!(canonical(&back).unwrap(), text);
    }
}

#[test]
fn keys_are_in_the_order_of_their_bytes() {
    let value = serde_json::json!({"b": [1, {"z": null, "a": "\u{e9}\n"}], "B": 0.5, "a": true});
    assert_eq!(
        canonical(&value).unwrap(),
        "{\"B\":0.5,\"a\":true,\"b\":[1,{\"a\":\"\u{e9}\\n\",\"z\":null}]}\n"
    );
}
