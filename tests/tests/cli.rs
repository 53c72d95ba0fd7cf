//! The command line, `gonfalon COMMAND`, against Gonfalon itself: what it says to people, the keys of
//! its JSON that docs/command-line.md promises, what it refuses, and with which exit code.
//!
//! Every test has a store of its own, so that revisions are exact; each asks many commands of it.

#[path = "cli/cluster.rs"]
mod cluster;
#[path = "cli/gonfalon.rs"]
mod gonfalon;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/leases.rs"]
mod leases;
#[path = "cli/maintenance.rs"]
mod maintenance;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/recipes.rs"]
mod recipes;
#[path = "cli/settings.rs"]
mod settings;
#[path = "cli/watching.rs"]
mod watching;
