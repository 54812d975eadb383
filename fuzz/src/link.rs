//! Links and every other spelling of what to get, CIDs, names and paths.

use modswarm_protocol::format::{
    Cid, Link, Name, PackPath, Target,
    link::{LINK_ADDRS_MAX, LINK_LEN_MAX},
};

use super::{assert_presentable, memory, skeleton::assert_safe};

pub fn run(data: &[u8]) {
    memory::within(64 * data.len() + 64 * 1024, || {
        cids(data);
        match Name::from_utf8(data) {
            Ok(name) => assert_eq!(Name::new(name.as_str()), Ok(name)),
            Err(e) => assert_presentable(&e, data.len()),
        }
        let Ok(text) = std::str::from_utf8(data) else { return };
        match PackPath::new(text) {
            Ok(path) => assert_safe(&path),
            Err(e) => assert_presentable(&e, data.len()),
        }
        match Target::parse(text) {
            Ok(target) => check(target),
            Err(e) => assert_presentable(&e, data.len()),
        }
    });
}

fn check(target: Target) {
    assert!(target.addrs.len() <= LINK_ADDRS_MAX);
    let link = Link {
        pack: target.root,
        content: target.content,
        name: target.name,
        addrs: target.addrs,
        expires: target.expires,
    };
    let text = link.to_string();
    assert!(
        text.is_ascii() && !text.contains(char::is_whitespace),
        "a link that chats would cut: {text:?}"
    );
    if text.len() <= LINK_LEN_MAX {
        assert_eq!(text.parse::<Link>().as_ref(), Ok(&link), "{text}");
    }
}

fn cids(data: &[u8]) {
    match Cid::from_bytes(data) {
        Ok(cid) => {
            assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
            assert_eq!(cid.to_string().parse(), Ok(cid));
        }
        Err(e) => assert_presentable(&e, data.len()),
    }
}
