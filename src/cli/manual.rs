//! Completions and manual pages, made from the same definition as the parser.

use std::path::Path;

use clap_complete::Shell;
use modswarm::api::{Failure, FailureKind};

use super::{args, output::Ui};

/// Prints the completions of `shell`.
pub(crate) fn completions(ui: &Ui, shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "modswarm", &mut script);
    ui.result(String::from_utf8_lossy(&script).trim_end());
}

/// Prints the main page, or writes the pages of all commands to `dir`.
pub(crate) fn man(ui: &Ui, dir: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            FailureKind::Failed,
            format!("the manual pages could not be written: {error}"),
            "name a folder that you may write to with --dir",
        )
    };
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(args::command())
            .render(&mut page)
            .map_err(failed)?;
        ui.result(String::from_utf8_lossy(&page).trim_end());
        return Ok(());
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(args::command(), dir).map_err(failed)
}
