//! pack.json: what a pack says of itself.
//!
//! Its exact bytes are kept and hashed; nothing is canonicalised. Unknown keys are ignored, so that later versions can add some.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{MAX_MANIFEST_LEN, chunker::ChunkerProfile, cid::Cid, path::Name};

/// The version of the pack format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The longest text of a field other than the description, in bytes.
pub const FIELD_LEN_MAX: usize = 1024;
/// The longest description, in bytes.
pub const DESCRIPTION_LEN_MAX: usize = 64 * 1024;
/// The most tags.
pub const TAGS_MAX: usize = 64;
/// The most entries of `exec`.
pub const EXEC_MAX: usize = 1024;

/// What pack.json holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format version, under the key by which a pack is known: `modswarm`.
    #[serde(rename = "modswarm")]
    pub format: u32,
    /// The content CID.
    pub content: Cid,
    /// The pack's name, and the folder that `get` makes.
    pub name: Name,
    /// A few words or paragraphs; may hold line breaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who made it, as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<String>,
    /// The game that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub game: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The pack's own version, in its maker's spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The pack that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Cid>,
    /// When it was shared, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// How its files were cut, so that others can cut the same files alike. None if this program does not know the profile.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_profile")]
    pub chunker: Option<ChunkerProfile>,
    /// Paths of files that are meant to be run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<String>,
}

/// Why pack.json cannot be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_LEN`].
    #[error("pack.json is {0} bytes long; at most {MAX_MANIFEST_LEN} are allowed")]
    TooLong(usize),
    /// Not JSON, or not with the fields of a pack: an ordinary file of that name.
    #[error("pack.json is not a pack's description")]
    NotAManifest(#[source] serde_json::Error),
    /// A newer format.
    #[error("this pack uses format {0}, which is newer than this program; install a newer modswarm to get it")]
    Newer(u32),
    /// A field that cannot be used.
    #[error("pack.json is damaged: {0}; ask whoever shared the pack to share it again")]
    Field(String),
}

fn known_profile<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<ChunkerProfile>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

impl Manifest {
    /// A manifest with nothing but what is required.
    pub fn new(content: Cid, name: Name) -> Self {
        Self {
            format: FORMAT_VERSION,
            content,
            name,
            description: None,
            creator: None,
            game: None,
            tags: Vec::new(),
            version: None,
            previous: None,
            created: None,
            chunker: None,
            exec: Vec::new(),
        }
    }

    /// The bytes of pack.json: indented, with a line break at the end, so that people can read it.
    ///
    /// # Errors
    /// [`ManifestError::Field`] or [`ManifestError::TooLong`], if others could not read it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest has only strings for keys");
        bytes.push(b'\n');
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads the bytes of pack.json.
    ///
    /// # Errors
    /// See [`ManifestError`]; only [`ManifestError::NotAManifest`] says that it is an ordinary file of that name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            modswarm: u32,
        }
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let head: Head = serde_json::from_slice(bytes).map_err(ManifestError::NotAManifest)?;
        if head.modswarm > FORMAT_VERSION {
            return Err(ManifestError::Newer(head.modswarm));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| ManifestError::Field(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let fail = |what: String| Err(ManifestError::Field(what));
        if self.format == 0 {
            return fail("the format version is 0".to_owned());
        }
        if self.tags.len() > TAGS_MAX {
            return fail(format!("{} tags, at most {TAGS_MAX} are allowed", self.tags.len()));
        }
        if self.exec.len() > EXEC_MAX {
            return fail(format!(
                "{} entries in exec, at most {EXEC_MAX} are allowed",
                self.exec.len()
            ));
        }
        if let Some(text) = &self.description {
            check_text("description", text, DESCRIPTION_LEN_MAX, true)?;
        }
        let fields = [
            ("creator", &self.creator),
            ("game", &self.game),
            ("version", &self.version),
        ];
        for (key, text) in fields {
            if let Some(text) = text {
                check_text(key, text, FIELD_LEN_MAX, false)?;
            }
        }
        for tag in &self.tags {
            check_text("tags", tag, FIELD_LEN_MAX, false)?;
        }
        for path in &self.exec {
            if let Err(e) = super::path::PackPath::new(path) {
                return fail(format!("exec: {e}"));
            }
        }
        Ok(())
    }
}

/// Texts are shown in terminals and pages: no control characters, and a bound.
fn check_text(key: &str, text: &str, max: usize, lines: bool) -> Result<(), ManifestError> {
    if text.len() > max {
        return Err(ManifestError::Field(format!(
            "{key} is {} bytes long, at most {max} are allowed",
            text.len()
        )));
    }
    if let Some(c) = text
        .chars()
        .find(|&c| c.is_control() && !(lines && matches!(c, '\n' | '\r' | '\t')))
    {
        return Err(ManifestError::Field(format!("{key} holds the control character {c:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
