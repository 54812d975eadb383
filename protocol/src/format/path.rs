//! Names and paths inside a pack, parsed into types that cannot leave the pack's folder.
//!
//! A [`Name`] is one file's or folder's name: Unicode NFC, never empty, `.` or `..`, without separators and control characters. A
//! [`PackPath`] is names joined by `/`. Names that only some systems refuse are legal in a pack: see [`portability_issue`].

use std::{borrow::Cow, cmp::Ordering, fmt, str::FromStr};

use thiserror::Error;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The longest name in bytes of UTF-8: what 255 UTF-16 units, NTFS's bound, can take.
pub const NAME_LEN_MAX: usize = 765;

/// The longest path in bytes of UTF-8: what Linux takes.
pub const PATH_LEN_MAX: usize = 4096;

/// Why a text is not a name. The text is shown escaped, since it may try to deceive a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// No characters at all.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`: it would point out of the folder.
    #[error("the name {0:?} points to another folder instead of naming something")]
    Dots(String),
    /// A character that no name may hold.
    #[error("the name {name:?} contains {character:?}, which is not allowed in names; rename it")]
    Character {
        /// The whole text.
        name: String,
        /// The character.
        character: char,
    },
    /// More than [`NAME_LEN_MAX`] bytes.
    #[error("a name of {0} bytes is too long (at most {NAME_LEN_MAX}); shorten it")]
    TooLong(usize),
    /// Not in Unicode normal form C.
    #[error("the name {0:?} is not in Unicode normal form C")]
    NotNfc(String),
    /// Not UTF-8.
    #[error("the name {0:?} is not valid UTF-8; rename it")]
    NotUtf8(String),
    /// A path of more than [`PATH_LEN_MAX`] bytes.
    #[error("a path of {0} bytes is too long (at most {PATH_LEN_MAX}); use shorter names or fewer nested folders")]
    PathTooLong(usize),
}

/// The name of one file or folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// The path of a file or folder inside a content: one or more names joined by `/`.
///
/// Ordered by names, so that a folder's entries follow it directly.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PackPath(Box<str>);

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    if text == "." || text == ".." {
        return Err(NameError::Dots(text.to_owned()));
    }
    if let Some(character) = text.chars().find(|c| matches!(c, '/' | '\\') || c.is_control()) {
        return Err(NameError::Character {
            name: text.to_owned(),
            character,
        });
    }
    Ok(())
}

