//! What a poll costs where C and Python take the events: the programs of tests/c, compiled and started as a stranger would.
//!
//! Owns building and running them. What they measure is theirs; one that cannot run here is left out, with the reason.

use crate::cells::Settings;
use crate::proc;
use crate::report::{Report, cell};
use crate::server::find;
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BATCHES: [&str; 3] = ["1", "64", "1024"];

/// A language, and how its program is started.
struct Program {
    language: &'static str,
    command: Command,
}

pub fn poll(report: &mut Report, settings: &Settings) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("heartbus-bench-poll-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = measure(report, settings, &folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn measure(report: &mut Report, settings: &Settings, folder: &Path) -> Result<()> {
    let mut left_out = String::new();
    let mut programs = Vec::new();
    for (language, program) in [("C", in_c(folder)), ("Python", in_python())] {
        match program {
            Ok(command) => programs.push(Program { language, command }),
            Err(reason) => {
                eprintln!("{language} is left out: {reason}");
                left_out += &format!("\n\n{language} is left out: {reason}.");
            }
        }
    }
    // A thread fills the inbox while another waits to empty it.
    proc::run_on(&[settings.cores.server.as_slice(), &settings.cores.load].concat())?;
    let rounds = (0..settings.rounds).try_for_each(|_| programs.iter_mut().try_for_each(|program| program.round(report)));
    proc::run_on(&settings.cores.load)?;
    rounds?;
    let rows = programs.iter().map(|Program { language, .. }| {
        let figures = BATCHES.map(|batch| cell(report.figure(&sample(language, batch))));
        [(*language).to_string()].into_iter().chain(figures).collect()
    });
    let rows = rows.collect();
    report.section(
        "A poll from C and from Python",
        format!(
            "Events for each second that the polling thread spends on a core, by the size of its batches: data of 16 bytes that waits already, taken with \
             `heartbus_server_poll` and a timeout of 0, so that nothing but the poll is measured. In Python through examples/python/heartbus.py, which copies \
             each event into an object: that is what it pays for.\n\n`heartbus-bench run --only poll`{left_out}"
        ),
        &["language", "batch of 1", "64", "1,024"],
        rows,
    );
    Ok(())
}

fn sample(language: &str, batch: &str) -> String {
    format!("poll/{language}/{batch}/per_second")
}

impl Program {
    /// Runs it, and notes what it prints, in lines like `C | 64 | 12345678`.
    fn round(&mut self, report: &mut Report) -> Result<()> {
        let output = self.command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(Error::new(format!("the program in {} failed: {}", self.language, String::from_utf8_lossy(&output.stderr))));
        }
        for batch in BATCHES {
            let rate = rate(&said, self.language, batch);
            let rate = rate.ok_or_else(|| Error::new(format!("the program in {} said {said:?}", self.language)))?;
            report.add(&sample(self.language, batch), rate);
            eprintln!("{:<34} {:<14} {rate:>10.0}/s", format!("poll, batch of {batch}"), self.language);
        }
        Ok(())
    }
}

fn rate(said: &str, language: &str, batch: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix(&format!("{language} | {batch} | "))?.parse().ok())
}

/// The folder of the built library.
fn library() -> std::result::Result<PathBuf, String> {
    let folder = fs::canonicalize("build").ok().filter(|folder| folder.join("libheartbus.so").exists());
    folder.ok_or_else(|| "there is no build/libheartbus.so (make build)".into())
}

/// The program in C, compiled; or why there is none.
fn in_c(folder: &Path) -> std::result::Result<Command, String> {
    let library = library()?;
    let compiler = find("cc").ok_or("there is no C compiler (cc)")?;
    let program = folder.join("poll_cost");
    let mut compile = Command::new(compiler);
    compile.args(["-std=c11", "-O2", "-Iinclude", "tests/c/poll_cost.c", "-o"]).arg(&program);
    compile.args([format!("-L{}", library.display()), "-lheartbus".into(), format!("-Wl,-rpath,{}", library.display())]);
    let output = compile.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("tests/c/poll_cost.c does not compile: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(Command::new(program))
}

fn in_python() -> std::result::Result<Command, String> {
    let library = library()?;
    let mut command = Command::new(find("python3").ok_or("there is no python3")?);
    command.args(["-B", "tests/c/poll_cost.py"]).env("HEARTBUS_LIBRARY", library.join("libheartbus.so"));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_found_by_language_and_batch() {
        let said = "C | 1 | 1700000\nC | 1024 | 25000000\nPython | 64 | x\n";
        assert_eq!(rate(said, "C", "1"), Some(1_700_000.0));
        assert_eq!(rate(said, "C", "1024"), Some(25_000_000.0));
        assert_eq!((rate(said, "C", "64"), rate(said, "Python", "64"), rate(said, "Python", "1")), (None, None, None));
    }
}
