//! The libp2p swarm: transports and behaviours, with their limits.

mod ahead;
mod batch;
mod gather;
mod quic;
mod tcp;
mod tls;

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, allow_block_list, connection_limits, connection_limits::ConnectionLimits,
    core::upgrade::Version, identify, identity::Keypair, kad, mdns, ping, swarm::NetworkBehaviour,
    swarm::behaviour::toggle::Toggle,
};

pub(super) use self::quic::Weights;
use super::{network::AddressClass, network::classify, swap};
use crate::api::{Failure, FailureKind, NetworkKind};

/// Connections that the node holds at once, both directions together.
const MAX_CONNECTIONS: u32 = 512;
/// Of these, connections that carry sessions; the others are for look-ups and for who has just come.
pub(super) const MAX_SESSIONS: usize = 200;
/// Connections that wait for their handshake, for each direction.
const MAX_PENDING_CONNECTIONS: u32 = 128;
/// Connections to one peer: one in use, one from a simultaneous dial, one that a relay made.
const MAX_CONNECTIONS_PER_PEER: u32 = 4;
/// Real replies of the public DHT reach 43 kB, beyond the library's default of 16 KiB.
const MAX_KAD_PACKET: usize = 1024 * 1024;
/// Wide look-ups find the first provider sooner.
const KAD_PARALLELISM: NonZeroUsize = NonZeroUsize::new(10).expect("ten is not zero");
const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection that nobody uses stays open: long enough for the next look-up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Own records that the node may provide, foreign ones counted.
const MAX_PROVIDED_KEYS: usize = 100_000;
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// While uploads follow what round trips tell.
const PING_INTERVAL_AUTO: Duration = Duration::from_secs(1);

/// Everything that the node speaks.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    /// Banned peers: refused as soon as they have shown who they are, before any stream.
    pub(super) bans: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<kad::store::MemoryStore>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) swap: swap::Behaviour,
}

/// Builds the swarm, which does not listen yet, and what says how fast peers are sent to beside others.
pub(super) fn build(key: Keypair, network: NetworkKind, offline: bool) -> Result<(Swarm<Behaviour>, Weights), Failure> {
    let weights = Weights::default();
    let fail = |what: &str, cause: String| {
        Failure::new(
            FailureKind::Network,
            format!("cannot set up {what}: {cause}"),
            "check that this system allows network sockets, then try again",
        )
    };
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| quic::transport(key, weights.clone()).map_err(Into::into))
        .map_err(|e| fail("QUIC", e.to_string()))?
        .with_other_transport(|key| tcp::transport(key).map_err(Into::into))
        .map_err(|e| fail("TCP", e.to_string()))?;
    // Names are resolved only where built-in or given entry points may be names.
    let builder = builder.with_dns().map_err(|e| fail("DNS", e.to_string()))?;
    let swarm = builder
        .with_behaviour(|key| behaviour(key, network, offline))
        .map_err(|e| fail("the node", e.to_string()))?
        .with_swarm_config(|config| {
            // A stream's first bytes go out with its protocol's name, a round trip sooner than after the peer's answer.
            config
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
                .with_smart_dial()
        })
        .build();
    Ok((swarm, weights))
}

fn behaviour(
    key: &Keypair,
    network: NetworkKind,
    offline: bool,
) -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let local = PeerId::from(key.public());
    let limits = ConnectionLimits::default()
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_pending_incoming(Some(MAX_PENDING_CONNECTIONS))
        .with_max_pending_outgoing(Some(MAX_PENDING_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER));
    let mdns = (network.multicasts() && !offline)
        .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local))
        .transpose()?;
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        bans: allow_block_list::Behaviour::default(),
        identify: identify::Behaviour::new(
            identify::Config::new("/modswarm/1".to_owned(), key.public()).with_agent_version(agent_version()),
        ),
        ping: ping_behaviour(false),
        kad: kademlia(local, network),
        mdns: mdns.into(),
        swap: swap::Behaviour::new(local),
    })
}

/// Measures round trips: of connections that begin from now on, more often if uploads follow them.
pub(super) fn ping_behaviour(auto: bool) -> ping::Behaviour {
    let interval = if auto { PING_INTERVAL_AUTO } else { PING_INTERVAL };
    ping::Behaviour::new(ping::Config::new().with_interval(interval))
}

fn kademlia(local: PeerId, network: NetworkKind) -> kad::Behaviour<kad::store::MemoryStore> {
    let mut config = kad::Config::new(network.kad_protocol());
    config
        .set_max_packet_size(MAX_KAD_PACKET)
        .set_parallelism(KAD_PARALLELISM)
        .set_query_timeout(KAD_QUERY_TIMEOUT)
        // Republishing has a schedule of its own: the library's fires all keys at once.
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None);
    let records = kad::store::MemoryStoreConfig {
        max_provided_keys: MAX_PROVIDED_KEYS,
        ..Default::default()
    };
    let mut kad = kad::Behaviour::with_config(local, kad::store::MemoryStore::with_config(local, records), config);
    let mode = if network.trusts_listen_addresses() {
        kad::Mode::Server
    } else {
        kad::Mode::Client
    };
    kad.set_mode(Some(mode));
    kad
}

/// The program and its version, as peers see it.
pub(super) fn agent_version() -> String {
    concat!("modswarm/", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Splits addresses into those to dial at once and those to dial if all of the first fail: where bulk TCP on this machine or LAN
/// is possible, nothing else is tried first.
pub(super) fn dial_order(mut addrs: Vec<Multiaddr>) -> (Vec<Multiaddr>, Vec<Multiaddr>) {
    addrs.sort_by_key(classify);
    addrs.dedup();
    let near = addrs
        .iter()
        .take_while(|addr| classify(addr) == AddressClass::NearTcp)
        .count();
    if near == 0 {
        return (addrs, Vec::new());
    }
    let rest = addrs.split_off(near);
    (addrs, rest)
}
