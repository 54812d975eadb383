//! What jobs and the API ask of the actor.

use std::{collections::HashMap, collections::HashSet, sync::Arc, time::Instant};

use libp2p::{Multiaddr, PeerId};
use modswarm_protocol::{
    Cid,
    engine::{ConnStats, ContentPieces, ContentSpec, PeerKey, PickOrder, TransferId, TransferStats},
    format::PieceSet,
    wire::NetworkId,
};
use modswarm_store::{Download, KnownPeer};
use tokio::sync::{mpsc, oneshot};

use super::{Actor, TransferEvent, Wish};
use crate::api::{Limit, Limits};
use crate::node::facts::Nodes;

/// A request to the actor.
#[derive(Debug)]
pub(in crate::node) enum Command {
    /// Looks for `root` and lets a job fetch it. Answered by nothing if another job fetches the same already.
    Begin {
        root: Cid,
        content: Option<Cid>,
        peers: Vec<(PeerId, Multiaddr)>,
        sink: mpsc::Sender<TransferEvent>,
        reply: oneshot::Sender<Option<TransferId>>,
    },
    /// Fetches nodes; each comes back as [`TransferEvent::Node`]. With `whole`, all that lies below may come too.
    WantNodes {
        transfer: TransferId,
        cids: Vec<Cid>,
        whole: bool,
    },
    /// Fetches pieces. Answered by nothing if another job fetches the same content already.
    Fetch {
        transfer: TransferId,
        fetch: Box<Fetch>,
        reply: oneshot::Sender<Option<TransferId>>,
    },
    /// The job behind a transfer has ended. What is served goes on being served; the rest is forgotten.
    End { transfer: TransferId },
    /// Serves a pack of the home.
    Serve(Register),
    /// Serves a content no longer.
    Forget { content: Cid },
    /// A pack was removed, and others with the same content were not: it is to be found by this name no longer.
    Unname { content: Cid, pack: Cid },
    /// Pieces that are here no longer; `nothing_left` says that with them everything went.
    Lost {
        content: Cid,
        pieces: PieceSet,
        nothing_left: bool,
    },
    /// What the user wants of a content, from now on.
    Wish { content: Cid, wish: Wish },
    /// Changes the limits of all transfers together, and says what they are.
    Limit {
        upload: Option<Limit>,
        download: Option<Limit>,
        reply: oneshot::Sender<Limits>,
    },
    /// How one transfer is doing.
    Transfer {
        transfer: TransferId,
        reply: oneshot::Sender<Option<TransferView>>,
    },
    /// How the node is doing.
    Overview { reply: oneshot::Sender<Overview> },
    /// What is remembered of peers.
    KnownPeers { reply: oneshot::Sender<Vec<KnownPeer>> },
    /// Takes the bans and faults of a peer, or of all, back. Answered by how many had any.
    Forgive {
        peer: Option<PeerId>,
        reply: oneshot::Sender<usize>,
    },
    /// Ends the actor.
    Shutdown { done: oneshot::Sender<()> },
}

/// What to fetch for a transfer whose skeleton is known.
#[derive(Debug)]
pub(in crate::node) struct Fetch {
    pub(in crate::node) content: Cid,
    pub(in crate::node) pack: Option<Cid>,
    /// The version before this one: who has that may have leaves of this.
    pub(in crate::node) previous: Option<Cid>,
    pub(in crate::node) nodes: Nodes,
    pub(in crate::node) pieces: ContentPieces,
    pub(in crate::node) download: Download,
    pub(in crate::node) order: PickOrder,
    /// Pieces that go before all others.
    pub(in crate::node) first: Option<PieceSet>,
}

/// A pack of the home to serve.
#[derive(Debug)]
pub(in crate::node) struct Register {
    pub(in crate::node) content: Cid,
    pub(in crate::node) packs: Vec<Cid>,
    /// Whether there is anything to serve: only then is it announced.
    pub(in crate::node) has_something: bool,
}

