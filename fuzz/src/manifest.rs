//! pack.json.

use modswarm_protocol::format::{Manifest, manifest::ManifestError};

use super::{assert_presentable, memory};

pub fn run(data: &[u8]) {
    memory::within(32 * data.len() + 16 * 1024, || match Manifest::from_bytes(data) {
        Ok(manifest) => match manifest.to_bytes() {
            Ok(bytes) => {
                assert_eq!(Manifest::from_bytes(&bytes).expect("own bytes"), manifest);
                assert_eq!(manifest.to_bytes().expect("as before"), bytes);
            }
            // Indented it may be over the bound.
            Err(ManifestError::TooLong(_)) => {}
            Err(e) => panic!("read and not to be written: {e}"),
        },
        Err(e) => assert_presentable(&e, data.len()),
    });
}
