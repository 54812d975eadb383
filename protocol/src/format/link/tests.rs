use super::*;
use crate::format::cid::{Codec, HashKind};

fn cid() -> Cid {
    Cid::of(Codec::DagPb, HashKind::Blake3, b"pack")
}

fn link() -> Link {
    let addr = "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    Link {
        pack: cid(),
        content: Some(Cid::of(Codec::DagPb, HashKind::Blake3, b"content")),
        name: Some(Name::new("Skins & mods = 50% #1 日本?").expect("a name")),
        addrs: vec![
            addr.parse().expect("an address"),
            "/dns4/example.org/tcp/443".parse().expect("an address"),
        ],
        expires: Some(1_900_000_000),
    }
}

#[test]
fn a_link_reads_back_as_it_was_written() {
    let bare = Link {
        content: None,
        name: None,
        addrs: Vec::new(),
        expires: None,
        ..link()
    };
    for link in [link(), bare] {
        let text = link.to_string();
        assert!(text.is_ascii() && !text.contains([' ', '"', '<', '#']), "{text}");
        assert_eq!(text.parse::<Link>(), Ok(link.clone()));
        assert_eq!(Target::parse(&format!("  <{text}>\n")), Ok(link.into()));
    }
    assert!(link().to_string().contains("&n=Skins%20%26%20mods"));
}

#[test]
fn every_spelling_names_the_same() {
    let cid = cid();
    let base36 = cid::Cid::from(&cid)
        .to_string_of_base(cid::multibase::Base::Base36Lower)
        .expect("a base");
    let spellings = [
        (format!("modswarm:{cid}"), Spelling::Link),
        (format!("MODSWARM:{cid}?"), Spelling::Link),
        (format!("modswarm://{cid}/?unknown=1&&y"), Spelling::Link),
        (cid.to_string(), Spelling::Cid),
        (base36.clone(), Spelling::Cid),
        (format!("{cid}/"), Spelling::Cid),
        (format!("ipfs://{cid}"), Spelling::Ipfs),
        (format!("ipfs://{cid}/"), Spelling::Ipfs),
        (format!("ipfs://ipfs/{cid}"), Spelling::Ipfs),
        (format!("/ipfs/{cid}"), Spelling::Ipfs),
        (format!("/ipfs/{cid}/?download=true#top"), Spelling::Ipfs),
        (format!("https://ipfs.io/ipfs/{cid}"), Spelling::Gateway),
        (format!("http://127.0.0.1:8080/ipfs/{cid}/"), Spelling::Gateway),
        (format!("https://{cid}.ipfs.dweb.link/"), Spelling::Gateway),
        (format!("https://{base36}.ipfs.localhost:8080"), Spelling::Gateway),
    ];
    for (text, spelling) in spellings {
        let target = Target::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((target.root, target.spelling), (cid, spelling), "{text}");
    }
    let v0 = Target::parse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn").expect("CIDv0");
    assert_eq!(v0.root.hash(), HashKind::Sha2_256);
    let named = Target::parse(&format!("https://ipfs.io/ipfs/{cid}?filename=my%20mod.pak")).expect("a gateway's");
    assert_eq!(named.name.expect("given").as_str(), "my mod.pak");
}

#[test]
fn what_a_link_cannot_use_is_skipped() {
    let cid = cid();
    let text = format!("modswarm:{cid}?n=..%2Fup&a=nonsense&a=/ip4/192.0.2.1/tcp/1&z=1&n2=x&a=%ff");
    let target = Target::parse(&text).expect("still of use");
    assert_eq!((target.name, target.addrs.len(), target.expires), (None, 1, None));
    let many = format!("modswarm:{cid}?{}", "a=/ip4/192.0.2.1/tcp/1&".repeat(100));
    assert_eq!(Target::parse(&many).expect("of use").addrs.len(), LINK_ADDRS_MAX);
}

#[test]
fn an_expiry_is_the_last_second_of_use() {
    let target = Target::from(link());
    assert!(!target.is_expired(1_900_000_000) && target.is_expired(1_900_000_001));
    assert!(
        !Target {
            expires: None,
            ..target
        }
        .is_expired(u64::MAX)
    );
}

#[test]
fn codes_of_other_tools_are_told_what_they_are() {
    let cases = [
        (
            "magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a",
            ForeignCode::Magnet,
        ),
        ("C:\\Users\\me\\mods.torrent", ForeignCode::Torrent),
        ("https://example.org/mods.torrent?x=1", ForeignCode::Torrent),
        ("ipns://docs.ipfs.tech", ForeignCode::Ipns),
        ("https://ipfs.io/ipns/docs.ipfs.tech", ForeignCode::Ipns),
        ("0193e1d2-6a4b-7c8d-9e0f-0123456789ab", ForeignCode::ProfileCode),
        ("nxm://game/mods/1/files/2", ForeignCode::ManagerLink),
        ("eyJwZWVyIjoiMTIzIiwia2V5IjoiYWJjIn0=", ForeignCode::ShareCode),
        ("{\"peer\": 1}", ForeignCode::ShareCode),
        ("https://example.org/my-pack", ForeignCode::WebPage),
    ];
    for (text, code) in cases {
        let error = Target::parse(text).expect_err("not ours");
        assert_eq!(error, TargetError::Foreign(code), "{text}");
        assert!(error.to_string().len() > 60);
    }
}

#[test]
fn wrong_input_says_what_is_wrong() {
    let cid = cid();
    assert_eq!(Target::parse("  "), Err(TargetError::Empty));
    assert_eq!(
        Target::parse(&"x".repeat(LINK_LEN_MAX + 1)),
        Err(TargetError::TooLong(LINK_LEN_MAX + 1))
    );
    assert!(matches!(Target::parse("hello"), Err(TargetError::Unknown(_))));
    assert!(matches!(Target::parse("modswarm:hello"), Err(TargetError::Cid { .. })));
    assert!(matches!(
        Target::parse(&cid.to_string()[..50]),
        Err(TargetError::Unknown(_) | TargetError::Cid { .. })
    ));
    // Identity, and dag-cbor.
    for text in [
        "bafkqaaa",
        "bafyreigaknpexyvxt76zgkitavbwx6ejgfheup5oybpm77f3pxzrvwpfdi",
    ] {
        let error = Target::parse(text).expect_err("of no use");
        assert!(matches!(error, TargetError::Cid { .. }), "{error:?}");
    }
    for (key, value) in [('x', "never"), ('c', "nothing")] {
        let error = Target::parse(&format!("modswarm:{cid}?{key}={value}")).expect_err("damaged");
        assert_eq!(
            error,
            TargetError::Value {
                key,
                value: value.to_owned()
            }
        );
    }
    let error = Target::parse(&format!("/ipfs/{cid}/sub/file.txt")).expect_err("a path");
    assert!(error.to_string().contains("--only"));
    assert!(matches!(cid.to_string().parse::<Link>(), Err(TargetError::Unknown(_))));
}
