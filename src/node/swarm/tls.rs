//! TLS 1.3 as libp2p has it, with the cipher that this machine computes fastest.
//!
//! The library's own set-up proposes ChaCha20-Poly1305 first everywhere. Where the processor has instructions for AES, as nearly all have, AES-128-GCM takes a
//! fraction of its time, and encryption is the first cost of a transfer. Who has no such instructions proposes ChaCha20 and chooses it where it is proposed.
//! Certificates are made, parsed and verified by the library.
//!
//! Source: <https://github.com/libp2p/specs/blob/master/tls/tls.md>.

use std::{io, iter, net::Ipv4Addr, sync::Arc};

use futures::{AsyncRead, AsyncWrite, FutureExt as _, future::BoxFuture};
use futures_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, OtherError,
        ServerConfig, SignatureScheme, SupportedCipherSuite,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{
            CryptoProvider, aws_lc_rs,
            aws_lc_rs::cipher_suite::{
                TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
        },
        pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
        sign::{CertifiedKey, SingleCertAndKey},
        version::TLS13,
    },
};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::Keypair,
    tls::certificate::{self, GenError},
};

/// What connections are agreed to carry.
const ALPN: &[u8] = b"libp2p";

/// How both ends of connections are set up, over whatever carries TLS.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Config {
    /// With a certificate made anew that names the holder of `key`.
    ///
    /// # Errors
    /// If no certificate can be made from the key.
    pub(super) fn new(key: &Keypair) -> Result<Self, GenError> {
        Self::with(key, has_aes())
    }

    fn with(key: &Keypair, aes: bool) -> Result<Self, GenError> {
        let (certificate, private) = certificate::generate(key)?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites(aes).to_vec(),
            ..aws_lc_rs::default_provider()
        });
        let presented = Arc::new(SingleCertAndKey::from(presented(certificate, &private)));

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("every suite is of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier))
            .with_client_cert_resolver(Arc::clone(&presented) as _);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("every suite is of TLS 1.3")
            .with_client_cert_verifier(Arc::new(Verifier))
            .with_cert_resolver(presented);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.ignore_client_order = !aes;
        server.send_tls13_tickets = 0;

        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}

fn presented(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'_>) -> CertifiedKey {
    let key = aws_lc_rs::sign::any_ecdsa_type(key).expect("the library makes ECDSA keys");
    CertifiedKey::new(vec![certificate], key)
}

/// Whether the processor computes AES and the products of GCM by instructions of its own.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// What is proposed, first what is best.
fn suites(aes: bool) -> [SupportedCipherSuite; 3] {
    let (chacha, of_aes) = (
        TLS13_CHACHA20_POLY1305_SHA256,
        [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384],
    );
    match (aes, of_aes) {
        (true, [first, second]) => [first, second, chacha],
        (false, [first, second]) => [chacha, first, second],
    }
}

/// Takes whoever proves to hold the key of the peer ID that its certificate names; whether it is the one that was dialled is the swarm's to say.
#[derive(Debug)]
struct Verifier;

impl Verifier {
    /// One certificate, self-signed, in force, whose extension a peer's key has signed.
    fn certificate(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(rustls::Error::General("a libp2p peer has one certificate".into()));
        }
        certificate::parse(end_entity).map(drop).map_err(invalid)
    }

    fn signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(certificate)
            .map_err(invalid)?
            .verify_signature(signed.scheme, message, signed.signature())
            .map_err(|_| CertificateError::BadSignature)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// TLS 1.2 is not spoken.
    fn of_old() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("libp2p speaks TLS 1.3 alone".into()))
    }

    /// What [`certificate`] verifies, the commonest first.
    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]
    }
}

