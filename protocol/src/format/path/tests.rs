use super::*;

#[test]
fn what_could_leave_the_folder_or_deceive_a_terminal_is_no_name() {
    for text in [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "a\\b",
        "\0",
        "a\nb",
        "a\u{7f}",
        "a\u{9b}b",
        &"x".repeat(NAME_LEN_MAX + 1),
    ] {
        assert!(Name::new(text).is_err() && Name::normalised(text).is_err(), "{text:?}");
        assert!(
            PackPath::new(&format!("good/{text}/good")).is_err() || text.contains('/'),
            "{text:?}"
        );
    }
    for text in ["/a", "a/", "a//b", "../a", "a/..", "a/./b", ""] {
        assert!(PackPath::new(text).is_err(), "{text:?}");
    }
    for text in [
        "...",
        ".hidden",
        "Skin v1.2_9999999_P.pak",
        "日本語",
        "😀",
        "a ",
        "CON",
        &"x".repeat(NAME_LEN_MAX),
    ] {
        assert_eq!(Name::new(text).expect("a name").as_str(), text);
    }
}

#[test]
fn names_are_kept_in_form_c() {
    assert_eq!(Name::new("e\u{301}"), Err(NameError::NotNfc("e\u{301}".to_owned())));
    assert_eq!(Name::normalised("e\u{301}").expect("a name").as_str(), "é");
    assert!(matches!(Name::from_utf8(b"\xff"), Err(NameError::NotUtf8(_))));
    // Short before and too long after.
    assert!(Name::normalised(&"\u{fb2c}".repeat(NAME_LEN_MAX / 3)).is_err());
}

#[test]
fn paths_are_bounded_and_ordered_by_names() {
    let name = Name::new(&"n".repeat(600)).expect("a name");
    let mut path = PackPath::from(name.clone());
    for _ in 0..5 {
        path = path.join(&name).expect("short enough");
    }
    assert!(matches!(path.join(&name), Err(NameError::PathTooLong(4206))));
    assert!(PackPath::new(&"n/".repeat(3000)).is_err());

    let mut paths: Vec<PackPath> = ["a b", "a/b", "a", "a!/c", "a/b/c"]
        .map(|text| PackPath::new(text).expect("a path"))
        .into();
    paths.sort();
    let texts: Vec<&str> = paths.iter().map(PackPath::as_str).collect();
    assert_eq!(texts, ["a", "a/b", "a/b/c", "a b", "a!/c"]);
    assert_eq!(paths[2].parent().expect("it has one").as_str(), "a/b");
    assert_eq!((paths[2].file_name(), paths[0].parent()), ("c", None));
}

#[test]
fn what_some_systems_refuse_is_told() {
    use PortabilityIssue as Issue;
    let long = "é".repeat(128);
    let cases = [
        ("CON", Some(Issue::Reserved)),
        ("nul.txt", Some(Issue::Reserved)),
        ("Com0", Some(Issue::Reserved)),
        ("lpt¹.pak", Some(Issue::Reserved)),
        ("aux .a.b", Some(Issue::Reserved)),
        ("conin$", Some(Issue::Reserved)),
        ("COM10", None),
        ("COMMON", None),
        ("console", None),
        ("a:stream", Some(Issue::Character(':'))),
        ("what?", Some(Issue::Character('?'))),
        ("dot.", Some(Issue::TrailingDotOrSpace)),
        ("space ", Some(Issue::TrailingDotOrSpace)),
        ("exe\u{202e}kap.scr", Some(Issue::Deceptive)),
        ("👩\u{200d}🚀", None),
        (".hidden", None),
        (&long, Some(Issue::TooLong)),
    ];
    for (name, issue) in cases {
        assert_eq!(portability_issue(name), issue, "{name:?}");
    }
    let path = PackPath::new("fine/aux/fine").expect("legal in a pack");
    assert_eq!(path.portability_issue(), Some(("aux", Issue::Reserved)));
}

#[test]
fn names_that_differ_in_case_have_one_key() {
    for (a, b) in [
        ("Mod.PAK", "mod.pak"),
        ("Straße", "STRASSE"),
        ("ΣΑΣ", "σας"),
        ("É", "é"),
    ] {
        assert_eq!(case_key(a), case_key(b));
    }
    assert_ne!(case_key("a"), case_key("b"));
}
