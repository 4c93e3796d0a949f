//! A flame graph as SVG: what a server did while `perf` looked, from the text of `perf script`.
//!
//! Pure: text in, text out. Every box is a function, as wide as its share of the samples, on the one that called it; its full name
//! and its share are the tooltip. Readable on a dark page as well as on a white one, without any script.

use std::collections::BTreeMap;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
const TOP: f64 = 48.0;
const EDGE: f64 = 8.0;
/// A box is left out when it is narrower: it would be a line without a name.
const NARROWEST: f64 = 1.5;
/// Of a command, generously: a name that is cut is better than one that runs into its neighbour.
const LETTER: f64 = 6.7;

/// Whose code a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Home {
    Kernel,
    Engine,
    Libc,
    #[default]
    Other,
}

/// Name and colour of each [`Home`], in their order.
const HOMES: [(&str, &str); 4] = [("kernel", "#ffd8a8"), ("engine", "#99e9f2"), ("libc", "#d0bfff"), ("other", "#dee2e6")];

impl Home {
    /// By the file that `perf` found it in. In brackets stand the kernel, its modules, and what is no file either.
    fn of(file: &str) -> Self {
        let name = file.rsplit('/').next().unwrap_or(file);
        match name {
            "[vdso]" | "[unknown]" => Self::Other,
            name if name.starts_with('[') => Self::Kernel,
            name if name.starts_with("libheartbus") || name.starts_with("heartbus") => Self::Engine,
            name if name.starts_with("libc.so") || name.starts_with("libc-") => Self::Libc,
            _ => Self::Other,
        }
    }

    fn colour(self) -> &'static str {
        HOMES[self as usize].1
    }
}

/// A function with all that it called, by name.
#[derive(Debug, Default, PartialEq)]
pub struct Tree {
    pub samples: u64,
    pub home: Home,
    pub calls: BTreeMap<String, Self>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Profile {
    pub threads: Tree,
    /// Samples by whose code ran, not by who had called it; in the order of [`Home`].
    pub homes: [u64; 4],
}

/// Reads `perf script -F comm,tid,ip,sym,dso`: for each sample its thread, then a line for each function, the innermost first.
pub fn fold(text: &str) -> Profile {
    let mut profile = Profile::default();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let Some(thread) = lines.next() else { continue };
        let mut stack: Vec<(&str, Home)> = lines.filter_map(function).collect();
        let Some((_, innermost)) = stack.first() else { continue };
        profile.homes[*innermost as usize] += 1;
        stack.retain(|(name, _)| *name != "[unknown]");
        // What starts a thread is the same for all, and says nothing: begin with the engine.
        if let Some(first) = stack.iter().rposition(|(name, _)| name.contains("heartbus_core::")) {
            stack.truncate(first + 1);
        }
        let name = thread.trim().rsplit_once(char::is_whitespace).map_or(thread, |(name, _)| name).trim();
        let mut tree = &mut profile.threads;
        tree.samples += 1;
        for (name, home) in std::iter::once((name, Home::Other)).chain(stack.into_iter().rev()) {
            tree = tree.calls.entry(name.to_owned()).or_default();
            tree.samples += 1;
            tree.home = home;
        }
    }
    profile
}

/// `  address name of the function (/the/file)`
fn function(line: &str) -> Option<(&str, Home)> {
    let (_, rest) = line.trim().split_once(' ')?;
    let (name, file) = rest.rsplit_once(" (")?;
    Some((name, Home::of(file.trim_end_matches(')'))))
}

impl Profile {
    /// `kernel 74 %, engine 22 %, libc 4 %`
    pub fn shares(&self) -> String {
        let all = self.threads.samples.max(1) as f64;
        let parts = HOMES.iter().zip(self.homes).filter(|(_, samples)| *samples > 0);
        parts.map(|((name, _), samples)| format!("{name} {:.1} %", samples as f64 / all * 100.0)).collect::<Vec<_>>().join(", ")
    }

    pub fn svg(&self, title: &str) -> String {
        let scale = (WIDTH - 2.0 * EDGE) / self.threads.samples.max(1) as f64;
        let rows = self.threads.calls.values().map(|tree| tree.height(scale)).max().unwrap_or(0);
        let height = TOP + rows as f64 * ROW + EDGE;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"{EDGE}\" y=\"20\" font-size=\"14\" font-family=\"sans-serif\">{}</text>\n\
             <text x=\"{EDGE}\" y=\"38\" font-family=\"sans-serif\">{} samples: {}</text>\n",
            escaped(title),
            self.threads.samples,
            self.shares(),
        );
        let mut x = WIDTH - EDGE;
        for (name, colour) in HOMES.iter().rev() {
            x -= 70.0;
            out += &format!("<rect x=\"{x}\" y=\"28\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
            out += &format!("<text x=\"{}\" y=\"38\">{name}</text>\n", x + 16.0);
        }
        self.threads.draw(&mut out, EDGE, height - EDGE, scale, self.threads.samples);
        out + "</svg>\n"
    }
}

impl Tree {
    /// In rows, itself included, without what is too narrow to be drawn.
    fn height(&self, scale: f64) -> usize {
        if (self.samples as f64) * scale < NARROWEST {
            return 0;
        }
        1 + self.calls.values().map(|tree| tree.height(scale)).max().unwrap_or(0)
    }

