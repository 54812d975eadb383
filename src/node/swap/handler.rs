//! One connection's streams of `/modswarm/swap/1`.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ProtocolsChange,
        },
    },
};
use modswarm_protocol::wire::StreamKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PROTOCOL;

/// Streams that a peer may have open to us on one connection; a session needs two.
const MAX_INBOUND_STREAMS: usize = 8;
/// Events that wait for the behaviour; each belongs to a stream, and those are few.
const MAX_EVENTS: usize = 64;

/// A stream that the peer opened; it counts against the connection's bound for as long as this lives.
pub(in crate::node) struct InboundStream {
    /// The stream; its first byte, not yet read, says of which kind it is.
    pub stream: Stream,
    /// Released when the session is done with the stream.
    pub permit: OwnedSemaphorePermit,
}

impl fmt::Debug for InboundStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboundStream")
    }
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum OpenError {
    /// The peer does not speak our protocol.
    Unsupported,
    /// The connection failed, or the peer did not answer in time.
    Failed,
}

#[derive(Debug)]
pub(in crate::node) enum FromHandler {
    Inbound(InboundStream),
    Outbound(StreamKind, Stream),
    OpenFailed(StreamKind, OpenError),
    /// Identify says that the peer speaks our protocol.
    Supported,
    /// The peer opened more streams than it may.
    Flooded,
}

#[derive(Debug)]
pub(in crate::node) struct OpenStream(pub StreamKind);

pub(in crate::node) struct Handler {
    inbound: Arc<Semaphore>,
    to_open: VecDeque<StreamKind>,
    events: VecDeque<FromHandler>,
    flooded: bool,
}

impl Handler {
    pub(super) fn new() -> Self {
        Self {
            inbound: Arc::new(Semaphore::new(MAX_INBOUND_STREAMS)),
            to_open: VecDeque::new(),
            events: VecDeque::new(),
            flooded: false,
        }
    }

    fn push(&mut self, event: FromHandler) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = FromHandler;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = StreamKind;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, OpenStream(kind): OpenStream) {
        if self.to_open.len() < MAX_EVENTS {
            self.to_open.push_back(kind);
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, StreamKind, FromHandler>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(kind) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), kind);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // Both queues are filled by calls after which the connection polls again: no waker is needed.
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), StreamKind>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                match Arc::clone(&self.inbound).try_acquire_owned() {
                    Ok(permit) => self.push(FromHandler::Inbound(InboundStream { stream, permit })),
                    Err(_) if !self.flooded => {
                        self.flooded = true;
                        self.push(FromHandler::Flooded);
                    }
                    Err(_) => {}
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: kind,
            }) => {
                self.push(FromHandler::Outbound(kind, stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: kind, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    _ => OpenError::Failed,
                };
                self.push(FromHandler::OpenFailed(kind, error));
            }
            ConnectionEvent::RemoteProtocolsChange(ProtocolsChange::Added(added))
                if added.clone().any(|protocol| *protocol == PROTOCOL) =>
            {
                self.push(FromHandler::Supported);
            }
            _ => {}
        }
    }
}
