//! G1 **One holder.** At no moment do two nodes answer for the VIP or accept a write on it. Seen from the kernel, whatever the
//! agents believe: tickets and permits with their own timers.

use baton_runbooks::lease::holder::Door;

use crate::sim::kernel::Gate;

/// Its name.
pub const NAME: &str = "one_holder";

/// Two kernels let packets through at the same moment.
pub fn check(at: u64, one: &Gate, other: &Gate) -> Result<(), String> {
    for door in [Door::Vip, Door::Ports] {
        if one.is_open(door, at) && other.is_open(door, at) {
            return Err(format!("two nodes are open for {door:?}"));
        }
    }
    Ok(())
}
