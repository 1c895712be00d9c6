//! A whole cluster as its agents describe it, for tests of the runner's pure parts.

use baton_node::api::drill::DrillView;
use baton_node::api::types::{ServiceRow, Status};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// db1 holds and db2 is in sync; mon is asked, and leads.
pub fn status() -> Status {
    let row = |name: &str, kind: &str, role: &str| {
        json!({
            "name": name, "kind": kind, "role": role, "state": "well", "serving": name == "db1", "mysql": Value::Null,
            "redis": Value::Null, "lag_ms": Value::Null, "obstacles": [], "heard_ms_ago": 5, "silent": false,
            "version": "1", "config_matches": true,
        })
    };
    let status = json!({
        "at": "2026-01-01T00:00:00Z", "node": "mon", "cluster": "shop", "version": "1", "epoch": 1, "holder": "db1",
        "leader": "mon", "term": 1, "sync": {"state": "in-sync", "replica": "db2"},
        "lease": {"valid_ms": 900, "length_ms": 1_200, "renewed_ms_ago": 100},
        "nodes": [row("db1", "data", "holder"), row("db2", "data", "replica"), row("mon", "witness", "witness")],
        "run": Value::Null, "alarms": [], "ok": true, "sentence": "A takeover would work now.",
    });
    serde_json::from_value(status).expect("the form of a status")
}

/// The same; db1 says of each of its services, `web0` and so on, how it is.
pub fn with_services(states: &[&str]) -> Status {
    let row = |(index, state): (usize, &&str)| ServiceRow {
        name: format!("web{index}"),
        state: (*state).to_owned(),
    };
    let mut status = status();
    status.nodes[0].services = Some(states.iter().enumerate().map(row).collect());
    status
}

/// What a node says that allows everything.
pub fn view(node: &str) -> DrillView {
    let view = json!({
        "node": node, "at": "2026-01-01T00:00:00Z", "version": "1", "allow": "L5", "cooldown_left_ms": 0,
        "duration_max_ms": 120_000, "drills": 0,
    });
    serde_json::from_value(view).expect("the form of an older agent's view")
}

/// One request to an agent, whole, in small letters.
pub async fn request(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4_096];
        let read = stream.read(&mut some).await.unwrap();
        bytes.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse::<usize>().unwrap()) {
                return text;
            }
        }
        assert_ne!(read, 0, "half a request: {text}");
    }
}
