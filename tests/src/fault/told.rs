//! The evidence that must stand beside the code of a refusal.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The reasons of this code, of all agents that answered.
fn of(refusals: &[String], code: &str) -> Vec<Value> {
    let parsed = refusals.iter().filter_map(|refusal| serde_json::from_str::<Vec<Value>>(refusal).ok());
    parsed.flatten().filter(|why| why["why"] == code).collect()
}

/// A replica that may lack acknowledged writes: by how many canaries, which are written once a second, and where both are.
///
/// # Errors
/// No agent told it.
pub fn by_how_much(refusals: &[String]) -> Result<()> {
    let behind = |why: &Value| -> Option<bool> {
        let words = why["behind"].as_str()?;
        let canaries: u64 = words.split(" canaries behind").next()?.rsplit(' ').next()?.parse().ok()?;
        let (here, there) = words.split_once("position ")?.1.split_once(" of ")?;
        Some(canaries > 0 && here != there)
    };
    let told = of(refusals, "candidate-not-in-sync").iter().any(|why| behind(why) == Some(true));
    ensure!(told, "no agent said by how much the replica is behind, but {refusals:?}");
    Ok(())
}

/// A pair that lost each other: who does not hear the holder, and that the witness does.
///
/// # Errors
/// No agent told it.
pub fn from_whom(refusals: &[String]) -> Result<()> {
    let why =
        of(refusals, "unreachable").pop().with_context(|| format!("nobody is unreachable: {refusals:?}"))?;
    let from: Vec<&str> = why["from"].as_object().into_iter().flatten().map(|(by, _)| by.as_str()).collect();
    let one = from.len() == 1 && from[0] != "mon" && why["node"] != from[0];
    ensure!(one && why["heard_by"] == serde_json::json!(["mon"]), "not the pair that is cut: {why}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(words: &str) -> Vec<String> {
        vec![format!(
            r#"[{{"why":"lease-ended"}},{{"why":"candidate-not-in-sync","node":"db2","behind":"{words}"}}]"#
        )]
    }

    #[test]
    fn how_much_is_a_number_and_two_positions() {
        let since = "out of sync since generation 4 (no word for 1400 ms)";
        assert!(
            by_how_much(&behind(&format!("{since}, 2 canaries behind, position 0-1-7 of 0-1-9"))).is_ok()
        );
        assert!(
            by_how_much(&behind(&format!("{since}, 0 canaries behind, position 0-1-7 of 0-1-9"))).is_err()
        );
        assert!(
            by_how_much(&behind(&format!("{since}, 2 canaries behind, position 0-1-7 of 0-1-7"))).is_err()
        );
        assert!(by_how_much(&behind(since)).is_err());
        assert!(by_how_much(&[]).is_err());
    }

    #[test]
    fn a_pair_is_two_and_the_witness() {
        let why = |from: &str, heard: &str| {
            vec![format!(r#"[{{"why":"unreachable","node":"db1","from":{from},"heard_by":{heard}}}]"#)]
        };
        assert!(from_whom(&why(r#"{"db2":1300}"#, r#"["mon"]"#)).is_ok());
        assert!(from_whom(&why(r#"{"db2":1300,"mon":9}"#, "[]")).is_err());
        assert!(from_whom(&why(r#"{"mon":1300}"#, r#"["db2"]"#)).is_err());
        assert!(from_whom(&[]).is_err());
    }
}
