//! What was measured, by name, and the pages it is written to.
//!
//! Owns the numbers of every round; medians and spreads are made of them when they are written, never before.

use crate::Result;
use crate::proc;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

#[derive(Default)]
pub struct Report {
    samples: BTreeMap<String, Vec<f64>>,
    sections: Vec<Section>,
    bounds: Vec<Bound>,
}

pub struct Section {
    pub title: &'static str,
    pub text: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

struct Bound {
    what: String,
    /// "≤ 1.08" and the like.
    bound: String,
    measured: String,
    holds: bool,
}

/// Of the rounds of one measurement.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Figure {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Report {
    pub fn add(&mut self, name: &str, value: f64) {
        self.samples.entry(name.into()).or_default().push(value);
    }

    pub fn figure(&self, name: &str) -> Option<Figure> {
        self.samples.get(name).and_then(|values| Figure::of(values))
    }

    /// The quotient of two measurements, round by round: what was noisy for one was noisy for the other.
    pub fn ratio(&self, over: &str, under: &str) -> Option<Figure> {
        let (over, under) = (self.samples.get(over)?, self.samples.get(under)?);
        Figure::of(&over.iter().zip(under).map(|(over, under)| over / under).collect::<Vec<_>>())
    }

    pub fn section(&mut self, title: &'static str, text: impl Into<String>, header: &[&str], rows: Vec<Vec<String>>) {
        let header = header.iter().map(ToString::to_string).collect();
        self.sections.push(Section { title, text: text.into(), header, rows });
    }

    /// Holds a figure, which may be missing, against what it must not exceed.
    pub fn at_most(&mut self, what: impl Into<String>, bound: f64, unit: &str, measured: Option<Figure>) {
        self.bound(what, format!("≤ {bound}{unit}"), unit, measured, |median| median <= bound);
    }

    pub fn at_least(&mut self, what: impl Into<String>, bound: f64, unit: &str, measured: Option<Figure>) {
        let text = format!("≥ {}{unit}", crate::plot::grouped(bound));
        self.bound(what, text, unit, measured, |median| median >= bound);
    }

    fn bound(&mut self, what: impl Into<String>, bound: String, unit: &str, measured: Option<Figure>, holds: impl Fn(f64) -> bool) {
        let text = measured.map_or("not measured".into(), |figure| format!("{}{unit}", figure.short()));
        let holds = measured.is_some_and(|figure| holds(figure.median));
        self.bounds.push(Bound { what: what.into(), bound, measured: text, holds });
    }

    /// Writes `BENCHMARKS.md` and, beside the plots, every number of every round.
    pub fn write(&self, folder: &Path, introduction: &str) -> Result<()> {
        fs::create_dir_all(folder.join("bench"))?;
        let samples: serde_json::Map<String, Value> = self.samples.iter().map(|(name, values)| (name.clone(), json!(values))).collect();
        let text = serde_json::to_string_pretty(&samples).map_err(|error| crate::Error::new(error.to_string()))?;
        fs::write(folder.join("bench/samples.json"), text + "\n")?;
        fs::write(folder.join("BENCHMARKS.md"), self.markdown(introduction))?;
        Ok(())
    }

    fn markdown(&self, introduction: &str) -> String {
        let mut out = format!("# Benchmarks\n\n{introduction}");
        if !self.bounds.is_empty() {
            out += "\n## Bounds\n\nWhat is asked of the engine, and what this run measured. A median, with the lowest and the highest round behind it.\n\n";
            let rows = self.bounds.iter().map(|bound| {
                vec![bound.what.clone(), bound.bound.clone(), bound.measured.clone(), if bound.holds { "yes" } else { "**no**" }.into()]
            });
            table(&mut out, &["what".into(), "bound".into(), "measured".into(), "holds".into()], rows);
        }
        for section in &self.sections {
            write!(out, "\n## {}\n\n{}\n", section.title, section.text).expect("text can be written into a string");
            if !section.rows.is_empty() {
                out.push('\n');
                table(&mut out, &section.header, section.rows.iter().cloned());
            }
        }
        out
    }
}

fn table(out: &mut String, header: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let mut line = |cells: &[String]| writeln!(out, "| {} |", cells.join(" | ")).expect("text can be written into a string");
    line(header);
    line(&vec!["---".to_string(); header.len()]);
    rows.for_each(|row| line(&row));
}

impl Figure {
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, low, high })
    }

    /// For a bound that every round has to hold: the highest counts.
    pub fn highest(self) -> Self {
        Self { median: self.high, ..self }
    }

    pub fn one(value: f64) -> Self {
        Self { median: value, low: value, high: value }
    }

    /// "1.05 (1.01-1.10)"; one round has no spread.
    pub fn short(self) -> String {
        if self.low == self.high {
            number(self.median)
        } else {
            format!("{} ({}-{})", number(self.median), number(self.low), number(self.high))
        }
    }
}

/// Three digits that say something, or a whole number.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => crate::plot::grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        0.0 => "0".into(),
        _ => format!("{value:.4}"),
    }
}

/// A figure for a table, or a dash where nothing was measured.
pub fn cell(figure: Option<Figure>) -> String {
    figure.map_or("-".into(), Figure::short)
}

/// Processor, cores, memory, kernel: what a reader needs to compare, and no names.
pub fn machine() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = information.lines().filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).collect();
    let memory = proc::kilobytes("/proc/meminfo", "MemTotal:") >> 20;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: String = kernel.trim().split('.').take(2).collect::<Vec<_>>().join(".");
    format!("{} × {}, {memory} GB, Linux {kernel}", models.len(), models.first().unwrap_or(&"unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_made_round_by_round() {
        let mut report = Report::default();
        for (ours, floor) in [(2.0, 1.0), (30.0, 10.0), (4.0, 4.0)] {
            report.add("ours", ours);
            report.add("floor", floor);
        }
        assert_eq!(report.ratio("ours", "floor"), Some(Figure { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(report.ratio("ours", "nobody"), None);
    }

    #[test]
    fn a_bound_that_was_missed_or_not_measured_does_not_hold() {
        let mut report = Report::default();
        report.at_most("a", 1.08, "", Some(Figure::one(1.07)));
        report.at_most("b", 1.08, "", Some(Figure::one(1.09)));
        report.at_least("c", 250_000.0, "/s", None);
        let page = report.markdown("Hello.\n");
        assert!(page.contains("| a | ≤ 1.08 | 1.07 | yes |"), "{page}");
        assert!(page.contains("| b | ≤ 1.08 | 1.09 | **no** |"), "{page}");
        assert!(page.contains("| c | ≥ 250,000/s | not measured | **no** |"), "{page}");
    }
}
