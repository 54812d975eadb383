//! What each network means for a node: where it listens, whom it asks first, what it calls itself.

use std::net::IpAddr;

use libp2p::{Multiaddr, StreamProtocol, multiaddr::Protocol};

use crate::api::NetworkKind;

/// The public DHT's well-known entry points.
const PUBLIC_BOOTSTRAP: [&str; 4] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
];

impl NetworkKind {
    /// The 32 bytes that open every session; peers of another network are turned away.
    pub(super) fn id(self) -> [u8; 32] {
        let mut id = [0; 32];
        let name: &[u8] = match self {
            Self::Public => b"public",
            Self::Lan => b"lan",
            // A private network without a key: zeros.
            Self::Private => b"",
        };
        id[..name.len()].copy_from_slice(name);
        id
    }

    /// The Kademlia protocol: the IPFS DHT's in public, one of our own elsewhere.
    pub(super) fn kad_protocol(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Self::Public => "/ipfs/kad/1.0.0",
            Self::Lan => "/modswarm/lan/kad/1.0.0",
            Self::Private => "/modswarm/private/kad/1.0.0",
        })
    }

    /// Whether every node answers Kademlia queries and puts its listen addresses into records.
    pub(super) fn trusts_listen_addresses(self) -> bool {
        !matches!(self, Self::Public)
    }

    /// Whether the node finds others by multicast DNS.
    pub(super) fn multicasts(self) -> bool {
        matches!(self, Self::Lan)
    }

    /// Where a node listens unless told otherwise: QUIC and TCP on every interface, ports chosen by the system.
    pub(super) fn default_listen(self) -> Vec<Multiaddr> {
        let unspecified = [
            Multiaddr::from(IpAddr::from([0; 4])),
            Multiaddr::from(IpAddr::from([0u16; 8])),
        ];
        unspecified
            .into_iter()
            .flat_map(|ip| {
                [
                    ip.clone().with(Protocol::Udp(0)).with(Protocol::QuicV1),
                    ip.with(Protocol::Tcp(0)),
                ]
            })
            .collect()
    }

    /// The network's built-in entry points.
    pub(super) fn default_bootstrap(self) -> Vec<Multiaddr> {
        match self {
            Self::Public => PUBLIC_BOOTSTRAP.iter().filter_map(|addr| addr.parse().ok()).collect(),
            Self::Lan | Self::Private => Vec::new(),
        }
    }
}

/// How good an address is for moving bulk data; lower is better.
///
/// TCP with TLS moves nearly twice as much as QUIC where round trips are short; across the internet QUIC gets through more NATs
/// and recovers better. A relayed connection is the last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AddressClass {
    /// TCP on this machine or LAN.
    NearTcp,
    /// QUIC on this machine or LAN.
    NearQuic,
    /// QUIC across the internet.
    FarQuic,
    /// TCP across the internet, or a name to be resolved.
    FarOther,
    /// Through a relay.
    Relayed,
}

/// The class of `addr`.
pub(super) fn classify(addr: &Multiaddr) -> AddressClass {
    let mut near = false;
    let mut quic = false;
    for part in addr {
        match part {
            Protocol::P2pCircuit => return AddressClass::Relayed,
            Protocol::Ip4(ip) => near = is_near(ip.into()),
            Protocol::Ip6(ip) => near = is_near(ip.into()),
            Protocol::QuicV1 => quic = true,
            _ => {}
        }
    }
    match (near, quic) {
        (true, false) => AddressClass::NearTcp,
        (true, true) => AddressClass::NearQuic,
        (false, true) => AddressClass::FarQuic,
        (false, false) => AddressClass::FarOther,
    }
}

/// Whether `ip` is of this machine or of a network that it is part of.
pub(super) fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether `addr` is in the local network. This machine itself is not: limits are tried out there.
pub(super) fn is_local_network(addr: &Multiaddr) -> bool {
    let near = match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_private() || ip.is_link_local(),
        Some(Protocol::Ip6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
        _ => false,
    };
    near && classify(addr) != AddressClass::Relayed
}

/// How far away `addr` can be reached from; the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// From the internet, or by a name or relay.
    Internet,
    /// From the same LAN.
    Lan,
    /// From this machine.
    Machine,
    /// From nowhere without more to say: a link-local IPv6 address means nothing without its interface.
    Nowhere,
}

/// The reach of `addr`.
pub(super) fn reach(addr: &Multiaddr) -> Reach {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_loopback() => Reach::Machine,
        Some(Protocol::Ip4(ip)) if ip.is_private() || ip.is_link_local() => Reach::Lan,
        Some(Protocol::Ip4(ip)) if ip.is_unspecified() => Reach::Nowhere,
        Some(Protocol::Ip6(ip)) if ip.is_loopback() => Reach::Machine,
        Some(Protocol::Ip6(ip)) if ip.is_unique_local() => Reach::Lan,
        Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local() || ip.is_unspecified() => Reach::Nowhere,
        _ => Reach::Internet,
    }
}

/// The transport of `addr`, as `peers` names it.
pub(super) fn transport_name(addr: &Multiaddr) -> &'static str {
    let mut name = "tcp";
    for part in addr {
        match part {
            Protocol::P2pCircuit => return "relay",
            Protocol::QuicV1 => name = "quic",
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_tcp_comes_before_quic_and_relays_come_last() {
        let class = |text: &str| classify(&text.parse().unwrap());
        let relayed = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit";
        assert!(class("/ip4/192.168.1.2/tcp/1") < class("/ip4/192.168.1.2/udp/1/quic-v1"));
        assert!(class("/ip4/203.0.113.1/udp/1/quic-v1") < class("/ip4/203.0.113.1/tcp/1"));
        assert_eq!(class(relayed), AddressClass::Relayed);
    }

    #[test]
    fn the_widest_reach_comes_first_and_bare_link_local_addresses_reach_nowhere() {
        let reach = |text: &str| reach(&text.parse().unwrap());
        assert!(reach("/ip4/203.0.113.1/tcp/1") < reach("/ip4/10.0.0.1/tcp/1"));
        assert!(reach("/ip4/10.0.0.1/tcp/1") < reach("/ip4/127.0.0.1/tcp/1"));
        assert_eq!(reach("/ip6/fe80::1/udp/1/quic-v1"), Reach::Nowhere);
    }

    #[test]
    fn the_local_network_is_private_addresses_and_not_this_machine() {
        for (addr, local) in [
            ("/ip4/192.168.1.2/tcp/1", true),
            ("/ip4/10.1.2.3/udp/1/quic-v1", true),
            ("/ip4/169.254.1.1/tcp/1", true),
            ("/ip6/fe80::1/tcp/1", true),
            ("/ip6/fd00::1/tcp/1", true),
            ("/ip4/127.0.0.1/tcp/1", false),
            ("/ip4/203.0.113.1/tcp/1", false),
            (
                "/ip4/192.168.1.2/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit",
                false,
            ),
        ] {
            assert_eq!(is_local_network(&addr.parse().unwrap()), local, "{addr}");
        }
    }

    #[test]
    fn built_in_entry_points_are_names_not_addresses() {
        for addr in NetworkKind::Public.default_bootstrap() {
            assert!(matches!(addr.iter().next(), Some(Protocol::Dnsaddr(_))));
        }
        assert_eq!(NetworkKind::Public.default_bootstrap().len(), PUBLIC_BOOTSTRAP.len());
    }
}
