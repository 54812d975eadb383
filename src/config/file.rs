//! The config file: TOML, one key for each setting, named as its flag.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Options,
    words::{parse_bootstrap, parse_listen, parse_network, parse_size},
};

/// The longest config file that is read, in bytes.
pub(super) const MAX_CONFIG_LEN: u64 = 256 * 1024;

const KEYS: [&str; 14] = [
    "home",
    "listen",
    "bootstrap",
    "network",
    "json",
    "quiet",
    "progress",
    "log",
    "upload-limit",
    "download-limit",
    "limit-lan",
    "max-active",
    "quota",
    "min-free",
];

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The user has no home directory.
    #[error("this user has no home directory")]
    NoHomeDir,
    /// The home's path cannot be made absolute.
    #[error("{} can't be the home", path.display())]
    Home {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but cannot be read.
    #[error("the config file {} can't be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML.
    #[error("the config file {} is not valid TOML", file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A key means nothing.
    #[error("the config file {} has the unknown key `{key}`{}", file.display(), nearest(key))]
    UnknownKey {
        /// Which.
        file: PathBuf,
        /// What it says.
        key: String,
    },
    /// A key's value is wrong.
    #[error("`{key}` in the config file {}: {reason}", file.display())]
    Value {
        /// Which.
        file: PathBuf,
        /// Whose.
        key: &'static str,
        /// A sentence with the remedy.
        reason: String,
    },
    /// A config file that lies in a home names another home.
    #[error("the config file {} lies in a home and can't name another one", file.display())]
    HomeInHome {
        /// Which.
        file: PathBuf,
    },
}

impl ConfigError {
    /// What the user can do.
    pub fn help(&self) -> String {
        match self {
            Self::NoHomeDir => "name a folder with --home DIR or MODSWARM_HOME".to_owned(),
            Self::Home { .. } => "name another folder with --home DIR".to_owned(),
            Self::Read { .. } => "make it readable for this user, or move it away".to_owned(),
            Self::Syntax { .. } => "mend it; lines look like: upload-limit = \"5MB/s\"".to_owned(),
            Self::UnknownKey { .. } => format!("the keys are {}", KEYS.join(", ")),
            Self::Value { .. } => "mend that line, or take it out for the default".to_owned(),
            Self::HomeInHome { .. } => "take the line `home` out of it".to_owned(),
        }
    }
}

impl Options {
    /// Reads the options of the file at `path`; a file that does not exist says nothing.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read_file(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            file: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(read(error)),
        };
        let mut text = String::new();
        file.take(MAX_CONFIG_LEN + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MAX_CONFIG_LEN {
            return Err(read(io::Error::other("it is far too long")));
        }
        Self::parse_file(path, &text)
    }

    /// Reads the options of a config file's `text`; `path` is for errors only.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn parse_file(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
            file: path.to_owned(),
            source,
        })?;
        let mut options = Self::default();
        for (key, value) in table {
            let Some(key) = KEYS.iter().find(|known| **known == key) else {
                return Err(ConfigError::UnknownKey {
                    file: path.to_owned(),
                    key,
                });
            };
            options.set(key, &value).map_err(|reason| ConfigError::Value {
                file: path.to_owned(),
                key,
                reason,
            })?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "home" => self.home = Some(text(value)?.into()),
            "listen" => self.listen = list(value, |item| parse_listen(item).map_err(|error| error.to_string()))?,
            "bootstrap" => {
                self.bootstrap = list(value, |item| parse_bootstrap(item).map_err(|error| error.to_string()))?;
            }
            "network" => self.network = Some(parse_network(text(value)?).map_err(|error| error.to_string())?),
            "json" => self.json = Some(boolean(value)?),
            "quiet" => self.quiet = Some(boolean(value)?),
            "progress" => self.progress = Some(text(value)?.parse()?),
            "log" => self.log = Some(text(value)?.to_owned()),
            "upload-limit" => self.upload_limit = Some(rate(value)?),
            "download-limit" => self.download_limit = Some(rate(value)?),
            "limit-lan" => self.limit_lan = Some(boolean(value)?),
            "max-active" => self.max_active = Some(count(value)?),
            "quota" => self.quota = Some(size(value)?),
            "min-free" => self.min_free = Some(size(value)?),
            _ => unreachable!("every key of KEYS has an arm"),
        }
        Ok(())
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("it is {}, not a text in quotes", kind(value)))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("it is {}, not true or false", kind(value)))
}