/// One transfer, for its job and for `status`.
#[derive(Clone, Debug)]
pub(in crate::node) struct TransferView {
    pub(in crate::node) stats: TransferStats,
    /// Peers that are being dialled for it.
    pub(in crate::node) dialling: usize,
    /// Peer ID and address of those whose keys are in `stats.peers`, as far as they were met in this process.
    pub(in crate::node) names: HashMap<PeerKey, (PeerId, Multiaddr)>,
}

/// One session, for `peers`.
#[derive(Clone, Debug)]
pub(in crate::node) struct PeerView {
    pub(in crate::node) peer: PeerId,
    pub(in crate::node) addr: Multiaddr,
    pub(in crate::node) stats: ConnStats,
}

/// The node, for `status` and `peers`.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Overview {
    pub(in crate::node) addrs: Vec<Multiaddr>,
    pub(in crate::node) listening: bool,
    pub(in crate::node) peers: Vec<PeerView>,
    /// By content CID.
    pub(in crate::node) transfers: HashMap<Cid, (TransferStats, bool)>,
    /// What the transfers that sessions name are of.
    pub(in crate::node) contents: HashMap<TransferId, Cid>,
}

impl Actor {
    pub(super) fn handle_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Begin {
                root,
                content,
                peers,
                sink,
                reply,
            } => {
                let _ = reply.send(self.begin(root, content, peers, sink));
            }
            Command::WantNodes {
                transfer,
                cids,
                whole: true,
            } => self.engine.want_skeleton(now, transfer, &cids),
            Command::WantNodes { transfer, cids, .. } => self.engine.want_nodes(now, transfer, &cids),
            Command::Fetch { transfer, fetch, reply } => {
                let _ = reply.send(self.fetch(transfer, *fetch));
            }
            Command::End { transfer } => self.end_job(transfer),
            Command::Serve(register) => self.register(register),
            Command::Forget { content } => self.forget(&content),
            Command::Unname { content, pack } => self.unname(&content, &pack),
            Command::Lost {
                content,
                pieces,
                nothing_left,
            } => self.lost(&content, &pieces, nothing_left),
            Command::Wish { content, wish } => self.wish(content, wish),
            Command::Limit {
                upload,
                download,
                reply,
            } => {
                let _ = reply.send(self.limit(upload, download));
            }
            Command::Transfer { transfer, reply } => {
                let _ = reply.send(self.view(transfer));
            }
            Command::Overview { reply } => {
                let _ = reply.send(self.overview());
            }
            Command::KnownPeers { reply } => {
                let _ = reply.send(self.known_peers());
            }
            Command::Forgive { peer, reply } => {
                let _ = reply.send(self.forgive_peers(peer));
            }
            Command::Shutdown { done } => self.ending = Some(done),
        }
    }

    fn network_id(&self) -> NetworkId {
        NetworkId(self.network.id())
    }

    pub(super) fn transfer_of(&self, root: &Cid) -> Option<TransferId> {
        self.transfers
            .iter()
            .find(|(_, t)| t.roots.contains(root))
            .map(|(id, _)| *id)
    }

    fn begin(
        &mut self,
        root: Cid,
        content: Option<Cid>,
        peers: Vec<(PeerId, Multiaddr)>,
        sink: mpsc::Sender<TransferEvent>,
    ) -> Option<TransferId> {
        let roots: Vec<Cid> = content
            .into_iter()
            .chain((Some(root) != content).then_some(root))
            .collect();
        let known = roots.iter().find_map(|cid| self.transfer_of(cid));
        let now = self.now();
        let transfer = known.unwrap_or_else(|| {
            let spec = ContentSpec {
                content,
                // A root may turn out to be a plain folder: then it is the content itself.
                packs: vec![root],
                network: self.network_id(),
                pieces: None,
                related: Vec::new(),
                order: PickOrder::default(),
            };
            // The engine may know it by a name that it has here no longer.
            self.engine.add_content(now, spec)
        });
        let t = self.transfers.entry(transfer).or_default();
        if t.sink.is_some() {
            return None;
        }
        for cid in roots {
            if !t.roots.contains(&cid) {
                t.roots.push(cid);
            }
        }
        t.sink = Some(sink);
        t.problem = None;
        self.apply_wish(transfer);
        self.engine.resume(now, transfer);
        let t = self.transfers.get(&transfer)?;
        let clock = Instant::now();
        for cid in t.roots.clone() {
            self.discovery.look_for(cid, transfer, clock);
        }
        for (peer, addr) in peers {
            self.mention_ban(transfer, &peer);
            self.book.add(peer, [addr.clone()], true);
            // In a private network, whom a link names is also a way into it.
            if self.network.trusts_listen_addresses() {
                self.swarm.behaviour_mut().kad.add_address(&peer, addr);
            }
            self.add_candidate(transfer, peer);
        }
        self.dial_candidates(clock);
        // The look-ups wait for the connections that are being made, not for the next tick too.
        self.discover(clock);
        Some(transfer)
    }

    fn fetch(&mut self, transfer: TransferId, fetch: Fetch) -> Option<TransferId> {
        let now = self.now();
        let other = self.transfer_of(&fetch.content).filter(|id| *id != transfer);
        if other
            .and_then(|id| self.transfers.get(&id))
            .is_some_and(|t| t.sink.is_some())
        {
            return None;
        }
        let map = Arc::clone(&fetch.pieces.map);
        // What is served under this content's name may say that a piece is here that the download could not find: the download
        // has just looked, and the engine only ever adds to what it knows.
        if let Some(serving) = self.transfer_of(&fetch.content)
            && let Some(wanted) = &fetch.pieces.wanted
        {
            let absent = wanted.iter_ones().filter(|i| !fetch.pieces.have[*i]);
            for piece in absent.filter_map(|i| map.index(i as u32)) {
                self.engine.handle_lost(now, serving, piece);
            }
        }
        self.engine.set_pieces(now, transfer, fetch.content, fetch.pieces);
        let related = ContentSpec {
            content: Some(fetch.content),
            packs: fetch.pack.into_iter().collect(),
            network: self.network_id(),
            pieces: None,
            related: fetch.previous.into_iter().collect(),
            order: PickOrder::default(),
        };
        // A content that is known only takes the names that are new to it.
        let kept = self.engine.add_content(now, related);
        let mut moved = if kept == transfer {
            None
        } else {
            self.transfers.remove(&transfer)
        };
        let t = self.transfers.entry(kept).or_default();
        if let Some(old) = &mut moved {
            t.sink = old.sink.take();
            t.roots.append(&mut old.roots);
            t.candidates.append(&mut old.candidates);
        }
        t.content = Some(fetch.content);
        t.roots.push(fetch.content);
        t.roots.extend(fetch.pack);
        t.roots.sort_unstable();
        t.roots.dedup();
        self.engine.set_skeleton(now, kept, fetch.nodes.skeleton());
        t.nodes = Arc::new(fetch.nodes.all);
        t.download = Some(fetch.download);
        t.map = Some(map);
        t.serving = true;
        let roots = t.roots.clone();
        self.engine.set_order(now, kept, fetch.order, fetch.first);
        self.apply_wish(kept);
        let clock = Instant::now();
        if moved.is_some() {
            self.discovery.stop(transfer, &mut self.swarm.behaviour_mut().kad);
            self.exchange.rename(transfer, kept);
        }
        for cid in roots {
            self.discovery.look_for(cid, kept, clock);
            self.discovery.announce(cid, clock);
        }
        self.discover(clock);
        Some(kept)
    }

    fn end_job(&mut self, transfer: TransferId) {
        let now = self.now();
        self.discovery.stop(transfer, &mut self.swarm.behaviour_mut().kad);
        self.exchange.forget(transfer);
        let Some(t) = self.transfers.get_mut(&transfer) else {
            return;
        };
        t.sink = None;
        t.download = None;
        t.candidates.clear();
        t.foreign.clear();
        if t.serving {
            self.engine.pause(now, transfer);
        } else {
            self.transfers.remove(&transfer);
            self.engine.remove_content(now, transfer);
        }
    }

    fn register(&mut self, register: Register) {
        let now = self.now();
        let Register {
            content,
            packs,
            has_something,
        } = register;
        let spec = ContentSpec {
            content: Some(content),
            packs: packs.clone(),
            network: self.network_id(),
            pieces: None,
            related: Vec::new(),
            order: PickOrder::default(),
        };
        let transfer = self.engine.add_seed(now, spec);
        let t = self.transfers.entry(transfer).or_default();
        t.serving = true;
        t.content = Some(content);
        t.roots.push(content);
        t.roots.extend(packs);
        t.roots.sort_unstable();
        t.roots.dedup();
        // What is in memory may lack what has come since.
        if t.map.is_some() {
            self.load(transfer);
        }
        self.apply_wish(transfer);
        if !has_something {
            return;
        }
        let roots = self.transfers.get(&transfer).map(|t| t.roots.clone());
        let clock = Instant::now();
        for cid in roots.unwrap_or_default() {
            self.discovery.announce(cid, clock);
        }
    }

    fn forget(&mut self, content: &Cid) {
        let now = self.now();
        let Some(transfer) = self.transfer_of(content) else {
            return;
        };
        let Some(t) = self.transfers.remove(&transfer) else {
            return;
        };
        self.engine.remove_content(now, transfer);
        let kad = &mut self.swarm.behaviour_mut().kad;
        self.discovery.stop(transfer, kad);
        for root in t.roots {
            self.discovery.withdraw(&root, kad);
        }
    }

    fn unname(&mut self, content: &Cid, pack: &Cid) {
        let Some(transfer) = self.transfer_of(content) else {
            return;
        };
        if let Some(t) = self.transfers.get_mut(&transfer) {
            t.roots.retain(|root| root != pack);
        }
        self.discovery.withdraw(pack, &mut self.swarm.behaviour_mut().kad);
    }

    fn lost(&mut self, content: &Cid, pieces: &PieceSet, nothing_left: bool) {
        let now = self.now();
        let Some(transfer) = self.transfer_of(content) else {
            return;
        };
        let Some(t) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if let Some(loading) = &mut t.loading {
            loading.lost.push(pieces.clone());
        }
        if let Some(map) = t.map.clone() {
            for piece in pieces.iter_ones().filter_map(|i| map.index(i as u32)) {
                self.engine.handle_lost(now, transfer, piece);
            }
        }
        // Who has nothing left is not to be found for it. It is announced again when something is back.
        if nothing_left && t.sink.is_none() {
            for root in t.roots.clone() {
                self.discovery.withdraw(&root, &mut self.swarm.behaviour_mut().kad);
            }
        }
    }

    fn view(&mut self, transfer: TransferId) -> Option<TransferView> {
        // Rates fade with the engine's clock, which stands still while nothing happens.
        self.engine.handle_timeout(self.now());
        let stats = self.engine.transfer_stats(transfer)?;
        let t = self.transfers.get(&transfer)?;
        let dialling = t.candidates.iter().filter(|peer| self.book.is_dialling(peer)).count();
        let wanted: HashSet<PeerKey> = stats.peers.iter().map(|peer| peer.peer).collect();
        let names = self
            .met
            .iter()
            .filter(|(key, _)| wanted.contains(key))
            .map(|(k, v)| (*k, v.clone()))
            .collect();
        Some(TransferView { stats, dialling, names })
    }

    fn overview(&mut self) -> Overview {
        self.engine.handle_timeout(self.now());
        let peers = self
            .sessions
            .iter()
            .filter_map(|(conn, live)| {
                let stats = self.engine.conn_stats(*conn)?;
                // Before its `Hello` it is nobody yet.
                stats.agent.as_ref()?;
                Some(PeerView {
                    peer: live.session.peer,
                    addr: live.addr.clone(),
                    stats,
                })
            })
            .collect();
        let mut transfers = HashMap::new();
        for (id, t) in &self.transfers {
            if let Some(stats) = self.engine.transfer_stats(*id) {
                for root in &t.roots {
                    transfers.insert(*root, (stats.clone(), t.sink.is_some()));
                }
            }
        }
        let contents = self
            .transfers
            .iter()
            .filter_map(|(id, t)| Some((*id, t.content?)))
            .collect();
        Overview {
            contents,
            addrs: self.dialable_addrs(),
            listening: !self.listen_addrs.is_empty(),
            peers,
            transfers,
        }
    }
}
