//! Unit tests of the arithmetic of transaction sets.

use super::*;

const M: Flavour = Flavour::Mariadb;
const Y: Flavour = Flavour::Mysql;
const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

#[test]
fn mariadb_position_contains_everything_before_it() {
    assert!(contains(M, "0-1-8", "0-1-8").unwrap());
    assert!(contains(M, "0-1-9", "0-1-8").unwrap());
    assert!(!contains(M, "0-1-7", "0-1-8").unwrap());
    // Another server wrote later in the same domain.
    assert!(contains(M, "0-2-9", "0-1-8").unwrap());
    assert!(!contains(M, "", "0-1-8").unwrap());
    assert!(contains(M, "", "").unwrap());
    assert!(contains(M, "0-1-3", "").unwrap());
}

#[test]
fn mariadb_domains_are_independent() {
    assert!(contains(M, "0-1-8,1-1-4", "1-2-4").unwrap());
    assert!(!contains(M, "0-1-8,1-1-4", "0-1-8,2-1-1").unwrap());
    assert!(!contains(M, "0-1-8,1-1-4", "1-1-5").unwrap());
}

#[test]
fn mariadb_state_as_a_set_counts_its_newest_entry() {
    assert!(contains(M, "0-1-11,0-2-13", "0-2-13").unwrap());
    assert!(contains(M, "0-2-13,0-1-11", "0-1-12").unwrap());
}

#[test]
fn mariadb_errant_at_the_end() {
    assert_eq!(extra(M, "0-3407-13", "0-3407-11,0-3408-13").unwrap(), "0-3407-12..13");
}

#[test]
fn mariadb_errant_in_the_middle_is_not_hidden_by_a_later_one() {
    assert_eq!(extra(M, "0-3408-18,0-3407-19", "0-3407-13,0-3408-20").unwrap(), "0-3407-14..19");
}

#[test]
fn mariadb_subset_has_nothing_extra() {
    assert_eq!(extra(M, "0-1-11", "0-1-11,0-2-13").unwrap(), "");
    assert_eq!(extra(M, "", "0-1-11").unwrap(), "");
    assert_eq!(extra(M, "0-2-13,0-1-11", "0-1-11,0-2-13").unwrap(), "");
}

#[test]
fn mariadb_errant_in_a_domain_that_the_other_does_not_know() {
    assert_eq!(extra(M, "0-1-4,7-1-2", "0-1-4").unwrap(), "7-1-1..2");
}

#[test]
fn mariadb_union_is_a_position() {
    assert_eq!(union(M, "0-1-8", "0-2-9,1-1-1").unwrap(), "0-2-9,1-1-1");
    assert_eq!(union(M, "", "0-1-8").unwrap(), "0-1-8");
    assert_eq!(union(M, "", "").unwrap(), "");
}

#[test]
fn mariadb_backlog_counts_per_domain() {
    assert_eq!(backlog(M, "0-1-20,1-1-5", "0-1-8,1-1-5").unwrap(), 12);
    assert_eq!(backlog(M, "0-1-20", "").unwrap(), 20);
    assert_eq!(backlog(M, "0-1-20", "0-1-30").unwrap(), 0);
}

#[test]
fn mariadb_nonsense_is_an_error() {
    for text in ["0-1", "0-1-2-3", "x-1-2", "0-1-99999999999999999999999", "0-1-2;"] {
        assert!(contains(M, text, "0-1-1").is_err(), "{text}");
        assert!(extra(M, "0-1-1", text).is_err(), "{text}");
    }
}

#[test]
fn mysql_contains_needs_every_interval() {
    let set = format!("{A}:1-7:9-12");
    assert!(contains(Y, &set, &format!("{A}:9-10")).unwrap());
    assert!(!contains(Y, &set, &format!("{A}:7-9")).unwrap());
    assert!(!contains(Y, &set, &format!("{B}:1")).unwrap());
    assert!(contains(Y, &set, "").unwrap());
    assert!(contains(Y, &set.to_uppercase(), &set).unwrap());
}

#[test]
fn mysql_extra_names_the_intervals() {
    let mine = format!("{A}:1-20,\n{B}:1-3");
    let theirs = format!("{A}:1-7:10-15,{B}:1-3");
    assert_eq!(extra(Y, &mine, &theirs).unwrap(), format!("{A}:8-9:16-20"));
    assert_eq!(extra(Y, &theirs, &mine).unwrap(), "");
    assert_eq!(extra(Y, &format!("{B}:5"), "").unwrap(), format!("{B}:5"));
}

