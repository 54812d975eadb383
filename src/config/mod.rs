//! What the user has settled for all commands: the home, the network, limits, and how to report.
//!
//! Every setting has a flag, an environment variable and a key in a TOML file, of which the first that is given counts
//! ([`Options::or`]); what nobody gave has a default ([`Settings`]). Commands' own flags are not here.
//!
//! Where to read next: [`Rate`] for limits, [`Options::parse_file`] for the file, [`Places`] for where things lie.

mod file;
mod places;
mod rate;
mod settings;
mod words;

pub use file::ConfigError;
pub use places::Places;
pub use rate::{Rate, RateError, UploadLimit};
pub use settings::{Options, ProgressMode, Settings};
pub use words::{WordError, parse_bootstrap, parse_listen, parse_network, parse_peer, parse_seconds, parse_size};
