//! Transaction sets of both families: parse, compare, subtract. Pure.
//!
//! | | notation | what a set says |
//! |---|---|---|
//! | MariaDB | `domain-server-seq,…` | a *position* has one entry per domain; a *state* (`gtid_binlog_state`) has one per domain and server |
//! | MySQL | `uuid:1-7:9[:tag:1-3],…` | exactly the transactions named |
//!
//! On MariaDB numbers rise within a domain whichever server wrote (`gtid_strict_mode`), so that a position
//! contains everything of its domain up to its number. For errant transactions that is not enough: a foreign
//! transaction in the middle is hidden behind a later one. Those are found per domain *and server*, from states.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use baton_runbooks::observe::Flavour;

/// A transaction set that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a transaction set of {flavour:?}")]
pub struct BadSet {
    /// The text.
    pub text: String,
    /// The family whose notation was expected.
    pub flavour: Flavour,
}

/// True if everything in `position` is in `set`. An empty position is in every set.
///
/// On MariaDB `set` is a position (`Gtid_IO_Pos`, `gtid_current_pos`) or a state.
///
/// # Errors
/// [`BadSet`] if one of the two cannot be read.
pub fn contains(flavour: Flavour, set: &str, position: &str) -> Result<bool, BadSet> {
    match flavour {
        Flavour::Mariadb => {
            let set = newest_per_domain(&maria(set)?);
            Ok(newest_per_domain(&maria(position)?)
                .iter()
                .all(|(domain, (seq, _))| set.get(domain).is_some_and(|(have, _)| have >= seq)))
        }
        Flavour::Mysql => Ok(Intervals::parse(position)?.minus(&Intervals::parse(set)?).is_empty()),
    }
}

/// The transactions of `mine` that `theirs` does not have; empty: none.
///
/// On MariaDB both are states (`gtid_binlog_state`), compared per domain and server, and the answer has the form
/// `domain-server-first..last`. Take `mine` before `theirs`, or what is in flight looks errant.
///
/// # Errors
/// [`BadSet`] if one of the two cannot be read.
pub fn extra(flavour: Flavour, mine: &str, theirs: &str) -> Result<String, BadSet> {
    match flavour {
        Flavour::Mariadb => {
            let theirs = newest_per_server(&maria(theirs)?);
            let mut out = Vec::new();
            for ((domain, server), seq) in newest_per_server(&maria(mine)?) {
                let have = theirs.get(&(domain, server)).copied().unwrap_or(0);
                if seq > have {
                    out.push(format!("{domain}-{server}-{}..{seq}", have + 1));
                }
            }
            Ok(out.join(","))
        }
        Flavour::Mysql => Ok(Intervals::parse(mine)?.minus(&Intervals::parse(theirs)?).to_string()),
    }
}

/// Everything that is in one of the two. On MariaDB: the newest number of each domain, a position.
///
/// # Errors
/// [`BadSet`] if one of the two cannot be read.
pub fn union(flavour: Flavour, one: &str, other: &str) -> Result<String, BadSet> {
    match flavour {
        Flavour::Mariadb => {
            let mut all = maria(one)?;
            all.extend(maria(other)?);
            let parts: Vec<String> = newest_per_domain(&all)
                .iter()
                .map(|(domain, (seq, server))| format!("{domain}-{server}-{seq}"))
                .collect();
            Ok(parts.join(","))
        }
        Flavour::Mysql => {
            let mut all = Intervals::parse(one)?;
            for (source, ranges) in Intervals::parse(other)?.0 {
                all.0.entry(source).or_default().extend(ranges);
            }
            all.normalise();
            Ok(all.to_string())
        }
    }
}

/// How many transactions of `received` are not in `applied`.
///
/// On MariaDB numbers are counted per domain, which is exact with `gtid_strict_mode`.
///
/// # Errors
/// [`BadSet`] if one of the two cannot be read.
pub fn backlog(flavour: Flavour, received: &str, applied: &str) -> Result<u64, BadSet> {
    match flavour {
        Flavour::Mariadb => {
            let applied = newest_per_domain(&maria(applied)?);
            Ok(newest_per_domain(&maria(received)?).iter().fold(0, |sum: u64, (domain, (seq, _))| {
                sum.saturating_add(seq.saturating_sub(applied.get(domain).map_or(0, |(have, _)| *have)))
            }))
        }
        Flavour::Mysql => Ok(Intervals::parse(received)?.minus(&Intervals::parse(applied)?).count()),
    }
}

