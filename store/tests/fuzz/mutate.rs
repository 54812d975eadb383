//! Inputs that are nearly right: kept ones with a few changes.

/// Makes inputs out of others, the same ones for the same seed.
pub(crate) struct Mutator<'a> {
    kept: &'a [&'a [u8]],
    state: u64,
}

/// Numbers at which something else begins.
const EDGES: [u8; 10] = [0, 1, 2, 0x12, 0x70, 0x7f, 0x80, 0xa5, 0xfe, 0xff];
/// Bytes that an input may grow to.
const LEN_MAX: usize = 16 * 1024;

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, kept: &'a [&'a [u8]]) -> Self {
        Self {
            kept,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.random() as usize).checked_rem(end).unwrap_or(0)
    }

    fn any_kept(&mut self) -> &'a [u8] {
        let at = self.below(self.kept.len());
        self.kept.get(at).copied().unwrap_or(&[])
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.any_kept().to_vec();
        for _ in 0..=self.below(6) {
            self.change(&mut input);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        let len = (1 + self.below(40)).min(input.len() - at);
        match self.below(10) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            2 if !input.is_empty() => input[at] = EDGES[self.below(EDGES.len())],
            3 if !input.is_empty() => input[at] = self.random() as u8,
            4 => {
                let byte = self.random() as u8;
                input.insert(at, byte);
            }
            5 => drop(input.drain(at..at + len)),
            6 => {
                // The same again, at another place.
                let part = input[at..at + len].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, part);
            }
            7 => {
                // A piece of another.
                let other = self.any_kept();
                let from = self.below(other.len());
                let len = (1 + self.below(80)).min(other.len() - from);
                input.splice(at..at, other[from..from + len].iter().copied());
            }
            8 if input.len() >= at + 4 => {
                // A number in four bytes, as lengths and offsets are.
                let number = match self.below(4) {
                    0 => 0,
                    1 => u32::MAX,
                    2 => 1 << self.below(32),
                    _ => self.random() as u32,
                };
                input[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            9 => input.truncate(at),
            _ => {}
        }
    }
}
