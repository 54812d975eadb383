//! Links, and every other spelling of what to get.
//!
//! A link carries the pack CID, the content CID, a name, a few addresses and perhaps an expiry; see `docs/FORMAT.md`. What a player
//! pastes is parsed by [`Target::parse`]: nothing here dials or fetches.

use std::{fmt, str::FromStr};

use multiaddr::Multiaddr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use super::{
    cid::{Cid, CidError},
    path::Name,
};

mod foreign;

pub use foreign::ForeignCode;

/// The longest text that is looked at, in bytes.
pub const LINK_LEN_MAX: usize = 16 * 1024;
/// The most addresses that are kept; the rest are ignored.
pub const LINK_ADDRS_MAX: usize = 16;
/// The longest address that is kept, in bytes of text.
pub(crate) const LINK_ADDR_LEN_MAX: usize = 512;

/// What stays readable in a value: unreserved characters, and what addresses are full of.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':');

/// A link to a pack: `modswarm:<pack>?c=<content>&n=<name>&a=<multiaddr>…&x=<expiry>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The pack CID.
    pub pack: Cid,
    /// The content CID, by which a link lives on when nobody has the pack's root any more.
    pub content: Option<Cid>,
    /// The pack's name.
    pub name: Option<Name>,
    /// Where to ask first.
    pub addrs: Vec<Multiaddr>,
    /// Unix seconds past which it is not to be used.
    pub expires: Option<u64>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "modswarm:{}", self.pack)?;
        let mut separator = '?';
        let mut pair = |f: &mut fmt::Formatter<'_>, key: char, value: &str| {
            write!(f, "{separator}{key}={}", utf8_percent_encode(value, VALUE))?;
            separator = '&';
            Ok(())
        };
        if let Some(content) = &self.content {
            pair(f, 'c', &content.to_string())?;
        }
        if let Some(name) = &self.name {
            pair(f, 'n', name.as_str())?;
        }
        for addr in &self.addrs {
            pair(f, 'a', &addr.to_string())?;
        }
        if let Some(expires) = self.expires {
            pair(f, 'x', &expires.to_string())?;
        }
        Ok(())
    }
}

/// How a [`Target`] was spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `modswarm:…`
    Link,
    /// A CID alone.
    Cid,
    /// `ipfs://CID` or `/ipfs/CID`.
    Ipfs,
    /// `https://host/ipfs/CID` or `https://CID.ipfs.host/`. The host is not asked.
    Gateway,
}

/// What to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A pack CID, or the CID of any UnixFS file or folder.
    pub root: Cid,
    /// The content CID, if the link said it.
    pub content: Option<Cid>,
    /// A name, if it said one that can be used.
    pub name: Option<Name>,
    /// Addresses that it gave and that this version understands.
    pub addrs: Vec<Multiaddr>,
    /// Unix seconds past which it is not to be used.
    pub expires: Option<u64>,
    /// How it was spelled.
    pub spelling: Spelling,
}

/// Why a text does not say what to get. Each says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Nothing but white space.
    #[error("the link is empty; paste a modswarm link, a CID or an ipfs:// address")]
    Empty,
    /// Longer than [`LINK_LEN_MAX`].
    #[error("this is {0} bytes long, which no link is (at most {LINK_LEN_MAX}); check what was pasted")]
    TooLong(usize),
    /// The code or link of another tool.
    #[error("{0}")]
    Foreign(ForeignCode),
    /// A CID that cannot be used.
    #[error("{cid:?} cannot be fetched: {source}")]
    Cid {
        /// What stood there.
        cid: String,
        /// Why.
        #[source]
        source: CidError,
    },
    /// A known key with a value that makes no sense.
    #[error("the link is damaged: its part {key}= is {value:?}; copy the whole link again")]
    Value {
        /// The key.
        key: char,
        /// Its value.
        value: String,
    },
    /// A path below a CID.
    #[error(
        "{path:?} is a path inside of a shared folder; get the folder itself ({root}), with --only for a part of it"
    )]
    Path {
        /// The folder's CID.
        root: Cid,
        /// What followed it.
        path: String,
    },
    /// Nothing that is known.
    #[error("{0:?} is not a link; paste a modswarm link (modswarm:…), a CID (baf…) or an ipfs:// address")]
    Unknown(String),
}

