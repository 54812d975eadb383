//! Single values of settings and flags, parsed with errors that say what was probably meant.

use std::net::SocketAddr;

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::api::NetworkKind;

/// Why a value is not what its flag or key wants: a sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WordError(String);

/// Reads a number of bytes, as in `200GB`, `512MiB` or `1.5 TB`; `0` is zero.
///
/// # Errors
/// When it is no number with a unit of bytes.
pub fn parse_size(text: &str) -> Result<u64, WordError> {
    let usage = || WordError(format!("`{text}` is no size; write it like 200GB or 512MiB"));
    let trimmed = text.trim();
    let digits = trimmed
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
        .count();
    let (number, unit) = trimmed.split_at(digits);
    let number: f64 = number.parse().map_err(|_| usage())?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" if unit.is_empty() && number > 0.0 => return Err(usage()),
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1024.0 * 1024.0,
        "gi" => 1024.0 * 1024.0 * 1024.0,
        "ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(usage()),
    };
    let bytes = number * unit;
    // Well below 2^63, so that sums of a few of them do not overflow.
    if bytes > 1e18 {
        return Err(WordError(format!("`{text}` is more than any disk has")));
    }
    Ok(bytes as u64)
}

/// The longest time that is accepted, in seconds: a hundred years.
const MAX_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// Reads the name of a network.
///
/// # Errors
/// When there is no such network.
pub fn parse_network(text: &str) -> Result<NetworkKind, WordError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "public" => Ok(NetworkKind::Public),
        "lan" => Ok(NetworkKind::Lan),
        "private" => Ok(NetworkKind::Private),
        _ => Err(WordError(format!(
            "there is no network `{text}`; it is one of public, lan and private"
        ))),
    }
}

/// Reads a multiaddr to listen on: an IP address with a TCP port or a QUIC one, without a peer ID.
///
/// # Errors
/// When it is not one.
pub fn parse_listen(text: &str) -> Result<Multiaddr, WordError> {
    let addr = parse_multiaddr(text)?;
    let mut parts = addr.iter();
    let ip = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)));
    let transport = match parts.next() {
        Some(Protocol::Tcp(_)) => true,
        Some(Protocol::Udp(_)) => matches!(parts.next(), Some(Protocol::QuicV1)),
        _ => false,
    };
    if ip && transport && parts.next().is_none() {
        Ok(addr)
    } else {
        Err(WordError(format!(
            "one can't listen on `{text}`; write an address like /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1"
        )))
    }
}

/// Reads the multiaddr of a peer to ask: it ends in `/p2p/ID`.
///
/// # Errors
/// When it is not one.
pub fn parse_peer(text: &str) -> Result<Multiaddr, WordError> {
    let addr = parse_multiaddr(text)?;
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        Ok(addr)
    } else {
        Err(WordError(format!(
            "`{text}` does not say which peer is there; add /p2p/ and its ID, as `share` and `status` print it"
        )))
    }
}

/// Reads the multiaddr of a bootstrap peer: it ends in `/p2p/ID`, or is a `/dnsaddr` name.
///
/// # Errors
/// When it is not one.
pub fn parse_bootstrap(text: &str) -> Result<Multiaddr, WordError> {
    let addr = parse_multiaddr(text)?;
    if matches!(addr.iter().next(), Some(Protocol::Dnsaddr(_))) {
        return Ok(addr);
    }
    parse_peer(text)
}

/// Reads a number of seconds: `90`, or with a unit `90s`, `15m`, `12h`, `7d`, `2w`.
///
/// # Errors
/// When it is no time, zero, or over a hundred years.
pub fn parse_seconds(text: &str) -> Result<u64, WordError> {
    let usage = || {
        WordError(format!(
            "`{text}` is no time; write seconds, or a number with s, m, h, d or w, as in 90s or 7d"
        ))
    };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| usage())?;
    let unit = match unit.trim() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return Err(usage()),
    };
    match number.checked_mul(unit) {
        Some(0) => Err(WordError("it must be at least one second".to_owned())),
        Some(seconds) if seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(WordError(
            "that is over a hundred years; leave it out for ever".to_owned(),
        )),
    }
}

fn parse_multiaddr(text: &str) -> Result<Multiaddr, WordError> {
    let text = text.trim();
    text.parse().map_err(|error| {
        WordError(match text.parse::<SocketAddr>() {
            Ok(socket) => {
                let family = if socket.is_ipv4() { "ip4" } else { "ip6" };
                format!(
                    "`{text}` is not written as a multiaddr; try /{family}/{}/tcp/{}",
                    socket.ip(),
                    socket.port()
                )
            }
            Err(_) => {
                format!("`{text}` is no multiaddr ({error}); one looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…")
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("200GB"), Ok(200_000_000_000));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1.5tb"), Ok(1_500_000_000_000));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("7B"), Ok(7));
        for text in ["", "5", "-1GB", "5Gbit", "5GB/s", "GB", "1e99TB", "99999999999999TB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_address_is_answered_with_its_multiaddr() {
        let error = parse_listen("0.0.0.0:4001").unwrap_err().to_string();
        assert!(error.contains("/ip4/0.0.0.0/tcp/4001"), "{error}");
        let error = parse_peer("[::1]:7").unwrap_err().to_string();
        assert!(error.contains("/ip6/::1/tcp/7"), "{error}");
    }

    #[test]
    fn listen_addresses_name_a_transport_and_no_peer() {
        assert!(parse_listen("/ip4/127.0.0.1/tcp/0").is_ok());
        assert!(parse_listen("/ip6/::/udp/0/quic-v1").is_ok());
        for text in [
            PEER,
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/1",
            "/dns4/example.org/tcp/1",
            "",
            "tcp",
        ] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn peers_are_named() {
        assert!(parse_peer(PEER).is_ok());
        assert!(parse_peer("/ip4/192.0.2.7/tcp/4001").is_err());
        assert!(parse_bootstrap("/dnsaddr/bootstrap.example.org").is_ok());
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(parse_seconds("90"), Ok(90));
        assert_eq!(parse_seconds("7d"), Ok(604_800));
        assert_eq!(parse_seconds("15 m"), Ok(900));
        for text in [
            "",
            "0",
            "-1",
            "soon",
            "1y",
            "99999999999999999999",
            "18446744073709551615w",
        ] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
