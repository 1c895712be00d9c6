//! The scene: everything that a script can set up, and the words that steer it. The words themselves stand in
//! `ledger_words`, `lease_words`, `preflight_words` and `sight_words`, by what they speak of.

use std::collections::BTreeMap;
use std::str::FromStr;

use baton_runbooks::decide::loss::Canaries;
use baton_runbooks::decide::{Failure, Heard, Policy};
use baton_runbooks::detect::{Detector, Patience};
use baton_runbooks::exposure::Following;
use baton_runbooks::lease::Terms;
use baton_runbooks::lease::granter::{Granter, Office};
use baton_runbooks::lease::holder::Holder;
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{Epoch, Instance, Mono, NodeId, Term};
use baton_runbooks::observe::{Flavour, MysqlFacts, Observation, ReplicationFacts, SemiSyncFacts};
use baton_runbooks::plan::Step;
use baton_runbooks::run::table::Scope;
use baton_runbooks::sync::Keeper;
use datadriven::TestCase;

pub const TERMS: Terms = Terms { lease_ms: 1_200, renew_ms: 200, margin_ms: 150, age_max_ms: 400, slots: 4 };

/// Everything that a script works on. The clock starts at 10 s.
pub struct Scene {
    pub now: Mono,
    pub me: NodeId,
    pub ledger: Ledger,
    pub office: Office,
    /// Age of the newest quorum acknowledgement; `None`: there was none.
    pub ack_age_ms: Option<u64>,
    pub granter: Granter,
    pub holder: Holder,
    pub policy: Policy,
    pub reports: BTreeMap<NodeId, Heard>,
    pub canaries: Canaries,
    pub following: Following,
    pub ready_since: BTreeMap<Step, Mono>,
    pub failures: Vec<Failure>,
    pub detector: Detector,
    /// What was observed since `obstacles` was last asked for.
    pub seen: Vec<Observation>,
    pub held: Option<(Epoch, Mono)>,
    pub keeper: Keeper,
    pub primary: (Mono, MysqlFacts),
    pub replica: (Mono, MysqlFacts),
    pub canary: (u64, u64),
}

impl Default for Scene {
    fn default() -> Self {
        let mut primary = mysql("1@1");
        primary.read_only = false;
        let mut replica = mysql("2@1");
        replica.instance.threads = "5/6".to_owned();
        replica.semi_sync.replica_enabled = true;
        replica.semi_sync.replica_on = true;
        replica.replication = Some(ReplicationFacts {
            source_host: "10.0.0.1".to_owned(),
            source_port: 3306,
            io_running: true,
            receiver_alive: true,
            sql_running: true,
            io_errno: 0,
            sql_errno: 0,
            error: String::new(),
            received: "0-1-7".to_owned(),
        });
        Self {
            now: Mono(10_000),
            me: NodeId::from("mon"),
            ledger: Ledger::default(),
            office: Office {
                is_leader: true,
                term: Term(1),
                leader: Some(NodeId::from("mon")),
                elected_at: Some(Mono(1_000)),
                own_term_applied: true,
                quorum_acked_at: None,
                append_pending_since: None,
            },
            ack_age_ms: Some(10),
            granter: Granter::new(NodeId::from("mon"), TERMS),
            holder: Holder::new(NodeId::from("db1"), TERMS, 1),
            policy: policy(),
            reports: BTreeMap::new(),
            canaries: Canaries::default(),
            following: Following::default(),
            ready_since: BTreeMap::new(),
            failures: Vec::new(),
            detector: Detector::new(patience()),
            seen: Vec::new(),
            held: None,
            keeper: Keeper::new(1_400, 700),
            primary: (Mono(10_000), primary),
            replica: (Mono(10_000), replica),
            canary: (0, 0),
        }
    }
}

