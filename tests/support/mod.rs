//! Runs the real program in real processes, each with a home of its own, on loopback in a private network.
//!
//! Nothing waits by sleeping: a test reads the program's JSON lines and fails with everything it said when one does not come.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long anything may take on a machine that is busy with other work.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A fresh home and a place for files.
pub struct Machine {
    dir: tempfile::TempDir,
    name: &'static str,
}

impl Machine {
    pub fn new(name: &'static str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("modswarm-{name}-"))
            .tempdir()
            .expect("a temporary folder");
        Self { dir, name }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The program with this machine's home, on loopback only.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modswarm"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("MODSWARM_HOME", self.home())
            .env("MODSWARM_NETWORK", "private")
            .env("MODSWARM_LISTEN", "/ip4/127.0.0.1/tcp/0")
            .env("RUST_BACKTRACE", "1")
            .current_dir(self.dir.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(filter) = std::env::var_os("MODSWARM_TEST_LOG") {
            command.env("MODSWARM_LOG", filter);
        }
        command
    }

    /// Starts the program and reads its lines as they come.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::spawn(self.name, self.command(args))
    }

    /// Starts the program with a log of what `filter` lets through.
    pub fn start_with_log(&self, filter: &str, args: &[&str]) -> Process {
        let mut command = self.command(args);
        command.env("MODSWARM_LOG", filter);
        Process::spawn(self.name, command)
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        self.start(args).finish()
    }
}

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Arc<Mutex<String>>,
    /// Reads standard error to its end.
    errors: Option<thread::JoinHandle<()>>,
}

/// A program that ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub said: String,
}

impl Finished {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The last line of standard output, as JSON.
    pub fn last_json(&self) -> Value {
        let line = self
            .stdout
            .last()
            .unwrap_or_else(|| panic!("no output; it said:\n{}", self.said));
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }
}

impl Process {
    fn spawn(name: &str, mut command: Command) -> Self {
        let shown = format!("{name}: {:?}", command.get_args().collect::<Vec<_>>());
        let mut child = command.spawn().expect("the program starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (send, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                heard.lock().expect("not poisoned").push_str(&format!("out: {line}\n"));
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let heard = Arc::clone(&said);
        let errors = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().expect("not poisoned").push_str(&format!("err: {line}\n"));
            }
        });
        Self {
            name: shown,
            child,
            lines,
            said,
            errors: Some(errors),
        }
    }

    pub fn said(&self) -> String {
        self.said.lock().expect("not poisoned").clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output, as JSON.
    #[track_caller]
    pub fn next_json(&self) -> Value {
        let line = self
            .lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|e| panic!("{}: no line ({e}); it said:\n{}", self.name, self.said()));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name))
    }

    /// Reads lines until one has this `event`.
    #[track_caller]
    pub fn until_event(&self, event: &str) -> Value {
        loop {
            let value = self.next_json();
            if value["event"] == event {
                return value;
            }
            assert_ne!(value["event"], "failed", "{}: it failed:\n{}", self.name, self.said());
        }
    }

    /// Reads lines until one is a progress event with at least `bytes` done.
    #[track_caller]
    pub fn until_bytes(&self, bytes: u64) {
        loop {
            let value = self.until_event("progress");
            if value["bytes_done"].as_u64().unwrap_or(0) >= bytes {
                return;
            }
        }
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Ctrl-C.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Ends it as a power cut ends a process: with no chance to tidy up.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut stdout = Vec::new();
        loop {
            // The channel closes when the program's output does, which is when it ends.
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()))
            {
                Ok(line) => stdout.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("{}: it does not end; it said:\n{}", self.name, self.said())
                }
            }
        }
        let status = self.child.wait().expect("it ends");
        if let Some(errors) = self.errors.take() {
            errors.join().expect("it only reads");
        }
        Finished {
            status,
            stdout,
            said: self.said(),
        }
    }

    /// Ctrl-C, then its end.
    #[cfg(unix)]
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.interrupt();
        self.finish()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A seeding share.
pub struct Seed {
    pub process: Process,
    pub pack: String,
    pub content: String,
    pub link: String,
    pub peer_id: String,
    pub ready: Value,
}

/// Shares `path` and waits until it is served.
#[track_caller]
pub fn share(machine: &Machine, path: &Path, more: &[&str]) -> Seed {
    let path = path.to_str().expect("test paths are UTF-8");
    let process = machine.start(&[&["share", path, "--json"], more].concat());
    let ready = process.next_json();
    let text = |key: &str| {
        ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key} in {ready}"))
            .to_owned()
    };
    Seed {
        pack: text("pack"),
        content: text("content"),
        link: text("link"),
        peer_id: text("peer_id"),
        process,
        ready,
    }
}

/// The bytes that `complete` says came from `peer_id`.
pub fn bytes_from(complete: &Value, peer_id: &str) -> u64 {
    complete["peers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|peer| peer["peer_id"] == peer_id)
        .filter_map(|peer| peer["bytes"].as_u64())
        .sum()
}

/// Bytes that look random and are the same each time.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders can be made");
    fs::write(path, bytes).expect("the file can be written");
}

/// Asserts that two folders hold the same names, and the same bytes under them.
#[track_caller]
pub fn assert_same_tree(left: &Path, right: &Path) {
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(left), names(right), "{} and {}", left.display(), right.display());
    for name in names(left) {
        let (a, b) = (left.join(&name), right.join(&name));
        if a.is_dir() {
            assert_same_tree(&a, &b);
        } else {
            assert_same_file(&a, &b);
        }
    }
}

/// Asserts that two files hold the same bytes, however large they are.
#[track_caller]
pub fn assert_same_file(left: &Path, right: &Path) {
    let open = |path: &Path| fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut a, mut b) = (open(left), open(right));
    assert_eq!(
        a.metadata().expect("metadata").len(),
        b.metadata().expect("metadata").len(),
        "sizes of {} and {}",
        left.display(),
        right.display()
    );
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = a.read(&mut x).expect("readable");
        if n == 0 {
            return;
        }
        b.read_exact(&mut y[..n]).expect("readable");
        assert!(x[..n] == y[..n], "{} and {} differ", left.display(), right.display());
    }
}
