//! The short run of the fuzz targets: kept corpora, and a bounded number of mutations of them.
//!
//! `fuzz/` hands the same functions to libFuzzer. Here a seeded generator mutates, so that it runs wherever `cargo test` does; a case that fails is written
//! to a file, to be kept in `fuzz/corpus/<target>` once it is understood.
//!
//! - `MODSWARM_FUZZ_SEED=N` begins elsewhere; the seed is printed.
//! - `MODSWARM_FUZZ_CASES=N` runs N mutations of each target.
//! - `MODSWARM_FUZZ_WRITE=1` writes the seeds of the corpora anew, after a change of a format.
//!
//! The corpora hold paths as Unix spells them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod mutate;
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Instant,
};

use mutate::Mutator;
use targets::{TARGETS, memory, seeds};

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// The kept inputs of a target in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(corpora().join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Mutations of each target that `cargo test` tries: about a second's worth on a slow core.
const CASES: [(&str, u64); 11] = [
    ("block", 300_000),
    ("skeleton", 200_000),
    ("manifest", 300_000),
    ("link", 300_000),
    ("wire", 500_000),
    ("engine", 6_000),
    ("records", 8_000),
    ("place", 200_000),
    ("choice", 200_000),
    ("segment", 200_000),
    ("home", 60),
];

fn fuzz(target: &str) {
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let (_, cases) = CASES.into_iter().find(|(name, _)| *name == target).unwrap();
    let (seed, cases) = (
        number("MODSWARM_FUZZ_SEED").unwrap_or(1),
        number("MODSWARM_FUZZ_CASES").unwrap_or(cases),
    );
    let began = Instant::now();
    let kept = corpus(target);
    for (path, bytes) in &kept {
        println!("{}", path.display());
        run(bytes);
    }
    println!("{target}: {cases} cases of MODSWARM_FUZZ_SEED={seed}");
    let inputs: Vec<&[u8]> = kept.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let mut mutator = Mutator::new(seed, &inputs);
    for case in 0..cases {
        let input = mutator.next();
        if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
            let path = std::env::temp_dir().join(format!("modswarm-fuzz-{target}-{seed}-{case}"));
            fs::write(&path, &input).unwrap();
            panic!(
                "case {case} of seed {seed} fails; its input is {}: {input:x?}",
                path.display()
            );
        }
    }
    println!("{target}: {:.1} s", began.elapsed().as_secs_f64());
}

macro_rules! targets {
    ($($name:ident: $target:literal,)*) => {$(
        #[test]
        fn $name() {
            fuzz($target);
        }
    )*};
}

targets! {
    any_block_is_read_or_refused: "block",
    any_skeleton_is_safe_or_refused: "skeleton",
    any_pack_json_reads_back_as_it_is_written: "manifest",
    any_link_reads_back_as_it_is_written: "link",
    any_message_has_one_spelling: "wire",
    no_peer_brings_the_engine_to_a_halt: "engine",
    any_row_of_the_index_is_read_or_called_damaged: "records",
    any_plain_file_of_a_place_reads_back_as_it_is_written: "place",
    any_list_of_chosen_files_reads_back_as_it_is_written: "choice",
    any_segment_is_read_as_far_as_it_makes_sense: "segment",
    no_index_makes_the_store_panic_or_leave_its_folders: "home",
}

/// Regressions are kept beside the seeds under other names.
#[test]
fn the_corpora_begin_with_what_the_formats_give_today() {
    let writing = number("MODSWARM_FUZZ_WRITE").is_some();
    let seeds = seeds::all();
    for (target, name, bytes) in &seeds {
        let path = corpora().join(target).join(name);
        if writing {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert!(
            kept == *bytes,
            "{} is of an older format; MODSWARM_FUZZ_WRITE=1 writes it anew",
            path.display()
        );
    }
    for (target, _) in TARGETS {
        for (path, _) in corpus(target) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let known = !name.starts_with("seed-") || seeds.iter().any(|(of, seed, _)| *of == target && seed == name);
            assert!(known, "{} is made by nothing; delete it", path.display());
        }
    }
}

#[test]
fn memory_is_counted() {
    let (_, used) = memory::measured(|| drop(vec![0_u8; 1 << 20]));
    assert!((1 << 20..(1 << 20) + 1000).contains(&used), "{used}");
}

#[test]
#[should_panic(expected = "at most 1000 may be")]
fn more_memory_than_allowed_is_a_failure() {
    memory::within(1000, || vec![0_u8; 1001]);
}
