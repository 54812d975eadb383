//! Calls that begin downloads, or say what one would do. What goes on from there is a [`Download`]'s.

use std::sync::Arc;

use modswarm_protocol::format::Content;

use super::Store;
use crate::{
    download::{self, Download, DownloadSpec, Preview},
    error::BeginError,
    observer::Observer,
    packs::PackId,
};

impl Store {
    /// Begins a download, or goes on with the unfinished one of the same content and destination.
    ///
    /// Looks at what is at the destination: files that are the content's already are adopted (a stat where the index knows them, hashed otherwise), and
    /// what would be overwritten is found before anything is written. The content's nodes must have been put before.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn begin_download(&self, spec: &DownloadSpec, observer: &dyn Observer) -> Result<Download, BeginError> {
        let state = download::begin(&self.inner, spec, observer)?;
        Ok(Download::new(state, &self.closer))
    }

    /// Goes on with the unfinished download of the record `id` (state [`crate::PackState::Downloading`]), without hashing what is here.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn resume_download(&self, id: PackId, observer: &dyn Observer) -> Result<Download, BeginError> {
        let state = download::resume(&self.inner, id, observer)?;
        Ok(Download::new(state, &self.closer))
    }

    /// Says what [`Store::begin_download`] of the same would do, without writing anything.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn preview_download(&self, spec: &DownloadSpec, observer: &dyn Observer) -> Result<Preview, BeginError> {
        download::preview(&self.inner, spec, observer)
    }

    /// Says how `new` differs from `old`, and what it would take to come from one to the other where `old` is installed unchanged. Bytes to fetch are
    /// those of all leaves of `new` that are nowhere in this home.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn compare(&self, old: &Content, new: &Arc<Content>, observer: &dyn Observer) -> Result<Preview, BeginError> {
        download::compare(&self.inner, old, new, observer)
    }
}
