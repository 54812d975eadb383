//! Runs whole swarms in the simulator and writes what they came to, as a table and a plot, into `docs/`:
//!
//! ```sh
//! cargo run --release -p modswarm-protocol --features sim --example swarm_report
//! ```
//!
//! `swarm_report N` runs one swarm of N equal peers of degree 30 instead, and writes its row of the table of large swarms. These write
//! no files: `--print`, `--seed N` for another seed than the one of the documents, and `--only WORD` for the swarms with such names.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{iter, thread};

use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::EngineConfig;
use modswarm_protocol::sim::{Behaviour, Job, Line, PeerSpec, World, fake_content, fake_spec, least_time};

const MBIT: u64 = 1_000_000 / 8;
const PIECES: u32 = 1000;
const PIECE: u32 = 128 * 1024 * 1024 / PIECES;
/// More peers than this are not all connected to each other.
const MESH: usize = 64;
const DEGREE: usize = 30;
/// With so many peers and more, packets are larger and messages do not pass the codec.
const COARSE: usize = 1000;
const COARSE_PACKET: u32 = 64 * 1024;
const SEED: u64 = 1;
/// How exactly it is told when the honest have everything between them.
const STEP: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(3600);

struct Scene {
    name: String,
    seeds: Vec<PeerSpec>,
    leechers: Vec<PeerSpec>,
    /// From when until when every other leecher is parted from the rest, in seconds.
    parted: Option<(u64, u64)>,
}

struct Row {
    name: String,
    least: f64,
    /// When each honest leecher had everything, in ascending order, in seconds.
    took: Vec<f64>,
    others: Vec<f64>,
    seed_sent: f64,
    wasted: f64,
    fairness: f64,
    ran: Duration,
}

fn peer(up: u64, down: u64, delay: u64) -> PeerSpec {
    PeerSpec::honest(up * MBIT, down * MBIT, Duration::from_millis(delay))
}

fn equal(count: usize) -> Scene {
    Scene {
        name: format!("{count} equal peers"),
        seeds: vec![peer(20, 100, 15)],
        leechers: vec![peer(20, 100, 15); count],
        parted: None,
    }
}

/// A hundred peers, so many of a hundred of which do as `behaviour` says.
fn among_a_hundred(name: &str, percent: usize, behaviour: Behaviour) -> Scene {
    let mut scene = equal(100);
    scene.name = name.to_owned();
    for (i, leecher) in scene.leechers.iter_mut().enumerate() {
        if i * 79 % 100 < percent {
            leecher.behaviour = behaviour;
        }
    }
    scene
}

/// A hundred peers and a seed on such lines.
fn on(name: &str, line: Line) -> Scene {
    let mut scene = equal(100);
    scene.name = name.to_owned();
    let all = scene.seeds.iter_mut().chain(&mut scene.leechers);
    all.for_each(|peer| peer.line = line);
    scene
}

fn second(at: u64) -> Timestamp {
    Timestamp::from_micros(at * 1_000_000)
}

