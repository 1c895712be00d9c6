//! Two machines that answer for the virtual IP, seen while it happens. Pure.
//!
//! The judge looks at a whole history; a drill that goes on has to end at once. Both count alike: of answers that come in the
//! order of their requests, these tell of two holders if and only if the judge counts milliseconds of them. An answer that
//! comes so late that its machine has ended its reign since is left to the judge.

use std::collections::BTreeMap;

use super::UNANSWERED_PROBES_MAX;
use crate::history::Answer;

/// Who answers, so far: the first and the last request of each machine's reign.
#[derive(Debug, Default)]
pub struct Holders(BTreeMap<String, (u64, u64)>);

impl Holders {
    /// Hears an answer. Some: its machine and this other one hold the virtual IP at the same time.
    pub fn hear(&mut self, answer: &Answer) -> Option<String> {
        let probe = answer.probe;
        let known = self.0.get(&answer.mac).copied().unwrap_or((probe, probe));
        let (first, last) = match known {
            (_, last) if probe > last + UNANSWERED_PROBES_MAX => (probe, probe),
            (first, _) if probe + UNANSWERED_PROBES_MAX < first => return None,
            (first, last) => (first.min(probe), last.max(probe)),
        };
        self.0.insert(answer.mac.clone(), (first, last));
        let others = self.0.iter().filter(|(mac, _)| **mac != answer.mac);
        let mut shares = others.filter(|(_, (from, to))| first.max(*from) <= last.min(*to));
        shares.next().map(|(mac, _)| mac.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bounds, Finals, check};
    use super::*;
    use crate::history::History;

    fn answer(probe: u64, mac: &str) -> Answer {
        Answer { probe, at_us: probe * 10_000, mac: mac.into() }
    }

    fn told(answers: &[Answer]) -> Vec<Option<String>> {
        let mut holders = Holders::default();
        answers.iter().map(|answer| holders.hear(answer)).collect()
    }

    #[test]
    fn a_clean_change_of_holder_is_none_and_an_answer_of_the_old_one_after_it_is_two() {
        let change = [answer(1, "old"), answer(2, "old"), answer(3, "new"), answer(4, "new")];
        assert_eq!(told(&change), [None, None, None, None]);
        let both = [answer(1, "old"), answer(3, "new"), answer(4, "old")];
        assert_eq!(told(&both), [None, None, Some("new".into())]);
        assert_eq!(told(&[answer(7, "old"), answer(7, "new")]), [None, Some("old".into())], "one request");
    }

    #[test]
    fn one_that_comes_back_after_its_reign_was_over_is_no_second_one() {
        let back = [answer(1, "a"), answer(2, "b"), answer(3, "b"), answer(12, "a"), answer(13, "a")];
        assert_eq!(told(&back), [None, None, None, None, None]);
        let before = [answer(1, "a"), answer(2, "b"), answer(3, "b"), answer(11, "a")];
        assert_eq!(told(&before), [None, None, None, Some("b".into())], "its reign was not over");
        let late = [answer(100, "a"), answer(50, "b"), answer(50, "a")];
        assert_eq!(told(&late), [None, None, None], "left to the judge");
    }

    proptest! {
        /// Live and afterwards the same is seen.
        #[test]
        fn who_is_told_of_two_holders_while_it_happens_finds_them_in_the_verdict(
            heard in prop::collection::vec((0_u64..14, 0_usize..3), 0..60),
        ) {
            let mut probe = 0;
            let answers: Vec<Answer> = heard
                .into_iter()
                .map(|(step, machine)| {
                    probe += step;
                    answer(probe, ["a", "b", "c"][machine])
                })
                .collect();
            let is_told = told(&answers).iter().any(Option::is_some);
            let history = History { answers, probe_period_us: 10_000, ..History::default() };
            let bounds = Bounds { fault_us: 0, end_us: 0, holder_changes: 0 };
            let judged = check(&history, &Finals::default(), bounds);
            prop_assert_eq!(is_told, judged.two_holders_ms > 0, "{:?}", judged.reigns);
        }
    }
}
