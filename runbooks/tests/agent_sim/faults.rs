//! What goes wrong, from a seed or by name.

use crate::world::World;

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The host is off: agent, database and kernel state are gone.
    HostCrash {
        node: usize,
        for_ms: u64,
    },
    /// The agent's process is killed and started again; what is in the kernel stays.
    AgentKill {
        node: usize,
        for_ms: u64,
    },
    /// The agent's process is stopped: no step, no heartbeat, no renewal.
    AgentFreeze {
        node: usize,
        for_ms: u64,
    },
    MysqlKill {
        node: usize,
        for_ms: u64,
    },
    MysqlFreeze {
        node: usize,
        for_ms: u64,
    },
    /// Nothing passes from one node to the other.
    Cut {
        from: usize,
        to: usize,
        for_ms: u64,
    },
}

impl World {
    pub fn inject(&mut self, fault: Fault) {
        let at = self.now;
        self.tell(format!("fault {fault:?}"));
        match fault {
            Fault::HostCrash { node, for_ms } => {
                let it = &mut self.nodes[node];
                it.host_down_until = at + for_ms;
                it.agent_down_until = at + for_ms;
                it.db_down_until = at + for_ms;
                it.frozen_until = 0;
                it.stop_agent();
                it.gate = Default::default();
                if let Some(db) = &mut it.db {
                    db.stop();
                }
            }
            Fault::AgentKill { node, for_ms } => {
                let it = &mut self.nodes[node];
                it.agent_down_until = it.agent_down_until.max(at + for_ms);
                it.stop_agent();
            }
            Fault::AgentFreeze { node, for_ms } => self.freeze(node, for_ms),
            Fault::MysqlKill { node, for_ms } => self.kill_mysql(node, for_ms),
            Fault::MysqlFreeze { node, for_ms } => {
                if let Some(db) = &mut self.nodes[node].db {
                    db.frozen_until = at + for_ms;
                }
            }
            Fault::Cut { from, to, for_ms } => self.cut[from][to] = self.cut[from][to].max(at + for_ms),
        }
    }

    /// A handful of faults, often close together and often in the middle of a run.
    pub fn faults_from_seed(&mut self) {
        let count = self.rng.range(1, 4);
        let mut at = self.now;
        for _ in 0..count {
            at += match self.rng.range(0, 2) {
                0 => self.rng.range(0, 300),
                1 => self.rng.range(1_000, 3_500),
                _ => self.rng.range(3_000, 9_000),
            };
            for fault in self.draw() {
                self.planned.push((at, fault));
            }
        }
    }

    /// When the last planned fault is over, at the latest.
    pub fn heal_at(&self) -> u64 {
        self.planned.iter().map(|(at, _)| at + 7_000).max().unwrap_or(self.now)
    }

    fn draw(&mut self) -> Vec<Fault> {
        let rng = &mut self.rng;
        let for_ms = match rng.range(0, 3) {
            0 => rng.range(20, 600),
            1 | 2 => rng.range(600, 2_500),
            _ => rng.range(2_500, 7_000),
        };
        let node = rng.range(0, 2) as usize;
        let data = rng.range(0, 1) as usize;
        let other = (node + rng.range(1, 2) as usize) % 3;
        match rng.range(0, 9) {
            0 | 1 => vec![Fault::HostCrash { node, for_ms }],
            2 => vec![Fault::AgentKill { node, for_ms }],
            3 | 4 => vec![Fault::AgentFreeze { node, for_ms }],
            5 => vec![Fault::MysqlKill { node: data, for_ms }],
            6 => vec![Fault::MysqlFreeze { node: data, for_ms }],
            7 => vec![Fault::Cut { from: node, to: other, for_ms }],
            8 => vec![
                Fault::Cut { from: node, to: other, for_ms },
                Fault::Cut { from: other, to: node, for_ms },
            ],
            _ => (0..3)
                .filter(|peer| *peer != node)
                .flat_map(|peer| {
                    [Fault::Cut { from: node, to: peer, for_ms }, Fault::Cut { from: peer, to: node, for_ms }]
                })
                .collect(),
        }
    }

    /// Everything runs and talks from now on, and nothing is lost any more.
    pub fn heal(&mut self) {
        let at = self.now;
        self.options.calm = true;
        self.cut = [[0; 3]; 3];
        for node in &mut self.nodes {
            node.host_down_until = node.host_down_until.min(at);
            node.agent_down_until = node.agent_down_until.min(at);
            node.db_down_until = node.db_down_until.min(at);
            node.frozen_until = node.frozen_until.min(at);
            if let Some(db) = &mut node.db {
                db.frozen_until = db.frozen_until.min(at);
            }
        }
        self.tell("healed".to_owned());
    }
}
