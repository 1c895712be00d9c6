//! Unit tests of the configuration.

use super::keys::{Occurs, Preset, SECTIONS};
use super::*;

const MINIMAL: &str = r#"
cluster = "shop"
initial_holder = "db1"
[[node]]
name = "db1"
kind = "data"
address = "10.77.0.11"
[[node]]
name = "db2"
kind = "data"
address = "10.77.0.12"
[[node]]
name = "mon"
kind = "witness"
address = "10.77.0.13"
[[vip]]
address = "10.77.0.100/24"
interface = "eth0"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "baton.toml", &"db1".into())
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

fn only_problem(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

/// `MINIMAL` with `tail` appended.
fn with(tail: &str) -> String {
    format!("{MINIMAL}\n{tail}\n")
}

#[test]
fn example_is_valid_on_every_node() {
    for node in ["db1", "db2", "mon"] {
        let config = Config::parse(&example(), "example", &node.into()).unwrap();
        assert_eq!(config.pki.cert, PathBuf::from(format!("/etc/baton/pki/{node}.pem")));
        assert_eq!(config.guarded_ports(), [3306, 6379]);
    }
}

/// The example with every key written says the same as a file that writes only what it must.
#[test]
fn documented_defaults_are_the_real_ones() {
    let tail = "[mysql]\n[redis]\n[docker]\n[[service]]\nname = \"web\"\ncontainer = \"web\"\n";
    let short = parse(&with(tail)).unwrap();
    let mut long = parse(&example()).unwrap();
    long.hash.clone_from(&short.hash);
    assert_eq!(long, short);
}

/// Every key of the parser stands in the table and the other way round.
#[test]
fn table_has_the_parsers_keys() {
    let text: String = example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // The service of the example has its container already; the project's key is checked all the same.
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let raw: RawConfig = toml::from_str(&text).unwrap();
    let json = serde_json::to_value(&raw).unwrap();
    for section in SECTIONS {
        let keys = match section.occurs {
            Occurs::Top => continue,
            Occurs::Once | Occurs::Optional => &json[section.name],
            Occurs::Repeated(_) => &json[section.name][0],
        };
        let mut parsed: Vec<&str> =
            keys.as_object().unwrap().iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.as_str()).collect();
        let mut table: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        parsed.sort_unstable();
        table.sort_unstable();
        assert_eq!(parsed, table, "section {}", section.name);
    }
    let mut top: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut table: Vec<&str> = SECTIONS.iter().map(|s| s.name).filter(|name| !name.is_empty()).collect();
    table.extend(SECTIONS[0].keys.iter().map(|key| key.name));
    top.sort_unstable();
    table.sort_unstable();
    assert_eq!(top, table);
}

fn is_key(word: &str) -> bool {
    SECTIONS
        .iter()
        .flat_map(|s| s.keys)
        .any(|key| key.name == word && !matches!(key.preset, Preset::Required(_)))
}

#[test]
fn profiles_keep_every_rule() {
    for profile in Profile::ALL {
        let timing = profile.timing();
        assert_eq!(timing.problems(), [], "{}", profile.as_str());
        assert!(timing.regrant_ms() < timing.kernel_lease_ms());
    }
    assert_eq!(Profile::Standard.timing().regrant_ms(), 987);
    assert_eq!(Profile::Standard.timing().new_leader_wait_ms(), 1_470);
}

#[test]
fn leader_loss_that_would_close_the_holder_is_refused_with_both_values() {
    assert_eq!(
        only_problem(&with("[timing]\nelection_max = \"300ms\"")),
        "timing.election_max = 300ms: breaks 2·election_max + 13/64·heartbeat + 4·rtt + 3·fsync + 2·renew < lease − \
         age_max (here 1067 and 1000) with timing.lease = 1200ms, timing.renew = 200ms, timing.age_max = 200ms, \
         timing.heartbeat = 80ms, timing.rtt = 5ms, timing.fsync = 10ms: losing the Raft leader would close a healthy \
         holder: the kernel's lease (lease − age_max) would end before a new leader can grant. To mend it: shorten \
         timing.election_max or timing.renew, or lengthen timing.lease"
    );
}

/// Each rule is broken by one override, and the refusal stands under the rule's key.
#[test]
fn every_rule_is_checked() {
    let broken = [
        ("election_max", "election_max = \"300ms\""),
        ("renew", "renew = \"334ms\""),
        ("age_max", "age_max = \"600ms\""),
        ("age_max", "age_max = \"174ms\""),
        ("margin", "margin = \"139ms\""),
        ("sync_patience", "sync_patience = \"1399ms\""),
        ("address_lifetime", "address_lifetime = \"1s\""),
        ("election_min", "election_min = \"239ms\""),
        ("election_max", "election_max = \"239ms\""),
        ("heartbeat", "heartbeat = \"40ms\""),
    ];
    assert_eq!(broken.len(), RULES.len());
    for ((key, line), rule) in broken.iter().zip(RULES) {
        let found = problems(&with(&format!("[timing]\n{line}")));
        let hit = found.iter().any(|p| p.key == format!("timing.{key}") && p.wrong.contains(rule.text));
        assert!(hit, "{line} should break {}: {found:?}", rule.text);
    }
}

