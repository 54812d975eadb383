//! The program as a user starts it, as far as no network is needed.

#![allow(clippy::unwrap_used)] // Helpers are not marked as tests, and a panic is how they fail.

use std::{
    path::Path,
    process::{Command, Output},
};

/// The program with a home of its own and nothing from the outer environment.
fn modswarm(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modswarm"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("MODSWARM_") {
            command.env_remove(key);
        }
    }
    command.env("MODSWARM_HOME", home).env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    modswarm(&home.path().join("home")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_names_every_command_and_gives_examples() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for word in [
        "share",
        "get",
        "ls",
        "info",
        "status",
        "peers",
        "rm",
        "completions",
        "man",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
    for command in ["share", "get"] {
        let help = text(&run(&[command, "--help"]).stdout);
        assert!(
            help.contains("Examples:") && help.contains("MODSWARM_UPLOAD_LIMIT"),
            "{help}"
        );
    }
    assert!(text(&run(&["--version"]).stdout).starts_with("modswarm "));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("upload-limit"), "{shell}");
    }
}

#[test]
fn manual_pages_are_made_for_every_command() {
    assert!(text(&run(&["man"]).stdout).contains(".TH modswarm 1"));
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["man", "--dir", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for page in ["modswarm.1", "modswarm-share.1", "modswarm-get.1", "modswarm-status.1"] {
        assert!(dir.path().join(page).is_file(), "{page}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_do() {
    let file = env!("CARGO_BIN_EXE_modswarm");
    for (args, hint) in [
        (&["fetch"][..], "--help"),
        (&["share", "no/such/folder"], "help:"),
        (&["share", "modswarm:bafy?n=x"], "modswarm get"),
        (&["get", "magnet:?xt=urn:btih:00"], "orrent"),
        (
            &[
                "get",
                "bafkr4iefvsx6zgce5mqexsib4dgcf4qyo26hvcymjv5ffui3gek7sdd3pm",
                "-o",
                file,
            ],
            "is a file",
        ),
        (&["status", "--upload-limit", "5"], "5MB/s"),
        (&["status", "--listen", "0.0.0.0:4001"], "/ip4/0.0.0.0/tcp/4001"),
        (&["status", "--log", "=="], "--log debug"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let error = text(&output.stderr);
        assert!(error.contains(hint), "{args:?}: {error}");
        assert!(!error.contains('\x1b'), "{args:?}: colours outside a terminal: {error}");
    }
}

#[test]
fn a_new_home_is_empty_and_only_looking_does_not_make_it() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    let status = modswarm(&home).args(["status", "--json"]).output().unwrap();
    assert!(status.status.success());
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["packs"], serde_json::json!([]));
    assert_eq!(status["peer_id"], serde_json::Value::Null);
    assert_eq!(
        text(&modswarm(&home).args(["peers", "--json"]).output().unwrap().stdout),
        "[]\n"
    );
    let info = modswarm(&home).args(["info", "x"]).output().unwrap();
    assert_eq!(info.status.code(), Some(1));
    assert!(!home.exists());
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let home = tempfile::tempdir().unwrap();
    let limit = |args: &[&str], env: Option<&str>| {
        let mut command = modswarm(home.path());
        command.args(["--json", "status"]).args(args);
        if let Some(env) = env {
            command.env("MODSWARM_UPLOAD_LIMIT", env);
        }
        // The home is not there, so that no node is asked.
        command.env("MODSWARM_HOME", home.path().join("sub"));
        let status: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        status["upload_limit"].as_u64()
    };
    assert_eq!(limit(&[], None), None);
    assert_eq!(limit(&[], Some("2MB/s")), Some(2_000_000));
    assert_eq!(limit(&["--upload-limit", "3MB/s"], Some("2MB/s")), Some(3_000_000));
    assert_eq!(limit(&["--upload-limit", "unlimited"], Some("2MB/s")), None);
}

#[test]
fn a_wrong_config_file_is_named_with_the_nearest_key() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), "upload_limit = \"5MB/s\"\n").unwrap();
    let output = modswarm(home.path()).arg("status").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(
        error.contains("config.toml") && error.contains("did you mean `upload-limit`?"),
        "{error}"
    );
}