fn scenes() -> Vec<Scene> {
    let mixed = (0..100).map(|i| peer([5, 10, 20, 50, 100][i % 5], 100, 5 + i as u64 * 7 % 60));
    vec![
        equal(16),
        equal(100),
        Scene {
            name: "100 peers of 5 to 100 Mbit/s up, 10 to 128 ms".to_owned(),
            seeds: vec![peer(20, 100, 15)],
            leechers: mixed.collect(),
            parted: None,
        },
        Scene {
            name: "a seed of 100, eight of 10 up".to_owned(),
            seeds: vec![peer(100, 100, 15)],
            leechers: vec![peer(10, 100, 15); 8],
            parted: None,
        },
        Scene {
            name: "8 peers of 5 to 40 Mbit/s up and 30 to 200 down, 20 to 120 ms".to_owned(),
            seeds: vec![peer(40, 100, 10)],
            leechers: [
                (5, 50, 5),
                (10, 100, 40),
                (10, 30, 15),
                (20, 100, 25),
                (20, 200, 10),
                (40, 100, 10),
                (5, 40, 60),
                (30, 100, 20),
            ]
            .map(|(up, down, delay)| peer(up, down, delay))
            .to_vec(),
            parted: None,
        },
        equal(70),
        among_a_hundred("100 peers, 30 of them liars", 30, Behaviour::Liar { every: 1 }),
        among_a_hundred("100 peers, 40 of them free-riders", 40, Behaviour::FreeRider),
        among_a_hundred(
            "100 peers, 30 of them dribble 5 kB/s",
            30,
            Behaviour::Drip { rate: 5000 },
        ),
        among_a_hundred(
            "100 peers, 30 of them with false maps, who refuse",
            30,
            Behaviour::FalseMap { answers: true },
        ),
        among_a_hundred(
            "100 peers, 30 of them with false maps, who are silent",
            30,
            Behaviour::FalseMap { answers: false },
        ),
        among_a_hundred("100 peers, 10 of them flooders", 10, Behaviour::Flooder),
        among_a_hundred(
            "100 peers, 20 of them crash after 20 s and are back 20 s later",
            20,
            Behaviour::Crasher {
                at: second(20),
                back_after: Some(Duration::from_secs(20)),
            },
        ),
        on(
            "100 peers, jitter of up to 40 ms",
            Line {
                jitter: Duration::from_millis(20),
                ..Line::default()
            },
        ),
        on(
            "100 peers, 1 % of packets lost",
            Line {
                loss_ppm: 5000,
                ..Line::default()
            },
        ),
        on(
            "100 peers, queues of 128 KiB",
            Line {
                queue: Some(128 * 1024),
                ..Line::default()
            },
        ),
        Scene {
            name: "100 peers, half of them parted from the rest from 20 s to 50 s".to_owned(),
            parted: Some((20, 50)),
            ..equal(100)
        },
    ]
}

