//! Which key the parser stumbled over, and what is expected there: its words name types of values, not keys.

use super::keys::{Key, find};
use super::render;

/// One line for the operator, with an example.
pub(super) fn expected(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let (section, key) = place(text, at);
    let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    // A section that has the wrong form has no key, and an unknown key is none of ours.
    let name = missing.or(key).unwrap_or_default();
    let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    match find(&path) {
        Some((_, key)) => explain(&path, key),
        None => "look keys up with `baton config explain KEY`".to_owned(),
    }
}

fn explain(path: &str, key: &Key) -> String {
    let example = render::value(key);
    format!(
        "{path} is written as: {}; for instance: {} = {example}. `baton config explain {path}` says what it means",
        key.form, key.name
    )
}

/// Section and key of the line at `at`; the key of a line above, where a value goes over several.
fn place(text: &str, at: usize) -> (&str, Option<&str>) {
    let (mut section, mut key, mut start) = ("", None, 0);
    for line in text.split_inclusive('\n') {
        if start > at {
            break;
        }
        start += line.len();
        let line = line.trim();
        if let Some(heading) = line.strip_prefix('[').filter(|_| !line.contains('=')) {
            if let Some((name, _)) = heading.trim_start_matches('[').split_once(']') {
                (section, key) = (name.trim(), None);
            }
        } else if let Some((name, _)) = line.split_once('=') {
            key = Some(name.trim());
        }
    }
    (section, key)
}

#[cfg(test)]
mod tests {
    use super::super::raw::RawConfig;
    use super::*;

    fn hint(text: &str) -> String {
        expected(text, &toml::from_str::<RawConfig>(text).unwrap_err())
    }

    #[test]
    fn what_is_expected_is_said_for_the_key() {
        let head = "cluster = \"shop\"\ninitial_holder = \"db1\"\n";
        for (text, words) in [
            ("cluster = 3\n", "cluster is written as: name; for instance: cluster = \"shop\"."),
            (
                "[timing]\nrenew = 200\n",
                "timing.renew is written as: span, \"1200ms\" or \"1.2s\"; for instance: renew = \"200ms\".",
            ),
            ("[timing]\nlease = \"1s\"\nrenew = \"soon\"\n", "timing.renew is written as"),
            (
                "[[node]]\nname = \"db1\"\nkind = \"date\"\n",
                "node.kind is written as: \"data\" or \"witness\"; for instance: kind = \"data\".",
            ),
            ("[[node]]\nname = \"db1\"\nkind = \"data\"\n", "node.address is written as: IP address;"),
            ("[[vip]]\naddress = \"10.0.0.1\"\n", "vip.address is written as: IP address/prefix length;"),
            ("[mysql]\nstart = [\n  \"/bin/true\",\n  7,\n]\n", "mysql.start is written as: list"),
            ("[mysql]\nprot = 3306\n", "look keys up with"),
        ] {
            let text = if text.starts_with("cluster") { text.to_owned() } else { format!("{head}{text}") };
            let hint = hint(&text);
            assert!(hint.starts_with(words), "{hint:?} should begin with {words:?} for {text}");
        }
    }
}
