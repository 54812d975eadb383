//! What every command has at hand, and how it comes to a node.

use std::{fs::OpenOptions, io::ErrorKind};

use modswarm::{
    api::{Failure, FailureKind},
    config::{Rate, Settings},
    node::{Node, NodeConfig},
};

use super::{output::Ui, signals::Signals};

/// A file in the home whose being there says that the user was told about uploads.
const NOTICE_MARKER: &str = "upload-notice-shown";

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) ui: Ui,
    pub(crate) signals: Signals,
}

impl Context {
    /// Comes to a node.
    pub(crate) async fn join(&self) -> Result<Node, Failure> {
        Node::start(NodeConfig {
            home: self.settings.places.home.clone(),
            listen: self.settings.options.listen.clone(),
            bootstrap: self.settings.options.bootstrap.clone(),
            network: self.settings.network(),
            upload_limit: self.settings.upload_limit().bytes_per_second(),
            download_limit: self.settings.download_limit().bytes_per_second(),
        })
        .await
    }

    /// Says once in the life of a home that this machine will upload, within which limits, and how to change that.
    pub(crate) fn upload_notice(&self, upload: Rate, download: Rate) {
        if self.ui.quiet() {
            return;
        }
        let marker = self.settings.places.home.join(NOTICE_MARKER);
        match OpenOptions::new().write(true).create_new(true).open(&marker) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // If it cannot be kept in mind, it is said again next time.
            _ => self.ui.note(&format!(
                "While modswarm runs, this machine uploads what it shares and what it has downloaded to others who want it.\n\
                 Limits now: upload {upload}, download {download}. To change them: --upload-limit 5MB/s, or the line\n  \
                 upload-limit = \"5MB/s\"\nin {}. With `get --no-seed` it ends when the download is done.\n",
                self.settings.places.config_file.display()
            )),
        }
    }
}

/// The failure of a command that was stopped before anything began.
pub(crate) fn cancelled() -> Failure {
    Failure {
        kind: FailureKind::Cancelled,
        message: "nothing was begun".to_owned(),
        help: None,
    }
}
