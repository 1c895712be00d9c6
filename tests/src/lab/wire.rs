//! The wire: namespaces of hosts, client and observer on a bridge that stands in a namespace of its own.
//!
//! ```text
//!   db1 .11   db2 .12   mon .13   client .50   observer .51        10.77.0.0/24, VIP .100
//!    eth0      eth0      eth0      eth0         eth0
//!     │         │         │         │            │
//!  ── db1 ───── db2 ───── mon ───── client ───── observer ──  br0 in the switch
//! ```
//!
//! Every link fault is made in the switch, where no host can see or undo it: a port without carrier, or frames dropped
//! from one port to another. Interface names are the same in every lab; only the namespaces' names differ.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::shell;

/// A place on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// First data node.
    Db1,
    /// Second data node.
    Db2,
    /// Witness.
    Mon,
    /// The writer.
    Client,
    /// The ARP watch, apart from the client so that its answers do not refresh the client's neighbour table.
    Observer,
}

impl Port {
    /// Every port of the switch.
    pub const ALL: [Self; 5] = [Self::Db1, Self::Db2, Self::Mon, Self::Client, Self::Observer];

    /// Name of the port and of the host on it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Db1 => "db1",
            Self::Db2 => "db2",
            Self::Mon => "mon",
            Self::Client => "client",
            Self::Observer => "observer",
        }
    }

    /// Address of the host.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Db1 => 11,
            Self::Db2 => 12,
            Self::Mon => 13,
            Self::Client => 50,
            Self::Observer => 51,
        };
        Ipv4Addr::new(10, 77, 0, last)
    }
}

/// The virtual IP of the lab.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// First of the 32 addresses that the ARP watch asks from.
pub const ARP_SENDERS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
/// The interface of every host.
pub const INTERFACE: &str = "eth0";

/// What is dropped between two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Every frame.
    All,
    /// TCP from or to this port.
    Tcp(u16),
}

/// The namespaces of one lab. Dropping it leaves them; [`Wire::remove`] deletes them.
#[derive(Debug, Clone)]
pub struct Wire {
    prefix: String,
}

impl Wire {
    /// Names only; nothing is created.
    #[must_use]
    pub fn named(lab: &str) -> Self {
        Self { prefix: format!("bl{lab}") }
    }

    /// Name of a host's namespace.
    #[must_use]
    pub fn netns(&self, port: Port) -> String {
        format!("{}-{}", self.prefix, port.name())
    }

    /// File of a host's namespace.
    #[must_use]
    pub fn path(&self, port: Port) -> PathBuf {
        shell::netns_path(&self.netns(port))
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    /// Creates namespaces, bridge, ports and addresses.
    ///
    /// # Errors
    /// The kernel or a tool refuses.
    pub fn create(&self) -> Result<()> {
        let mut names: String = Port::ALL.map(|port| format!("netns add {}\n", self.netns(port))).concat();
        names.push_str(&format!("netns add {}\n", self.switch()));
        shell::feed("ip", &["-batch", "-"], &names).context("create namespaces")?;
        let mut bridge = String::from(
            "link set lo up\nlink add name br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0\n\
             link set br0 up\n",
        );
        for port in Port::ALL {
            let (name, netns) = (port.name(), self.netns(port));
            bridge.push_str(&format!(
                "link add {name} type veth peer name {INTERFACE} netns {netns}\nlink set {name} master br0 up\n"
            ));
        }
        shell::feed("ip", &["-n", &self.switch(), "-batch", "-"], &bridge).context("build the switch")?;
        self.forward_without_filter()?;
        for port in Port::ALL {
            self.address(port)?;
        }
        self.nft(
            "table bridge cut { chain forward { type filter hook forward priority 0; policy accept; }; }",
        )
    }

    /// A switch shows the frames that it forwards to no packet filter. A kernel that has Docker's module does, and the host that
    /// sends a frame pays for it.
    fn forward_without_filter(&self) -> Result<()> {
        const CALLS: &str =
            "for call in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $call ] || echo 0 > $call; done";
        shell::finish(shell::inside(&self.switch(), "sh").args(["-c", CALLS])).context("build the switch")?;
        Ok(())
    }

    /// Gives a host its own address and nothing else, as after a boot.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn address(&self, port: Port) -> Result<()> {
        let batch = format!(
            "addr flush dev {INTERFACE}\nlink set lo up\naddr add {}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n",
            port.address()
        );
        let netns = self.netns(port);
        shell::feed("ip", &["-n", &netns, "-batch", "-"], &batch)
            .with_context(|| format!("address of {netns}"))?;
        shell::finish(shell::inside(&netns, "nft").args(["flush", "ruleset"])).map(drop)
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let netns = format!("--net={}", shell::netns_path(&self.switch()).display());
        shell::feed("nsenter", &[&netns, "nft", "-f", "-"], &format!("{rules}\n")).map(drop)
    }