/// True if both name the same transactions, in whatever order they are written.
///
/// # Errors
/// [`BadSet`] if one of the two cannot be read.
pub fn is_same(flavour: Flavour, one: &str, other: &str) -> Result<bool, BadSet> {
    Ok(contains(flavour, one, other)? && contains(flavour, other, one)?)
}

/// What [`extra`] answers, taken apart again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errant {
    /// MariaDB's, by domain and server: first and last number.
    ranges: BTreeMap<(u32, u32), (u64, u64)>,
    /// MySQL's.
    set: Intervals,
}

/// The transactions that [`extra`] names.
///
/// # Errors
/// [`BadSet`] if the text is not of that form.
pub fn errant(flavour: Flavour, text: &str) -> Result<Errant, BadSet> {
    let bad = || BadSet { text: text.to_owned(), flavour };
    match flavour {
        Flavour::Mysql => Ok(Errant { set: Intervals::parse(text)?, ..Errant::default() }),
        Flavour::Mariadb => {
            let mut ranges = BTreeMap::new();
            for part in text.split(',').filter(|part| !part.is_empty()) {
                let (first, last) = part.split_once("..").ok_or_else(bad)?;
                let (domain, server, first) = one_gtid(first).ok_or_else(bad)?;
                ranges.insert((domain, server), (first, last.parse().map_err(|_| bad())?));
            }
            Ok(Errant { ranges, ..Errant::default() })
        }
    }
}

impl Errant {
    /// How many they are. On MariaDB at most: numbers of a domain are shared among its servers.
    #[must_use]
    pub fn count_max(&self) -> u64 {
        let maria = self.ranges.values().fold(0, |sum: u64, (first, last)| {
            sum.saturating_add(last.saturating_sub(*first).saturating_add(1))
        });
        maria.saturating_add(self.set.count())
    }

    /// True if each of `others` is one of these.
    #[must_use]
    pub fn has_all(&self, others: &Self) -> bool {
        let has = |(place, (first, last)): (&(u32, u32), &(u64, u64))| {
            self.ranges.get(place).is_some_and(|(from, to)| from <= first && last <= to)
        };
        others.ranges.iter().all(has) && others.set.minus(&self.set).is_empty()
    }

    /// True if `gtid` is one of MariaDB's.
    #[must_use]
    pub fn has_mariadb(&self, gtid: &str) -> bool {
        one_gtid(gtid).is_some_and(|(domain, server, seq)| {
            self.ranges.get(&(domain, server)).is_some_and(|(first, last)| (*first..=*last).contains(&seq))
        })
    }

    /// True if a log file of MariaDB that begins after `state` lacks none of them.
    ///
    /// # Errors
    /// [`BadSet`] if the state cannot be read.
    pub fn all_begin_after(&self, state: &str) -> Result<bool, BadSet> {
        let before = newest_per_server(&maria(state)?);
        Ok(self.ranges.iter().all(|(place, (first, _))| before.get(place).is_none_or(|seq| seq < first)))
    }
}

/// A state of MariaDB brought up to a position: the position's transactions become the newest of their domain and server.
///
/// # Errors
/// [`BadSet`] if one of the two cannot be read.
pub fn advance_state(state: &str, position: &str) -> Result<String, BadSet> {
    // The newest of a domain stands last: that is how the server reads it.
    let mut all = maria(state)?;
    for new in maria(position)? {
        let known = all.iter().find(|have| (have.0, have.1) == (new.0, new.1)).map_or(0, |have| have.2);
        if new.2 > known {
            all.retain(|have| (have.0, have.1) != (new.0, new.1));
            all.push(new);
        }
    }
    let parts: Vec<String> =
        all.iter().map(|(domain, server, seq)| format!("{domain}-{server}-{seq}")).collect();
    Ok(parts.join(","))
}

