//! Words about the lease: the leader's half (`grant`, `takeover`, `end`, `go-on`, `surrender`) and the holder's (`appoint`, `open`,
//! `close`, `ticket`, `renew`, `accept`, and for a pause `long-ticket`, `renew-long`, `adopt-long`, `drop-long`, `held`).

use baton_runbooks::lease::holder::Door;
use baton_runbooks::lease::{Grant, LongLease, Renewal, Surrender};
use baton_runbooks::model::{Epoch, NodeId, PauseId, Term};
use datadriven::TestCase;

use crate::scene::{Scene, arg, maybe, node, text};

impl Scene {
    pub fn lease_word(&mut self, word: &str, case: &mut TestCase) -> Result<String, String> {
        Ok(match word {
            "grant" => self.grant(case)?,
            "takeover" => self.takeover(),
            "end" => {
                let closed = maybe(case, "closed-boot")?;
                let office = self.present_office();
                self.granter.see(self.now, &office, self.ledger.paused());
                let over = self.granter.end_if_over(self.now, &office, self.ledger.epoch, closed);
                if over { "over: nothing more is granted" } else { "not over: must not be proposed" }
                    .to_owned()
            }
            "surrender" => {
                let surrender = Surrender {
                    node: node(case, "node")?.unwrap_or_else(|| NodeId::from("db1")),
                    boot: maybe(case, "boot")?.unwrap_or(1),
                    seq: arg(case, "seq")?,
                };
                let office = self.present_office();
                self.granter.surrender(&office, &surrender);
                String::new()
            }
            "go-on" => {
                self.granter.go_on(self.ledger.epoch);
                String::new()
            }
            "appoint" => {
                self.holder.appoint(maybe(case, "epoch")?.map(Epoch));
                String::new()
            }
            "open" => {
                self.holder.open(door(case)?);
                String::new()
            }
            "close" => {
                self.holder.close(door(case)?);
                String::new()
            }
            "long-ticket" | "renew-long" | "adopt-long" | "drop-long" | "held" => {
                self.long_word(word, case)?
            }
            "ticket" => match self.holder.next_ticket() {
                Some((seq, slot, doors)) => format!("ticket {seq} in slot {slot} for {doors:?}"),
                None => "none: this node holds nothing".to_owned(),
            },
            "renew" => {
                let seq = arg(case, "seq")?;
                match self.holder.renew(seq, self.now) {
                    Some(renewal) => {
                        format!("renewal {} epoch {} heard {:?}", seq, renewal.epoch, renewal.heard_ms)
                    }
                    None => "none".to_owned(),
                }
            }
            _ => self.accept(case)?,
        })
    }

    fn long_word(&mut self, word: &str, case: &mut TestCase) -> Result<String, String> {
        Ok(match word {
            "long-ticket" => {
                let lease = LongLease { pause: PauseId(1), length_ms: arg(case, "ms")? };
                match self.holder.next_long_ticket(lease) {
                    Some((seq, slot, doors)) => format!("long ticket {seq} in slot {slot} for {doors:?}"),
                    None => "none: no open door wants one".to_owned(),
                }
            }
            "renew-long" => match self.holder.renew_long(arg(case, "seq")?, self.now) {
                Some(renewal) => format!("renewal {} for {:?}", renewal.seq, renewal.long),
                None => "none".to_owned(),
            },
            "adopt-long" => {
                let until = self.now.plus_ms(arg(case, "ms")?);
                self.holder.adopt_long(PauseId(1), until, &[Door::Vip, Door::Ports]);
                String::new()
            }
            "drop-long" => {
                self.holder.drop_long();
                String::new()
            }
            _ => match (self.holder.ends_at(), self.holder.long()) {
                (None, _) => "no lease".to_owned(),
                (Some(end), None) => format!("lease until {end}"),
                (Some(end), Some((pause, long))) => {
                    format!("lease until {end}, both doors by pause {pause} until {long}")
                }
            },
        })
    }

    fn grant(&mut self, case: &mut TestCase) -> Result<String, String> {
        let renewal = Renewal {
            node: node(case, "node")?.unwrap_or_else(|| NodeId::from("db1")),
            epoch: maybe(case, "epoch")?.map_or(self.ledger.epoch, Epoch),
            boot: maybe(case, "boot")?.unwrap_or(1),
            seq: maybe(case, "seq")?.unwrap_or(1),
            heard_ms: maybe(case, "heard-ms")?,
            long: maybe(case, "long-ms")?.map(|length_ms| LongLease { pause: self.ledger.pauses, length_ms }),
        };
        let office = self.present_office();
        let appointment = self.ledger.appointment();
        Ok(match self.granter.grant(self.now, &office, &appointment, &renewal) {
            Ok(grant) => format!("granted: age {} ms", grant.age_ms),
            Err(refusal) => format!("refused: {refusal:?}"),
        })
    }

    fn takeover(&mut self) -> String {
        let office = self.present_office();
        self.granter.see(self.now, &office, self.ledger.paused());
        match self.granter.takeover_at(&office) {
            None => "no takeover is this node's to decide".to_owned(),
            Some(at) if at <= self.now => format!("since {at}"),
            Some(at) => format!("not before {at}, in {} ms", at.since_ms(self.now)),
        }
    }

    fn accept(&mut self, case: &mut TestCase) -> Result<String, String> {
        let grant = Grant {
            epoch: maybe(case, "epoch")?.map_or(Epoch(1), Epoch),
            boot: maybe(case, "boot")?.unwrap_or(1),
            seq: arg(case, "seq")?,
            age_ms: maybe(case, "age-ms")?.unwrap_or(10),
            leader: NodeId::from("mon"),
            term: Term(1),
            long: maybe(case, "long-ms")?.map(|length_ms| LongLease { pause: PauseId(1), length_ms }),
        };
        Ok(match self.holder.accept(&grant, self.now) {
            Ok(accepted) => format!(
                "permit in slot {} for {:?}, lease ends at {}",
                accepted.slot, accepted.doors, accepted.ends_at
            ),
            Err(ignored) => format!("ignored: {ignored:?}"),
        })
    }
}

fn door(case: &mut TestCase) -> Result<Door, String> {
    match text(case, "door")?.as_deref() {
        Some("vip") => Ok(Door::Vip),
        Some("ports") => Ok(Door::Ports),
        other => Err(format!("no such door: {other:?}")),
    }
}
