//! With fixed 1 MiB chunks, SHA2-256 and 1024 links, CIDs are those that IPIP-499's profile `unixfs-v1-2025` publishes.
//!
//! Inputs and CIDs: <https://github.com/ipfs/specs/pull/499>, "Test fixtures", and Kubo's test/cli/cid_profiles_test.go.

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use modswarm_protocol::format::{BuiltContent, ChunkerProfile, Cid, Codec, ContentBuilder, HashKind, Leaf, PackPath};

const MIB: usize = 1024 * 1024;

/// The bytes that the fixtures are made of: ChaCha20 keyed with the seed's SHA2-256, nonce 0.
struct Bytes(ChaCha20);

impl Bytes {
    fn new(seed: &str) -> Self {
        let key = HashKind::Sha2_256.digest(seed.as_bytes());
        Self(ChaCha20::new(&key.into(), &[0; 12].into()))
    }

    fn next(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
        self.0.apply_keystream(buffer);
    }

    fn next_leaf(&mut self, buffer: &mut [u8]) -> Leaf {
        self.next(buffer);
        assert_eq!(ChunkerProfile::IPIP_499.next_cut(buffer), buffer.len());
        Leaf {
            cid: Cid::of(Codec::Raw, HashKind::Sha2_256, buffer),
            len: buffer.len() as u32,
        }
    }
}

fn file_cid(leaves: &[Leaf]) -> String {
    let mut builder = ContentBuilder::new(HashKind::Sha2_256);
    let cid = builder.add_file(PackPath::new("file").expect("valid"), leaves.iter().copied());
    cid.expect("within bounds").to_string()
}

#[test]
fn a_small_file_is_its_raw_leaf() {
    let bytes = b"hello world";
    let leaf = Leaf {
        cid: Cid::of(Codec::Raw, HashKind::Sha2_256, bytes),
        len: bytes.len() as u32,
    };
    assert_eq!(
        file_cid(&[leaf]),
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    );
}

#[test]
fn a_file_of_one_chunk_and_of_a_byte_more() {
    let mut bytes = Bytes::new("chunk-v1-seed");
    let leaves = [bytes.next_leaf(&mut vec![0; MIB]), bytes.next_leaf(&mut [0])];
    assert_eq!(
        file_cid(&leaves[..1]),
        "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"
    );
    assert_eq!(
        file_cid(&leaves),
        "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"
    );
}

#[test]
fn a_file_of_1024_chunks_and_of_a_byte_more() {
    let mut bytes = Bytes::new("v1-2025-seed");
    let mut buffer = vec![0; MIB];
    let mut leaves: Vec<Leaf> = (0..1024).map(|_| bytes.next_leaf(&mut buffer)).collect();
    assert_eq!(
        file_cid(&leaves),
        "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm"
    );
    leaves.push(bytes.next_leaf(&mut [0]));
    assert_eq!(
        file_cid(&leaves),
        "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe"
    );
}

/// 4766 files that hold `x`; the last one's name is of this length.
fn directory(last_name_len: usize) -> BuiltContent {
    const COUNT: usize = 4766;
    let alphabet = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let mut bytes = Bytes::new("hamt-unixfs-v1-2025");
    let mut builder = ContentBuilder::new(HashKind::Sha2_256);
    let leaf = Leaf {
        cid: Cid::of(Codec::Raw, HashKind::Sha2_256, b"x"),
        len: 1,
    };
    for i in 0..COUNT {
        let mut name = vec![0; if i + 1 == COUNT { last_name_len } else { 11 }];
        bytes.next(&mut name);
        let name: String = name
            .iter()
            .map(|&byte| alphabet[byte as usize % alphabet.len()] as char)
            .collect();
        builder
            .add_file(PackPath::new(&name).expect("valid"), [leaf])
            .expect("within bounds");
    }
    builder.finish().expect("within bounds")
}

#[test]
fn a_directory_of_exactly_256_kib_stays_plain() {
    let built = directory(21);
    assert_eq!(built.nodes.last().map(|(_, bytes)| bytes.len()), Some(256 * 1024));
    assert_eq!(
        built.cid.to_string(),
        "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"
    );
}

#[test]
fn a_directory_of_a_byte_more_becomes_a_hamt() {
    assert_eq!(
        directory(22).cid.to_string(),
        "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu"
    );
}
