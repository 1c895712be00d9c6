//! The reconciler's hands: they make a node what the newest wish says, whatever they find, again and again.

use baton_runbooks::agent::Input;
use baton_runbooks::decide::local::{Role, Wish};
use baton_runbooks::lease::holder::Door;
use baton_runbooks::sync::Keep;

use super::event::Event;
use super::node::NAMES;
use super::planted::Planted;
use super::world::World;

/// Both doors.
pub const BOTH: [Door; 2] = [Door::Vip, Door::Ports];

/// Milliseconds by which a planted bug sets semi-sync late.
const LATE_SOURCE_MS: u64 = 250;

impl World {
    /// Closes what is to be closed, then opens what may be open.
    pub(super) fn reconcile(&mut self, node: usize) {
        let Some(wish) = self.nodes[node].wish.clone() else { return };
        if self.has(Planted::ReleaseBeforeClosing) && self.keeps_open_while_releasing(node, &wish) {
            return;
        }
        if self.appoint(node, wish.renew) && self.has(Planted::SurrenderBeforeClosing) {
            return;
        }
        match &wish.role {
            Role::Witness | Role::Acquiring { .. } | Role::Receiving { .. } => {}
            Role::Closed { follow } => {
                self.close(node, &BOTH);
                let source = follow.as_ref().and_then(|name| NAMES.iter().position(|n| *n == name.as_str()));
                self.close_redis(node, source);
                if self.db(node).answers(self.now) {
                    self.close_database(node);
                    if let Some(source) = source {
                        self.follow(node, source);
                    }
                }
            }
            Role::Serving { ports, semi_sync, redis, .. } => {
                self.open(node, Door::Vip);
                let stays_closed = self.has(Planted::PortsStayClosed) && self.healed_at.is_some();
                if !*ports || stays_closed {
                    self.close(node, &[Door::Ports]);
                    return;
                }
                if self.is_judged(node, redis.as_deref()) {
                    self.serve_redis(node);
                }
                if self.db(node).answers(self.now) {
                    self.open_database(node, *semi_sync);
                    self.db_mut(node).detach();
                    self.open(node, Door::Ports);
                }
            }
        }
    }

    /// Planted: the release is on its way, or applied, and the doors are still as they were.
    fn keeps_open_while_releasing(&self, node: usize, wish: &Wish) -> bool {
        let holder = self.nodes[node].holder.epoch();
        let released = self.applied(node).has_released();
        holder.is_some() && (wish.release.is_some() || released)
    }

    pub(super) fn close_database(&mut self, node: usize) {
        let db = self.db_mut(node);
        db.read_only = true;
        db.origin = None;
    }

    /// A replica again, if it has nothing that the other lacks.
    fn follow(&mut self, node: usize, other: usize) {
        if self.has(Planted::ReplicaStaysAway) && self.healed_at.is_some() {
            return;
        }
        let source = &self.nodes[other];
        let offers = source.agent.is_some() && source.holder.is_valid(source.local(self.now));
        let healed = self.healed_at.is_some() && offers && self.db(other).answers(self.now);
        if healed && self.db(other).executed.missing(&self.db(node).executed) > 0 {
            // Extra transactions keep it out for good, so in a repaired world somebody has ordered a resync. Who has no valid
            // lease offers no copy: it may not know yet who holds the baton.
            let copy = self.db(other).clone();
            self.db_mut(node).copy(&copy);
            self.tell(|| format!("{} is copied from {}", NAMES[node], NAMES[other]));
        }
        let db = self.db(node);
        let is_set = db.follows == Some(other) && db.io_started && db.sql_running && !db.cut;
        if !is_set && self.db(other).executed.missing(&db.executed) == 0 {
            // Commits that still wait end, unheard: their clients were reset when the doors closed.
            self.source_off(node);
            self.db_mut(node).follow(other);
            self.tell(|| format!("{} follows {}", NAMES[node], NAMES[other]));
        }
    }

    /// Announced, noted on disk, semi-sync set, and only then writable.
    pub(super) fn open_database(&mut self, node: usize, semi_sync: bool) {
        let (server, read_only) = (self.db(node).instance().server.clone(), self.db(node).read_only);
        if self.nodes[node].opened.as_ref() != Some(&server) {
            self.nodes[node].opened = Some(server.clone());
            self.feed(node, Input::Opening { server });
        } else if !read_only {
            return;
        }
        if !self.db(node).read_only {
            return;
        }
        let origin = self.origins;
        self.origins += 1;
        if semi_sync && self.has(Planted::OpenedBeforeSemiSync) {
            self.db_mut(node).source = false;
            self.queue.put(self.now + LATE_SOURCE_MS, Event::LateSource(node));
        } else if semi_sync {
            self.db_mut(node).source = true;
        }
        self.db_mut(node).open(origin);
        self.tell(|| format!("{} is writable", NAMES[node]));
    }

    /// An order about semi-sync.
    pub(super) fn keep(&mut self, node: usize, keep: &Keep) {
        self.tell(|| format!("{} keeps {keep:?}", NAMES[node]));
        if !self.is_writable(node) {
            return;
        }
        match keep {
            Keep::SourceOn => self.db_mut(node).source = true,
            Keep::SourceOff => self.source_off(node),
            Keep::Canary => self.canary(node),
            Keep::Nothing | Keep::ProposeOut { .. } | Keep::ProposeIn { .. } => {}
        }
    }

    /// Semi-sync is off, and every commit that waited goes on.
    pub(super) fn source_off(&mut self, node: usize) {
        let db = self.db_mut(node);
        db.source = false;
        db.no_tx += db.waiting.len() as u64;
        for one in std::mem::take(&mut db.waiting) {
            self.commit_ends(node, one);
        }
    }
}
