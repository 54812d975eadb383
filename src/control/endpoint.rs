//! Where the holder is reached: a Unix socket that only its owner can open, or a loopback port with a token.
//!
//! A Unix socket's path has room for about a hundred bytes. Where the home's path is longer (or its file system has no
//! sockets), the socket is made in a fresh private folder of the runtime or temporary directory; `control.json` in the home
//! says where.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// The file in the home that says where the holder is.
const RECORD: &str = "control.json";

/// The longest record that is read, in bytes.
const MAX_RECORD_LEN: u64 = 64 * 1024;

/// The ways to reach a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A Unix socket, its file mode 0600.
    #[cfg(unix)]
    Unix,
    /// A loopback TCP port, and a token that each request must carry.
    Tcp,
}

impl Default for Transport {
    fn default() -> Self {
        #[cfg(unix)]
        return Self::Unix;
        #[cfg(not(unix))]
        return Self::Tcp;
    }
}

/// Where a holder is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// The socket's path.
    Unix(PathBuf),
    /// A loopback port.
    Tcp {
        /// The loopback address.
        addr: SocketAddr,
        /// What each request must carry as `Authorization: Bearer …`.
        token: String,
    },
}

/// A connection, of whichever kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Endpoint {
    /// Where the holder of `home` says it is; none if none has said so. It may be gone.
    ///
    /// # Errors
    /// When the record cannot be read or understood.
    pub fn read(home: &Path) -> io::Result<Option<Self>> {
        use io::Read as _;
        let file = match std::fs::File::open(home.join(RECORD)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(MAX_RECORD_LEN).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from)
    }

    /// The token that requests must carry.
    pub(crate) fn token(&self) -> Option<&str> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { token, .. } => Some(token),
        }
    }

    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            #[cfg(unix)]
            Self::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Tcp { addr, .. } => Ok(Box::new(TcpStream::connect(addr).await?)),
        }
    }

    /// Writes the record so that a reader sees the old one or the new one.
    fn write(&self, home: &Path) -> io::Result<()> {
        use io::Write as _;
        let staged = home.join("control.json.new");
        match std::fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&staged)?.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(&staged, home.join(RECORD))
    }
}

/// The holder's end. Dropping it removes the socket and the record.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    endpoint: Endpoint,
    home: PathBuf,
    /// A folder that was made for the socket alone.
    folder: Option<PathBuf>,
}

#[derive(Debug)]
enum Kind {
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens, and says so in `home`, whose lock the caller has. What an earlier holder left is removed.
    pub(crate) async fn bind(home: &Path, transport: Transport) -> io::Result<Self> {
        remove_leftovers(home);
        let (kind, endpoint, folder) = match transport {
            #[cfg(unix)]
            Transport::Unix => unix::bind(home)?,
            Transport::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let endpoint = Endpoint::Tcp {
                    addr: listener.local_addr()?,
                    token: random_hex(),
                };
                (Kind::Tcp(listener), endpoint, None)
            }
        };
        let listener = Self {
            kind,
            endpoint,
            home: home.to_owned(),
            folder,
        };
        listener.endpoint.write(home)?;
        Ok(listener)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match &self.kind {
            #[cfg(unix)]
            Kind::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Kind::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A leftover is no harm: the next holder removes it.
        let _ = std::fs::remove_file(self.home.join(RECORD));
        if let Endpoint::Unix(path) = &self.endpoint {
            let _ = std::fs::remove_file(path);
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Removes the record of a holder that was killed, and the folder that it made outside the home.
fn remove_leftovers(home: &Path) {
    if let Ok(Some(Endpoint::Unix(path))) = Endpoint::read(home)
        && let Some(folder) = path.parent()
        && folder != home
        && folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX))
    {
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir(folder);
    }
    let _ = std::fs::remove_file(home.join(RECORD));
}

const FOLDER_PREFIX: &str = "modswarm-";

/// 256 random bits, which nobody guesses.
fn random_hex() -> String {
    rand::random::<[u8; 32]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(unix)]
mod unix {
    use std::{
        env,
        fs::{DirBuilder, Permissions},
        io,
        os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
        path::{Path, PathBuf},
    };

    use tokio::net::UnixListener;

    use super::{Endpoint, FOLDER_PREFIX, Kind, random_hex};

    const SOCKET: &str = "control.sock";

    pub(super) fn bind(home: &Path) -> io::Result<(Kind, Endpoint, Option<PathBuf>)> {
        let path = home.join(SOCKET);
        let first = match bind_at(&path) {
            Ok(listener) => return Ok((Kind::Unix(listener), Endpoint::Unix(path), None)),
            Err(error) => error,
        };
        for base in [
            env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            Some(env::temp_dir()),
            Some("/tmp".into()),
        ] {
            let Some(base) = base.filter(|base| base.is_absolute()) else {
                continue;
            };
            // A name that nobody can have taken before, so that others in a shared folder gain nothing.
            let folder = base.join(format!("{FOLDER_PREFIX}{}", &random_hex()[..16]));
            if DirBuilder::new().mode(0o700).create(&folder).is_err() {
                continue;
            }
            let path = folder.join(SOCKET);
            match bind_at(&path) {
                Ok(listener) => return Ok((Kind::Unix(listener), Endpoint::Unix(path), Some(folder))),
                Err(_) => drop(std::fs::remove_dir(&folder)),
            }
        }
        Err(first)
    }

    fn bind_at(path: &Path) -> io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // The folder around it is the owner's alone; this is for a home that someone has opened up.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn the_socket_is_its_owners_and_goes_with_the_listener() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("control.sock"), "stale").unwrap();
        let listener = Listener::bind(home.path(), Transport::Unix).await.unwrap();
        let Some(Endpoint::Unix(path)) = Endpoint::read(home.path()).unwrap() else {
            panic!("no unix endpoint")
        };
        assert_eq!(path, home.path().join("control.sock"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        listener.endpoint().connect().await.unwrap();
        drop(listener);
        assert!(!path.exists());
        assert_eq!(Endpoint::read(home.path()).unwrap(), None);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_home_too_deep_for_a_socket_has_it_elsewhere_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("deep".repeat(40));
        std::fs::create_dir(&home).unwrap();
        let first = Listener::bind(&home, Transport::Unix).await.unwrap();
        let Some(Endpoint::Unix(left)) = Endpoint::read(&home).unwrap() else {
            panic!("no unix endpoint")
        };
        assert!(!left.starts_with(&home));
        // As if it had been killed.
        std::mem::forget(first);
        let second = Listener::bind(&home, Transport::Unix).await.unwrap();
        assert!(!left.exists());
        let Some(Endpoint::Unix(path)) = Endpoint::read(&home).unwrap() else {
            panic!("no unix endpoint")
        };
        Endpoint::read(&home).unwrap().unwrap().connect().await.unwrap();
        drop(second);
        assert!(!path.parent().unwrap().exists());
    }

    #[tokio::test]
    async fn tokens_are_long_and_never_the_same() {
        let home = tempfile::tempdir().unwrap();
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let listener = Listener::bind(home.path(), Transport::Tcp).await.unwrap();
            tokens.push(listener.endpoint().token().unwrap().to_owned());
        }
        assert_eq!(tokens[0].len(), 64);
        assert_ne!(tokens[0], tokens[1]);
    }
}
