//! Directory nodes: plain while they are short enough, HAMT beyond.

use super::{
    super::{
        PLAIN_DIRECTORY_LEN_MAX,
        cid::Cid,
        dagpb::{OutLink, encode_node},
        hamt::{self, Collision},
        unixfs::DIRECTORY,
    },
    Nodes,
};

/// Makes the nodes of a directory of `entries` (name, CID, Tsize), which are sorted by the bytes of their names.
pub(super) fn directory(entries: &[(&str, Cid, u64)], nodes: &mut Nodes) -> Result<(Cid, u64), Collision> {
    let links = entries.iter().map(|&(name, cid, tsize)| OutLink {
        cid,
        name: name.as_bytes(),
        tsize,
    });
    let plain = encode_node(links, &DIRECTORY);
    if plain.len() <= PLAIN_DIRECTORY_LEN_MAX {
        let (cid, len) = nodes.push(plain);
        return Ok((cid, len + entries.iter().map(|entry| entry.2).sum::<u64>()));
    }
    let hashed = entries.iter().map(|&(name, cid, tsize)| hamt::Entry {
        hash: hamt::hash_name(name.as_bytes()),
        name,
        cid,
        tsize,
    });
    let mut hashed: Vec<hamt::Entry<'_>> = hashed.collect();
    hashed.sort_by_key(|entry| entry.hash);
    hamt::build(&hashed, 0, &mut |bytes| nodes.push(bytes))
}
