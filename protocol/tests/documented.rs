//! The example that docs/FORMAT.md draws is what this crate makes.

use modswarm_protocol::format::{
    ChunkerProfile, Cid, Codec, ContentBuilder, HashKind, Leaf, Limits, Manifest, build_pack, limits, link, manifest,
    path,
};

const DOC: &str = include_str!("../../docs/FORMAT.md");

fn leaf(bytes: &[u8]) -> Leaf {
    Leaf {
        cid: Cid::of(Codec::Raw, HashKind::Blake3, bytes),
        len: bytes.len() as u32,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits of the document without the line breaks and explanations around them.
fn assert_drawn(what: &str, bytes: &[u8]) {
    let start = DOC
        .find(&format!("<!-- {what} -->"))
        .unwrap_or_else(|| panic!("{what} is not in docs/FORMAT.md"));
    let block = DOC[start..].split("```").nth(1).expect("a drawing");
    let drawn: String = block
        .lines()
        .skip(1)
        .filter_map(|line| line.split('|').next())
        .collect();
    let drawn: String = drawn.chars().filter(|c| c.is_ascii_hexdigit()).collect();
    assert_eq!(drawn, hex(bytes), "{what}");
}

#[test]
fn the_example_is_true() {
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    let leaves = ChunkerProfile::Fixed { size: 4 };
    builder
        .add_file("a.pak".parse().expect("a path"), leaves.chunks(b"modswarm").map(leaf))
        .expect("fits");
    builder
        .add_file("b.txt".parse().expect("a path"), [leaf(b"hi\n")])
        .expect("fits");
    let built = builder.finish().expect("fits");
    let [(file_cid, file), (dir_cid, dir)] = &built.nodes[..] else {
        panic!("two nodes")
    };
    assert_drawn("file node", file);
    assert_drawn("directory node", dir);

    let manifest = Manifest::new(built.cid, "My pack".parse().expect("a name"))
        .to_bytes()
        .expect("small");
    let pack = build_pack(&built, &manifest, None);
    for cid in [file_cid, dir_cid, &pack.cid, &pack.blocks[1].0, &leaf(b"").cid] {
        assert!(DOC.contains(&cid.to_string()), "{cid} is not in docs/FORMAT.md");
    }
    assert!(DOC.contains(&format!("modswarm:{}?c={}&n=My%20pack", pack.cid, built.cid)));
}

#[test]
fn the_limits_are_those_of_the_code() {
    let Limits {
        nodes,
        skeleton_bytes,
        entries,
        parts,
        path_bytes,
        depth,
    } = Limits::DEFAULT;
    let rows = [
        ("distinct nodes of a content", nodes),
        ("bytes of skeleton", skeleton_bytes),
        ("files and folders", entries),
        ("parts of all files", parts),
        ("bytes of all paths", path_bytes),
        ("folders within folders", depth.into()),
        ("nodes from a file's root down", limits::FILE_DEPTH_MAX.into()),
        ("bytes of a name", path::NAME_LEN_MAX as u64),
        ("bytes of a path", path::PATH_LEN_MAX as u64),
        ("bytes of a block", modswarm_protocol::format::MAX_BLOCK_LEN as u64),
        (
            "bytes of pack.json or pack.sig",
            modswarm_protocol::format::MAX_MANIFEST_LEN as u64,
        ),
        ("bytes of a description", manifest::DESCRIPTION_LEN_MAX as u64),
        ("bytes of another field", manifest::FIELD_LEN_MAX as u64),
        ("tags", manifest::TAGS_MAX as u64),
        ("entries of `exec`", manifest::EXEC_MAX as u64),
        ("bytes of a link", link::LINK_LEN_MAX as u64),
        ("addresses of a link", link::LINK_ADDRS_MAX as u64),
    ];
    for (what, max) in rows {
        assert!(DOC.contains(&format!("| {what} | {max} |")), "| {what} | {max} |");
    }
}
