//! Names in one text: there may be a million, and each in memory of its own would take twice as much.

use super::path::PackPath;

/// Names by where they begin. Each is ended by a `/`, which no name holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(String);

/// Stands for the folder that all others lie in.
pub(super) const TOP: u32 = u32::MAX;

/// An entry of a folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// Its name.
    pub(super) name: u32,
    /// The number of the folder, or [`TOP`].
    pub(super) folder: u32,
}

impl Names {
    /// Keeps `name`, and says where it begins; none if there are more bytes of names than can be counted.
    pub(super) fn push(&mut self, name: &str) -> Option<u32> {
        debug_assert!(!name.contains('/'), "{name:?} is no name");
        let at = u32::try_from(self.0.len()).ok().filter(|at| *at != u32::MAX)?;
        self.0.push_str(name);
        self.0.push('/');
        Some(at)
    }

    /// The name that begins there.
    pub(super) fn get(&self, at: u32) -> &str {
        let from = &self.0[at as usize..];
        from.split('/').next().unwrap_or(from)
    }

    /// The path of an entry, `dirs` being the folders.
    pub(super) fn path(&self, dirs: &[Spot], spot: Spot) -> PackPath {
        let mut names = vec![self.get(spot.name)];
        let mut folder = spot.folder;
        while let Some(dir) = dirs.get(folder as usize) {
            names.push(self.get(dir.name));
            folder = dir.folder;
        }
        names.reverse();
        PackPath::of_names(&names)
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_were_put() {
        let mut names = Names::default();
        let texts = ["a", "über", "a", "日本.pak"];
        let at: Vec<u32> = texts.iter().map(|text| names.push(text).expect("room")).collect();
        let found: Vec<&str> = at.iter().map(|at| names.get(*at)).collect();
        assert_eq!(found, texts);
        let dirs = [(0, TOP), (1, 0), (2, TOP)].map(|(name, folder)| Spot { name: at[name], folder });
        let path = |folder| names.path(&dirs, Spot { name: at[3], folder }).to_string();
        assert_eq!([TOP, 1, 2].map(path), ["日本.pak", "a/über/日本.pak", "a/日本.pak"]);
    }
}
