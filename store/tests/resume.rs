//! Downloads that end early go on where they were.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::*;
use modswarm_store::{PackState, SharedPack, Store};
use proptest::prelude::*;

const CHILD: &str = "MODSWARM_STORE_TEST_CHILD";

#[test]
fn a_dropped_download_resumes_without_hashing() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/big"), &noise(1, 5_000_000));
    write(&place.path("p/small"), &noise(2, 5_000));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let map = download.content().map().clone();
    for (index, leaf) in map.iter().take(20) {
        let bytes = a.read_leaf(&leaf.cid, leaf.len).unwrap();
        download.write_piece(index, &bytes).unwrap();
    }
    let id = download.id();
    drop(download);
    drop(b);
    let b = place.store("b");
    assert_eq!(b.packs().unwrap()[0].state, PackState::Downloading);
    assert_eq!(b.packs().unwrap()[0].pieces_here, 20);
    let watch = Watch::default();
    let download = b.resume_download(id, &watch).unwrap();
    assert_eq!((download.have().count_ones(), watch.hashed()), (20, 0));
    assert_eq!(fetch(&a, &download).count_ones() as u64, pack.blocks - 20);
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
}

#[test]
fn very_many_files_go_on_where_they_were() {
    const FILES: usize = 2600;
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    for number in 0..FILES {
        write(
            &place.path(&format!("p/{:02}/{number}", number % 7)),
            &noise(number as u64, 50),
        );
    }
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    // Files of which there are gaps in the index, some in their places, some not begun.
    let mut some = spec(&pack, &place.path("out"));
    some.selection = Some((0..FILES).map(|number| number % 3 != 1).collect());
    let download = b.begin_download(&some, &()).unwrap();
    let map = download.content().map().clone();
    let wanted = download.wanted();
    let written: Vec<_> = map
        .iter()
        .filter(|(piece, _)| wanted[piece.as_usize()])
        .step_by(2)
        .collect();
    for (piece, leaf) in &written {
        let bytes = a.read_leaf(&leaf.cid, leaf.len).unwrap();
        download.write_piece(*piece, &bytes).unwrap();
    }
    b.flush().unwrap();
    drop(download);

    let download = b.begin_download(&some, &()).unwrap();
    assert_eq!(download.have().count_ones(), written.len());
    drop(download);
    let all = spec(&pack, &place.path("out"));
    let preview = b.preview_download(&all, &()).unwrap();
    assert_eq!(
        (preview.unchanged as usize, preview.added.len()),
        (written.len(), FILES - written.len())
    );
    let download = b.begin_download(&all, &()).unwrap();
    assert!(written.iter().all(|(piece, _)| download.have()[piece.as_usize()]));
    assert_eq!(fetch(&a, &download).count_ones(), FILES - written.len());
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
}

#[test]
fn half_a_download_can_be_read_by_others_at_once() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/big"), &noise(1, 2_000_000));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let (index, leaf) = download.content().map().iter().next().unwrap();
    download
        .write_piece(index, &a.read_leaf(&leaf.cid, leaf.len).unwrap())
        .unwrap();
    assert_eq!(b.have(&pack.content).unwrap().unwrap().count_ones(), 1);
    assert!(
        b.read_leaf(&leaf.cid, leaf.len).is_ok(),
        "what is had can be read before it is durable"
    );
    b.flush().unwrap();
    assert!(b.read_leaf(&leaf.cid, leaf.len).is_ok());
}

#[test]
fn a_lost_staging_folder_costs_only_what_was_in_it() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/done"), &noise(1, 100_000));
    write(&place.path("p/half"), &noise(2, 3_000_000));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let content = download.content().clone();
    for (index, leaf) in content.map().iter().take(10) {
        download
            .write_piece(index, &a.read_leaf(&leaf.cid, leaf.len).unwrap())
            .unwrap();
    }
    drop(download);
    b.flush().unwrap();
    for entry in std::fs::read_dir(place.dir.path()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().ends_with(".part") {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let done = content.files().find(|f| f.path().as_str() == "done").unwrap();
    assert_eq!(download.have().count_ones(), done.parts().count());
    fetch(&a, &download);
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
}

/// The process that is killed: downloads, and says each piece that it wrote.
#[test]
#[ignore = "run by killed_at_any_point_a_download_goes_on"]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let dir = PathBuf::from(dir);
    let (a, b) = (open(&dir.join("a")), open(&dir.join("b")));
    let pack = share(&a, &dir.join("p"));
    let download = b.begin_download(&spec(&pack, &dir.join("out")), &()).unwrap();
    let absent = download.wanted() & !download.have();
    let map = download.content().map().clone();
    // A ticket from the parent for each step: it decides how far this process gets.
    let mut tickets = std::io::stdin().lines();
    for (n, at) in absent.iter_ones().enumerate() {
        tickets.next().unwrap().unwrap();
        let index = map.index(at as u32).unwrap();
        let leaf = map.leaf(index);
        download
            .write_piece(index, &a.read_leaf(&leaf.cid, leaf.len).unwrap())
            .unwrap();
        if n % 7 == 6 {
            b.flush().unwrap();
        }
        println!("piece");
    }
    println!("finishing");
    tickets.next().unwrap().unwrap();
    download.finish().unwrap();
    println!("finished");
}