impl Target {
    /// Reads what a user pasted: a link, a bare CID, `ipfs://CID`, `/ipfs/CID` or a gateway's URL.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        // Chats wrap links in these.
        let text = text.trim().trim_matches(['<', '>', '"', '\'', '`']).trim();
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text.len() > LINK_LEN_MAX {
            return Err(TargetError::TooLong(text.len()));
        }
        if let Some(rest) = strip_scheme(text, "modswarm:") {
            return parse_link(rest.trim_start_matches('/'));
        }
        if let Some(rest) = strip_scheme(text, "ipfs://").or_else(|| strip_scheme(text, "ipfs:")) {
            return parse_ipfs(rest.trim_start_matches('/').trim_start_matches("ipfs/"), Spelling::Ipfs);
        }
        if let Some(rest) = text.strip_prefix("/ipfs/").or_else(|| text.strip_prefix("ipfs/")) {
            return parse_ipfs(rest, Spelling::Ipfs);
        }
        if let Some(rest) = strip_scheme(text, "https://").or_else(|| strip_scheme(text, "http://"))
            && let Some(found) = parse_gateway(rest)
        {
            return found;
        }
        if let Some(code) = ForeignCode::recognise(text) {
            return Err(TargetError::Foreign(code));
        }
        let head = text.split(['/', '?', '#']).next().unwrap_or(text);
        match head.parse::<Cid>() {
            Ok(_) => parse_ipfs(text, Spelling::Cid),
            // It is one, but not of a kind that can be used: say why.
            Err(source) if !matches!(source, CidError::Malformed(_)) => Err(TargetError::Cid {
                cid: shorten(head),
                source,
            }),
            Err(_) => Err(TargetError::Unknown(shorten(text))),
        }
    }

    /// Whether it is past its expiry at `unix_seconds`.
    pub fn is_expired(&self, unix_seconds: u64) -> bool {
        self.expires.is_some_and(|expires| unix_seconds > expires)
    }

    fn plain(root: Cid, name: Option<Name>, spelling: Spelling) -> Self {
        Self {
            root,
            content: None,
            name,
            addrs: Vec::new(),
            expires: None,
            spelling,
        }
    }
}

impl From<Link> for Target {
    fn from(link: Link) -> Self {
        let Link {
            pack,
            content,
            name,
            addrs,
            expires,
        } = link;
        Self {
            root: pack,
            content,
            name,
            addrs,
            expires,
            spelling: Spelling::Link,
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl FromStr for Link {
    type Err = TargetError;

    /// Reads a `modswarm:` link, and only that.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Target {
            root,
            content,
            name,
            addrs,
            expires,
            spelling,
        } = Target::parse(text)?;
        if spelling != Spelling::Link {
            return Err(TargetError::Unknown(shorten(text)));
        }
        Ok(Self {
            pack: root,
            content,
            name,
            addrs,
            expires,
        })
    }
}

fn parse_link(rest: &str) -> Result<Target, TargetError> {
    let (root, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut target = Target::plain(parse_cid(root.trim_end_matches('/'))?, None, Spelling::Link);
    let query = query.split('#').next().unwrap_or(query);
    for pair in query.split('&') {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let Ok(value) = percent_decode_str(raw).decode_utf8() else {
            continue;
        };
        match key {
            "c" => {
                let content = value.parse().map_err(|_| TargetError::Value {
                    key: 'c',
                    value: shorten(&value),
                })?;
                target.content = Some(content);
            }
            // A name that could do harm is no reason to fail: the pack says its own.
            "n" => target.name = Name::normalised(&value).ok(),
            // Addresses of kinds that this version does not know are skipped.
            "a" if target.addrs.len() < LINK_ADDRS_MAX && value.len() <= LINK_ADDR_LEN_MAX => {
                if let Ok(addr) = value.parse::<Multiaddr>() {
                    target.addrs.push(addr);
                }
            }
            "x" => {
                let expires = value.parse().map_err(|_| TargetError::Value {
                    key: 'x',
                    value: shorten(&value),
                })?;
                target.expires = Some(expires);
            }
            _ => {}
        }
    }
    Ok(target)
}

/// Reads `CID`, `CID/`, `CID?filename=…`; a path behind it is an error.
fn parse_ipfs(rest: &str, spelling: Spelling) -> Result<Target, TargetError> {
    let rest = rest.split('#').next().unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (root, below) = path.split_once('/').unwrap_or((path, ""));
    let root = parse_cid(root)?;
    if !below.trim_matches('/').is_empty() {
        return Err(TargetError::Path {
            root,
            path: shorten(below),
        });
    }
    let name = query.split('&').find_map(|pair| {
        let value = percent_decode_str(pair.strip_prefix("filename=")?).decode_utf8().ok()?;
        Name::normalised(&value).ok()
    });
    Ok(Target::plain(root, name, spelling))
}

/// Reads `host/ipfs/CID…` or `CID.ipfs.host…`; none if it is neither.
fn parse_gateway(rest: &str) -> Option<Result<Target, TargetError>> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if let Some(rest) = path.strip_prefix("/ipfs/") {
        return Some(parse_ipfs(rest, Spelling::Gateway));
    }
    let (label, _) = host.split_once(".ipfs.")?;
    Some(parse_ipfs(&format!("{label}{path}"), Spelling::Gateway))
}

fn parse_cid(text: &str) -> Result<Cid, TargetError> {
    text.parse().map_err(|source| TargetError::Cid {
        cid: shorten(text),
        source,
    })
}

/// Schemes are compared without regard to case, since chats and phones change it.
fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
}

/// Enough of a text to know it by.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
