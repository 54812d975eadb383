//! The two streams of a connection: control frames one after the other, or a block's header.

use modswarm_protocol::wire::{
    BulkHeader, Have, Message, StreamKind,
    limits::{
        MAX_BULK_HEADER_LEN, MAX_FRAME_LEN, MAX_HELLO_LEN, MAX_OPENED_LEN, MAX_PAYLOAD_LEN, MAX_PEERS_LEN, MAX_PIECES,
    },
    split_frame,
};

use super::{assert_presentable, input::Input, memory};

/// The first byte is the stream's kind, and what follows is what came on it.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match StreamKind::from_byte(input.byte()) {
        Some(StreamKind::Control) => control(input.0),
        Some(StreamKind::Bulk) => header(input.0),
        None => message(data),
    }
}

fn control(mut stream: &[u8]) {
    loop {
        match split_frame(stream) {
            Ok(Some(frame)) => {
                assert!(frame.consumed <= stream.len() && frame.message.len() < frame.consumed);
                assert!(frame.message.len() <= MAX_OPENED_LEN);
                // A frame is whole or not, whatever stands behind it.
                let alone = split_frame(&stream[..frame.consumed]).expect("as before");
                assert_eq!(alone, Some(frame));
                message(frame.message);
                stream = &stream[frame.consumed..];
            }
            Ok(None) => return,
            Err(e) => return assert_presentable(&e, 0),
        }
    }
}

fn message(bytes: &[u8]) {
    // Runs take two bytes on the wire and eight in memory; a list is reserved once.
    let decoded = memory::within(8 * bytes.len() + 4096, || Message::decode(bytes));
    match decoded {
        Ok(Some(message)) => {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            // Frames over the bound for their type never reach the decoder.
            let max = match &message {
                Message::Hello(_) => MAX_HELLO_LEN,
                Message::Opened { .. } => MAX_OPENED_LEN,
                Message::Peers { .. } => MAX_PEERS_LEN,
                _ => MAX_FRAME_LEN,
            };
            if bytes.len() <= max {
                let frame = split_frame(&frame).expect("within bounds").expect("whole");
                assert_eq!(frame.message, bytes, "two spellings of one message: {message:?}");
            }
            if let Message::Opened {
                have: Have::Map(map), ..
            } = &message
            {
                for pieces in [0, 1, 64, 1000, MAX_PIECES, u32::MAX] {
                    let set = memory::within(MAX_PIECES as usize / 8 + 1024, || map.to_set(pieces));
                    assert!(set.is_none_or(|set| set.len() == pieces as usize));
                }
            }
        }
        Ok(None) => {}
        Err(e) => assert_presentable(&e, 0),
    }
}

fn header(bytes: &[u8]) {
    match memory::within(256, || BulkHeader::decode(bytes)) {
        Ok(Some((header, len))) => {
            assert!(len <= MAX_BULK_HEADER_LEN && (1..=MAX_PAYLOAD_LEN).contains(&header.len));
            let mut again = Vec::new();
            header.encode(&mut again);
            assert_eq!(again, bytes[..len], "two spellings of one header");
        }
        Ok(None) => assert!(bytes.len() < MAX_BULK_HEADER_LEN, "it would wait for ever"),
        Err(e) => assert_presentable(&e, 0),
    }
}
