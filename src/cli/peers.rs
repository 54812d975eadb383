//! `modswarm peers` and `modswarm peers forgive`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use modswarm::api::{Failure, FailureKind, ForgiveRequest, Forgiven, PeerFault, PeerStatus};
use modswarm_protocol::engine::Fault;

use super::{
    args::{ForgiveArgs, PeersArgs, PeersCommand},
    local::ask,
    session::{Context, Need, Session},
    text::{self, escaped},
};

/// Bad peers that are listed without `--all`.
const SHOWN: usize = 20;

/// `modswarm peers`.
pub(crate) async fn run(context: &Context, args: PeersArgs) -> Result<(), Failure> {
    match args.command {
        Some(PeersCommand::Forgive(forgiven)) => forgive(context, forgiven).await,
        None => list(context, args.all).await,
    }
}

async fn list(context: &Context, all: bool) -> Result<(), Failure> {
    let (connected, mut known) = if context.settings.places.home.exists() {
        ask(context, Need::Index, async |session: &Session| {
            Ok((session.peers().await?, session.known_peers().await?))
        })
        .await?
    } else {
        (Vec::new(), Vec::new())
    };
    known.retain(|peer| all || is_bad(peer));
    if context.ui.json() {
        context.ui.json_result(&[connected, known].concat());
        return Ok(());
    }
    let now = unix_seconds();
    if connected.is_empty() {
        context
            .ui
            .note("No peer is connected (peers are connected while a `share` or `get` runs).");
    } else {
        let lines: Vec<String> = connected.iter().map(|peer| connected_lines(peer, now)).collect();
        context.ui.result(&lines.join("\n"));
    }
    if known.is_empty() {
        return Ok(());
    }
    let heading = if all {
        "\nRemembered peers that are not connected:"
    } else {
        "\nKnown bad peers (`modswarm peers forgive PEER_ID` gives one another chance):"
    };
    context.ui.result(heading);
    let shown = if all { known.len() } else { SHOWN };
    for peer in known.iter().take(shown) {
        context.ui.result(&known_lines(peer, now));
    }
    if known.len() > shown {
        context.ui.note(&format!(
            "… and {} more: `modswarm peers --all` lists them.",
            known.len() - shown
        ));
    }
    Ok(())
}

async fn forgive(context: &Context, args: ForgiveArgs) -> Result<(), Failure> {
    let request = ForgiveRequest {
        peer_id: args.peer.map(|peer| peer.to_string()),
    };
    let forgiven = if context.settings.places.home.exists() {
        ask(context, Need::Index, async |session: &Session| {
            session.forgive(&request).await
        })
        .await?
    } else if request.peer_id.is_some() {
        return Err(Failure::new(
            FailureKind::NotFound,
            "no peers are remembered here",
            "check --home: this home has not been used yet",
        ));
    } else {
        Forgiven { peers: 0 }
    };
    if context.ui.json() {
        context.ui.json_result(&forgiven);
        return Ok(());
    }
    context.ui.result(&match (forgiven.peers, &request.peer_id) {
        (0, Some(peer)) => format!("{peer} had done nothing wrong that is remembered."),
        (_, Some(peer)) => format!("{peer} is forgiven and may connect again."),
        (0, None) => "No peer had done anything wrong that is remembered.".to_owned(),
        (peers, None) => format!("{} forgiven; they may connect again.", text::count(peers, "peer")),
    });
    Ok(())
}

/// Whether it is worth a warning: banned, or known for more bad than good.
fn is_bad(peer: &PeerStatus) -> bool {
    peer.banned_until.is_some() || peer.score < 0
}

fn connected_lines(peer: &PeerStatus, now: u64) -> String {
    let rtt = peer.rtt_ms.map_or_else(String::new, |rtt| format!(", {rtt} ms"));
    let mut lines = format!(
        "{}  {}{rtt}, score {}\n  {}\n  down {} ({}), up {} ({}), {}",
        escaped(&peer.peer_id),
        escaped(peer.agent.as_deref().unwrap_or("unknown program")),
        peer.score,
        escaped(&peer.addr),
        text::rate(peer.download_rate),
        text::bytes(peer.bytes_received),
        text::rate(peer.upload_rate),
        text::bytes(peer.bytes_sent),
        text::count(peer.contents.len() as u64, "content"),
    );
    add_faults(&mut lines, &peer.faults, now);
    lines
}

fn known_lines(peer: &PeerStatus, now: u64) -> String {
    let standing = match peer.banned_until {
        Some(until) => {
            let left = text::duration(Duration::from_secs(until.saturating_sub(now)));
            let why = peer
                .ban_reason
                .as_deref()
                .map_or_else(String::new, |why| format!(": it {}", words(why)));
            format!("banned for another {left}{why}")
        }
        None => format!("score {}", peer.score),
    };
    let seen = peer
        .last_seen
        .map_or_else(String::new, |seen| format!(", seen {} ago", ago(seen, now)));
    let mut lines = format!("{}  {standing}{seen}", escaped(&peer.peer_id));
    if !peer.addr.is_empty() {
        lines.push_str(&format!("\n  {}", escaped(&peer.addr)));
    }
    if peer.bytes_received_total > 0 || peer.bytes_sent_total > 0 {
        lines.push_str(&format!(
            "\n  gave {} of good data, got {}",
            text::bytes(peer.bytes_received_total),
            text::bytes(peer.bytes_sent_total)
        ));
    }
    add_faults(&mut lines, &peer.faults, now);
    lines
}

fn add_faults(lines: &mut String, faults: &[PeerFault], now: u64) {
    for fault in faults {
        let times = match fault.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        lines.push_str(&format!(
            "\n  {} {times}, last {} ago",
            words(&fault.kind),
            ago(fault.last, now)
        ));
    }
}

/// A fault in words; one of a newer holder by its name.
fn words(kind: &str) -> String {
    Fault::from_name(kind).map_or_else(|| escaped(kind), |fault| fault.to_string())
}

fn ago(then: u64, now: u64) -> String {
    text::duration(Duration::from_secs(now.saturating_sub(then)))
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_peer_is_shown_with_its_reason_and_how_long_it_lasts() {
        let peer = PeerStatus {
            peer_id: "12D3KooW".to_owned(),
            addr: "/ip4/192.0.2.1/tcp/1".to_owned(),
            bytes_received_total: 1_500_000,
            score: -100,
            last_seen: Some(940),
            banned_until: Some(1000 + 86_400 - 60),
            ban_reason: Some("corrupt_block".to_owned()),
            faults: vec![PeerFault {
                kind: "corrupt_block".to_owned(),
                count: 1,
                last: 940,
                points: -150,
            }],
            ..PeerStatus::default()
        };
        assert!(is_bad(&peer));
        assert_eq!(
            known_lines(&peer, 1000),
            "12D3KooW  banned for another 23 h 59 min: it sent wrong bytes, seen 1 min 0 s ago\n  /ip4/192.0.2.1/tcp/1\n  \
             gave 1.5 MB of good data, got 0 B\n  sent wrong bytes once, last 1 min 0 s ago"
        );
    }

    #[test]
    fn what_a_newer_version_knows_is_shown_by_its_name() {
        assert_eq!(words("stalled"), "did not answer in time");
        assert_eq!(words("of\nlater"), "of\\u{a}later");
    }
}
