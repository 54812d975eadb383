use super::*;

#[test]
fn names_that_could_do_harm_refuse_the_pack() {
    let long = "x".repeat(766);
    let harmful: [&[u8]; 14] = [
        b"",
        b".",
        b"..",
        b"/",
        b"/etc",
        b"../up",
        b"a/b",
        b"a\\b",
        b"..\\up",
        b"nul\0byte",
        b"escape\x1b[2J",
        b"line\nbreak",
        b"not \xff utf-8",
        long.as_bytes(),
    ];
    for name in harmful {
        let mut dag = Dag::default();
        let root = dag.dir(&[(name, leaf("x"), 1)]);
        assert_refused!(dag.read(root), SkeletonError::Name { .. });
        let folder = dag.dir(&[]);
        let root = dag.dir(&[(name, folder, 1)]);
        assert_refused!(dag.read(root), SkeletonError::Name { .. });
    }
}

#[test]
fn a_name_that_is_there_twice_refuses_the_pack() {
    // The second pair is one name in Unicode forms C and D; the third a file and a folder.
    let mut dag = Dag::default();
    let folder = dag.dir(&[]);
    let twins: [[Link<'_>; 2]; 3] = [
        [(b"same", leaf("a"), 1), (b"same", leaf("b"), 1)],
        [("é".as_bytes(), leaf("a"), 1), ("e\u{301}".as_bytes(), leaf("b"), 1)],
        [(b"same", leaf("a"), 1), (b"same", folder, 1)],
    ];
    for links in twins {
        let root = dag.dir(&links);
        assert_refused!(dag.read(root), SkeletonError::DuplicateName { .. });
    }
}

#[test]
fn a_foreign_name_is_brought_into_form_c() {
    let mut dag = Dag::default();
    let root = dag.dir(&[("e\u{301}".as_bytes(), leaf("a"), 1)]);
    assert_eq!(dag.read(root).expect("good").content.file(0).path().as_str(), "\u{e9}");
}

#[test]
fn links_keep_the_order_in_which_they_are_stored() {
    let mut dag = Dag::default();
    let root = dag.dir(&[(b"b", leaf("1"), 1), (b"a", leaf("2"), 2), (b"c", leaf("1"), 1)]);
    let content = dag.read(root).expect("good").content;
    let names: Vec<String> = content.files().map(|file| file.path().to_string()).collect();
    assert_eq!(names, ["b", "a", "c"]);
    let lens: Vec<u32> = content.map().iter().map(|(_, leaf)| leaf.len).collect();
    assert_eq!(lens, [1, 2], "distinct, in order of first occurrence");
}

/// `levels` folders, each of which holds the next `width` times.
fn pyramid(dag: &mut Dag, levels: usize, width: usize) -> Cid {
    let mut below = dag.dir(&[]);
    let names: Vec<String> = (0..width).map(|i| i.to_string()).collect();
    for _ in 0..levels {
        let links: Vec<Link<'_>> = names.iter().map(|name| (name.as_bytes(), below, 0)).collect();
        below = dag.dir(&links);
    }
    below
}

#[test]
fn a_small_folder_that_stands_for_endless_folders_is_refused_at_once() {
    let mut dag = Dag::default();
    for (levels, width) in [(2, 1024), (6, 1000), (90, 2)] {
        let root = pyramid(&mut dag, levels, width);
        assert_refused!(dag.read(root), SkeletonError::TooLarge { .. });
    }
}

#[test]
fn folders_nested_too_deeply_are_refused() {
    let mut dag = Dag::default();
    let max = Limits::DEFAULT.depth as usize;
    let good = pyramid(&mut dag, max, 1);
    assert_eq!(dag.read(good).expect("at the bound").content.dirs().len(), max);
    for deeper in [1, 2, 20_000] {
        let root = pyramid(&mut dag, max + deeper, 1);
        assert_refused!(dag.read(root), SkeletonError::TooLarge { .. });
    }
    // Met first where it is not too deep.
    let root = dag.dir(&[(b"a", pyramid(&mut Dag::default(), max - 1, 1), 0), (b"b", good, 0)]);
    assert_refused!(dag.read(root), SkeletonError::TooLarge { .. });
}

#[test]
fn paths_are_bounded_one_by_one_and_together() {
    let mut dag = Dag::default();
    let name = "n".repeat(700);
    let mut below = (leaf("x"), 1);
    for _ in 0..6 {
        below = (dag.dir(&[(name.as_bytes(), below.0, below.1)]), 1);
    }
    assert_refused!(dag.read(below.0), SkeletonError::Name { .. });

    let root = dag.dir(&[(b"abc", leaf("x"), 1), (b"def", leaf("x"), 1)]);
    dag.read_within(
        root,
        Limits {
            path_bytes: 6,
            entries: 2,
            ..Limits::DEFAULT
        },
    )
    .expect("at the bounds");
    assert_refused!(
        dag.read_within(
            root,
            Limits {
                path_bytes: 5,
                ..Limits::DEFAULT
            }
        ),
        SkeletonError::TooLarge { .. }
    );
    assert_refused!(
        dag.read_within(
            root,
            Limits {
                entries: 1,
                ..Limits::DEFAULT
            }
        ),
        SkeletonError::TooLarge { .. }
    );
}

/// A skeleton of the largest size may list many more entries than are accepted: they are not all held before that is said.
#[test]
fn too_many_entries_are_refused_before_all_folders_have_come() {
    let mut dag = Dag::default();
    let folder = |dag: &mut Dag, n: u32| {
        let names: Vec<String> = (0..10).map(|at| format!("{n} {at}")).collect();
        let links: Vec<Link<'_>> = names.iter().map(|name| (name.as_bytes(), leaf(name), 1)).collect();
        dag.dir(&links)
    };
    let folders: Vec<Cid> = (0..10).map(|n| folder(&mut dag, n)).collect();
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let links: Vec<Link<'_>> = names
        .iter()
        .zip(&folders)
        .map(|(name, cid)| (name.as_bytes(), *cid, 0))
        .collect();
    let root = dag.dir(&links);
    let limits = |entries| Limits {
        entries,
        ..Limits::DEFAULT
    };
    assert_eq!(
        dag.read_within(root, limits(110))
            .expect("at the bound")
            .content
            .files()
            .len(),
        100
    );
    let mut reader = SkeletonReader::new(root, limits(109));
    let mut added = 0;
    let refused = loop {
        let cid = reader.wanted(1)[0];
        match reader.add(&cid, &dag.0[&cid]) {
            Ok(_) => added += 1,
            Err(e) => break e,
        }
    };
    assert!(
        matches!(refused, SkeletonError::TooLarge { max: 109, .. }),
        "{refused:?}"
    );
    assert_eq!(added, 10, "the last folder is one too many");
}