    /// Draws what this one called, on the line `bottom`.
    fn draw(&self, out: &mut String, mut x: f64, bottom: f64, scale: f64, all: u64) {
        for (name, tree) in &self.calls {
            let width = tree.samples as f64 * scale;
            if width >= NARROWEST {
                let label = fitting(short(name), width);
                let y = bottom - ROW;
                *out += &format!(
                    "<g><title>{}: {:.1} %</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>",
                    escaped(name),
                    tree.samples as f64 / all as f64 * 100.0,
                    width - 0.5,
                    ROW - 1.0,
                    tree.home.colour(),
                );
                if !label.is_empty() {
                    *out += &format!("<text x=\"{:.1}\" y=\"{}\">{}</text>", x + 3.0, bottom - 5.0, escaped(&label));
                }
                *out += "</g>\n";
                tree.draw(out, x, y, scale, all);
            }
            x += width;
        }
    }
}

/// A function's name with its type or module, without the path to it. Names with types in brackets stay as they are.
fn short(name: &str) -> &str {
    if name.contains('<') {
        return name;
    }
    name.rmatch_indices("::").nth(1).map_or(name, |(at, _)| &name[at + 2..])
}

fn fitting(name: &str, width: f64) -> String {
    let commands = ((width - 6.0) / LETTER).max(0.0) as usize;
    if name.chars().count() <= commands {
        return name.to_owned();
    }
    if commands < 4 { String::new() } else { name.chars().take(commands - 1).chain(['…']).collect() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
heartbus-io-0  4949 \n\
\tffffffff81b69c60 _copy_from_iter ([kernel.kallsyms])\n\
\t          10aba4 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\
\t          2bccd3 heartbus_core::net::io::IoThread::respond (/a b/libheartbus_php.so)\n\
\t          2bacbd heartbus_core::net::io::IoThread::pass (/a b/libheartbus_php.so)\n\
\t          2b92b5 std::sys::backtrace::__rust_begin_short_backtrace (/a b/libheartbus_php.so)\n\
\tffffffffffffffff [unknown] ([unknown])\n\
\n\
heartbus-io-0  4949 \n\
\t          24d4c3 <heartbus_core::Reader as core::Read>::read (/a b/libheartbus_php.so)\n\
\t          2bacbd heartbus_core::net::io::IoThread::pass (/a b/libheartbus_php.so)\n\
\n\
php  4948 \n\
\t          110000 __memmove_avx_unaligned_erms (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\
\n\
php  4948 \n\
\n";

    #[test]
    fn samples_with_the_same_callers_are_merge_and_begin_with_the_engine() {
        let profile = fold(SCRIPT);
        assert_eq!(profile.threads.samples, 3, "the sample without a function does not count");
        assert_eq!(profile.threads.calls.keys().collect::<Vec<_>>(), ["heartbus-io-0", "php"]);
        let thread = &profile.threads.calls["heartbus-io-0"];
        assert_eq!((thread.samples, thread.calls.len()), (2, 1));
        let pass = &thread.calls["heartbus_core::net::io::IoThread::pass"];
        assert_eq!((pass.samples, pass.home, pass.calls.len()), (2, Home::Engine, 2));
        let send = &pass.calls["heartbus_core::net::io::IoThread::respond"].calls["__send"];
        assert_eq!((send.home, send.calls["_copy_from_iter"].home), (Home::Libc, Home::Kernel));
    }

    #[test]
    fn a_share_is_that_of_the_code_that_ran_not_of_its_callers() {
        assert_eq!(fold(SCRIPT).shares(), "kernel 33.3 %, engine 33.3 %, libc 33.3 %");
        assert_eq!(fold("").shares(), "");
    }

    #[test]
    fn a_name_with_spaces_or_brackets_is_read_whole_and_escaped() {
        let svg = fold(SCRIPT).svg("v1 & v2");
        assert!(svg.contains("<title>&lt;heartbus_core::Reader as core::Read&gt;::read: 33.3 %</title>"));
        assert!(svg.contains("v1 &amp; v2") && svg.contains(">IoThread::pass<"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("<script"));
    }

    #[test]
    fn boxes_stand_on_their_callers_and_those_too_narrow_are_left_out() {
        let one = "io 1 \n\t1 rare ([kernel])\n\t1 heartbus_core::pass (libheartbus_php.so)\n\n";
        let many = "io 1 \n\t1 heartbus_core::pass (libheartbus_php.so)\n\n".repeat(2000);
        let profile = fold(&(one.to_owned() + &many));
        let svg = profile.svg("x");
        assert!(svg.contains("heartbus_core::pass: 100.0 %") && !svg.contains("rare"));
        // The thread, and the engine's function on it.
        assert!(svg.contains(&format!("0 0 {WIDTH} {}", TOP + 2.0 * ROW + EDGE)));
        assert!(!fold("").svg("nothing").contains("NaN"));
    }

    #[test]
    fn a_label_is_cut_to_its_box() {
        assert_eq!(short("heartbus_core::net::io::IoThread::read"), "IoThread::read");
        assert_eq!(short("tcp_ack"), "tcp_ack");
        assert_eq!(fitting("tcp_ack", 100.0), "tcp_ack");
        assert_eq!(fitting("tcp_sendmsg_locked", 60.0), "tcp_sen…");
        assert_eq!(fitting("tcp_ack", 20.0), "");
    }
}
