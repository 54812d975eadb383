//! What a client asked for and its holder does not do.
//!
//! A node has one network, one set of limits and addresses: the holder's. A wish for another network is refused, because a pack
//! would be announced where its owner did not want it; other wishes are answered with a warning.

use modswarm::{
    api::{Failure, FailureKind, NetworkKind},
    config::{Rate, Settings, UploadLimit},
    control::HolderInfo,
};

/// The warnings that the user should see, a sentence each.
///
/// # Errors
/// When the holder is in another network than the one wished for.
pub(crate) fn checked(settings: &Settings, holder: &HolderInfo) -> Result<Vec<String>, Failure> {
    let options = &settings.options;
    let pid = holder.pid;
    if let Some(wished) = options.network
        && wished != holder.network
    {
        return Err(Failure::new(
            FailureKind::Usage,
            format!(
                "modswarm is running for this home in the network {} (process {pid}), and this was to be in {}",
                name(holder.network),
                name(wished)
            ),
            format!(
                "end it first, or use a second home: --home DIR --network {}",
                name(wished)
            ),
        ));
    }
    let mut warnings = Vec::new();
    if options.network.is_none() && holder.network != NetworkKind::default() {
        warnings.push(format!(
            "modswarm is running for this home already, in the network {}: that one is used",
            name(holder.network)
        ));
    }
    let mut differs = |flag: &str, theirs: String, remedy: &str| {
        warnings.push(format!(
            "{flag} has no effect: modswarm is running for this home already (process {pid}) with {theirs}; {remedy}"
        ));
    };
    let theirs = upload_limit(holder);
    if options.upload_limit.is_some_and(|wished| wished != theirs) {
        differs(
            "--upload-limit",
            theirs.to_string(),
            "`modswarm limit --up` changes that",
        );
    }
    let theirs = Rate::from_bytes_per_second(holder.download_limit);
    if options.download_limit.is_some_and(|wished| wished != theirs) {
        differs(
            "--download-limit",
            theirs.to_string(),
            "`modswarm limit --down` changes that",
        );
    }
    for (flag, wished, theirs) in [
        ("--listen", &options.listen, &holder.listen),
        ("--bootstrap", &options.bootstrap, &holder.bootstrap),
    ] {
        if !wished.is_empty() && !wished.iter().all(|addr| theirs.contains(&addr.to_string())) {
            differs(
                flag,
                if theirs.is_empty() {
                    "the defaults".to_owned()
                } else {
                    theirs.join(", ")
                },
                "end it to change that",
            );
        }
    }
    Ok(warnings)
}

/// The limit of uploads that a holder was started with.
pub(crate) fn upload_limit(holder: &HolderInfo) -> UploadLimit {
    if holder.upload_auto {
        UploadLimit::Auto
    } else {
        UploadLimit::Rate(Rate::from_bytes_per_second(holder.upload_limit))
    }
}

/// A network's name in flags.
pub(crate) fn name(network: NetworkKind) -> &'static str {
    match network {
        NetworkKind::Public => "public",
        NetworkKind::Lan => "lan",
        NetworkKind::Private => "private",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modswarm::config::{Options, Places};

    fn settings(options: Options) -> Settings {
        Settings {
            places: Places {
                home: "/h".into(),
                config_file: "/h/config.toml".into(),
            },
            options,
        }
    }

    fn holder() -> HolderInfo {
        HolderInfo {
            api: 1,
            version: "0".to_owned(),
            pid: 7,
            network: NetworkKind::Lan,
            listen: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
            bootstrap: Vec::new(),
            upload_limit: Some(1_000_000),
            download_limit: None,
            upload_auto: false,
        }
    }

    #[test]
    fn another_network_is_refused() {
        let options = Options {
            network: Some(NetworkKind::Private),
            ..Options::default()
        };
        assert_eq!(
            checked(&settings(options), &holder()).unwrap_err().kind,
            FailureKind::Usage
        );
    }

    #[test]
    fn only_wishes_that_differ_are_warned_about() {
        let mut options = Options {
            network: Some(NetworkKind::Lan),
            upload_limit: "1MB/s".parse().ok(),
            download_limit: Some(Rate::UNLIMITED),
            listen: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()],
            ..Options::default()
        };
        assert_eq!(
            checked(&settings(options.clone()), &holder()).unwrap(),
            Vec::<String>::new()
        );
        options.upload_limit = "2MB/s".parse().ok();
        options.listen = vec!["/ip4/127.0.0.1/tcp/2".parse().unwrap()];
        let warnings = checked(&settings(options), &holder()).unwrap();
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].contains("--upload-limit") && warnings[0].contains("1 MB/s"),
            "{}",
            warnings[0]
        );
    }
}
