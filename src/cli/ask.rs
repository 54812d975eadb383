//! Asking the user, on a terminal, what becomes of his own files where a pack has others.

use std::{
    io::{BufRead as _, IsTerminal as _, stdin},
    path::PathBuf,
};

use modswarm::api::Conflicts;
use tokio::sync::oneshot;

use super::{output::Ui, session::Context, text};

/// Files that are named before "and so many more".
const SHOWN: usize = 20;
/// How often an answer that makes no sense is asked for again.
const TRIES: usize = 3;

/// Files of the user's where a pack has others.
#[derive(Debug)]
pub(crate) struct InTheWay {
    /// The pack's folder.
    pub(crate) path: PathBuf,
    /// Paths below it.
    pub(crate) files: Vec<String>,
}

/// Whether there is somebody to ask.
pub(crate) fn possible(ui: &Ui) -> bool {
    !ui.json() && stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What the user wants; `None`: to stop.
pub(crate) async fn what_to_do(context: &Context, found: &InTheWay) -> Option<Conflicts> {
    context.ui.note(&question(found));
    for _ in 0..TRIES {
        let answer = tokio::select! {
            biased;
            () = context.signals.stopped() => return None,
            answer = line() => answer?,
        };
        match meaning(&answer) {
            Some(Answer::Do(policy)) => return Some(policy),
            Some(Answer::Cancel) => return None,
            None => context.ui.note("Please answer m, t, b or c."),
        }
    }
    None
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Do(Conflicts),
    Cancel,
}

fn meaning(answer: &str) -> Option<Answer> {
    match answer.trim().to_lowercase().as_str() {
        "m" | "mine" | "keep mine" => Some(Answer::Do(Conflicts::KeepMine)),
        "t" | "theirs" | "take theirs" => Some(Answer::Do(Conflicts::TakeTheirs)),
        "b" | "both" | "keep both" => Some(Answer::Do(Conflicts::KeepBoth)),
        "c" | "cancel" | "" => Some(Answer::Cancel),
        _ => None,
    }
}

fn question(found: &InTheWay) -> String {
    let mut lines = vec![format!(
        "{} in {} {} yours, or changed by you, and the pack has {}:",
        text::count(found.files.len() as u64, "file"),
        text::escaped(&found.path.to_string_lossy()),
        if found.files.len() == 1 { "is" } else { "are" },
        if found.files.len() == 1 { "another" } else { "others" },
    )];
    for file in found.files.iter().take(SHOWN) {
        lines.push(format!("  {}", text::escaped(file)));
    }
    if let Some(more) = found.files.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("  … and {more} more"));
    }
    lines.push("[m] keep mine   [t] take theirs   [b] keep both (yours are renamed)   [c] cancel".to_owned());
    lines.join("\n")
}

/// A line of standard input; `None` at its end. The thread that reads holds nobody up at the end of the process.
async fn line() -> Option<String> {
    let (sender, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = stdin().lock().read_line(&mut line);
        let _ = sender.send(read.ok().filter(|read| *read > 0).map(|_| line));
    });
    answer.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_answers_do_something() {
        assert_eq!(meaning("M\n"), Some(Answer::Do(Conflicts::KeepMine)));
        assert_eq!(meaning("theirs"), Some(Answer::Do(Conflicts::TakeTheirs)));
        assert_eq!(meaning("b"), Some(Answer::Do(Conflicts::KeepBoth)));
        assert_eq!(meaning("\n"), Some(Answer::Cancel));
        assert_eq!(meaning("yes"), None);
    }

    #[test]
    fn the_question_shows_no_trick_of_a_name() {
        let asked = question(&InTheWay {
            path: "/mods".into(),
            files: (0..22).map(|n| format!("{n}\u{1b}[2J")).collect(),
        });
        assert!(!asked.contains('\u{1b}') && asked.contains("and 2 more"), "{asked}");
    }
}