#[test]
fn values_on_the_edge_are_taken() {
    for line in
        ["margin = \"140ms\"", "sync_patience = \"1.4s\"", "renew = \"206ms\"\nsync_patience = \"1406ms\""]
    {
        let outcome = parse(&with(&format!("[timing]\n{line}")));
        assert!(outcome.is_ok(), "{line}: {outcome:?}");
    }
}

#[test]
fn spans_are_whole_milliseconds() {
    assert_eq!(parse(&with("[timing]\nanti_flap = \"1m 30s\"")).unwrap().timing.anti_flap, Ms(90_000));
    for (span, ms) in [("1d", 86_400_000), ("1d 12h", 129_600_000), ("0d 5ms", 5), ("2h", 7_200_000)] {
        assert_eq!(span.parse(), Ok(Ms(ms)), "{span}");
    }
    for span in ["d", "0d", "1.5d", "1 day", "99999999999d", ""] {
        assert!(span.parse::<Ms>().is_err(), "{span}");
    }
    for (span, words) in [
        ("\"0.5ms\"", "whole number of milliseconds"),
        ("\"-1s\"", "cannot be negative"),
        ("\"soon\"", "is not a span; write numbers with ms, s, m, h or d"),
        ("200", "expected a string"),
    ] {
        let error = parse(&with(&format!("[timing]\nrenew = {span}"))).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("line "), "{error}");
    }
    assert!(only_problem(&with("[timing]\nrtt = \"0s\"")).contains("write a span between 1ms and 24h"));
    assert!(
        only_problem(&with("[timing]\naddress_lifetime = \"2500ms\"")).contains("whole number of seconds")
    );
}

#[test]
fn unknown_key_is_shown_with_its_line() {
    let error = parse(&with("[timing]\nleese = \"1s\"")).unwrap_err().to_string();
    assert!(
        error.contains("baton.toml: ") && error.contains("leese = ") && error.contains("line 21"),
        "{error}"
    );
    assert!(error.contains("unknown field `leese`"), "{error}");
}

#[test]
fn unknown_node_gets_the_list_of_names() {
    let error = Config::parse(MINIMAL, "baton.toml", &"web9".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "baton.toml: no [[node]] is called \"web9\"; the names are db1, db2, mon. Say which node this is with --node"
    );
}

#[test]
fn cluster_needs_two_data_nodes_and_one_witness() {
    let two = MINIMAL.replace("kind = \"witness\"", "kind = \"data\"");
    let found = problems(&two);
    assert!(found.iter().any(|p| p.wrong == "there are 3 data nodes, and it takes exactly two"), "{found:?}");
    assert!(found.iter().any(|p| p.wrong.starts_with("there are 0 witnesses")), "{found:?}");
}

#[test]
fn names_and_addresses_are_unique_and_sane() {
    let cases = [
        (MINIMAL.replace("name = \"db2\"", "name = \"db1\""), "node.name = db1: is used twice"),
        (MINIMAL.replace("10.77.0.12", "10.77.0.11"), "node.address = 10.77.0.11: is used twice"),
        (
            MINIMAL.replace("10.77.0.12", "127.0.0.1"),
            "node.address = 127.0.0.1: is not the address of a host",
        ),
        (MINIMAL.replace("name = \"db2\"", "name = \"../x\""), "node.name = ../x: is not a plain name"),
        (
            MINIMAL.replace("initial_holder = \"db1\"", "initial_holder = \"mon\""),
            "initial_holder = mon: is the witness",
        ),
        (
            MINIMAL.replace("10.77.0.100/24", "10.77.0.12/24"),
            "vip.address = 10.77.0.12/24: is the own address of db2",
        ),
        (
            MINIMAL.replace("10.77.0.100/24", "10.77.0.255/24"),
            "vip.address = 10.77.0.255/24: is not an address that a host",
        ),
        (
            MINIMAL.replace("eth0", "a-much-too-long-name"),
            "vip.interface = a-much-too-long-name: is not the name",
        ),
        (MINIMAL.split("[[vip]]").next().unwrap().to_owned(), "vip: there is no [[vip]]"),
        (
            with("[transport]\nraft_port = 7401"),
            "transport.lease_port = 7401: is transport.raft_port already",
        ),
        (with("[mysql]\nport = 0"), "mysql.port = 0: is not a port"),
        (with("[mysql]\nport = 6379\n[redis]"), "redis.port = 6379: is mysql.port already"),
        (with("[mysql]\nsocket = \"mysqld.sock\""), "mysql.socket = mysqld.sock: is not an absolute path"),
        (
            with("[drill]\npassword_file = \"drill.pw\""),
            "drill.password_file = drill.pw: is not an absolute path",
        ),
        (
            with(
                "[docker]\n[[service]]\nname = \"web\"\ncontainer = \"web\"\nruns_on = \"replica\"\nports = [8080]",
            ),
            "service.ports (web) = 8080: would be closed at all times",
        ),
        (with("[mysql]\nschema = \"a`b\""), "mysql.schema = a`b: is not a plain schema name"),
        (with("[hooks]\nfence = [\"fence.sh\"]"), "hooks.fence = fence.sh: is not an absolute path"),
        (
            with("[[service]]\nname = \"web\"\ncontainer = \"web\""),
            "docker: there is a [[service]] but no [docker]",
        ),
        (with("[docker]\n[[service]]\nname = \"web\""), "service.container = web: has not exactly one of"),
    ];
    for (text, words) in cases {
        let problem = only_problem(&text);
        assert!(problem.starts_with(words), "{problem:?} should begin with {words:?}");
        assert!(problem.contains("To mend it: "), "{problem}");
    }
}

