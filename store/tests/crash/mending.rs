//! Power cuts and failing disks while a pack is mended where it stands.

use modswarm_store::Fault;

use super::*;

/// What the user made of `left.pak`.
const MINE: &[u8] = b"edited by the user";

/// A home that has the first version, of which the user edited one file and another has rotted.
fn damaged(world: &World) -> (CrashDisk, Vec<u8>) {
    let kept = installed(world);
    kept.0.edit(&Path::new(OUT).join("left.pak"), MINE);
    kept.0.flip(&Path::new(OUT).join("changes.pak"), 1_000_000);
    kept
}

fn mend(store: &Store, world: &World) -> Result<(), String> {
    let record = store.packs_of(&world.one.content).map_err(text)?.remove(0);
    store.verify_pack(record.id, &()).map_err(text)?;
    let mut mend = destination(&world.one);
    mend.conflicts = Conflicts::Mend;
    let download = store.begin_download(&mend, &()).map_err(text)?;
    download.adopt_local().map_err(text)?;
    let map = download.content().map().clone();
    for piece in (download.wanted() & !download.have()).iter_ones() {
        let index = map.index(piece as u32).unwrap();
        let bytes = old_leaf(world, &map.leaf(index).cid).map_err(text)?;
        download.write_piece(index, &bytes).map_err(text)?;
    }
    download.finish().map_err(text).map(|_| ())
}

#[test]
fn mending_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let kept = damaged(&world);
    let rotten = kept.0.tree(Path::new(OUT));
    let mut mended = world.tree_one.clone();
    mended.insert("left.pak".to_owned(), Some(MINE.to_vec()));
    every_crash(
        "mend",
        &world,
        &kept,
        &|store, world, _| mend(store, world),
        &[&rotten, &mended],
        &|store, disk, what| {
            mend(store, &world).unwrap_or_else(|e| panic!("{what}: it cannot go on: {e}"));
            store.collect_garbage(&()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_same(disk, Path::new(OUT), &mended, what);
            let record = store.packs_of(&world.one.content).unwrap().remove(0);
            assert_eq!(
                (record.state, record.kept, record.partial),
                (PackState::Whole, 0, false),
                "{what}"
            );
            let bad = store.verify_pack(record.id, &()).unwrap().bad;
            assert_eq!((bad.len(), bad[0].fault), (1, Fault::Changed), "{what}");
            assert_eq!(bad[0].path.as_str(), "left.pak", "{what}");
            // All is had but what the edit took.
            let content = store.content(&record).unwrap().unwrap();
            let have = store.have(&world.one.content).unwrap().unwrap();
            for (index, leaf) in content.map().iter() {
                let there = store.read_leaf(&leaf.cid, leaf.len).is_ok();
                assert_eq!(there, have[index.as_usize()], "{what}");
            }
            assert!(
                have.count_zeros() <= 1,
                "{what}: {} pieces are missing",
                have.count_zeros()
            );
        },
    );
}
