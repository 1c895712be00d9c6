//! Verdicts on other nodes: who is unreachable, and from whom.
//!
//! A node that only some do not hear is alive, and the network between those is to be looked at; one that nobody hears may be
//! off. Neither takes the baton from anybody: that is for the lease to say.

use std::collections::BTreeMap;

use crate::decide::Heard;
use crate::model::{Mono, NodeId};

/// What the nodes that speak say of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Who hears it.
    pub heard_by: Vec<NodeId>,
    /// Who does not, each with milliseconds since the last time; `None`: never.
    pub unheard_by: BTreeMap<NodeId, Option<u64>>,
    /// Everybody who has a say, with milliseconds since the last time; `None`: never.
    pub last_ms: BTreeMap<NodeId, Option<u64>>,
}

impl Sight {
    /// Of `node`, by this node `me` and by every other one whose report is not older than `max_ms`. What they heard counts on
    /// from then. An agent that started within `max_ms` and has heard nothing yet has no say.
    #[must_use]
    pub fn of(node: &NodeId, me: &NodeId, reports: &BTreeMap<NodeId, Heard>, now: Mono, max_ms: u64) -> Self {
        let mut sight = Self::default();
        if me != node {
            let up_ms = reports.get(me).and_then(|own| own.report.up_ms);
            let last_ms = reports.get(node).map(|heard| now.since_ms(heard.at));
            sight.note(me, last_ms, up_ms, max_ms);
        }
        for (by, heard) in reports.iter().filter(|(by, _)| *by != node && *by != me) {
            let age_ms = now.since_ms(heard.at);
            if age_ms <= max_ms {
                let last_ms = heard.report.heard_ms.get(node).map(|ms| ms.saturating_add(age_ms));
                sight.note(by, last_ms, heard.report.up_ms.map(|ms| ms.saturating_add(age_ms)), max_ms);
            }
        }
        sight
    }

    fn note(&mut self, by: &NodeId, last_ms: Option<u64>, up_ms: Option<u64>, max_ms: u64) {
        let has_started = up_ms.is_some_and(|ms| ms <= max_ms);
        match last_ms {
            None if has_started => return,
            Some(ms) if ms <= max_ms => self.heard_by.push(by.clone()),
            unheard => {
                self.unheard_by.insert(by.clone(), unheard);
            }
        }
        self.last_ms.insert(by.clone(), last_ms);
    }

    /// Some do not hear it.
    #[must_use]
    pub fn is_obscured(&self) -> bool {
        !self.unheard_by.is_empty()
    }

    /// Some do not hear it and others do: the network between them is broken.
    #[must_use]
    pub fn is_divided(&self) -> bool {
        self.is_obscured() && !self.heard_by.is_empty()
    }
}
