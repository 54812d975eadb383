use super::*;
use crate::format::cid::{Codec, HashKind};

fn manifest() -> Manifest {
    let content = Cid::of(Codec::DagPb, HashKind::Blake3, b"content");
    Manifest::new(content, Name::new("My pack").expect("a name"))
}

fn full() -> Manifest {
    Manifest {
        description: Some("two\nlines".to_owned()),
        creator: Some("somebody".to_owned()),
        game: Some("a game".to_owned()),
        tags: vec!["skin".to_owned(), "日本".to_owned()],
        version: Some("1.2".to_owned()),
        previous: Some(Cid::of(Codec::DagPb, HashKind::Blake3, b"before")),
        created: Some(1_795_000_000),
        chunker: Some(ChunkerProfile::DEFAULT),
        exec: vec!["bin/run".to_owned()],
        ..manifest()
    }
}

#[test]
fn it_reads_back_as_it_was_written() {
    for manifest in [manifest(), full()] {
        let bytes = manifest.to_bytes().expect("small");
        assert_eq!(Manifest::from_bytes(&bytes).expect("own bytes"), manifest);
    }
    let text = String::from_utf8(manifest().to_bytes().expect("small")).expect("JSON");
    let content = manifest().content;
    assert_eq!(
        text,
        format!("{{\n  \"modswarm\": 1,\n  \"content\": \"{content}\",\n  \"name\": \"My pack\"\n}}\n")
    );
}

#[test]
fn unknown_keys_and_profiles_are_ignored() {
    let content = manifest().content;
    let text =
        format!(r#"{{"modswarm":1,"content":"{content}","name":"My pack","chunker":"rabin-9","later":{{"a":[1]}}}}"#);
    assert_eq!(Manifest::from_bytes(text.as_bytes()).expect("readable"), manifest());
}

#[test]
fn what_is_no_manifest_and_what_is_a_damaged_one_differ() {
    let content = manifest().content;
    for text in [
        "",
        "[]",
        "{}",
        "{\"name\":\"x\"}",
        "{\"modswarm\":\"1\"}",
        "{\"modswarm\":-1}",
    ] {
        assert!(
            matches!(
                Manifest::from_bytes(text.as_bytes()),
                Err(ManifestError::NotAManifest(_))
            ),
            "{text}"
        );
    }
    let damaged = [
        r#"{"modswarm":1}"#.to_owned(),
        format!(r#"{{"modswarm":0,"content":"{content}","name":"x"}}"#),
        format!(r#"{{"modswarm":1,"content":"{content}","name":"../x"}}"#),
        format!(r#"{{"modswarm":1,"content":"{content}","name":"x","creator":"\u001b[31m"}}"#),
        format!(r#"{{"modswarm":1,"content":"{content}","name":"x","exec":["../x"]}}"#),
        r#"{"modswarm":1,"content":"bafkqaaa","name":"identity"}"#.to_owned(),
    ];
    for text in damaged {
        assert!(
            matches!(Manifest::from_bytes(text.as_bytes()), Err(ManifestError::Field(_))),
            "{text}"
        );
    }
    assert!(matches!(
        Manifest::from_bytes(b"{\"modswarm\":2}"),
        Err(ManifestError::Newer(2))
    ));
    let long = vec![b' '; MAX_MANIFEST_LEN + 1];
    assert!(matches!(Manifest::from_bytes(&long), Err(ManifestError::TooLong(_))));
    let deep = "[".repeat(100_000);
    assert!(Manifest::from_bytes(deep.as_bytes()).is_err());
}

#[test]
fn what_others_could_not_read_is_not_written() {
    let text = |len: usize| Some("x".repeat(len));
    let fine = Manifest {
        description: text(DESCRIPTION_LEN_MAX),
        creator: text(FIELD_LEN_MAX),
        ..manifest()
    };
    fine.to_bytes().expect("at the bounds");
    let refused = [
        Manifest {
            description: text(DESCRIPTION_LEN_MAX + 1),
            ..manifest()
        },
        Manifest {
            version: text(FIELD_LEN_MAX + 1),
            ..manifest()
        },
        Manifest {
            tags: vec![String::new(); TAGS_MAX + 1],
            ..manifest()
        },
        Manifest {
            exec: vec!["x".to_owned(); EXEC_MAX + 1],
            ..manifest()
        },
        Manifest {
            game: Some("line\nbreak".to_owned()),
            ..manifest()
        },
        Manifest {
            format: 0,
            ..manifest()
        },
    ];
    for manifest in refused {
        assert!(
            matches!(manifest.to_bytes(), Err(ManifestError::Field(_))),
            "{manifest:?}"
        );
    }
    let long = Manifest {
        exec: vec!["x".repeat(700); EXEC_MAX],
        ..manifest()
    };
    assert!(matches!(long.to_bytes(), Err(ManifestError::TooLong(_))));
}