#[test]
fn mysql_tags_are_sources_of_their_own() {
    let tagged = format!("{A}:1-5:blue:1-2:green:7");
    assert!(contains(Y, &tagged, &format!("{A}:blue:2")).unwrap());
    assert!(!contains(Y, &tagged, &format!("{A}:green:1")).unwrap());
    assert_eq!(extra(Y, &tagged, &format!("{A}:1-5")).unwrap(), format!("{A}:blue:1-2,{A}:green:7"));
}

#[test]
fn mysql_union_merges_neighbours() {
    assert_eq!(union(Y, &format!("{A}:1-3:8"), &format!("{A}:4-7,{B}:1")).unwrap(), format!("{A}:1-8,{B}:1"));
    assert_eq!(backlog(Y, &format!("{A}:1-10"), &format!("{A}:1-4:6")).unwrap(), 5);
}

#[test]
fn mysql_nonsense_is_an_error() {
    for text in ["0-1-2", "abc:1", &format!("{A}:3-1"), &format!("{A}:0-4"), &format!("{A}::1")] {
        assert!(contains(Y, text, "").is_err() && extra(Y, "", text).is_err(), "{text}");
    }
}

#[test]
fn same_in_another_order() {
    assert!(is_same(M, "0-1-2,1-1-3", "1-1-3,0-1-2").unwrap());
    assert!(!is_same(M, "0-1-2", "0-1-3").unwrap());
    assert!(is_same(Y, &format!("{A}:1-2:3"), &format!("{A}:1-3")).unwrap());
}

/// Second implementation, one number at a time, against the interval arithmetic.
#[test]
fn mysql_subtraction_agrees_with_plain_counting() {
    let mut seed = 7u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    for _ in 0..2000 {
        let [mine, theirs] = [(); 2].map(|()| (1..=24u64).filter(|_| next() % 3 > 0).collect::<Vec<_>>());
        let text = |numbers: &[u64]| {
            let parts: Vec<String> = numbers.iter().map(u64::to_string).collect();
            if parts.is_empty() { String::new() } else { format!("{A}:{}", parts.join(":")) }
        };
        let expected: Vec<u64> = mine.iter().copied().filter(|n| !theirs.contains(n)).collect();
        let got = extra(Y, &text(&mine), &text(&theirs)).unwrap();
        assert!(is_same(Y, &got, &text(&expected)).unwrap(), "{mine:?} - {theirs:?} = {got}");
        assert_eq!(backlog(Y, &text(&mine), &text(&theirs)).unwrap(), expected.len() as u64);
    }
}

#[test]
fn errant_transactions_are_taken_apart() {
    let errant = errant(Flavour::Mariadb, "0-1-12..13,0-2-7..7").unwrap();
    assert_eq!(errant.count_max(), 3);
    assert!(errant.has_mariadb("0-1-12") && errant.has_mariadb("0-2-7"));
    assert!(!errant.has_mariadb("0-1-11") && !errant.has_mariadb("0-2-8") && !errant.has_mariadb("1-1-12"));
    assert!(errant.all_begin_after("0-1-11,0-2-6,0-3-99").unwrap());
    assert!(!errant.all_begin_after("0-1-12,0-2-6").unwrap(), "the first is in an earlier file");
    super::errant(Flavour::Mariadb, "0-1-12").unwrap_err();
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    assert_eq!(super::errant(Flavour::Mysql, &format!("{uuid}:3-5:9")).unwrap().count_max(), 4);
}

#[test]
fn errant_transactions_are_all_among_others_or_not() {
    let has_all = |flavour, these: &str, others: &str| {
        errant(flavour, these).unwrap().has_all(&errant(flavour, others).unwrap())
    };
    for (others, among) in [("", true), ("0-1-12..13", true), ("0-1-13..13,0-2-7..7", true)] {
        assert_eq!(has_all(M, "0-1-12..13,0-2-7..7", others), among, "{others}");
    }
    for others in ["0-1-12..14", "0-1-11..13", "0-3-12..13", "1-1-12..13"] {
        assert!(!has_all(M, "0-1-12..13,0-2-7..7", others), "{others}");
    }
    let these = format!("{A}:3-5:9");
    assert!(has_all(Y, &these, "") && has_all(Y, &these, &these) && has_all(Y, &these, &format!("{A}:4:9")));
    assert!(!has_all(Y, &these, &format!("{A}:3-6")) && !has_all(Y, "", &these));
}
