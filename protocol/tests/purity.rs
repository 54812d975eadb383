//! This crate touches no file, socket, clock or global randomness, and depends on nothing that would bring an executor in.

use std::{fs, path::Path, process::Command};

/// Crates that must not be in the tree.
const FORBIDDEN_CRATES: [&str; 10] = [
    "tokio",
    "async-std",
    "smol",
    "futures-timer",
    "libp2p-swarm",
    "libp2p-core",
    "mio",
    "socket2",
    "rusqlite",
    "tempfile",
];

/// Words that must not be in the sources.
const FORBIDDEN_WORDS: [&str; 16] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "Instant::now",
    "SystemTime",
    "UNIX_EPOCH",
    "RandomState",
    "rand::rng()",
    "rand::random",
    "thread_rng",
    "OsRng",
    "SysRng",
];

#[test]
fn no_executor_and_no_swarm_in_the_dependency_tree() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--all-features",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(
        names.contains(&"modswarm-protocol") && names.contains(&"blake3"),
        "{names:?}"
    );
    for name in names {
        assert!(!FORBIDDEN_CRATES.contains(&name), "{name} is in the dependency tree");
    }
}

#[test]
fn no_file_socket_clock_or_global_randomness_in_the_sources() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source file");
            seen += 1;
            for (number, line) in text.lines().enumerate() {
                // Also caught inside of `use std::{fs, …}`.
                let grouped = ["{fs,", " fs::", "{net,", " net::", "{env,", "{thread,"]
                    .iter()
                    .any(|word| line.contains(word));
                let grouped = grouped && line.trim_start().starts_with("use std::{");
                let found = FORBIDDEN_WORDS.iter().find(|word| line.contains(**word));
                let comment = line.trim_start().starts_with("//");
                assert!(
                    comment || (found.is_none() && !grouped),
                    "{}:{}: {line}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
    assert!(seen > 10, "{seen} files");
}
