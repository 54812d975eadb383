//! Contents of very many small pieces: as a folder of small files is.

mod common;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig, Verdict};
use modswarm_protocol::format::PieceIndex;
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{BulkHeader, Encoding, Handle, Have, Message, What};

const LEN: u32 = 100;
const CONN: ConnId = ConnId(1);
const HANDLE: Handle = Handle(0);

/// What was requested since the last look: by how many messages, and which pieces.
fn requested(engine: &mut Engine) -> (usize, Vec<u32>) {
    let actions = std::iter::from_fn(|| engine.poll_action());
    let asked = actions.filter_map(|action| match action {
        Action::Send(CONN, Message::Request { runs, .. }) => Some(runs),
        _ => None,
    });
    let messages: Vec<_> = asked.collect();
    let runs = messages.iter().flatten();
    (messages.len(), runs.flat_map(|run| run.pieces()).collect())
}

#[test]
fn small_pieces_are_requested_many_at_a_time() {
    const PIECES: u32 = 60_000;
    let (content, map) = fake_content(1, PIECES, LEN);
    let mut engine = Engine::new(EngineConfig::default(), 1);
    let now = Timestamp::ZERO;
    engine.add_content(now, spec(content, &map, map.none()));
    connect(&mut engine, now, CONN);
    let have = Have::All;
    engine.handle_message(now, CONN, Message::Unchoke);
    engine.handle_message(now, CONN, Message::Opened { handle: HANDLE, have });
    let (mut messages, first) = requested(&mut engine);
    let mut waiting = std::collections::VecDeque::from(first);
    let mut came = 0;
    while let Some(piece) = waiting.pop_front() {
        // Fast enough that the window is no bound.
        let now = Timestamp::from_micros(u64::from(came));
        let header = BulkHeader {
            handle: HANDLE,
            what: What::Piece(piece),
            encoding: Encoding::Plain,
            len: LEN,
        };
        let block = engine
            .handle_block_header(now, CONN, &header)
            .expect("it was asked for");
        engine.handle_block_progress(now, CONN, LEN);
        assert_eq!(block.piece.map(PieceIndex::get), Some(piece));
        engine.handle_verdict(now, &block, Verdict::Good);
        came += 1;
        let (more, pieces) = requested(&mut engine);
        messages += more;
        waiting.extend(pieces);
    }
    assert_eq!(came, PIECES);
    assert!(messages < 200, "{messages} messages for {PIECES} pieces");
}
