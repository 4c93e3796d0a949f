//! A plot as SVG: lines over a logarithmic axis of node counts, a linear axis from zero upwards.
//!
//! Pure: numbers in, text out. Readable on a dark page as well as on a white one.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 48.0;
const COLOURS: [&str; 4] = ["#0b7285", "#d9480f", "#5f3dc4", "#2b8a3e"];

pub struct Line {
    pub name: String,
    /// Number of nodes, value.
    pub points: Vec<(f64, f64)>,
}

pub fn svg(title: &str, unit: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(x.log10()), high.max(x.log10())));
    let top = nice(all().map(|(_, y)| *y).fold(0.0, f64::max));
    let x = |value: f64| LEFT + (value.log10() - low) / (high - low).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    let mut add = |line: String| writeln!(out, "{line}").expect("text can be written into a string");
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        add(format!("<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT, y = y(value)));
        add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.2}</text>", LEFT - 8.0, y(value) + 4.0));
    }
    add(format!("<text x=\"14\" y=\"{:.1}\" transform=\"rotate(-90 14 {0:.1})\" text-anchor=\"middle\">{unit}</text>", HEIGHT / 2.0));
    let mut ticks: Vec<f64> = all().map(|(x, _)| *x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        add(format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x(tick), HEIGHT - BOTTOM + 18.0, grouped(tick)));
    }
    add(format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">nodes</text>", (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0));
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        add(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", points.join(" ")));
        for (a, b) in &line.points {
            add(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*a), y(*b)));
        }
        if let Some((a, b)) = line.points.last() {
            add(format!("<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>", x(*a) + 8.0, y(*b) + 4.0, line.name));
        }
    }
    out + "</svg>\n"
}

/// The next of 1, 2, 4, 10, 20, ... that is not below the value.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-6).log10().floor());
    [1.0, 2.0, 4.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

/// With commas between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_lines_and_keeps_its_points_inside() {
        let line = Line { name: "sockets".into(), points: vec![(1e3, 0.5), (1e6, 1.7)] };
        let svg = svg("Cost", "µs", &[line]);
        assert!(svg.contains(">sockets<") && svg.contains(">1,000,000<") && svg.contains("2.00<"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0.0, 999.0, 1000.0, 1234567.0, -1234.0].map(grouped), ["0", "999", "1,000", "1,234,567", "-1,234"]);
    }
}
