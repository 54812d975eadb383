//! Codes and links of other tools, recognised so that a player learns what they pasted.

use std::fmt;

/// What another tool's code is. Displayed as what it is, why it cannot be fetched and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCode {
    /// `magnet:?…`
    Magnet,
    /// A .torrent file or its address.
    Torrent,
    /// `/ipns/…` or `ipns://…`
    Ipns,
    /// A profile code of r2modman or the Thunderstore mod manager: a UUID.
    ProfileCode,
    /// `nxm:`, `ror2mm:`, `curseforge:`, `modrinth:`, `prismlauncher:`: a link that another mod manager opens.
    ManagerLink,
    /// A base64 or JSON share code of an older mod-sharing tool.
    ShareCode,
    /// A web address that is no gateway's.
    WebPage,
}

impl ForeignCode {
    pub(super) fn recognise(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| lower.starts_with(prefix));
        let path = lower.split(['?', '#']).next().unwrap_or(&lower);
        if starts(&["magnet:"]) {
            Some(Self::Magnet)
        } else if path.ends_with(".torrent") {
            Some(Self::Torrent)
        } else if starts(&["ipns://", "ipns:", "/ipns/"])
            || (starts(&["http://", "https://"]) && lower.contains("/ipns/"))
        {
            Some(Self::Ipns)
        } else if starts(&[
            "nxm:",
            "ror2mm:",
            "curseforge:",
            "modrinth:",
            "prismlauncher:",
            "steam:",
        ]) {
            Some(Self::ManagerLink)
        } else if starts(&["http://", "https://"]) {
            Some(Self::WebPage)
        } else if is_uuid(&lower) {
            Some(Self::ProfileCode)
        } else if is_share_code(text) {
            Some(Self::ShareCode)
        } else {
            None
        }
    }
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(lower: &str) -> bool {
    let groups: Vec<&str> = lower.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A JSON object, or the base64 of one, of a gzip stream or of a zlib stream: what tools put their share information into.
fn is_share_code(text: &str) -> bool {
    if text.starts_with('{') {
        return true;
    }
    let base64 = text.len() >= 24
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'='));
    // "eyJ" is the base64 of `{"`, "ewo" of `{` and a line break, "H4sI" of gzip's magic, "eJ" and "eN" of zlib's.
    base64
        && ["eyJ", "ewo", "ewog", "H4sI", "eJ", "eN"]
            .iter()
            .any(|head| text.starts_with(head))
}

impl fmt::Display for ForeignCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magnet => {
                "this is a BitTorrent magnet link, which names content by another kind of hash; open it with a BitTorrent program, \
                 or ask for a modswarm link"
            }
            Self::Torrent => {
                "this is a .torrent file, which only BitTorrent programs can use; download with one of those, then `modswarm share` \
                 the folder to pass it on"
            }
            Self::Ipns => {
                "this is an IPNS name, which can point to something else tomorrow; open it in an IPFS program or gateway and copy \
                 the CID that it points to"
            }
            Self::ProfileCode => {
                "this looks like a profile code of r2modman or the Thunderstore mod manager, which names a list on their server and \
                 no files; import it there, or ask for a modswarm link"
            }
            Self::ManagerLink => {
                "this link is for another program, which downloads from its own servers; open it there, or ask for a modswarm link"
            }
            Self::ShareCode => {
                "this looks like a share code of an older mod-sharing tool; such a code points at one computer that had to be online \
                 and says nothing by which files could be found elsewhere or checked; ask for a modswarm link"
            }
            Self::WebPage => {
                "this is the address of a web page, not of a pack; paste the modswarm link that stands on it, a CID, or a gateway \
                 address such as https://…/ipfs/CID"
            }
        })
    }
}