fn run(scene: &Scene, seed: u64) -> Row {
    let began = Instant::now();
    let mut world = World::new(seed);
    world.set_workers(Box::new(on_all_cores));
    if scene.leechers.len() >= COARSE {
        world.coarsen(COARSE_PACKET);
    }
    let (content, map) = fake_content(1, PIECES, PIECE);
    let first = scene.seeds.len();
    for (i, spec) in scene.seeds.iter().chain(&scene.leechers).enumerate() {
        let index = world.add_peer(*spec, EngineConfig::default());
        let have = if i < first { map.all() } else { map.none() };
        world.add_content(index, fake_spec(content, &map, have));
    }
    let all = first + scene.leechers.len();
    if all <= MESH {
        world.connect_all();
    } else {
        world.connect_randomly(DEGREE);
    }
    if let Some((from, until)) = scene.parted {
        world.part(second(from), second(until), (first..all).step_by(2));
    }
    let honest: Vec<usize> = (first..all)
        .filter(|i| scene.leechers[i - first].behaviour == Behaviour::Honest)
        .collect();
    // What the seeds have sent by the time that the honest leechers have everything between them.
    let mut held = vec![false; PIECES as usize];
    let (mut missing, mut seed_sent, mut seen) = (PIECES, 0.0, vec![0; all]);
    let mut finished = 0;
    while finished < honest.len() && world.now().as_micros() < LIMIT.as_micros() as u64 {
        world.run_until(STEP, |_| false);
        for peer in &honest {
            let done = world.pieces_done(*peer);
            for piece in &done[seen[*peer]..] {
                missing -= u32::from(!std::mem::replace(&mut held[*piece as usize], true));
            }
            seen[*peer] = done.len();
        }
        if missing == 0 && seed_sent == 0.0 {
            let sent: u64 = (0..first).map(|seed| served(&world, seed)).sum();
            seed_sent = sent as f64 / map.bytes() as f64;
        }
        finished = seen.iter().filter(|done| **done == PIECES as usize).count();
    }
    if honest.len() < scene.leechers.len() {
        // The others may never have everything.
        world.run_until(Duration::from_secs(120), |_| false);
    }
    let outcome = world.outcome();
    let took = |peers: &[usize]| {
        let mut took: Vec<f64> = peers
            .iter()
            .map(|i| outcome.peers[*i].took.map_or(f64::INFINITY, |took| took.as_secs_f64()))
            .collect();
        took.sort_by(f64::total_cmp);
        took
    };
    let others: Vec<usize> = (first..all).filter(|i| !honest.contains(i)).collect();
    let ups: Vec<u64> = scene.seeds.iter().map(|seed| seed.up).collect();
    let rates: Vec<(u64, u64)> = scene.leechers.iter().map(|peer| (peer.up, peer.down)).collect();
    Row {
        name: scene.name.clone(),
        least: least_time(map.bytes(), &ups, &rates).as_secs_f64(),
        took: took(&honest),
        others: took(&others),
        seed_sent,
        wasted: outcome.wasted(),
        fairness: fairness(&honest.iter().map(|i| served(&world, *i) as f64).collect::<Vec<_>>()),
        ran: began.elapsed(),
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn on_all_cores(jobs: Vec<Job<'_>>) {
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().expect("no job panics").pop();
    thread::scope(|scope| {
        for _ in 1..cores() {
            scope.spawn(|| iter::from_fn(next).for_each(Job::run));
        }
        iter::from_fn(next).for_each(Job::run);
    });
}

fn served(world: &World, peer: usize) -> u64 {
    let engine = world.engine(peer);
    let stats = engine
        .transfers()
        .into_iter()
        .filter_map(|id| engine.transfer_stats(id));
    stats.map(|stats| stats.bytes_served).sum()
}

/// Jain's index of what each has given: 1 if all gave the same.
fn fairness(given: &[f64]) -> f64 {
    let sum: f64 = given.iter().sum();
    let squares: f64 = given.iter().map(|x| x * x).sum();
    if squares == 0.0 {
        1.0
    } else {
        sum * sum / (given.len() as f64 * squares)
    }
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "| swarm | least | median | last | eta | last / median | seed sent | twice | Jain | others' median |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let (median, last) = (row.took[row.took.len() / 2], row.took[row.took.len() - 1]);
        let others = match row.others.get(row.others.len() / 2) {
            Some(at) if at.is_finite() => format!("{at:.1} s"),
            Some(_) => "never".to_owned(),
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "| {} | {:.1} s | {median:.1} s | {last:.1} s | {:.3} | {:.3} | {:.3} | {:.2} % | {:.3} | {others} |",
            row.name,
            row.least,
            row.least / last,
            last / median,
            row.seed_sent,
            row.wasted * 100.0,
            row.fairness,
        );
    }
    out
}

/// How many honest leechers have everything, over time.
fn plot(rows: &[Row]) -> String {
    const COLOURS: [&str; 16] = [
        "#1b6ca8", "#c0392b", "#27ae60", "#8e44ad", "#d68910", "#16a085", "#7f8c8d", "#2c3e50", "#5dade2", "#f1948a",
        "#82e0aa", "#bb8fce", "#f8c471", "#73c6b6", "#cacfd2", "#6e2c00",
    ];
    let (left, top, width, height) = (60.0, 20.0, 620.0, 260.0);
    let (from, to) = (0.9, 1.6);
    let x = |time: f64| left + (time.clamp(from, to) - from) / (to - from) * width;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        360 + 18 * rows.len()
    );
    for tick in 0..=7 {
        let at = from + f64::from(tick) * 0.1;
        let _ = writeln!(
            svg,
            "<path d=\"M{0:.1} {top}V{1}\" stroke=\"#ddd\"/><text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\">{at:.1}</text>",
            x(at),
            top + height,
            top + height + 18.0
        );
    }
    for share in [0.0, 0.5, 1.0] {
        let y = top + height * (1.0 - share);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:.0} %</text>",
            left + width,
            left - 8.0,
            y + 4.0,
            share * 100.0
        );
    }
    for (i, row) in rows.iter().enumerate() {
        let mut path = format!("M{:.1} {:.1}", x(from), top + height);
        for (done, at) in row.took.iter().enumerate().filter(|(_, at)| at.is_finite()) {
            let y = top + height * (1.0 - (done + 1) as f64 / row.took.len() as f64);
            let _ = write!(path, "H{:.1}V{y:.1}", x(at / row.least));
        }
        let (colour, y) = (COLOURS[i % COLOURS.len()], top + height + 60.0 + 18.0 * i as f64);
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <path d=\"M{left} {y}h24\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"{}\">{}</text>",
            left + 32.0,
            y + 4.0,
            row.name
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">time, in least possible times (of the swarm with all its uplinks at work)</text>\n</svg>",
        left + width / 2.0,
        top + height + 38.0
    );
    svg
}

