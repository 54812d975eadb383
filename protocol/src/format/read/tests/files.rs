use super::*;
use crate::format::{MAX_BLOCK_LEN, Part, limits::FILE_DEPTH_MAX};

#[test]
fn a_file_alone_gets_the_name_that_is_given() {
    let mut dag = Dag::default();
    let root = dag.file(&[(leaf("a"), 3), (leaf("b"), 4)]);
    let content = dag.read(root).expect("good").content;
    assert_eq!(content.file(0).path().as_str(), root.to_string());
    assert_eq!((content.cid(), content.bytes(), content.map().len()), (root, 7, 2));

    let mut reader = SkeletonReader::new(root, Limits::DEFAULT).named(Name::new("mod.pak").expect("valid"));
    reader.add(&root, &dag.0[&root]).expect("good");
    assert_eq!(
        reader.finish().expect("good").content.file(0).path().as_str(),
        "mod.pak"
    );
}

#[test]
fn a_leaf_alone_is_a_file_whose_length_its_bytes_tell() {
    for text in ["text", ""] {
        let mut dag = Dag::default();
        let root = dag.put(Codec::Raw, text.as_bytes().to_vec());
        let content = dag.read(root).expect("good").content;
        assert_eq!(
            (content.bytes(), content.map().len()),
            (text.len() as u64, u32::from(!text.is_empty()))
        );
        assert_eq!(content.node_cids().len(), 0);
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let mut dag = Dag::default();
    let (a, b) = ((leaf("a"), 3), (leaf("b"), 4));
    let inner = dag.file(&[a, b]);
    let liars = [
        dag.file_that_says(&[a, b], 8, &[3, 4]),
        dag.file_that_says(&[a, b], u64::MAX, &[3, 4]),
        dag.file(&[(inner, 8)]),
        dag.file(&[(inner, 6), a]),
        dag.file(&[(empty_leaf(), 1)]),
        dag.file(&[a, (a.0, 4)]),
    ];
    for root in liars {
        assert_refused!(dag.read(root), SkeletonError::LyingSize { .. });
        let folder = dag.dir(&[(b"f", root, 0)]);
        assert_refused!(dag.read(folder), SkeletonError::LyingSize { .. });
    }
    let malformed = [
        dag.file_that_says(&[a, b], 7, &[7]),
        dag.file_that_says(&[a], 7, &[3, 4]),
        dag.file(&[a, (leaf("c"), 0)]),
        dag.file_that_says(&[(inner, u64::MAX), (inner, u64::MAX)], 0, &[u64::MAX, u64::MAX]),
    ];
    for root in malformed {
        assert_refused!(dag.read(root), SkeletonError::Malformed { .. });
    }
}

#[test]
fn a_leaf_longer_than_a_block_may_be_is_refused() {
    let mut dag = Dag::default();
    let max = MAX_BLOCK_LEN as u64;
    let good = dag.file(&[(leaf("a"), max), (leaf("b"), 1)]);
    dag.read(good).expect("at the bound");
    let long = dag.file(&[(leaf("a"), max + 1)]);
    assert_refused!(dag.read(long), SkeletonError::BlockTooLong { .. });
    let huge = dag.dir(&[(b"a", leaf("a"), 1 << 40)]);
    assert_refused!(dag.read(huge), SkeletonError::BlockTooLong { .. });
}

#[test]
fn a_leaf_in_a_folder_needs_a_believable_length() {
    let mut dag = Dag::default();
    for (cid, tsize) in [(leaf("a"), 0), (empty_leaf(), 5)] {
        let root = dag.dir(&[(b"f", cid, tsize)]);
        assert_refused!(dag.read(root), SkeletonError::LyingSize { .. });
    }
    // The Tsize of a node is not believed, and so may be anything.
    let file = dag.file(&[(leaf("a"), 3), (leaf("b"), 3)]);
    let root = dag.dir(&[(b"f", file, u64::MAX)]);
    assert_eq!(dag.read(root).expect("good").content.bytes(), 6);
}

#[test]
fn a_folder_is_no_part_of_a_file() {
    let mut dag = Dag::default();
    let folder = dag.dir(&[]);
    let root = dag.file(&[(folder, 3)]);
    assert_refused!(dag.read(root), SkeletonError::WrongKind { .. });
}

/// `levels` nodes, each of which links `width` times to the next, and the last to one leaf.
fn pyramid(dag: &mut Dag, levels: u32, width: usize, leaf_len: u64) -> Cid {
    let mut below = (leaf("zeros"), leaf_len);
    for _ in 0..levels {
        let size = below.1.saturating_mul(width as u64);
        below = (dag.file(&vec![below; width]), size);
    }
    below.0
}

#[test]
fn a_tebibyte_of_zeros_is_read_from_a_few_nodes() {
    let mut dag = Dag::default();
    let quarter = pyramid(&mut dag, 2, 1024, 256 * 1024);
    let root = dag.file(&[(quarter, 1 << 38); 4]);
    let content = dag.read(root).expect("it is within the bounds").content;
    assert_eq!(
        (content.bytes(), content.map().len(), content.map().bytes()),
        (1 << 40, 1, 256 * 1024)
    );
    assert_eq!(content.file(0).part_count(), 4 << 20);
    assert_eq!(content.node_cids().len(), 3);
}

#[test]
fn a_small_file_that_stands_for_endless_blocks_is_refused_at_once() {
    let mut dag = Dag::default();
    for (levels, width) in [(3, 1024), (6, 1024), (15, 18)] {
        let root = pyramid(&mut dag, levels, width, 1);
        assert_refused!(dag.read(root), SkeletonError::TooLarge { .. });
    }
    // Each file is small enough, and all together are not.
    let file = pyramid(&mut dag, 2, 1024, 1);
    let names: Vec<String> = (0..17).map(|i| i.to_string()).collect();
    let links: Vec<Link<'_>> = names.iter().map(|name| (name.as_bytes(), file, 0)).collect();
    let root = dag.dir(&links[..16]);
    assert_eq!(
        dag.read(root).expect("at the bound").content.bytes(),
        Limits::DEFAULT.parts
    );
    let root = dag.dir(&links);
    assert_refused!(dag.read(root), SkeletonError::TooLarge { .. });
}

#[test]
fn a_file_nested_too_deeply_is_refused() {
    let mut dag = Dag::default();
    let good = pyramid(&mut dag, FILE_DEPTH_MAX, 1, 1);
    dag.read(good).expect("at the bound");
    for deeper in [1, 2, 5000] {
        let root = pyramid(&mut dag, FILE_DEPTH_MAX + deeper, 1, 1);
        assert_refused!(dag.read(root), SkeletonError::FileTooDeep(_));
    }
    // Nodes that were met before at a smaller depth.
    let root = dag.file(&[(good, 1), (pyramid(&mut Dag::default(), FILE_DEPTH_MAX - 1, 1, 1), 1)]);
    assert_refused!(dag.read(root), SkeletonError::FileTooDeep(_));
}

#[test]
fn bytes_that_a_node_carries_come_before_its_links() {
    let mut dag = Dag::default();
    let mut data = Vec::new();
    put_varint(&mut data, 1, 2);
    put_bytes(&mut data, 2, b"inline");
    put_varint(&mut data, 3, 9);
    put_varint(&mut data, 4, 3);
    let root = dag.node(&[(b"", leaf("abc"), 3)], &data);
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    assert_eq!(reader.add(&root, &dag.0[&root]).expect("good"), Added::FileBytes);
    let content = reader.finish().expect("good").content;
    let spans: Vec<_> = content.file(0).spans().collect();
    assert_eq!((spans[0].part, spans[0].offset), (Part::Node { cid: root, len: 6 }, 0));
    assert_eq!((spans[1].offset, spans[1].len, spans.len()), (6, 3, 2));
    assert_eq!((content.node_cids().len(), content.skeleton_bytes()), (0, 0));
    assert_eq!(inline_bytes(&dag.0[&root]), Some(&b"inline"[..]));
}