/// All 32 addresses must be free ones of the virtual IP's network.
#[test]
fn senders_of_a_drill_are_nobodys_addresses() {
    let drill = |first: &str| with(&format!("[drill]\narp_senders = \"{first}\""));
    assert!(parse(&drill("10.77.0.101")).is_ok());
    assert!(parse(&drill("10.77.0.223")).is_ok(), "up to .254");
    for (first, words) in [
        ("10.78.0.1", "does not begin 32 addresses inside 10.77.0.0/24"),
        ("10.77.0.225", "does not begin 32 addresses inside 10.77.0.0/24"),
        ("255.255.255.250", "does not begin 32 addresses inside 10.77.0.0/24"),
        ("10.77.0.224", "10.77.0.255, the broadcast address"),
        ("10.77.0.0", "10.77.0.0, the network's own address"),
        ("10.77.0.100", "10.77.0.100, a vip.address"),
        ("10.77.0.69", "up to 10.77.0.100, among which is 10.77.0.100, a vip.address"),
        ("10.77.0.13", "10.77.0.13, a node.address"),
    ] {
        let problem = only_problem(&drill(first));
        assert!(problem.starts_with(&format!("drill.arp_senders = {first}: ")), "{problem}");
        assert!(problem.contains(words), "{problem} should contain {words}");
    }
    let gateway = drill("10.77.0.200").replace("eth0\"", "eth0\"\ngateway = \"10.77.0.231\"");
    assert!(only_problem(&gateway).contains("10.77.0.231, a vip.gateway"));
    let six = drill("10.77.0.200").replace("10.77.0.100/24", "fd00::100/64");
    assert!(only_problem(&six).contains("there is no IPv4 virtual IP"));
}

#[test]
fn services_are_ordered_and_circles_refused() {
    let service = |name: &str, after: &str| {
        format!("[[service]]\nname = \"{name}\"\ncontainer = \"{name}\"\nafter = {after}\n")
    };
    let chain =
        format!("[docker]\n{}{}{}", service("c", "[\"b\"]"), service("b", "[\"a\"]"), service("a", "[]"));
    let order: Vec<String> = parse(&with(&chain)).unwrap().services.into_iter().map(|s| s.name).collect();
    assert_eq!(order, ["a", "b", "c"]);
    let circle = format!("[docker]\n{}{}", service("b", "[\"a\"]"), service("a", "[\"b\"]"));
    assert!(only_problem(&with(&circle)).contains("wait for each other in a circle"));
    let missing = format!("[docker]\n{}", service("b", "[\"ghost\"]"));
    assert!(only_problem(&with(&missing)).starts_with("service.after (b) = ghost: is not the name"));
}

#[test]
fn paths_are_resolved_for_the_node() {
    let config = parse(&with("[paths]\nstate = \"/srv/{node}/state\"\nrun = \"/srv/{node}/run\"\n")).unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/srv/db1/state"));
    assert_eq!(config.socket(), PathBuf::from("/srv/db1/run/baton.sock"));
    assert_eq!(config.other_data_node().name, "db2".into());
    assert_eq!(config.witness().name, "mon".into());
    assert_eq!(config.raft_address(config.this()).to_string(), "10.77.0.11:7400");
}

