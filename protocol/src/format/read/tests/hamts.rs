use super::*;
use crate::format::hamt::{self, FANOUT, HASH_TYPE, bitfield, hash_name, position};

/// A shard that says this of itself, with these links by name.
fn shard(dag: &mut Dag, links: &[(String, Cid)], hash_type: u64, fanout: u64, bits: &[u8]) -> Cid {
    let links: Vec<Link<'_>> = links.iter().map(|(name, cid)| (name.as_bytes(), *cid, 1)).collect();
    dag.node(&links, &unixfs::encode_shard(bits, hash_type, fanout))
}

fn bits(links: &[(String, Cid)]) -> Vec<u8> {
    bitfield(
        links
            .iter()
            .map(|(name, _)| u8::from_str_radix(&name[..2], 16).expect("a position")),
    )
}

fn honest(dag: &mut Dag, links: &[(String, Cid)]) -> Cid {
    shard(dag, links, HASH_TYPE, FANOUT, &bits(links))
}

/// The name of an entry as a shard at `level` stores it.
fn placed(name: &str, level: usize) -> String {
    format!("{:02X}{name}", position(hash_name(name.as_bytes()), level))
}

/// Names that lie at different places of a root shard, in order.
fn two() -> [(String, Cid); 2] {
    let mut links = [(placed("a", 0), leaf("a")), (placed("b", 0), leaf("b"))];
    links.sort_by(|x, y| x.0.cmp(&y.0));
    assert_ne!(links[0].0[..2], links[1].0[..2]);
    links
}

#[test]
fn a_shard_reads_as_a_folder() {
    let mut dag = Dag::default();
    let root = honest(&mut dag, &two());
    assert_eq!(dag.read(root).expect("good").content.files().len(), 2);
    // Kept with leading zeros by some encoders.
    let mut padded = vec![0; 32];
    let short = bits(&two());
    padded[32 - short.len()..].copy_from_slice(&short);
    let root = shard(&mut dag, &two(), HASH_TYPE, FANOUT, &padded);
    dag.read(root).expect("good");
    // Nothing in it at all is an empty folder.
    let root = honest(&mut dag, &[]);
    assert!(dag.read(root).expect("good").content.files().len() == 0);
}

#[test]
fn an_unknown_hash_or_width_is_refused() {
    let mut dag = Dag::default();
    for (hash, fanout) in [(0x12, FANOUT), (HASH_TYPE, 0), (HASH_TYPE, 16), (HASH_TYPE, u64::MAX)] {
        let root = shard(&mut dag, &two(), hash, fanout, &bits(&two()));
        assert_refused!(dag.read(root), SkeletonError::Malformed { .. });
    }
    let silent = dag.other(5, &bits(&two()), &[]);
    assert_refused!(dag.read(silent), SkeletonError::Malformed { .. });
}

#[test]
fn entries_in_the_wrong_place_or_order_are_refused() {
    let mut dag = Dag::default();
    let [a, b] = two();
    let elsewhere = |name: &str| {
        let at = position(hash_name(name.as_bytes()), 0).wrapping_add(1);
        vec![(format!("{at:02X}{name}"), leaf(name))]
    };
    let wrong = [
        elsewhere("a"),
        vec![b.clone(), a.clone()],
        vec![a.clone(), a.clone()],
        vec![(placed("a", 0)[..1].to_owned(), leaf("a"))],
        vec![(placed("a", 0).to_lowercase().replace(char::is_numeric, "g"), leaf("a"))],
    ];
    for links in wrong {
        let bits = bitfield(
            links
                .iter()
                .filter_map(|(name, _)| u8::from_str_radix(name.get(..2)?, 16).ok()),
        );
        let root = shard(&mut dag, &links, HASH_TYPE, FANOUT, &bits);
        assert_refused!(dag.read(root), SkeletonError::Malformed { .. });
    }
    // A map that does not match.
    let root = shard(&mut dag, &[a, b], HASH_TYPE, FANOUT, &[0xff]);
    assert_refused!(dag.read(root), SkeletonError::Malformed { .. });
}

/// A shard below the root at the place where `name` belongs.
fn below(dag: &mut Dag, name: &str, inner: Cid) -> Cid {
    honest(dag, &[(placed(name, 0)[..2].to_owned(), inner)])
}

#[test]
fn shards_below_the_root_are_held_to_the_same_rules() {
    let mut dag = Dag::default();
    let inner = honest(&mut dag, &[(placed("a", 1), leaf("a"))]);
    let root = below(&mut dag, "a", inner);
    assert_eq!(dag.read(root).expect("good").content.file(0).path().as_str(), "a");

    // Right at its own level, and in a shard where it does not belong.
    let root = below(&mut dag, "b", inner);
    assert_refused!(dag.read(root), SkeletonError::Malformed { .. });

    let empty = honest(&mut dag, &[]);
    let root = below(&mut dag, "a", empty);
    assert_refused!(dag.read(root), SkeletonError::Malformed { .. });

    for wrong in [dag.dir(&[]), dag.file(&[(leaf("x"), 1)])] {
        let root = below(&mut dag, "a", wrong);
        assert_refused!(dag.read(root), SkeletonError::WrongKind { .. });
    }
    // A leaf where a shard must be is never even asked for.
    let root = below(&mut dag, "a", leaf("x"));
    assert!(dag.read(root).is_err());
}

#[test]
fn a_trie_deeper_than_its_hash_is_refused() {
    let mut dag = Dag::default();
    let mut below = honest(&mut dag, &[(placed("a", hamt::LEVELS - 1), leaf("a"))]);
    for level in (0..hamt::LEVELS - 1).rev() {
        below = honest(&mut dag, &[(placed("a", level)[..2].to_owned(), below)]);
    }
    assert_eq!(dag.read(below).expect("at the bound").content.files().len(), 1);
    for _ in 0..3 {
        below = honest(&mut dag, &[("00".to_owned(), below)]);
        assert_refused!(dag.read(below), SkeletonError::Malformed { .. });
    }
}

#[test]
fn a_trie_that_stands_for_endless_entries_is_refused_at_once() {
    let mut dag = Dag::default();
    let mut below = honest(&mut dag, &[(placed("a", 7), leaf("a"))]);
    for _ in 0..6 {
        let links: Vec<(String, Cid)> = (0..256).map(|i| (format!("{i:02X}"), below)).collect();
        below = honest(&mut dag, &links);
    }
    assert_refused!(dag.read(below), SkeletonError::TooLarge { .. });
}

#[test]
fn harmful_names_and_twins_are_refused_here_too() {
    let mut dag = Dag::default();
    for name in ["..", "a/b", "c\\d"] {
        let root = honest(&mut dag, &[(placed(name, 0), leaf("x"))]);
        assert_refused!(dag.read(root), SkeletonError::Name { .. });
    }
    let mut twins = vec![(placed("é", 0), leaf("a")), (placed("e\u{301}", 0), leaf("b"))];
    twins.sort_by(|x, y| x.0.cmp(&y.0));
    let root = honest(&mut dag, &twins);
    assert_refused!(dag.read(root), SkeletonError::DuplicateName { .. });
}

#[test]
fn a_leaf_is_no_part_of_a_large_folder() {
    let mut dag = Dag::default();
    let root = honest(&mut dag, &[("07".to_owned(), leaf("a"))]);
    assert_refused!(dag.read(root), SkeletonError::Malformed { .. });
}
