//! The chunker's cut points are part of the format: another cut is another CID.

use std::collections::HashSet;

use modswarm_protocol::format::{ChunkerProfile, HashKind, MAX_BLOCK_LEN};
use proptest::prelude::*;

/// xorshift64*: the same bytes everywhere and for ever.
fn random_bytes(mut seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        bytes.extend(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn lengths(profile: ChunkerProfile, data: &[u8]) -> Vec<usize> {
    profile.chunks(data).map(<[u8]>::len).collect()
}

/// Pinned on the first release of the format: they never change.
#[test]
fn cut_points_are_golden() {
    let data = random_bytes(1, 8 << 20);
    let golden: [(u32, usize, [usize; 4], &str); 5] = [
        (256, 27066, [291, 382, 519, 272], "d5ef4d01327c2fd3"),
        (32 << 10, 201, [33480, 64277, 66653, 8940], "ec296f58a7fe1b14"),
        (64 << 10, 106, [127081, 46269, 49201, 66213], "ab0c0898bb6a11c2"),
        (128 << 10, 55, [272394, 90556, 127471, 134507], "3beaa11ab91b3405"),
        (256 << 10, 28, [319122, 171299, 473529, 334890], "5f5e4f65eed80b1e"),
    ];
    for (average, count, first, digest) in golden {
        let lengths = lengths(ChunkerProfile::fastcdc(average).expect("an average"), &data);
        let text: String = lengths.iter().map(|len| format!("{len}\n")).collect();
        let hash: String = HashKind::Blake3.digest(text.as_bytes())[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            (average, lengths.len(), &lengths[..4], hash.as_str()),
            (average, count, &first[..], digest)
        );
    }
}

#[test]
fn equal_bytes_are_cut_at_the_maximum() {
    let zeros = vec![0; 300 << 10];
    assert_eq!(
        lengths(ChunkerProfile::DEFAULT, &zeros),
        [128 << 10, 128 << 10, 44 << 10]
    );
}

#[test]
fn fixed_chunks_are_fixed() {
    let profile = ChunkerProfile::fixed(1000).expect("a size");
    assert_eq!(lengths(profile, &[7; 2500]), [1000, 1000, 500]);
    assert_eq!(lengths(profile, &[7; 2000]), [1000, 1000]);
    assert!(lengths(profile, &[]).is_empty());
}

#[test]
fn a_change_in_the_middle_of_a_container_keeps_the_other_leaves() {
    let old = random_bytes(2, 4 << 20);
    let asset = random_bytes(3, 12_345);
    let new = [&old[..2_000_001], &asset, &old[2_000_001..]].concat();
    let known: HashSet<&[u8]> = ChunkerProfile::DEFAULT.chunks(&old).collect();
    let fetched: usize = ChunkerProfile::DEFAULT
        .chunks(&new)
        .filter(|chunk| !known.contains(chunk))
        .map(<[u8]>::len)
        .sum();
    assert!(
        fetched < asset.len() + 3 * ChunkerProfile::DEFAULT.max_len(),
        "{fetched}"
    );
}

#[test]
fn profiles_have_one_spelling_each() {
    for (text, max_len) in [
        ("fastcdc2020-65536", 262_144),
        ("fixed-1048576", 1_048_576),
        ("fastcdc2020-524288", MAX_BLOCK_LEN),
    ] {
        let profile: ChunkerProfile = text.parse().expect("a profile");
        assert_eq!((profile.to_string().as_str(), profile.max_len()), (text, max_len));
    }
    let unknown = [
        "",
        "fastcdc2020",
        "fastcdc2020-",
        "fastcdc2020-65535",
        "fastcdc2020-128",
        "fastcdc2020-1048576",
        "fastcdc2020-+65536",
        "fixed-0",
        "fixed-01",
        "fixed-2097153",
        "rabin-65536",
        "fixed-99999999999999999999",
    ];
    for text in unknown {
        let error = text.parse::<ChunkerProfile>().expect_err(text);
        assert!(error.to_string().contains("use one such as"));
    }
}

/// FastCDC 2020 a byte at a time, as the paper has it, with the gear table and strict mask of the crate; the relaxed mask lacks its two lowest bits.
fn slow_cut(data: &[u8], average: usize) -> usize {
    let (min, max) = (average / 4, average * 4);
    let (strict, _) = fastcdc::v2020::select_masks(average, fastcdc::v2020::Normalization::Level1);
    let lowest = 1 << strict.trailing_zeros();
    let second = 1 << (strict ^ lowest).trailing_zeros();
    let relaxed = strict ^ lowest ^ second;
    let (gear, _) = fastcdc::v2020::get_gear_with_seed(0);
    // Bytes are looked at in pairs; an odd last one never decides.
    let end = data.len().min(max) / 2 * 2;
    if data.len() <= min {
        return data.len();
    }
    let mut hash = 0_u64;
    for (at, &byte) in data[..end].iter().enumerate().skip(min) {
        hash = (hash << 1).wrapping_add(gear[byte as usize]);
        let mask = if at < average { strict } else { relaxed };
        if hash & mask == 0 {
            return at;
        }
    }
    data.len().min(max)
}

proptest! {
    #[test]
    fn cuts_are_those_of_a_slow_reference(seed in 1_u64.., len in 0_usize..20_000, exponent in 8_u32..12) {
        let profile = ChunkerProfile::fastcdc(1 << exponent).expect("an average");
        let data = random_bytes(seed, len);
        prop_assert_eq!(profile.next_cut(&data), slow_cut(&data, 1 << exponent));
    }

    /// However much of a file is in memory, as long as it is `max_len` or the end, it is cut alike; and within bounds.
    #[test]
    fn cuts_depend_on_nothing_beyond_the_longest_leaf(seed in 1_u64.., len in 0_usize..60_000, exponent in 8_u32..13) {
        let profile = ChunkerProfile::fastcdc(1 << exponent).expect("an average");
        let data = random_bytes(seed, len);
        let mut at = 0;
        for chunk in profile.chunks(&data) {
            let window = &data[at..data.len().min(at + profile.max_len())];
            prop_assert_eq!(profile.next_cut(window), chunk.len());
            at += chunk.len();
            let min = (1_usize << exponent) / 4;
            prop_assert!(chunk.len() <= profile.max_len() && (chunk.len() >= min || at == data.len()));
        }
        prop_assert_eq!(at, data.len());
    }
}
