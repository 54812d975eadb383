//! How quinn is set up, for near connections and for far ones.

use std::{net::SocketAddr, net::UdpSocket, sync::Arc, time::Duration};

use libp2p::{identity::Keypair, tls::certificate::GenError};
use quinn::{
    AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::RandomConnectionIdGenerator;

#[cfg(unix)]
use super::socket::Socket;
use super::{
    congestion::{Factory, Far},
    multiaddr,
    uplink::Uplink,
    weights::Weights,
};
use crate::node::{
    network::{AddressClass, classify},
    swarm::tls,
};

/// Bytes that a stream and a connection may have in flight towards us.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;
/// Bytes of the longest packet that is tried: what Ethernet takes, less the headers of IPv4 and UDP.
const MTU: u16 = 1472;
/// Bytes of what names a connection in every packet.
const CID_LEN: usize = 4;
/// Streams that a peer may have open.
const MAX_STREAMS: u32 = 256;
/// A connection over which nothing comes for this long has ended…
const IDLE_TIMEOUT_MS: u32 = 10_000;
/// …so that something is sent this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A far receiver acknowledges after so many packets…
pub(super) const ACK_PACKETS: u32 = 10;
/// …or after this, or a round trip if that is less, whichever is first. Quinn asks for it again when it changes by a fifth, and not when what it asked was
/// lost: so it follows the round trip.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// Bytes of datagrams that wait to be sent or read; older ones are dropped.
const DATAGRAMS: usize = 1024;

/// What endpoints and connections are made with.
#[derive(Clone)]
pub(super) struct Config {
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
    endpoint: quinn::EndpointConfig,
    near: Arc<TransportConfig>,
    uplink: Arc<Uplink>,
    weights: Weights,
}

impl Config {
    pub(super) fn new(key: &Keypair, weights: Weights) -> Result<Self, GenError> {
        let tls = tls::Config::new(key)?;
        // The key outlives a restart: peers that still send to a connection of before are told at once that it is gone.
        let endpoint = key.derive_secret(b"libp2p quic stateless reset key").map(|secret| {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            quinn::EndpointConfig::new(Arc::new(key))
        });
        let mut endpoint = endpoint.unwrap_or_default();
        endpoint
            .supported_versions(vec![1])
            // Not the library's own, which take those of before a restart for noise.
            .cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CID_LEN)));
        Ok(Self {
            client: Arc::new(QuicClientConfig::try_from(tls.client).expect("the cipher suites are QUIC's")),
            server: Arc::new(QuicServerConfig::try_from(tls.server).expect("the cipher suites are QUIC's")),
            endpoint,
            near: Arc::new(common()),
            uplink: Arc::default(),
            weights,
        })
    }

    /// An endpoint on `socket`, which takes connections in if it is one that listens.
    pub(super) fn endpoint(&self, socket: UdpSocket, listens: bool) -> std::io::Result<quinn::Endpoint> {
        let server = listens.then(|| self.server_with(Arc::clone(&self.near)));
        let runtime = Arc::new(quinn::TokioRuntime);
        #[cfg(unix)]
        let socket = Arc::new(Socket::new(socket)?);
        #[cfg(not(unix))]
        let socket = quinn::Runtime::wrap_udp_socket(&*runtime, socket)?;
        quinn::Endpoint::new_with_abstract_socket(self.endpoint.clone(), server, socket, runtime)
    }

    /// For a dial to `remote`, with what its streams share with its controller if it is far.
    pub(super) fn client(&self, remote: SocketAddr) -> (quinn::ClientConfig, Option<Arc<Far>>) {
        let (transport, far) = self.transport(remote);
        let mut client = quinn::ClientConfig::new(Arc::clone(&self.client) as _);
        client.transport_config(transport);
        (client, far)
    }

    /// The same for who dialled us.
    pub(super) fn server(&self, remote: SocketAddr) -> (Arc<quinn::ServerConfig>, Option<Arc<Far>>) {
        let (transport, far) = self.transport(remote);
        (Arc::new(self.server_with(transport)), far)
    }

    fn server_with(&self, transport: Arc<TransportConfig>) -> quinn::ServerConfig {
        let mut server = quinn::ServerConfig::with_crypto(Arc::clone(&self.server) as _);
        server.transport_config(transport);
        // Who is at the other end of an address is remembered by it.
        server.migration(false);
        server
    }

    fn transport(&self, remote: SocketAddr) -> (Arc<TransportConfig>, Option<Arc<Far>>) {
        if classify(&multiaddr(remote)) == AddressClass::NearQuic {
            return (Arc::clone(&self.near), None);
        }
        let far = Arc::new(Far::new(self.weights.clone()));
        let mut transport = common();
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(ACK_PACKETS.into())
            .max_ack_delay(Some(ACK_DELAY));
        let factory = Factory::new(Arc::clone(&self.uplink), Arc::clone(&far));
        transport
            .ack_frequency_config(Some(acks))
            .datagram_receive_buffer_size(Some(DATAGRAMS))
            .datagram_send_buffer_size(DATAGRAMS)
            .congestion_controller_factory(Arc::new(factory));
        (Arc::new(transport), Some(far))
    }
}

fn common() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU);
    transport
        .mtu_discovery_config(Some(mtu))
        .max_concurrent_uni_streams(0u32.into())
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .allow_spin(false)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into());
    transport
}