fn invalid(error: certificate::ParseError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::certificate(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::of_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::certificate(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::of_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

/// Whom the first of `certificates`, which a handshake has verified, names.
pub(super) fn peer_of(certificates: &[CertificateDer<'_>]) -> Option<PeerId> {
    let certificate = certificate::parse(certificates.first()?).ok()?;
    Some(certificate.peer_id())
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/tls/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(self.server).accept(socket).await?;
            with_peer(stream.into())
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // An address is never sent as a name.
            let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            let stream = TlsConnector::from(self.client).connect(name, socket).await?;
            with_peer(stream.into())
        }
        .boxed()
    }
}

fn with_peer<C>(stream: TlsStream<C>) -> io::Result<(PeerId, TlsStream<C>)> {
    let state: &CommonState = stream.get_ref().1;
    let peer = state.peer_certificates().and_then(peer_of);
    let peer = peer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the peer showed no certificate"))?;
    Ok((peer, stream))
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::try_join};
    use libp2p::tls;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// What two ends agree on, each known to the other by its key.
    async fn agreed(client: Config, server: Config) -> SupportedCipherSuite {
        let (near, far) = tokio::io::duplex(1 << 16);
        let dialled = client.upgrade_outbound(near.compat(), "/tls/1.0.0");
        let taken = server.upgrade_inbound(far.compat(), "/tls/1.0.0");
        let ((_, mut near), (_, mut far)) = try_join(dialled, taken).await.unwrap();
        let mut got = [0; 5];
        try_join(
            async {
                near.write_all(b"hello").await?;
                near.flush().await
            },
            far.read_exact(&mut got),
        )
        .await
        .unwrap();
        assert_eq!(&got, b"hello");
        let suites = [near.get_ref().1, far.get_ref().1].map(|end| end.negotiated_cipher_suite().unwrap());
        assert_eq!(suites[0], suites[1]);
        suites[0]
    }

    #[tokio::test]
    async fn what_both_ends_compute_fast_is_agreed_on() {
        let of = |aes| Config::with(&Keypair::generate_ed25519(), aes).unwrap();
        for (client, server, expected) in [
            (true, true, TLS13_AES_128_GCM_SHA256),
            (true, false, TLS13_CHACHA20_POLY1305_SHA256),
            (false, true, TLS13_CHACHA20_POLY1305_SHA256),
            (false, false, TLS13_CHACHA20_POLY1305_SHA256),
        ] {
            assert_eq!(agreed(of(client), of(server)).await, expected, "{client} to {server}");
        }
    }

    #[tokio::test]
    async fn the_library_s_own_end_is_understood_either_way() {
        let keys = [Keypair::generate_ed25519(), Keypair::generate_ed25519()];
        let peers = [0, 1].map(|i: usize| PeerId::from(keys[i].public()));
        let ours = Config::new(&keys[0]).unwrap();
        let theirs = tls::Config::new(&keys[1]).unwrap();

        let (near, far) = tokio::io::duplex(1 << 16);
        let dialled = ours.clone().upgrade_outbound(near.compat(), "/tls/1.0.0");
        let taken = theirs.clone().upgrade_inbound(far.compat(), "/tls/1.0.0");
        let (dialled, taken) = futures::join!(dialled, taken);
        assert_eq!([taken.unwrap().0, dialled.unwrap().0], peers);

        let (near, far) = tokio::io::duplex(1 << 16);
        let dialled = theirs.upgrade_outbound(near.compat(), "/tls/1.0.0");
        let taken = ours.upgrade_inbound(far.compat(), "/tls/1.0.0");
        let (dialled, taken) = futures::join!(dialled, taken);
        assert_eq!([dialled.unwrap().0, taken.unwrap().0], peers);
    }

    #[tokio::test]
    async fn a_certificate_of_another_s_key_is_refused() {
        let (of, key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        // A certificate that was seen, presented by one who has not its key.
        let (certificate, _) = certificate::generate(&of).unwrap();
        let (_, private) = certificate::generate(&key).unwrap();
        let mut thief = Config::new(&key).unwrap();
        let stolen = Arc::new(SingleCertAndKey::from(presented(certificate, &private)));
        let mut client = ClientConfig::clone(&thief.client);
        client.client_auth_cert_resolver = Arc::clone(&stolen) as _;
        thief.client = Arc::new(client);
        let mut server = ServerConfig::clone(&thief.server);
        server.cert_resolver = stolen;
        thief.server = Arc::new(server);
        let honest = Config::new(&Keypair::generate_ed25519()).unwrap();

        let (near, far) = tokio::io::duplex(1 << 16);
        let dialled = thief.clone().upgrade_outbound(near.compat(), "/tls/1.0.0");
        let taken = honest.clone().upgrade_inbound(far.compat(), "/tls/1.0.0");
        let (_, taken) = futures::join!(dialled, taken);
        let refused = taken.unwrap_err().to_string();
        assert!(refused.contains("BadSignature"), "{refused}");

        let (near, far) = tokio::io::duplex(1 << 16);
        let dialled = honest.upgrade_outbound(near.compat(), "/tls/1.0.0");
        let taken = thief.upgrade_inbound(far.compat(), "/tls/1.0.0");
        let (dialled, _) = futures::join!(dialled, taken);
        let refused = dialled.unwrap_err().to_string();
        assert!(refused.contains("BadSignature"), "{refused}");
    }
}