    /// Takes the carrier from a port or gives it back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn carrier(&self, port: Port, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        shell::run("ip", &["-n", &self.switch(), "link", "set", port.name(), state]).map(drop)
    }

    /// Drops, in this direction only, what goes from one port to another.
    ///
    /// # Errors
    /// nftables refuses.
    pub fn cut(&self, from: Port, to: Port, traffic: Traffic) -> Result<()> {
        let pair = format!("iifname \"{}\" oifname \"{}\"", from.name(), to.name());
        let rule = |filter: &str| format!("add rule bridge cut forward {pair} {filter} counter drop\n");
        let rules = match traffic {
            Traffic::All => rule(""),
            Traffic::Tcp(port) => rule(&format!("tcp dport {port}")) + &rule(&format!("tcp sport {port}")),
        };
        self.nft(&rules)
    }

    /// Drops what goes between two ports, in both directions, in one transaction.
    ///
    /// # Errors
    /// nftables refuses.
    pub fn cut_both(&self, one: Port, other: Port, traffic: Traffic) -> Result<()> {
        self.cut(one, other, traffic)?;
        self.cut(other, one, traffic)
    }

    /// Undoes every cut; carriers stay as they are.
    ///
    /// # Errors
    /// nftables refuses.
    pub fn mend(&self) -> Result<()> {
        self.nft("flush chain bridge cut forward")
    }

    /// How many frames each rule has dropped so far, in the order in which the cuts were made.
    ///
    /// # Errors
    /// nftables refuses or says something unknown.
    pub fn dropped(&self) -> Result<Vec<u64>> {
        let mut command = shell::inside(&self.switch(), "nft");
        let listed = shell::finish(command.args(["-j", "list", "chain", "bridge", "cut", "forward"]))?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let entries = listed["nftables"].as_array().context("no list of nftables objects")?;
        let count = |entry: &serde_json::Value| {
            let statements = entry["rule"]["expr"].as_array()?;
            statements.iter().find_map(|statement| statement["counter"]["packets"].as_u64())
        };
        Ok(entries.iter().filter_map(count).collect())
    }

    /// Whether the host sees a carrier.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn has_carrier(&self, port: Port) -> Result<bool> {
        let shown = shell::run("ip", &["-n", &self.netns(port), "-j", "link", "show", "dev", INTERFACE])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        Ok(shown[0]["operstate"] == "UP")
    }

    /// The hardware address of the host, as it appears in answers to ARP requests.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn hardware_address(&self, port: Port) -> Result<String> {
        let shown = shell::run("ip", &["-n", &self.netns(port), "-j", "link", "show", "dev", INTERFACE])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        Ok(shown[0]["address"].as_str().context("a hardware address")?.to_owned())
    }

    /// Gives the host one address more, by itself: no route comes with it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_address(&self, port: Port, address: Ipv4Addr) -> Result<()> {
        let full = format!("{address}/32");
        shell::run("ip", &["-n", &self.netns(port), "addr", "add", &full, "dev", INTERFACE]).map(drop)
    }

    /// Makes the host forget who has an address, so that it asks anew.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_neighbour(&self, port: Port, address: Ipv4Addr) -> Result<()> {
        let (netns, address) = (self.netns(port), address.to_string());
        shell::run("ip", &["-n", &netns, "neigh", "flush", "to", &address, "dev", INTERFACE]).map(drop)
    }

    /// The hardware address to which the host sends what is for an address, if it knows one.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn neighbour(&self, port: Port, address: Ipv4Addr) -> Result<Option<String>> {
        let (netns, address) = (self.netns(port), address.to_string());
        let shown =
            shell::run("ip", &["-n", &netns, "-j", "neigh", "show", "to", &address, "dev", INTERFACE])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        Ok(shown[0]["lladdr"].as_str().map(ToOwned::to_owned))
    }

    /// Removes an address from the host, whatever the length of its prefix.
    ///
    /// # Errors
    /// The host does not have it.
    pub fn remove_address(&self, port: Port, address: Ipv4Addr) -> Result<()> {
        let netns = self.netns(port);
        let shown = shell::run("ip", &["-n", &netns, "-j", "-4", "addr", "show", "dev", INTERFACE])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let listed = shown[0]["addr_info"].as_array().context("a list of addresses")?;
        let found = listed.iter().find(|info| info["local"] == address.to_string());
        let length =
            found.and_then(|info| info["prefixlen"].as_u64()).with_context(|| format!("no {address}"))?;
        let full = format!("{address}/{length}");
        shell::run("ip", &["-n", &netns, "addr", "del", &full, "dev", INTERFACE]).map(drop)
    }

    /// Whether the host has an address.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn has_address(&self, port: Port, address: Ipv4Addr) -> Result<bool> {
        let shown = shell::run("ip", &["-n", &self.netns(port), "-4", "addr", "show", "dev", INTERFACE])?;
        Ok(shown.contains(&format!("inet {address}/")))
    }

    /// Deletes every namespace of the lab; the ports go with them. Nothing is missed if one is gone already.
    pub fn remove(&self) {
        for netns in Port::ALL.map(|port| self.netns(port)).into_iter().chain([self.switch()]) {
            if shell::netns_path(&netns).exists() {
                // A failure here is a namespace that is left over; the next sweep tries again.
                let _ = shell::run("ip", &["netns", "del", &netns]);
            }
        }
    }
}
