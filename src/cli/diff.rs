//! `modswarm diff` and `modswarm get --dry-run`.

use std::path::{Path, PathBuf};

use modswarm::api::{Diff, DiffRequest, Failure};

use super::{
    args::DiffArgs,
    local::ask,
    session::{Context, Need, Session},
    text,
};

/// `modswarm diff`.
pub(crate) async fn run(context: &Context, args: DiffArgs) -> Result<(), Failure> {
    let request = DiffRequest {
        from: Some(named(&args.from)),
        to: named(&args.to),
        peers: args.peers.iter().map(ToString::to_string).collect(),
        timeout: args.timeout,
        ..DiffRequest::default()
    };
    show(context, &request).await
}

/// Asks, and prints the answer.
pub(crate) async fn show(context: &Context, request: &DiffRequest) -> Result<(), Failure> {
    let diff = ask(context, Need::Network, async |session: &Session| {
        session.diff(request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&diff);
    } else {
        context.ui.result(&listed(&diff));
    }
    Ok(())
}

/// A folder by its full path, since the process that answers may be in another; anything else as it is.
fn named(text: &str) -> String {
    let path = Path::new(text);
    match path.is_dir() {
        true => std::path::absolute(path)
            .unwrap_or_else(|_| PathBuf::from(path))
            .to_string_lossy()
            .into_owned(),
        false => text.to_owned(),
    }
}

fn listed(diff: &Diff) -> String {
    let mut lines = Vec::new();
    let mut each = |mark: &str, files: &[String], note: &str| {
        for file in files {
            lines.push(format!("{mark} {}{note}", text::escaped(file)));
        }
    };
    each("+", &diff.added, "");
    each("~", &diff.changed, "");
    each("-", &diff.removed, "");
    each("!", &diff.conflicts, "  (yours, or changed by you)");
    each("!", &diff.kept, "  (changed by you, no longer in the pack; stays)");
    for renamed in &diff.renamed {
        lines.push(format!(
            "> {} -> {}",
            text::escaped(&renamed.from),
            text::escaped(&renamed.to)
        ));
    }
    if lines.is_empty() {
        lines.push("no file differs".to_owned());
    }
    lines.push(format!("{} unchanged", text::count(diff.unchanged, "file")));
    lines.push(format!("{} to fetch", text::bytes(diff.bytes_to_fetch)));
    let change = text::bytes(diff.disk_change.unsigned_abs());
    let change = match diff.disk_change {
        0 => "as much as now in the end".to_owned(),
        more if more > 0 => format!("{change} more in the end"),
        _ => format!("{change} less in the end"),
    };
    lines.push(format!(
        "{} of room needed for it, {change}",
        text::bytes(diff.disk_needed)
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_no_trick_of_a_name() {
        let cid = modswarm_protocol::Cid::of(modswarm_protocol::Codec::Raw, modswarm_protocol::HashKind::Blake3, b"");
        let shown = listed(&Diff {
            from: None,
            to: cid,
            name: None,
            path: None,
            unchanged: 2,
            added: vec!["evil\x1b[2J".to_owned()],
            changed: Vec::new(),
            removed: vec!["gone".to_owned()],
            renamed: Vec::new(),
            conflicts: Vec::new(),
            kept: Vec::new(),
            bytes_to_fetch: 2_000_000,
            disk_needed: 3_000_000,
            disk_change: -1_000_000,
            disk_free: None,
        });
        assert_eq!(
            shown,
            "+ evil\\u{1b}[2J\n- gone\n2 files unchanged\n2.0 MB to fetch\n3.0 MB of room needed for it, 1.0 MB less in the end"
        );
    }
}