fn list<T>(value: &Value, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    match value {
        Value::Array(items) => items.iter().map(|item| parse(text(item)?)).collect(),
        Value::String(item) => Ok(vec![parse(item)?]),
        other => Err(format!("it is {}, not a list of texts in quotes", kind(other))),
    }
}

fn size(value: &Value) -> Result<u64, String> {
    parse_size(text(value)?).map_err(|error| error.to_string())
}

fn count(value: &Value) -> Result<usize, String> {
    let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("it is {}, not a whole number such as 5", kind(value)))
}

fn rate<T: std::str::FromStr<Err = super::RateError>>(value: &Value) -> Result<T, String> {
    let text = match value {
        Value::Integer(number) => number.to_string(),
        other => text(other)?.to_owned(),
    };
    text.parse::<T>().map_err(|error| error.to_string())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// `; did you mean …?` where a key is near enough.
fn nearest(key: &str) -> String {
    let key = key.to_lowercase().replace('_', "-");
    KEYS.iter()
        .map(|known| (strsim::jaro_winkler(known, &key), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::NetworkKind,
        config::{ProgressMode, Rate, UploadLimit},
    };

    fn parse(text: &str) -> Result<Options, ConfigError> {
        Options::parse_file(Path::new("config.toml"), text)
    }

    #[test]
    fn every_key_is_read() {
        let options = parse(
            "home = \"/h\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\", \"/ip4/127.0.0.1/udp/1/quic-v1\"]\n\
             bootstrap = \"/dnsaddr/example.org\"\nnetwork = \"private\"\njson = true\nquiet = false\n\
             progress = \"plain\"\nlog = \"debug\"\nupload-limit = 0\ndownload-limit = \"2MB/s\"\n\
             limit-lan = true\nmax-active = 3\n",
        )
        .unwrap();
        assert_eq!(options.home, Some("/h".into()));
        assert_eq!(options.listen.len(), 2);
        assert_eq!(options.bootstrap.len(), 1);
        assert_eq!(options.network, Some(NetworkKind::Private));
        assert_eq!((options.json, options.quiet), (Some(true), Some(false)));
        assert_eq!(options.progress, Some(ProgressMode::Plain));
        assert_eq!(options.log.as_deref(), Some("debug"));
        assert_eq!(options.upload_limit, Some(UploadLimit::default()));
        assert_eq!((options.limit_lan, options.max_active), (Some(true), Some(3)));
        assert_eq!(options.download_limit.and_then(Rate::bytes_per_second), Some(2_000_000));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (key, nearest) in [
            ("upload_limit", "`upload-limit`"),
            ("Network", "`network`"),
            ("downlod-limit", "`download-limit`"),
            ("bootstraps", "`bootstrap`"),
        ] {
            let error = parse(&format!("{key} = \"1\"")).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {nearest}")), "{error}");
        }
        let error = parse("colour = \"red\"").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        for text in [
            "json = \"yes\"",
            "network = \"moon\"",
            "upload-limit = 5",
            "upload-limit = -1",
            "listen = [\"0.0.0.0:1\"]",
            "listen = [7]",
            "progress = \"loud\"",
        ] {
            let error = parse(text).unwrap_err();
            let key = text.split(' ').next().unwrap();
            assert!(
                matches!(error, ConfigError::Value { key: named, .. } if named == key),
                "{error}"
            );
        }
    }

    #[test]
    fn broken_toml_is_refused() {
        assert!(matches!(parse("network = "), Err(ConfigError::Syntax { .. })));
    }
}