/// Domain, server, sequence number.
type Gtid = (u32, u32, u64);

fn maria(text: &str) -> Result<Vec<Gtid>, BadSet> {
    let bad = || BadSet { text: text.to_owned(), flavour: Flavour::Mariadb };
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| one_gtid(part).ok_or_else(bad))
        .collect()
}

fn one_gtid(text: &str) -> Option<Gtid> {
    let mut parts = text.split('-');
    let gtid = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(gtid)
}

fn newest_per_domain(gtids: &[Gtid]) -> BTreeMap<u32, (u64, u32)> {
    let mut newest = BTreeMap::new();
    for &(domain, server, seq) in gtids {
        let entry = newest.entry(domain).or_insert((seq, server));
        *entry = (*entry).max((seq, server));
    }
    newest
}

fn newest_per_server(gtids: &[Gtid]) -> BTreeMap<(u32, u32), u64> {
    let mut newest = BTreeMap::new();
    for &(domain, server, seq) in gtids {
        let entry = newest.entry((domain, server)).or_insert(seq);
        *entry = (*entry).max(seq);
    }
    newest
}

/// A MySQL set: source (uuid, or `uuid:tag`) to ascending, disjoint, inclusive ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Intervals(BTreeMap<String, Vec<(u64, u64)>>);

impl Intervals {
    fn parse(text: &str) -> Result<Self, BadSet> {
        let bad = || BadSet { text: text.to_owned(), flavour: Flavour::Mysql };
        let mut set = Self::default();
        // The server breaks long sets into lines.
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let uuid = pieces.next().filter(|uuid| is_uuid(uuid)).ok_or_else(bad)?.to_ascii_lowercase();
            let mut source = uuid.clone();
            for piece in pieces {
                if piece.starts_with(|c: char| c.is_ascii_digit()) {
                    let range = one_range(piece).ok_or_else(bad)?;
                    set.0.entry(source.clone()).or_default().push(range);
                } else if !piece.is_empty() {
                    source = format!("{uuid}:{}", piece.to_ascii_lowercase());
                } else {
                    return Err(bad());
                }
            }
        }
        set.normalise();
        Ok(set)
    }

    fn normalise(&mut self) {
        for ranges in self.0.values_mut() {
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
            for &(first, last) in ranges.iter() {
                match merged.last_mut() {
                    Some(previous) if first <= previous.1.saturating_add(1) => {
                        previous.1 = previous.1.max(last)
                    }
                    _ => merged.push((first, last)),
                }
            }
            *ranges = merged;
        }
        self.0.retain(|_, ranges| !ranges.is_empty());
    }

    fn minus(&self, other: &Self) -> Self {
        let none = Vec::new();
        let mut left = Self::default();
        for (source, ranges) in &self.0 {
            let taken = other.0.get(source).unwrap_or(&none);
            let rest = ranges.iter().flat_map(|range| range_minus(*range, taken)).collect();
            left.0.insert(source.clone(), rest);
        }
        left.normalise();
        left
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self) -> u64 {
        self.0.values().flatten().fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first + 1))
    }
}

impl std::fmt::Display for Intervals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (source, ranges)) in self.0.iter().enumerate() {
            write!(f, "{}{source}", if i == 0 { "" } else { "," })?;
            for (first, last) in ranges {
                f.write_char(':')?;
                if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
            }
        }
        Ok(())
    }
}

fn one_range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range: (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (range.0 >= 1 && range.0 <= range.1).then_some(range)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// What of `range` is outside `taken` (ascending and disjoint).
fn range_minus(range: (u64, u64), taken: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut first, last) = range;
    let mut rest = Vec::new();
    for &(from, to) in taken.iter().filter(|(from, to)| *to >= range.0 && *from <= last) {
        if from > first {
            rest.push((first, from - 1));
        }
        first = to.saturating_add(1);
    }
    if first <= last {
        rest.push((first, last));
    }
    rest
}

#[cfg(test)]
mod tests;
