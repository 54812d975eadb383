//! One dag-pb block of unknown origin, as the first of a pack.

use modswarm_protocol::format::{
    Cid, Codec, HashKind, Limits, SkeletonReader,
    read::{Added, inline_bytes},
};

use super::{assert_presentable, memory};

pub fn run(data: &[u8]) {
    // A number of one byte may become eight in a list, lists grow by doubling, and an entry is a few times its shortest link.
    memory::within(48 * data.len() + 16 * 1024, || {
        let root = Cid::new(Codec::DagPb, HashKind::Blake3, [1; 32]);
        let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
        assert_eq!(reader.wanted(1), [root]);
        let carried = inline_bytes(data);
        match reader.add(&root, data) {
            Ok(added) => {
                assert_eq!(added == Added::FileBytes, carried.is_some());
                assert_eq!(reader.add(&root, data).expect("known already"), Added::Unwanted);
                let wanted = reader.wanted(usize::MAX);
                assert_eq!(wanted.len() as u64, reader.missing());
                assert!(
                    wanted.len() * 36 <= data.len(),
                    "more was asked for than the block names"
                );
            }
            Err(e) => assert_presentable(&e, data.len()),
        }
    });
}
