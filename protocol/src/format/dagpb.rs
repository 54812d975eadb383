//! dag-pb, the node encoding of UnixFS: a list of links and some bytes, in Protocol Buffers.
//!
//! Written by hand, since every byte enters a CID. Source: the DAG-PB specification
//! (<https://ipld.io/specs/codecs/dag-pb/spec/>). Reading is strict: only the fields of the specification, each once, in an order
//! that known encoders use, and numbers in their shortest form.

use unsigned_varint::{decode, encode};

use super::{
    cid::{Cid, CidError},
    limits::NODE_LINKS_MAX,
};

/// A link to write.
#[derive(Clone, Debug)]
pub(super) struct OutLink<'a> {
    pub(super) cid: Cid,
    pub(super) name: &'a [u8],
    pub(super) tsize: u64,
}

/// A link as read.
#[derive(Clone, Debug)]
pub(super) struct InLink<'a> {
    pub(super) cid: Result<Cid, CidError>,
    pub(super) name: &'a [u8],
    pub(super) tsize: Option<u64>,
}

/// What a field of a message holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

pub(super) type Malformed = &'static str;

/// Appends a field that holds a number.
pub(super) fn put_varint(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    out.extend_from_slice(encode::u64(value, &mut encode::u64_buffer()));
}

/// Appends a field that holds bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    out.extend_from_slice(encode::u64(value.len() as u64, &mut encode::u64_buffer()));
    out.extend_from_slice(value);
}

/// The node of `links`, which the caller has put in order, and `data`.
pub(super) fn encode_node<'a>(links: impl IntoIterator<Item = OutLink<'a>>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut inner = Vec::new();
    for link in links {
        inner.clear();
        put_bytes(&mut inner, 1, &link.cid.to_bytes());
        put_bytes(&mut inner, 2, link.name);
        put_varint(&mut inner, 3, link.tsize);
        put_bytes(&mut out, 2, &inner);
    }
    put_bytes(&mut out, 1, data);
    out
}

/// Takes the next field off a message; none at its end. Fields of fixed width are not used by any message here.
pub(super) fn take_field<'a>(input: &mut &'a [u8]) -> Result<Option<(u64, Value<'a>)>, Malformed> {
    if input.is_empty() {
        return Ok(None);
    }
    let tag = take_varint(input)?;
    let value = match tag & 7 {
        0 => Value::Varint(take_varint(input)?),
        2 => {
            let len = take_varint(input)?;
            let len = usize::try_from(len).map_err(|_| "a length is beyond the block's end")?;
            let (value, rest) = input
                .split_at_checked(len)
                .ok_or("a length is beyond the block's end")?;
            *input = rest;
            Value::Bytes(value)
        }
        _ => return Err("a field is of an unknown type"),
    };
    Ok(Some((tag >> 3, value)))
}

/// Takes a number in its shortest form.
pub(super) fn take_varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    let (value, rest) = decode::u64(input).map_err(|_| "a number is cut off or not in its shortest form")?;
    *input = rest;
    Ok(value)
}

/// Reads a node. Links may stand before the data, as encoders write them, or after it.
pub(super) fn decode_node(mut input: &[u8]) -> Result<(Vec<InLink<'_>>, &[u8]), Malformed> {
    let mut links = Vec::new();
    let mut data = None;
    let mut links_over = false;
    while let Some((field, value)) = take_field(&mut input)? {
        match (field, value) {
            (1, Value::Bytes(bytes)) if data.is_none() => {
                data = Some(bytes);
                links_over = !links.is_empty();
            }
            (2, Value::Bytes(bytes)) if !links_over => {
                if links.len() == NODE_LINKS_MAX {
                    return Err("it has too many links");
                }
                links.push(decode_link(bytes)?);
            }
            _ => return Err("it holds a field that no node has, or in the wrong order"),
        }
    }
    Ok((links, data.ok_or("it has no UnixFS data")?))
}

fn decode_link(mut input: &[u8]) -> Result<InLink<'_>, Malformed> {
    const ORDER: Malformed = "a link holds a field that no link has, or in the wrong order";
    let mut link: Option<InLink<'_>> = None;
    let mut last = 0;
    while let Some((field, value)) = take_field(&mut input)? {
        if field <= last {
            return Err(ORDER);
        }
        last = field;
        match (field, value, &mut link) {
            (1, Value::Bytes(bytes), None) => {
                link = Some(InLink {
                    cid: Cid::from_bytes(bytes),
                    name: &[],
                    tsize: None,
                });
            }
            (2, Value::Bytes(bytes), Some(link)) => link.name = bytes,
            (3, Value::Varint(tsize), Some(link)) => link.tsize = Some(tsize),
            _ => return Err(ORDER),
        }
    }
    link.ok_or("a link names nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cid::{Codec, HashKind};

    #[test]
    fn a_node_reads_back_as_it_was_written() {
        let cid = Cid::of(Codec::Raw, HashKind::Sha2_256, b"x");
        let bytes = encode_node(
            [OutLink {
                cid,
                name: b"name",
                tsize: 300,
            }],
            b"data",
        );
        let (links, data) = decode_node(&bytes).expect("own encoding");
        assert_eq!(data, b"data");
        assert_eq!(
            (links.len(), links[0].cid.clone(), links[0].name, links[0].tsize),
            (1, Ok(cid), &b"name"[..], Some(300))
        );
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let refused: [&[u8]; 8] = [
            &[],                          // no data
            &[0x0a, 0x05, 0x01],          // length beyond the end
            &[0x0a, 0x80],                // endless varint
            &[0x0a, 0x81, 0x00, 0x01],    // a number longer than needed
            &[0x0a, 0x00, 0x0a, 0x00],    // data twice
            &[0x0a, 0x00, 0x1a, 0x00],    // an unknown field
            &[0x12, 0x00, 0x0a, 0x00],    // a link to nothing
            &[0x0d, 0, 0, 0, 0, 0x0a, 0], // fixed width
        ];
        for bytes in refused {
            assert!(decode_node(bytes).is_err(), "{bytes:x?}");
        }
        assert!(decode_node(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }
}
