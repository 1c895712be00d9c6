//! When a certificate ends, for people. Pure; the wall clock is a parameter.

use std::fmt;

use baton_consensus::pki::RENEW_DAYS;
use baton_runbooks::model::WallMs;
use jiff::Timestamp;

use super::alarm::AlarmCode;
use super::types::Alarm;
use super::view::timestamp;

const DAY_S: i64 = 24 * 3_600;

/// The end of a certificate that is to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    at: Timestamp,
    /// Whole days; negative once it is over.
    days: i64,
}

impl Ending {
    /// One that ends at `end`, seconds since 1970; `None`: not within the days in which `baton doctor` warns too.
    pub(crate) fn of(end: i64, now: WallMs) -> Option<Self> {
        let end_ms = u64::try_from(end).unwrap_or(0).saturating_mul(1_000);
        let now_s = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
        let days = end.saturating_sub(now_s).div_euclid(DAY_S);
        (days < RENEW_DAYS).then(|| Self { at: timestamp(WallMs(end_ms)), days })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.to_string();
        let date = at.split('T').next().unwrap_or(&at);
        match self.days {
            ..0 => write!(f, "ended on {date}"),
            0 => write!(f, "ends on {date}, within a day"),
            1 => write!(f, "ends on {date}, in 1 day"),
            days => write!(f, "ends on {date}, in {days} days"),
        }
    }
}

/// As long as the certificates that this agent uses are to be renewed. `own` and `authority`: their ends, seconds since 1970.
pub(crate) fn alarms(node: &str, own: i64, authority: i64, now: WallMs) -> Vec<Alarm> {
    let own = Ending::of(own, now).map(|ending| {
        format!(
            "the certificate that the agent of this node uses {ending}, and with it no other agent hears this one any more; beside \
             `ca.key` move {node}.pem and {node}.key away, run `baton pki issue --node {node}`, copy both here and restart this \
             agent (operating/install.md, 5)"
        )
    });
    let authority = Ending::of(authority, now).map(|ending| {
        format!(
            "the authority that has signed this node's certificate {ending}, and with it no agent hears another any more; make a \
             new one with `baton pki init` and every certificate anew (operating/install.md, 5)"
        )
    });
    own.into_iter().chain(authority).map(|text| AlarmCode::CertificateEnds.alarm(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample::START;

    const NOW_S: i64 = 1_795_383_600;
    const FAR: i64 = NOW_S + 3_000 * DAY_S;

    #[test]
    fn a_certificate_is_told_from_thirty_days_before_its_end_with_date_and_way_out() {
        assert_eq!(alarms("db1", NOW_S + 30 * DAY_S, FAR, START), []);
        let told = alarms("db1", NOW_S + 30 * DAY_S - 1, FAR, START);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].code, "certificate-ends");
        for part in
            ["ends on 2026-12-22, in 29 days", "`baton pki issue --node db1`", "restart", "install.md"]
        {
            assert!(told[0].text.contains(part), "{part}: {}", told[0].text);
        }
    }

    #[test]
    fn the_authority_is_told_too_and_what_has_ended() {
        let told = alarms("db1", NOW_S - 1, NOW_S + DAY_S + 5, START);
        assert_eq!(told.len(), 2);
        assert!(told[0].text.contains("ended on 2026-11-22"), "{}", told[0].text);
        assert!(told[1].text.contains("ends on 2026-11-23, in 1 day,"), "{}", told[1].text);
        assert!(told[1].text.contains("`baton pki init`"), "{}", told[1].text);
    }
}
