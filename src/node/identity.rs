//! The node's key: made once, kept owner-only in the home.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use libp2p::identity::Keypair;
use thiserror::Error;

/// Name of the key file in the home: the protobuf encoding of an Ed25519 key pair, as libp2p has it.
const FILE_NAME: &str = "identity.key";

/// Why there is no identity.
#[derive(Debug, Error)]
pub(super) enum IdentityError {
    #[error("cannot use the key file {path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the key file {path} is damaged", path = path.display())]
    Damaged { path: PathBuf },
}

impl IdentityError {
    /// What to do about it.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "make the home readable and writable for you, or name another with --home",
            Self::Damaged { .. } => {
                "put it back from a backup, or move it away and run this again: a new key is made, under which others know this \
                 machine by a new peer ID; packs and their CIDs stay as they are"
            }
        }
    }
}

/// Reads the key of `home`, or makes it.
///
/// A new key is written whole under another name first, so that a crash leaves either no key or a good one.
pub(super) fn load_or_create(home: &Path) -> Result<Keypair, IdentityError> {
    let path = home.join(FILE_NAME);
    let io = |source| IdentityError::Io {
        path: path.clone(),
        source,
    };
    match fs::read(&path) {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes).map_err(|_| IdentityError::Damaged { path: path.clone() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = Keypair::generate_ed25519();
            let bytes = key
                .to_protobuf_encoding()
                .map_err(|_| IdentityError::Damaged { path: path.clone() })?;
            let new = home.join(format!("{FILE_NAME}.new"));
            let mut file = owner_only().open(&new).map_err(io)?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)?;
            fs::rename(&new, &path).map_err(io)?;
            Ok(key)
        }
        Err(e) => Err(io(e)),
    }
}

fn owner_only() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_home_keeps_its_identity() {
        let home = tempfile::tempdir().unwrap();
        let first = load_or_create(home.path()).unwrap();
        let second = load_or_create(home.path()).unwrap();
        assert_eq!(first.public(), second.public());
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        load_or_create(home.path()).unwrap();
        let mode = fs::metadata(home.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_refused_and_kept() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(FILE_NAME), b"nonsense").unwrap();
        assert!(matches!(
            load_or_create(home.path()),
            Err(IdentityError::Damaged { .. })
        ));
        assert_eq!(fs::read(home.path().join(FILE_NAME)).unwrap(), b"nonsense");
    }
}
