//! Calls that make packs, tell of them, look after their files, and forget them.

use std::path::Path;

use modswarm_protocol::{Cid, format::PackPath};

use super::Store;
use crate::{
    error::{GcError, IndexError, MoveError, RebuildError, RemoveError, ShareError, VerifyError},
    index::rows,
    observer::Observer,
    packs::{self, Check, Collected, Moved, PackId, PackRecord, Removed, Verified},
    rebuild::{self, Left},
    share::{self, ShareSpec, SharedPack},
};

impl Store {
    /// Makes a folder or file a pack, in place. Durable.
    ///
    /// Files that are as the index knows them cost a stat; an unchanged folder keeps its pack CID, a changed one names its former as
    /// `previous`. Cancelled or failed, it leaves what was shared before as it was.
    ///
    /// # Errors
    /// See [`ShareError`].
    pub fn share(&self, spec: &ShareSpec, observer: &dyn Observer) -> Result<SharedPack, ShareError> {
        share::share(&self.inner, spec, observer)
    }

    /// All records, oldest first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn packs(&self) -> Result<Vec<PackRecord>, IndexError> {
        let rows = rows::packs(&*self.inner.index.reader()?)?;
        Ok(rows.into_iter().map(|row| row.record).collect())
    }

    /// The records whose pack or content CID is `cid`, newest first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn packs_of(&self, cid: &Cid) -> Result<Vec<PackRecord>, IndexError> {
        let rows = rows::packs_of(&*self.inner.index.reader()?, cid)?;
        Ok(rows.into_iter().map(|row| row.record).collect())
    }

    /// One record.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn pack(&self, id: PackId) -> Result<Option<PackRecord>, IndexError> {
        Ok(rows::pack(&*self.inner.index.reader()?, id)?.map(|row| row.record))
    }

    /// Looks at every file of a pack (a stat each), withdraws the pieces of those that are gone and brings back those of files that are there again.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn check_pack(&self, id: PackId) -> Result<Check, IndexError> {
        packs::check_pack(&self.inner, id)
    }

    /// As [`Store::check_pack`], and reads the files that were changed, each once as it is, so that what was edited is withdrawn before anybody asks for it.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn look_again(&self, id: PackId) -> Result<Check, VerifyError> {
        packs::look_again(&self.inner, id)
    }

    /// Reads every byte of a pack and compares it with its CIDs. What is wrong is withdrawn, what was believed lost and is right is had again.
    /// Durable.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify_pack(&self, id: PackId, observer: &dyn Observer) -> Result<Verified, VerifyError> {
        packs::verify_pack(&self.inner, id, observer)
    }

    /// As [`Store::verify_pack`], of the files at `paths` in the pack alone; of a copied pack all is read. Durable.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify_files(
        &self,
        id: PackId,
        paths: &[PackPath],
        observer: &dyn Observer,
    ) -> Result<Verified, VerifyError> {
        packs::verify_some(&self.inner, id, paths, observer)
    }

    /// Moves a pack to the folder (or, for a single file, the file) `target`, which does not exist yet or is an empty folder; with it go all records of the
    /// same place. If the user has moved it there already, its records follow, and it is verified. Durable.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub fn move_pack(&self, id: PackId, target: &Path, observer: &dyn Observer) -> Result<Moved, MoveError> {
        packs::move_pack(&self.inner, id, target, observer)
    }

    /// Says whether clearing up must keep a pack. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn set_pinned(&self, id: PackId, pinned: bool) -> Result<(), IndexError> {
        self.inner.index.writer.run(move |tx| rows::set_pinned(tx, id, pinned))
    }

    /// Says that packs with these contents were served or fetched just now: see [`PackRecord::used`]. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn mark_used(&self, contents: &[Cid]) -> Result<(), IndexError> {
        let contents = contents.to_vec();
        let now = packs::now_secs();
        self.inner.index.writer.run(move |tx| {
            contents
                .iter()
                .try_for_each(|content| rows::mark_used(tx, content, now))
        })
    }

    /// Forgets a pack; `delete_data` also deletes its files, as far as they are as the index knows them and no other pack uses them, and the folders
    /// that this leaves empty. Durable.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub fn remove_pack(&self, id: PackId, delete_data: bool) -> Result<Removed, RemoveError> {
        packs::remove_pack(&self.inner, id, delete_data)
    }

    /// Forgets packs of this pack or content CID that a lost index knew and that were not restored; see [`crate::Rebuilt::left`]. Their copies go with the next
    /// clearing up. Returns them. Durable.
    ///
    /// # Errors
    /// When the home cannot be read or written.
    pub fn forget_left(&self, cid: &Cid) -> Result<Vec<Left>, RebuildError> {
        rebuild::forget_left(&self.inner, cid)
    }

    /// Deletes what the home keeps and no pack needs any more; users' files are never touched. It may run beside anything else.
    ///
    /// # Errors
    /// See [`GcError`].
    pub fn collect_garbage(&self, observer: &dyn Observer) -> Result<Collected, GcError> {
        packs::collect(&self.inner, observer)
    }
}
