//! Taking values off a target's input, and writing them there for the corpora. What is cut off reads as zeros and empty slices.

/// Bytes still to be read.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn i64(&mut self) -> i64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        i64::from_le_bytes(bytes)
    }

    /// The next `len` bytes, or as many as there are.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// What stands behind a length of two bytes.
    pub fn block(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.bytes(len.into())
    }
}

/// Appends what [`Input::block`] reads.
pub fn put_block(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("blocks of corpora are short");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}