/// Lets [`child`] take `steps` steps and kills it during the last. Says whether it got to its end before.
fn run_child(dir: &Path, steps: usize) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CHILD, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all("go\n".repeat(steps).as_bytes()).unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    let words = ["piece", "finishing", "finished"];
    let ours = said
        .map_while(Result::ok)
        .filter(|line| words.iter().any(|word| line.ends_with(word)));
    let ended = ours.take(steps - 1).any(|line| line.ends_with("finished"));
    child.kill().unwrap();
    child.wait().unwrap();
    ended
}

fn check_after_kill(a: &Store, b: &Store, pack: &SharedPack, out: &Path) {
    let Some(record) = b.packs_of(&pack.content).unwrap().pop() else {
        return;
    };
    let content = b.content(&record).unwrap().unwrap();
    let have = b.have(&pack.content).unwrap().unwrap();
    for (index, leaf) in content.map().iter().filter(|(index, _)| have[index.as_usize()]) {
        assert!(
            b.read_leaf(&leaf.cid, leaf.len).is_ok(),
            "{index:?} is promised and not there"
        );
    }
    if out.exists() {
        for (path, bytes) in tree(out) {
            if let Some(bytes) = bytes {
                let file = content.files().find(|f| f.path().as_str() == path).unwrap();
                let parts: Vec<u8> = file
                    .spans()
                    .flat_map(|span| match span.part {
                        modswarm_protocol::format::Part::Piece(index) => {
                            let leaf = content.map().leaf(index);
                            a.read_leaf(&leaf.cid, leaf.len).unwrap().to_vec()
                        }
                        modswarm_protocol::format::Part::Node { .. } => unreachable!(),
                    })
                    .collect();
                assert_eq!(bytes, parts, "{path} stands under its final name and is not whole");
            }
        }
    }
}

#[test]
fn killed_at_any_point_a_download_goes_on() {
    let seed = std::env::var("MODSWARM_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1_u64);
    println!("MODSWARM_SEED={seed}");
    let place = Place::new();
    let p = place.path("p");
    write(&p.join("big"), &noise(1, 4_000_000));
    for n in 0..30 {
        write(&p.join(format!("small/{n}")), &noise(100 + n, 20_000));
    }
    write(&p.join("zero"), b"");
    settle();
    let pack = {
        let (a, b) = (place.store("a"), place.store("b"));
        let pack = share(&a, &p);
        copy_skeleton(&a, &b, &pack.pack);
        pack
    };
    let points = noise(seed, 64);
    let mut runs = 0;
    for point in points.iter().take(16) {
        runs += 1;
        if run_child(place.dir.path(), usize::from(point % 25) + 2) {
            break;
        }
        let (a, b) = (place.store("a"), place.store("b"));
        check_after_kill(&a, &b, &pack, &place.path("out"));
    }
    let (a, b) = (place.store("a"), place.store("b"));
    assert!(runs > 4, "the child was killed on the way");
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    fetch(&a, &download);
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&p), "after {runs} kills");
    assert_readable(&b, &pack.content);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Pieces in any order, repeated, from several threads, with the download dropped and begun again in between, give the same tree.
    #[test]
    fn any_order_of_pieces_gives_the_same_files(
        sizes in prop::collection::vec(0_usize..200_000, 1..12),
        order in any::<u64>(),
        restarts in prop::collection::vec(1_usize..20, 0..3),
    ) {
        let place = Place::new();
        let (a, b) = (place.store("a"), place.store("b"));
        for (n, size) in sizes.iter().enumerate() {
            // Some files are equal.
            write(&place.path("p").join(n.to_string()), &noise((n % 5) as u64, *size));
        }
        let pack = share(&a, &place.path("p"));
        copy_skeleton(&a, &b, &pack.pack);
        let spec = spec(&pack, &place.path("out"));
        let mut download = b.begin_download(&spec, &()).unwrap();
        let map = download.content().map().clone();
        let mut pieces: Vec<_> = map.iter().chain(map.iter().take(5)).collect();
        let keys = noise(order, pieces.len() * 8);
        let mut at = 0;
        pieces.sort_by_cached_key(|_| { at += 8; keys[at - 8..at].to_vec() });
        let mut restarts = restarts.into_iter();
        while !pieces.is_empty() {
            let run = restarts.next().unwrap_or(pieces.len()).min(pieces.len());
            let (left, right) = pieces[..run].split_at(run / 2);
            std::thread::scope(|scope| {
                let (a, download) = (&a, &download);
                for half in [left, right] {
                    scope.spawn(move || for (index, leaf) in half {
                        download.write_piece(*index, &a.read_leaf(&leaf.cid, leaf.len).unwrap()).unwrap();
                    });
                }
            });
            pieces.drain(..run);
            drop(download);
            download = b.begin_download(&spec, &()).unwrap();
        }
        prop_assert!(download.have() == download.wanted());
        download.finish().unwrap();
        prop_assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
    }
}