impl Name {
    /// The name `text`, which must be in NFC already.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if !is_nfc(text) {
            return Err(NameError::NotNfc(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name `text` brought into NFC, as for a file found on a disk or in a foreign DAG.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn normalised(text: &str) -> Result<Self, NameError> {
        // Checked first: normalising may grow a text, and must not be fed an endless one.
        check(text)?;
        let name = nfc(text);
        check(&name)?;
        Ok(Self(name.into()))
    }

    /// The name that these bytes of UTF-8 spell, brought into NFC.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn from_utf8(bytes: &[u8]) -> Result<Self, NameError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::normalised(text),
            Err(_) => Err(NameError::NotUtf8(
                String::from_utf8_lossy(&bytes[..bytes.len().min(NAME_LEN_MAX)]).into_owned(),
            )),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Why some system could not create it, if one could not.
    pub fn portability_issue(&self) -> Option<PortabilityIssue> {
        portability_issue(&self.0)
    }

    /// Equal for names that differ only in case, which Windows and macOS take for one.
    pub fn case_key(&self) -> String {
        case_key(&self.0)
    }
}

fn nfc(text: &str) -> Cow<'_, str> {
    if is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// Equal for names or paths that differ only in case.
pub fn case_key(text: &str) -> String {
    // Upper-casing first folds pairs such as "ß" and "SS", "ς" and "σ".
    text.to_uppercase().to_lowercase().nfc().collect()
}

impl PackPath {
    /// The path that `text` spells, names in NFC joined by `/`.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() > PATH_LEN_MAX {
            return Err(NameError::PathTooLong(text.len()));
        }
        for name in text.split('/') {
            check(name)?;
        }
        if !is_nfc(text) {
            return Err(NameError::NotNfc(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The path of `names`.
    ///
    /// # Errors
    /// [`NameError::PathTooLong`], or [`NameError::Empty`] if there are none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a Name>) -> Result<Self, NameError> {
        let mut names = names.into_iter();
        let mut path = Self::from(names.next().ok_or(NameError::Empty)?.clone());
        for name in names {
            path = path.join(name)?;
        }
        Ok(path)
    }

    /// The path of names that were checked to be such, and not to be too long together.
    pub(super) fn of_names(names: &[&str]) -> Self {
        Self(names.join("/").into())
    }

    /// The path of `name` in the folder at `self`.
    ///
    /// # Errors
    /// [`NameError::PathTooLong`].
    pub fn join(&self, name: &Name) -> Result<Self, NameError> {
        let len = self.0.len() + 1 + name.0.len();
        if len > PATH_LEN_MAX {
            return Err(NameError::PathTooLong(len));
        }
        Ok(Self(format!("{}/{}", self.0, name.0).into()))
    }

    /// The text, with `/` between names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the outermost folder inwards; at least one.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/')
    }

    /// The last name.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The folder that it lies in; none at the top.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// The first name that some system could not create, and why.
    pub fn portability_issue(&self) -> Option<(&str, PortabilityIssue)> {
        self.names()
            .find_map(|name| portability_issue(name).map(|issue| (name, issue)))
    }
}

/// Why some system cannot create a name that is legal in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortabilityIssue {
    /// A device name such as CON, NUL or COM1, with any ending.
    #[error("Windows keeps this name for a device")]
    Reserved,
    /// One of `< > : " | ? *`.
    #[error("Windows does not allow {0:?} in names")]
    Character(char),
    /// A dot or space at the end, which Windows drops.
    #[error("Windows drops a dot or space at the end of a name")]
    TrailingDotOrSpace,
    /// More than 255 bytes, or UTF-16 units.
    #[error("names of more than 255 bytes cannot be created on Linux")]
    TooLong,
    /// Characters that are not seen, or that turn the writing direction: the name is not what it looks like.
    #[error("it holds invisible characters and is not what it looks like")]
    Deceptive,
}

/// Why some system could not create `name`, if one could not. `name` is taken to be a valid [`Name`].
pub fn portability_issue(name: &str) -> Option<PortabilityIssue> {
    if name.len() > 255 {
        return Some(PortabilityIssue::TooLong);
    }
    if let Some(c) = name
        .chars()
        .find(|c| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*'))
    {
        return Some(PortabilityIssue::Character(c));
    }
    if name.ends_with(['.', ' ']) {
        return Some(PortabilityIssue::TrailingDotOrSpace);
    }
    if is_device(name) {
        return Some(PortabilityIssue::Reserved);
    }
    let deceptive = |c: char| matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    // The joiners are part of how some scripts and emoji are written.
    if name
        .chars()
        .any(|c| deceptive(c) && !matches!(c, '\u{200c}' | '\u{200d}'))
    {
        return Some(PortabilityIssue::Deceptive);
    }
    None
}

/// Source: Microsoft, *Naming Files, Paths, and Namespaces*; COM0 and LPT0 are refused by some versions.
fn is_device(name: &str) -> bool {
    let stem = name
        .split('.')
        .next()
        .unwrap_or(name)
        .trim_end_matches(' ')
        .to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let Some(number) = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")) else {
        return false;
    };
    matches!(number.chars().next(), Some('0'..='9' | '¹' | '²' | '³')) && number.chars().count() == 1
}

impl From<Name> for PackPath {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

impl Ord for PackPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl PartialOrd for PackPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

macro_rules! text_traits {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_traits!(Name);
text_traits!(PackPath);

#[cfg(test)]
mod tests;