/// The most memory that this process has held, in GiB; none where the system does not say.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

const LARGE: &str = "## Large swarms";
const LARGE_TABLE: &str = "| peers | eta | last / median | seed sent | twice | Jain | ran for | cores | peak memory |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";

/// The row of a large swarm.
fn large_row(count: usize, row: &Row) -> String {
    let (median, last) = (row.took[row.took.len() / 2], row.took[row.took.len() - 1]);
    let memory = peak_memory().map_or_else(String::new, |gib| format!("{gib:.2} GiB"));
    format!(
        "| {count} | {:.3} | {:.3} | {:.3} | {:.2} % | {:.3} | {:.0} s | {} | {memory} |",
        row.least / last,
        last / median,
        row.seed_sent,
        row.wasted * 100.0,
        row.fairness,
        row.ran.as_secs_f64(),
        cores(),
    )
}

/// The section of large swarms with one row more, or another one for as many peers.
fn with_large_row(section: &str, count: usize, row: &str) -> String {
    let number = |row: &str| {
        row.split('|')
            .nth(1)
            .and_then(|count| count.trim().parse::<usize>().ok())
    };
    let known = section
        .lines()
        .filter(|line| number(line).is_some_and(|of| of != count));
    let mut rows: Vec<&str> = known.chain([row]).collect();
    rows.sort_by_key(|row| number(row));
    format!(
        "{LARGE}\n\nWritten by `swarm_report N` as above, one row for each N: equal peers of degree 30; packets of {} KiB, and messages are not encoded and decoded.\n\n{LARGE_TABLE}{}\n",
        COARSE_PACKET / 1024,
        rows.join("\n")
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let place = args.iter().position(|arg| arg == name);
        place.and_then(|place| args.get(place + 1)).map(String::as_str)
    };
    let seed = after("--seed").map_or(Ok(SEED), str::parse)?;
    let only = after("--only").unwrap_or("");
    let prints = seed != SEED || !only.is_empty() || args.iter().any(|arg| arg == "--print");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let path = format!("{docs}/SWARMS.md");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let (small, large) = known.split_at(known.find(LARGE).unwrap_or(known.len()));
    if let Some(count) = args.first().and_then(|arg| arg.parse().ok()) {
        let row = run(&equal(count), seed);
        println!("{}", table(std::slice::from_ref(&row)));
        let row = large_row(count, &row);
        println!("{LARGE_TABLE}{row}");
        if !prints {
            let small = small.trim_end();
            std::fs::write(path, format!("{small}\n\n{}", with_large_row(large, count, &row)))?;
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for scene in scenes().iter().filter(|scene| scene.name.contains(only)) {
        let row = run(scene, seed);
        eprintln!("{} ({:.1} s)", row.name, row.ran.as_secs_f64());
        rows.push(row);
    }
    let table = table(&rows);
    println!("{table}");
    if prints {
        return Ok(());
    }
    std::fs::write(format!("{docs}/swarms.svg"), plot(&rows))?;
    let text = format!(
        "# Swarms in the simulator\n\n\
         Written by `cargo run --release -p modswarm-protocol --features sim --example swarm_report`: 128 MiB in 1,000 pieces from one seed of 20 Mbit/s up (if nothing else is said) to\n\
         peers of 20 up and 100 down, 60 ms round trip; up to 64 all connected to each other, more of degree 30. The same engine as in the program, in virtual time, with the same outcome each time.\n\n\
         *least*: the least possible time (Kumar and Ross 2006) with all uplinks at work, those of peers that do wrong too; *eta*: that by the time until the last honest peer has everything;\n\
         *seed sent*: contents sent by the seed by the time that the honest peers had everything between them; *twice*: payload that came in vain; *Jain*: the fairness index of what honest\n\
         peers gave; *others*: those that are not honest, or crash. Senders react to congestion where packets are lost or queues are bounded; everywhere else connections take turns.\n\n{table}\n![How many have everything, over time](swarms.svg)\n{}{large}",
        if large.is_empty() { "" } else { "\n" }
    );
    std::fs::write(path, text)?;
    Ok(())
}
