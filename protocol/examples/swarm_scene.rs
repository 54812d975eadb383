//! One simulated swarm, for looking closely: `cargo run --release -p modswarm-protocol --example swarm_scene -- KEY=VALUE…`
use std::time::{Duration, Instant};

use modswarm_protocol::engine::{ContentPieces, ContentSpec, EngineConfig, PickOrder};
use modswarm_protocol::sim::{Behaviour, PeerSpec, World, fake_content, least_time};
use modswarm_protocol::wire::NetworkId;

fn main() {
    let args: Vec<(String, f64)> = std::env::args()
        .skip(1)
        .filter_map(|a| {
            let (k, v) = a.split_once('=')?;
            Some((k.to_owned(), v.parse().ok()?))
        })
        .collect();
    let get = |key: &str, default: f64| args.iter().find(|(k, _)| k == key).map_or(default, |(_, v)| *v);
    let n = get("n", 16.0) as usize;
    let mib = get("mib", 128.0);
    let pieces = get("m", 1000.0) as u32;
    let up = get("up", 20.0);
    let down = get("down", 5.0 * up);
    let seed_up = get("seedup", up);
    let seeds = get("seeds", 1.0) as usize;
    let degree = get("degree", if n > 60 { 30.0 } else { n as f64 + seeds as f64 }) as usize;
    let slots = get("slots", 16.0) as usize;
    let mixed = get("mixed", 0.0) as u64;
    let world_seed = get("seed", 1.0) as u64;
    let mbit = |x: f64| (x * 1e6 / 8.0) as u64;
    let len = (mib * 1048576.0 / f64::from(pieces)) as u32;
    let mut world = World::new(world_seed);
    let (content, map) = fake_content(world_seed, pieces, len);
    let mut ups = Vec::new();
    let mut rates = Vec::new();
    let mut honest = Vec::new();
    for i in 0..n + seeds {
        let k = i as u64;
        let (u, d, delay) = if i < seeds {
            (seed_up, seed_up.max(down), 15)
        } else if mixed > 0 {
            (
                [5.0, 10.0, 20.0, 50.0, 100.0][(k % 5) as usize] * up / 20.0,
                down,
                5 + k * 7 % 60,
            )
        } else {
            (up, down, get("delay", 15.0) as u64)
        };
        let rider = i >= seeds && ((i * 7919) % 100) < get("riders", 0.0) as usize;
        let liar = i >= seeds && ((i * 7919) % 100) < get("liars", 0.0) as usize;
        let behaviour = if rider {
            Behaviour::FreeRider
        } else if liar {
            Behaviour::Liar { every: 1 }
        } else {
            Behaviour::Honest
        };
        honest.push(behaviour == Behaviour::Honest);
        let spec = PeerSpec {
            up: mbit(u),
            down: mbit(d),
            delay: Duration::from_millis(delay),
            behaviour,
        };
        if i < seeds {
            ups.push(spec.up)
        } else {
            rates.push((spec.up, spec.down))
        }
        let index = world.add_peer(
            spec,
            EngineConfig {
                upload_slots: slots,
                ..EngineConfig::default()
            },
        );
        let have = if i < seeds { map.all() } else { map.none() };
        world.add_content(
            index,
            ContentSpec {
                content: Some(content),
                packs: vec![],
                network: NetworkId::PUBLIC,
                pieces: Some(ContentPieces {
                    map: map.clone(),
                    have,
                    wanted: None,
                }),
                related: vec![],
                order: PickOrder::RarestFirst,
            },
        );
    }
    if degree + 1 >= n + seeds {
        world.connect_all()
    } else {
        world.connect_randomly(degree)
    }
    let began = Instant::now();
    let best = least_time(u64::from(pieces) * u64::from(len), &ups, &rates);
    let mut spread_sent = None;
    let mut full = vec![0u8; pieces as usize];
    let mut seen = vec![0usize; n + seeds];
    let mut left = pieces;
    let mut next = Duration::ZERO;
    loop {
        let done = world.run_until_complete(Duration::from_millis(200), seeds..n + seeds);
        if spread_sent.is_none() {
            for p in seeds..n + seeds {
                let order = world.pieces_done(p);
                for piece in &order[seen[p]..] {
                    if full[*piece as usize] == 0 {
                        full[*piece as usize] = 1;
                        left -= 1;
                    }
                }
                seen[p] = order.len();
            }
            if left == 0 {
                let sent: u64 = (0..seeds)
                    .map(|s| world.outcome().peers[s].transfers[0].bytes_served)
                    .sum();
                spread_sent = Some((world.now(), sent as f64 / map.bytes() as f64));
            }
        }
        let at = Duration::from_micros(world.now().as_micros());
        if get("v", 0.0) > 0.0 && at >= next {
            next = at + Duration::from_secs_f64(get("v", 1.0));
            let o = world.outcome();
            let here: f64 = o.peers[seeds..]
                .iter()
                .map(|p| p.transfers[0].bytes_here as f64)
                .sum::<f64>()
                / (n as f64)
                / map.bytes() as f64;
            let served: Vec<f64> = o
                .peers
                .iter()
                .map(|p| p.transfers[0].bytes_served as f64 / map.bytes() as f64)
                .collect();
            println!(
                "{:6.2} here {here:.3} seed {:.3} left {left} up util {:.3}",
                at.as_secs_f64(),
                served[0],
                served.iter().sum::<f64>() * map.bytes() as f64
                    / at.as_secs_f64()
                    / (ups.iter().sum::<u64>() + rates.iter().map(|r| r.0).sum::<u64>()) as f64
            );
        }
        if done || at > Duration::from_secs(4000) {
            break;
        }
    }
    let o = world.outcome();
    let mut took: Vec<f64> = o.peers[seeds..]
        .iter()
        .map(|p| p.took.map_or(f64::INFINITY, |t| t.as_secs_f64()))
        .collect();
    took.sort_by(f64::total_cmp);
    let last = took[took.len() - 1];
    let median = took[took.len() / 2];
    for group in [true, false] {
        let mut t: Vec<f64> = (seeds..n + seeds)
            .filter(|i| honest[*i] == group)
            .map(|i| o.peers[i].took.map_or(f64::INFINITY, |t| t.as_secs_f64()))
            .collect();
        t.sort_by(f64::total_cmp);
        if !t.is_empty() {
            println!(
                "honest {group}: {} peers, median {:.2} last {:.2}; bans {}",
                t.len(),
                t[t.len() / 2],
                t[t.len() - 1],
                o.bans.len()
            );
        }
    }
    let messages: u64 = o.peers.iter().map(|p| p.control_messages).sum();
    let control: u64 = o.peers.iter().map(|p| p.control_bytes).sum();
    println!(
        "n {n} degree {degree} best {:.2} last {last:.2} eta {:.3} last/median {:.3} first {:.2} | wasted {:.4} control {:.4} msgs/piece {:.1} | full copy at {:?} sent {:.3} | sim {:.1}s",
        best.as_secs_f64(),
        best.as_secs_f64() / last,
        last / median,
        took[0],
        o.wasted(),
        control as f64 / (n as f64 * map.bytes() as f64),
        messages as f64 / (n as f64 * f64::from(pieces)),
        spread_sent.map(|s| s.0),
        spread_sent.map_or(0.0, |s| s.1),
        began.elapsed().as_secs_f64()
    );
}