#[test]
fn hash_follows_values_only() {
    let hash = parse(MINIMAL).unwrap().hash;
    assert_eq!(parse(&format!("# a comment\n{MINIMAL}")).unwrap().hash, hash);
    assert_ne!(parse(&MINIMAL.replace("eth0", "eth1")).unwrap().hash, hash);
    let other = Config::parse(MINIMAL, "baton.toml", &"mon".into()).unwrap();
    assert_eq!(other.hash, hash, "the same file has the same hash on every node");
}

#[test]
fn passwords_are_read_when_wanted_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    let text = with(&format!("[mysql]\npassword_file = \"{}\"", file.display()));
    let mysql = parse(&text).unwrap().mysql.unwrap();
    let missing = mysql.read_password().unwrap_err().to_string();
    assert!(
        missing.starts_with("cannot read mysql.password_file = ") && missing.contains("remove the key"),
        "{missing}"
    );
    std::fs::write(&file, "s3cret\n").unwrap();
    let secret = mysql.read_password().unwrap();
    assert_eq!(secret.expose(), "s3cret");
    assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    assert_eq!(mysql.read_replication_password().unwrap().expose(), "");
}

#[test]
fn explain_knows_keys_sections_and_near_misses() {
    let lease = explain("timing.lease").unwrap();
    assert!(lease.contains("if absent: fast 450ms, standard 1200ms, relaxed 3s"), "{lease}");
    assert!(lease.contains("must hold: lease + renew ≤ sync_patience"), "{lease}");
    assert!(explain("cluster").unwrap().contains("if absent: must be written"));
    assert!(explain("redis").unwrap().contains("redis.socket"));
    let near = explain("lease").unwrap_err();
    assert!(near.contains("timing.lease") && near.contains("transport.lease_port"), "{near}");
    assert!(explain("nonsense").unwrap_err().contains("baton config default"));
}

#[test]
fn programs_get_the_same_of_a_key_a_section_and_all_keys() {
    let lease = entries(Some("timing.lease")).unwrap();
    let [lease] = &lease[..] else { panic!("{lease:?}") };
    assert_eq!(
        (lease.key.as_str(), lease.if_absent.as_str()),
        ("timing.lease", "fast 450ms, standard 1200ms, relaxed 3s")
    );
    assert!(lease.must_hold.contains(&"lease + renew ≤ sync_patience"), "{lease:?}");
    let redis = entries(Some("redis")).unwrap();
    assert!(redis.len() > 1 && redis.iter().all(|entry| entry.key.starts_with("redis.")), "{redis:?}");
    let all: Vec<String> = entries(None).unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(all, all_keys().lines().collect::<Vec<_>>());
    assert_eq!(entries(Some("lease")).unwrap_err(), explain("lease").unwrap_err());
}

#[test]
fn socket_is_found_in_a_file_that_is_not_valid() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("baton.toml");
    std::fs::write(&file, "cluster = \"\"\ninitial_holder = \"\"\n[paths]\nrun = \"/run/b-{node}\"\n")
        .unwrap();
    assert_eq!(socket_of(&file, &"db2".into()).unwrap(), PathBuf::from("/run/b-db2/baton.sock"));
    let missing = socket_of(&dir.path().join("none.toml"), &"db2".into()).unwrap_err();
    assert!(missing.to_string().contains("baton config default"));
}

#[test]
fn a_command_that_cuts_the_power_is_absolute_and_only_for_l5() {
    let none = ["", "[drill]\nallow = \"L5\"", "[drill]\npower_off = []"];
    for tail in none {
        assert_eq!(parse(&with(tail)).unwrap().drill.power_off, None, "{tail}");
    }
    let config = parse(&with("[drill]\nallow = \"L5\"\npower_off = [\"/bin/off\", \"{node}\"]")).unwrap();
    let hook = config.drill.power_off.unwrap();
    assert_eq!((hook.program, hook.args), (PathBuf::from("/bin/off"), vec!["db1".to_owned()]));
    for (tail, says) in [
        ("[drill]\npower_off = [\"/bin/off\"]", "drill.allow is L2"),
        ("[drill]\nallow = \"L4\"\npower_off = [\"/bin/off\"]", "drill.allow is L4"),
        ("[drill]\nallow = \"L5\"\npower_off = [\"off\"]", "is not an absolute path"),
    ] {
        let problem = only_problem(&with(tail));
        assert!(problem.contains("drill.power_off") && problem.contains(says), "{problem}");
    }
    assert!(parse(&with("[drill]\nallow = \"L5\"\npower_off = \"/bin/off\"")).is_err(), "a line for a shell");
    let other = parse(&with("[drill]\nallow = \"L5\"\npower_off = [\"/bin/off\"]")).unwrap();
    assert_eq!(other.hash, parse(MINIMAL).unwrap().hash, "it is this node's own word");
}
