//! The order in which things that depend on each other are started. Pure.

use std::collections::BTreeSet;

/// `items` sorted so that each comes after those that it depends on, in their given order otherwise. Dependencies on
/// what is not among them are taken as met, and a circle is broken where it begins: Compose has checked its file, and
/// a wrong order is better than no start.
#[must_use]
pub fn by_dependencies<T>(
    items: &[T],
    name: impl Fn(&T) -> String,
    depends_on: impl Fn(&T) -> Vec<String>,
) -> Vec<&T> {
    let mut left: Vec<(&T, String, Vec<String>)> =
        items.iter().map(|item| (item, name(item), depends_on(item))).collect();
    let mut ordered = Vec::with_capacity(items.len());
    while !left.is_empty() {
        let waiting: BTreeSet<String> = left.iter().map(|(_, name, _)| name.clone()).collect();
        let is_free =
            |(_, own, on): &(&T, String, Vec<String>)| on.iter().all(|on| on == own || !waiting.contains(on));
        let next = left.iter().position(is_free).unwrap_or(0);
        ordered.push(left.remove(next).0);
    }
    ordered
}

/// Services in waves: those of a wave may start side by side, once all of the waves before are healthy.
///
/// # Errors
/// The names left over, if some wait for each other in a circle or for one that is not there.
pub fn waves<T>(
    items: &[T],
    name: impl Fn(&T) -> String,
    after: impl Fn(&T) -> Vec<String>,
) -> Result<Vec<Vec<&T>>, Vec<String>> {
    let mut started: BTreeSet<String> = BTreeSet::new();
    let mut left: Vec<&T> = items.iter().collect();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let (wave, rest): (Vec<&T>, Vec<&T>) =
            left.into_iter().partition(|item| after(item).iter().all(|on| started.contains(on)));
        if wave.is_empty() {
            return Err(rest.into_iter().map(name).collect());
        }
        started.extend(wave.iter().map(|item| name(item)));
        waves.push(wave);
        left = rest;
    }
    Ok(waves)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (&'static str, &'static [&'static str]);

    fn name(item: &Item) -> String {
        item.0.to_owned()
    }

    fn on(item: &Item) -> Vec<String> {
        item.1.iter().map(|&name| name.to_owned()).collect()
    }

    fn ordered(items: &[Item]) -> Vec<&'static str> {
        by_dependencies(items, name, on).iter().map(|item| item.0).collect()
    }

    #[test]
    fn dependencies_come_first() {
        assert_eq!(
            ordered(&[("web", &["app", "cache"]), ("app", &["db"]), ("cache", &[]), ("db", &[])]),
            ["cache", "db", "app", "web"]
        );
    }

    #[test]
    fn circles_and_strangers_do_not_stop_a_start() {
        assert_eq!(ordered(&[("a", &["b"]), ("b", &["a"]), ("c", &["elsewhere"])]), ["c", "a", "b"]);
    }

    #[test]
    fn waves_start_side_by_side() {
        let items: [Item; 4] = [("web", &["app"]), ("app", &["db"]), ("cache", &[]), ("db", &[])];
        let waves = waves(&items, name, on).unwrap();
        let names: Vec<Vec<&str>> =
            waves.iter().map(|wave| wave.iter().map(|item| item.0).collect()).collect();
        assert_eq!(names, [vec!["cache", "db"], vec!["app"], vec!["web"]]);
    }

    #[test]
    fn circles_of_services_are_named() {
        let items: [Item; 3] = [("a", &["b"]), ("b", &["a"]), ("c", &[])];
        assert_eq!(waves(&items, name, on).unwrap_err(), ["a", "b"]);
    }
}
