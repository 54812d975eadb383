//! How large a content may be, so that nobody's pack exhausts somebody's memory.
//!
//! The same limits hold for building and for reading: what can be shared can be fetched. [`super::read`] checks them on totals
//! that it has added up, before it expands anything.

/// Bounds on one content, all inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Distinct nodes.
    pub nodes: u64,
    /// Bytes of all distinct nodes that carry no file bytes.
    pub skeleton_bytes: u64,
    /// Files and folders.
    pub entries: u64,
    /// Places of leaves in files, each repetition counted. It is what bounds a sparse file of endless equal leaves.
    pub parts: u64,
    /// Bytes of all paths together.
    pub path_bytes: u64,
    /// Folders within folders.
    pub depth: u32,
}

/// Nodes from a file's root to its leaves. 1024 links wide, three levels hold more leaves than [`Limits::parts`] allows; foreign
/// files may be narrower.
pub const FILE_DEPTH_MAX: u32 = 16;

/// Links that one node may list: more than fit a block with a name each.
pub(crate) const NODE_LINKS_MAX: usize = 64 * 1024;

impl Limits {
    /// What every node of the network accepts.
    pub const DEFAULT: Self = Self {
        nodes: 1 << 20,
        skeleton_bytes: 512 << 20,
        entries: 1 << 20,
        parts: 1 << 24,
        path_bytes: 128 << 20,
        depth: 100,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
