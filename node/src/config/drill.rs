//! `[drill]`: what this node lets drills do to it. The node's own word: it may differ from node to node, so it is not
//! part of the hash by which nodes compare their configurations, and nobody else's word replaces it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Zoned;
use jiff::civil::{Time, Weekday};
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::{Hook, Ms, Secret, read_secret};

/// How deep a drill reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DrillLevel {
    /// Reads files only.
    L0,
    /// Asks the agents, changes nothing.
    L1,
    /// Passes the baton, breaks nothing.
    L2,
    /// Kills or stops one process.
    L3,
    /// Drops packets.
    L4,
    /// Fills a disk.
    L5,
}

impl fmt::Display for DrillLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::L5 => "L5",
        })
    }
}

/// What this node lets drills do to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// The deepest level.
    pub allow: DrillLevel,
    /// When faults may be injected; `None`: always.
    pub window: Option<Window>,
    /// For so long after a drill no other begins.
    pub cooldown: Ms,
    /// No fault stands longer.
    pub duration_max: Ms,
    /// The site's own command that cuts this node's power; `None`: no drill does.
    pub power_off: Option<Hook>,
    /// Where evidence of drills that are run on this node is kept.
    pub evidence: PathBuf,
    /// The account with which a drill writes through the VIP; `None`: `mysql.check_user`.
    pub user: Option<String>,
    /// File with its password; `None`: `mysql.check_password_file`.
    pub password_file: Option<PathBuf>,
    /// Schema of the table that it writes to; `None`: `mysql.schema`.
    pub schema: Option<String>,
    /// First of 32 unused addresses of the VIP's network, from which a drill asks who answers for the VIP; `None`: it does
    /// not ask.
    pub arp_senders: Option<std::net::Ipv4Addr>,
}

impl Drill {
    /// Reads the password of the writing account, if it has a file of its own.
    ///
    /// # Errors
    /// The file is named and cannot be read.
    pub fn read_password(&self) -> Result<Secret, ConfigError> {
        read_secret("drill.password_file", self.password_file.as_deref())
    }
}

/// Times of the week, by the node's own time zone: `Mon-Fri 09:00-17:00`, `Sat 22:00-06:00`, `02:00-04:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    days: (Weekday, Weekday),
    from: Time,
    to: Time,
}

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

impl Window {
    /// Whether it is open. One that goes past midnight belongs to the day on which it begins.
    #[must_use]
    pub fn is_open(&self, now: &Zoned) -> bool {
        let (day, time) = (now.weekday(), now.time());
        if self.from <= self.to {
            return self.has(day) && (self.from..self.to).contains(&time);
        }
        (self.has(day) && time >= self.from) || (self.has(day.previous()) && time < self.to)
    }

    /// The days on which it opens, in the order of the week.
    #[must_use]
    pub fn days(&self) -> Vec<Weekday> {
        DAYS.into_iter().map(|(_, day)| day).filter(|day| self.has(*day)).collect()
    }

    /// From when to when; on the next day, if the second is not after the first.
    #[must_use]
    pub const fn times(&self) -> (Time, Time) {
        (self.from, self.to)
    }

    fn has(&self, day: Weekday) -> bool {
        let since = |day: Weekday| self.days.0.until(day);
        since(day) <= since(self.days.1)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not of the form \"Mon-Fri 09:00-17:00\" or \"02:00-04:00\"");
        let (days, times) = text.trim().split_once(' ').unwrap_or(("Mon-Sun", text.trim()));
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let day = |name: &str| DAYS.into_iter().find(|(known, _)| *known == name).map(|(_, day)| day);
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).ok();
        let (from, to) = times.split_once('-').ok_or_else(form)?;
        let parts = || Some((day(first)?, day(last)?, time(from)?, time(to)?));
        let (first, last, from, to) = parts().ok_or_else(form)?;
        if from == to { Err(form()) } else { Ok(Self { days: (first, last), from, to }) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            |day: Weekday| DAYS.into_iter().find(|(_, known)| *known == day).map_or("", |(name, _)| name);
        let hour = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        let (first, last) = self.days;
        write!(f, "{}-{} {}-{}", name(first), name(last), hour(self.from), hour(self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(window: &str, now: &str) -> bool {
        let now: jiff::civil::DateTime = now.parse().unwrap();
        window.parse::<Window>().unwrap().is_open(&now.in_tz("UTC").unwrap())
    }

    #[test]
    fn windows_open_and_close() {
        // 2026-11-27 is a Friday.
        assert!(open("Mon-Fri 09:00-17:00", "2026-11-27T09:00"));
        assert!(!open("Mon-Fri 09:00-17:00", "2026-11-27T17:00"));
        assert!(!open("Mon-Fri 09:00-17:00", "2026-11-28T10:00"));
        assert!(open("Fri 22:00-06:00", "2026-11-28T05:59"));
        assert!(!open("Fri 22:00-06:00", "2026-11-27T05:59"));
        assert!(open("Sat-Mon 00:00-23:59", "2026-11-29T12:00"));
        assert!(!open("Sat-Mon 00:00-23:59", "2026-11-24T12:00"));
        assert!(open("02:00-04:00", "2026-11-27T03:00"));
    }

    #[test]
    fn a_misspelt_window_is_no_window() {
        for text in ["", "always", "Mon-Fri", "Mo 09:00-17:00", "09:00-09:00", "25:00-26:00", "09:00"] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
        assert_eq!("Sat 22:00-06:00".parse::<Window>().unwrap().to_string(), "Sat-Sat 22:00-06:00");
    }
}
