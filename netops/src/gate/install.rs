//! Loading, keeping, comparing and removing the gates' tables, with the `nft` program.

use super::tables::{GateTable, TABLES};
use super::{
    GateError, GateSpec, Installed, PORTS_TABLE, TableOutcome, VIP_TABLE, VipSpec, check_slots, ruleset,
};
use crate::{netfilter::NetfilterSocket, nft};

/// Dormant tables of these names exist for milliseconds, while present and wanted rules are compared.
const EXPECTED_VIP_TABLE: &str = "baton_vip_expected";
const EXPECTED_PORTS_TABLE: &str = "baton_ports_expected";
/// Never seen by anybody: it is added and deleted in one transaction.
const PROBE_TABLE: &str = "baton_probe";

/// Installs both tables, or keeps each that already is exactly what would be installed, with its live tickets:
/// an agent that restarts while its lease lives does not interrupt anything. A loaded table is closed.
///
/// Takes 5 to 50 ms (several runs of `nft`), bounded by 5 s each. Call it at start, and again on
/// [`GateError::Gone`] or [`crate::Event::RulesGone`].
///
/// # Errors
/// On error each table is either as it was or as wanted: loading is one transaction per table.
pub async fn install_or_keep(spec: &GateSpec) -> Result<Installed, GateError> {
    check(spec)?;
    let [vip, ports] = &TABLES;
    let resets = can_refuse().await;
    let vip =
        install_one(vip, EXPECTED_VIP_TABLE, |name, dormant| ruleset::vip_table(spec, name, dormant, resets));
    let vip = vip.await?;
    let ports =
        install_one(ports, EXPECTED_PORTS_TABLE, |name, dormant| ruleset::ports_table(spec, name, dormant));
    Ok(Installed { vip, ports: ports.await? })
}

/// The text of both tables as `install_or_keep` loads them, for documentation and tests.
///
/// # Errors
/// As [`install_or_keep`], for a specification that cannot be written.
pub fn ruleset_text(spec: &GateSpec) -> Result<String, GateError> {
    check(spec)?;
    let vip = ruleset::vip_table(spec, VIP_TABLE, false, true);
    Ok(vip + &ruleset::ports_table(spec, PORTS_TABLE, false))
}

/// Removes our two tables, and nothing else. Removing what is not there is no error.
///
/// # Errors
/// [`GateError::Rules`] if `nft` fails.
pub async fn remove() -> Result<(), GateError> {
    let mut text = String::new();
    for (family, table) in [
        ("netdev", VIP_TABLE),
        ("inet", PORTS_TABLE),
        ("netdev", EXPECTED_VIP_TABLE),
        ("inet", EXPECTED_PORTS_TABLE),
    ] {
        text += &format!("add table {family} {table}\ndelete table {family} {table}\n");
    }
    nft::load(&text).await.map_err(GateError::Rules)
}

/// Whether a closed VIP gate can refuse clients: `reject` in netdev is a part of the kernel of its own
/// (`CONFIG_NFT_REJECT_NETDEV`, 5.11), which not every distribution builds. Tried in a table without a hook that is gone at once.
pub(crate) async fn can_refuse() -> bool {
    let tried = format!(
        "add table netdev {PROBE_TABLE}\nadd chain netdev {PROBE_TABLE} tried\n\
         add rule netdev {PROBE_TABLE} tried meta l4proto tcp reject with tcp reset\n\
         delete table netdev {PROBE_TABLE}\n"
    );
    let loaded = nft::load(&tried).await;
    if let Err(error) = &loaded {
        tracing::warn!(%error, "no `reject` in netdev: clients of a VIP that has just moved away wait for their second SYN");
    }
    loaded.is_ok()
}

/// A name goes into a text that `nft` parses, so only what the kernel accepts in names and nft in quotes.
fn check(spec: &GateSpec) -> Result<(), GateError> {
    check_slots(spec.slots)?;
    for VipSpec { interface, .. } in &spec.vips {
        let plain = interface.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'/' | b'\\'));
        if interface.is_empty() || interface.len() >= libc::IFNAMSIZ || !plain {
            return Err(GateError::Interface(interface.clone()));
        }
    }
    Ok(())
}

async fn install_one(
    table: &GateTable,
    expected: &str,
    text: impl Fn(&str, bool) -> String,
) -> Result<TableOutcome, GateError> {
    if is_as_wanted(table, expected, &text).await? {
        return Ok(TableOutcome::Kept);
    }
    nft::load(&text(table.name, false)).await.map_err(GateError::Rules)?;
    Ok(TableOutcome::Loaded)
}

/// Loads the wanted rules beside the present ones, asleep, and compares how `nft` lists the two. Comparing with
/// our own text would depend on how each version of `nft` prints.
async fn is_as_wanted(
    table: &GateTable,
    expected: &str,
    text: &impl Fn(&str, bool) -> String,
) -> Result<bool, GateError> {
    let exists = NetfilterSocket::open()
        .and_then(|mut socket| socket.has_table(table.family, table.name))
        .map_err(GateError::Read)?;
    if !exists {
        return Ok(false);
    }
    nft::load(&text(expected, true)).await.map_err(GateError::Rules)?;
    let present = nft::list(table.family_name, table.name).await.map_err(GateError::Rules)?;
    let wanted = nft::list(table.family_name, expected).await.map_err(GateError::Rules)?;
    let family = table.family_name;
    nft::load(&format!("delete table {family} {expected}\n")).await.map_err(GateError::Rules)?;
    let (Some(present), Some(wanted)) = (present, wanted) else { return Ok(false) };
    Ok(!nft::is_asleep(&present) && nft::essence(&present) == nft::essence(&wanted))
}
