//! Where the home and the config file are.

use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};

use super::{ConfigError, Options, Settings};

const FOLDER: &str = "modswarm";
const FILE: &str = "config.toml";

/// The folders of this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The home: index, identity, control socket. Absolute; it need not exist.
    pub home: PathBuf,
    /// The config file. Absolute; it need not exist.
    pub config_file: PathBuf,
}

/// Names the home, where no flag does.
const HOME_VARIABLE: &str = "MODSWARM_HOME";

impl Places {
    /// Where the program keeps things for this user if no flag says otherwise: in the folder that the environment variable `MODSWARM_HOME` names, else in
    /// the one that the user's config file names, else in the platform's folder for data. Reads at most the config file, and makes nothing.
    ///
    /// # Errors
    /// When the config file cannot be read or understood, or the user has no home directory.
    pub fn find() -> Result<Self, ConfigError> {
        let home = std::env::var_os(HOME_VARIABLE).filter(|home| !home.is_empty());
        let upper = Options {
            home: home.map(PathBuf::from),
            ..Options::default()
        };
        Ok(Settings::load(upper)?.places)
    }
}

impl Settings {
    /// Joins `upper` (flags over environment) with the config file, and finds the home.
    ///
    /// A home that `upper` names brings its own config file. Otherwise the file is in the platform's folder for
    /// configuration, where it may name the home; without that, the home is in the platform's folder for data.
    ///
    /// # Errors
    /// When the file cannot be read or understood, or the user has no home directory.
    pub fn load(upper: Options) -> Result<Self, ConfigError> {
        if let Some(home) = upper.home.clone() {
            let home = absolute(&home)?;
            let config_file = home.join(FILE);
            let file = Options::read_file(&config_file)?;
            if file.home.is_some() {
                return Err(ConfigError::HomeInHome { file: config_file });
            }
            return Ok(Self {
                places: Places { home, config_file },
                options: upper.or(file),
            });
        }
        let strategy = choose_native_strategy().map_err(|_| ConfigError::NoHomeDir)?;
        let config_file = strategy.config_dir().join(FOLDER).join(FILE);
        let options = upper.or(Options::read_file(&config_file)?);
        let home = match &options.home {
            Some(home) => absolute(home)?,
            // What Windows calls data roams between machines: an index of this machine's files must not.
            None if cfg!(windows) => strategy.cache_dir().join(FOLDER),
            None => strategy.data_dir().join(FOLDER),
        };
        Ok(Self {
            places: Places { home, config_file },
            options,
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Home {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::NetworkKind,
        config::{Rate, UploadLimit},
    };

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join(FILE),
            "network = \"lan\"\nupload-limit = \"1MB/s\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n",
        )
        .unwrap();
        let flags = Options {
            home: Some(home.path().to_owned()),
            upload_limit: Some(UploadLimit::default()),
            ..Options::default()
        };
        let settings = Settings::load(flags).unwrap();
        assert_eq!(settings.network(), NetworkKind::Lan);
        assert_eq!(settings.upload_limit(), UploadLimit::default());
        assert_eq!(settings.download_limit(), Rate::UNLIMITED);
        assert_eq!(settings.options.listen.len(), 1);
        assert!(!settings.json());
        assert_eq!(settings.places.home, home.path());
    }

    #[test]
    fn a_home_without_a_file_has_defaults() {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings::load(Options {
            home: Some(home.path().join("new")),
            ..Options::default()
        })
        .unwrap();
        assert_eq!(settings.network(), NetworkKind::Public);
    }

    #[test]
    fn a_homes_own_file_cannot_move_it() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), "home = \"/elsewhere\"\n").unwrap();
        let error = Settings::load(Options {
            home: Some(home.path().to_owned()),
            ..Options::default()
        })
        .unwrap_err();
        assert!(matches!(error, ConfigError::HomeInHome { .. }), "{error}");
    }
}
