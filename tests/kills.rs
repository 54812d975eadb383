//! kill -9 at random instants, again and again, in whatever the program is doing.
//!
//! `MODSWARM_KILLS=1000 cargo test --test kills` kills so many times (200 if nothing is said); `MODSWARM_SEED` repeats a run's choices, though not the
//! machine's timing.

#![cfg(unix)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use support::{Machine, assert_same_tree, noise, share, write};

/// Bytes of every file that may stand under a final name, by path.
type Allowed = BTreeMap<String, Vec<Vec<u8>>>;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

fn allow(allowed: &mut Allowed, root: &Path, at: &Path) {
    for entry in fs::read_dir(at).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            allow(allowed, root, &path);
        } else {
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            allowed
                .entry(name)
                .or_default()
                .push(fs::read(&path).expect("readable"));
        }
    }
}

/// Every file under its final name is wholly of one version or the other.
fn assert_whole(allowed: &Allowed, root: &Path, at: &Path, what: &str) {
    let Ok(entries) = fs::read_dir(at) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert_whole(allowed, root, &path, what);
            continue;
        }
        let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
        let bytes = fs::read(&path).expect("readable");
        let known = allowed.get(&name).is_some_and(|versions| versions.contains(&bytes));
        assert!(
            known,
            "{what}: {name} ({} bytes) is no file of either version",
            bytes.len()
        );
    }
}

#[test]
fn whatever_is_killed_goes_on_and_nothing_half_done_is_ever_seen() {
    let kills = number("MODSWARM_KILLS").unwrap_or(200);
    let seed = number("MODSWARM_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    println!("{kills} kills, seed {seed}");
    let mut dice = Dice(seed | 1);

    let [a, b] = ["from", "killed"].map(Machine::new);
    let (one, two) = (a.path("one/Pack"), a.path("two/Pack"));
    for root in [&one, &two] {
        write(&root.join("same.pak"), &noise(1, 400_000));
        write(&root.join("sub/deep.pak"), &noise(2, 90_000));
        write(&root.join("empty"), b"");
    }
    write(&one.join("changes.pak"), &noise(3, 900_000));
    let mut changed = noise(3, 900_000);
    changed[500_000] ^= 1;
    write(&two.join("changes.pak"), &changed);
    write(&one.join("old name.pak"), &noise(4, 200_000));
    write(&two.join("new name.pak"), &noise(4, 200_000));
    write(&two.join("fresh.pak"), &noise(5, 300_000));
    let first = share(&a, &one, &[]);
    // The second share is served by the process of the first.
    let second = share(&a, &two, &[]);
    let mut allowed = Allowed::new();
    allow(&mut allowed, &one, &one);
    allow(&mut allowed, &two, &two);

    let out = b.path("Pack");
    let mine = b.path("Mine");
    write(&mine.join("my.pak"), &noise(6, 500_000));
    let get_one: &[&str] = &["get", &first.link, "--no-seed", "--json"];
    let get_two: &[&str] = &["get", &second.link, "--no-seed", "--json"];
    let share_mine: &[&str] = &["share", "Mine", "--json"];
    let gc: &[&str] = &["gc", "--json"];
    let verify: &[&str] = &["verify", "--json"];
    let jobs = [get_one, get_two, share_mine, gc, verify];

    // How long a job takes here, today: the instants are spread over that.
    let began = Instant::now();
    assert_eq!(b.run(get_one).code(), 0);
    let span = began.elapsed().as_micros() as u64;
    let mut ended = 0;
    for kill in 0..kills {
        // Updates are what can go wrong most.
        let job = jobs[dice.roll(8).saturating_sub(3) as usize % jobs.len()];
        let job = if dice.roll(2) == 0 { get_two } else { job };
        let what = format!("kill {kill} of {kills}, seed {seed}, {job:?}");
        if dice.roll(3) == 0 {
            // Begin from nothing now and then.
            let removed = b.run(&["rm", "Pack", "--data"]);
            assert!([0, 1].contains(&removed.code()), "{what}: {}", removed.said);
        }
        let process = b.start(job);
        // The instant is what is tested; nothing is waited for.
        thread::sleep(Duration::from_micros(dice.roll(span)));
        let said = process.said();
        process.kill();
        ended += u64::from(said.contains("complete"));
        assert!(
            !said.contains("\"failed\"") && !said.contains("panicked"),
            "{what}: it failed by itself:\n{said}"
        );
        assert_whole(&allowed, &out, &out, &what);
        assert_eq!(
            fs::read(mine.join("my.pak")).expect("it is there"),
            noise(6, 500_000),
            "{what}"
        );
    }
    println!("{ended} of {kills} came after the job had ended");

    let last = b.run(get_two);
    assert_eq!(last.code(), 0, "seed {seed}: {}", last.said);
    assert_same_tree(&two, &out);
    assert_eq!(b.run(gc).code(), 0);
    let verified = b.run(verify);
    assert_eq!(verified.code(), 0, "seed {seed}: {:?}", verified.stdout);
    let left: Vec<_> = fs::read_dir(b.path("."))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".modswarm"))
        .collect();
    assert!(left.is_empty(), "seed {seed}: {left:?} is left");
}