impl Scene {
    /// One word of the script.
    pub fn obey(&mut self, word: &str, case: &mut TestCase) -> Result<String, String> {
        let printed = match word {
            "advance" => self.advance(arg(case, "ms")?),
            "office" => self.set_office(case)?,
            "cluster" | "apply" | "force" | "run" | "next" => self.ledger_word(word, case)?,
            "grant" | "takeover" | "end" | "go-on" | "surrender" | "appoint" | "open" | "close"
            | "ticket" | "renew" | "accept" | "long-ticket" | "renew-long" | "adopt-long" | "drop-long"
            | "held" => self.lease_word(word, case)?,
            "observe" | "report" | "decide" | "local" | "obstacles" | "primary" | "replica" | "canary"
            | "settle" | "keep" | "failed" | "ready" => self.sight_word(word, case)?,
            "preflight" => self.preflight(case)?,
            other => return Err(format!("no such word: {other}")),
        };
        Ok(if printed.is_empty() { "ok\n".to_owned() } else { format!("{}\n", printed.trim_end()) })
    }

    fn advance(&mut self, ms: u64) -> String {
        self.now = self.now.plus_ms(ms);
        format!("it is {}", self.now)
    }

    fn set_office(&mut self, case: &mut TestCase) -> Result<String, String> {
        if let Some(me) = text(case, "me")? {
            self.me = NodeId::from(me.as_str());
        }
        if let Some(leader) = text(case, "leader")? {
            self.office.is_leader = leader == self.me.as_str();
            self.office.leader = (leader != "none").then(|| NodeId::from(leader.as_str()));
        }
        if let Some(term) = maybe(case, "term")? {
            self.office.term = Term(term);
            self.office.elected_at = Some(self.now);
        }
        if let Some(applied) = text(case, "own-term-applied")? {
            self.office.own_term_applied = applied == "yes";
        }
        if let Some(age) = text(case, "acked-ms-ago")? {
            self.ack_age_ms = age.parse().ok();
        }
        if let Some(ms) = maybe::<u64>(case, "append-pending-ms")? {
            self.office.append_pending_since = (ms > 0).then(|| self.now.minus_ms(ms));
        }
        Ok(String::new())
    }

    /// The office with an acknowledgement of the age that the script wants.
    pub fn present_office(&self) -> Office {
        Office { quorum_acked_at: self.ack_age_ms.map(|ms| self.now.minus_ms(ms)), ..self.office.clone() }
    }
}

fn policy() -> Policy {
    Policy {
        scope: Scope { mysql: true, independent_services: false, services: true },
        report_max_ms: 700,
        quorum_max_ms: 600,
        anti_flap_ms: 60_000,
        anti_flap_max: 2,
        cold_start_ms: 30_000,
    }
}

pub fn patience() -> Patience {
    Patience {
        refused_count: 2,
        hung_ms: 1_000,
        stalled_ms: 1_500,
        disk_free_min: 1_000,
        settle_ms: 1_200,
        service_lost_ms: 25_000,
        link_lost_ms: 300,
    }
}

/// A healthy database that nobody replicates from or to.
pub fn mysql(server: &str) -> MysqlFacts {
    MysqlFacts {
        flavour: Flavour::Mariadb,
        version: "10.11".to_owned(),
        instance: Instance { boot: "b1".to_owned(), server: server.to_owned(), threads: String::new() },
        read_only: true,
        executed: "0-1-7".to_owned(),
        position: "0-1-7".to_owned(),
        replication: None,
        semi_sync: SemiSyncFacts { variables_as_wanted: true, ..SemiSyncFacts::default() },
        canary_applied: 0,
        apply_backlog: Some(0),
        sessions: 1,
    }
}

/// An argument that must be there.
pub fn arg<T: FromStr>(case: &mut TestCase, name: &str) -> Result<T, String> {
    maybe(case, name)?.ok_or_else(|| format!("{} wants {name}=", case.directive))
}

/// An argument that may be there.
pub fn maybe<T: FromStr>(case: &mut TestCase, name: &str) -> Result<Option<T>, String> {
    let Some(values) = case.args.remove(name) else { return Ok(None) };
    let value = values.first().ok_or_else(|| format!("{name} has no value"))?;
    value.parse().map(Some).map_err(|_| format!("{name}={value} cannot be read"))
}

pub fn text(case: &mut TestCase, name: &str) -> Result<Option<String>, String> {
    maybe(case, name)
}

pub fn node(case: &mut TestCase, name: &str) -> Result<Option<NodeId>, String> {
    Ok(text(case, name)?.map(|name| NodeId::from(name.as_str())))
}
