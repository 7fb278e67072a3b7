//! Simple SVG charts without a library: a canvas, two kinds of axis, a legend. Colors follow the reader's light or
//! dark setting, and important values are also written as text, so that a chart can be read without its colors.

use std::fmt::Write as _;

pub const WIDTH: f64 = 860.0;

/// Colors in light and dark mode, by class: the four systems, text, grid and limits.
const STYLE: &str = "
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 } .small { font-size: 11px } .soft { fill: #57606a }
.background { fill: #ffffff } .grid { stroke: #d8dee4; fill: none } .axis { stroke: #57606a; fill: none }
.limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 4; fill: none } .limit-text { fill: #cf222e }
.f0 { fill: #0969da } .f1 { fill: #bc4c00 } .f2 { fill: #1a7f37 } .f3 { fill: #8250df }
.l0 { stroke: #0969da } .l1 { stroke: #bc4c00 } .l2 { stroke: #1a7f37 } .l3 { stroke: #8250df }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .soft { fill: #9198a1 } .background { fill: #0d1117 } .grid { stroke: #30363d } .axis { stroke: #9198a1 }
.limit { stroke: #ff7b72 } .limit-text { fill: #ff7b72 }
.f0 { fill: #58a6ff } .f1 { fill: #f0883e } .f2 { fill: #3fb950 } .f3 { fill: #bc8cff }
.l0 { stroke: #58a6ff } .l1 { stroke: #f0883e } .l2 { stroke: #3fb950 } .l3 { stroke: #bc8cff }
}
";

/// A chart.
pub struct Canvas {
    height: f64,
    body: String,
    /// Title and subtitle, for screen readers.
    label: String,
}

/// Which part of a text is at its position.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    /// Creates a chart with a title and a subtitle.
    pub fn new(height: f64, title: &str, subtitle: &str) -> Self {
        let mut canvas = Self { height, body: String::new(), label: format!("{title}. {subtitle}") };
        canvas.text(20.0, 28.0, Anchor::Start, "title", title);
        canvas.text(20.0, 47.0, Anchor::Start, "soft", subtitle);
        canvas
    }

    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        );
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    pub fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        );
    }

    pub fn dot(&mut self, x: f64, y: f64, radius: f64, class: &str) {
        let _ = writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"/>");
    }

    pub fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let mut coordinates = String::new();
        for (x, y) in points {
            let _ = write!(coordinates, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(self.body, "<polyline points=\"{}\" class=\"line {class}\"/>", coordinates.trim_end());
    }

    /// Draws the names of systems with their colors.
    pub fn legend(&mut self, y: f64, names: &[(usize, &str)]) {
        let mut x = 20.0;
        for (color, name) in names {
            self.bar(x, y - 10.0, 12.0, 12.0, &format!("f{color}"));
            self.text(x + 18.0, y, Anchor::Start, "", name);
            x += 150.0;
        }
    }

    /// Returns the text of the SVG file.
    pub fn finish(self) -> String {
        let Self { height, body, label } = self;
        let label = escaped(&label);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{label}\">\n<style>{STYLE}</style>\n<rect width=\"{WIDTH}\" \
             height=\"{height}\" class=\"background\"/>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A vertical axis: maps values to positions between `top` and `bottom`.
pub struct Axis {
    pub top: f64,
    pub bottom: f64,
    least: f64,
    most: f64,
    logarithmic: bool,
}

impl Axis {
    /// From 0 to at least `most`.
    pub fn linear(top: f64, bottom: f64, most: f64) -> Self {
        let step = round_up(most.max(1e-9) / 4.0);
        Self { top, bottom, least: 0.0, most: (most / step).ceil().max(1.0) * step, logarithmic: false }
    }

    /// From the power of ten below `least` to the power of ten above `most`.
    pub fn logarithmic(top: f64, bottom: f64, least: f64, most: f64) -> Self {
        let (least, most) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
        Self { top, bottom, least, most: most.max(least * 10.0), logarithmic: true }
    }

    /// The position of a value.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.least) / self.least).log10() / (self.most / self.least).log10()
        } else {
            value / self.most
        };
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// Draws grid lines and their values, from `left` to the right edge.
    pub fn draw(&self, canvas: &mut Canvas, left: f64, unit: &str) {
        let mut ticks = Vec::new();
        let mut value = if self.logarithmic { self.least } else { 0.0 };
        while value <= self.most * 1.001 {
            ticks.push(value);
            value = if self.logarithmic { value * 10.0 } else { value + round_up(self.most / 4.0) };
        }
        for value in ticks {
            let y = self.at(value);
            canvas.line((left, y), (WIDTH - 20.0, y), "grid");
            canvas.text(left - 8.0, y + 4.0, Anchor::End, "small soft", &format!("{}{unit}", short(value)));
        }
    }
}

/// The smallest number of the form 1, 2, 2.5 or 5 times a power of ten that is at least this.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= value * 0.999).unwrap_or(value)
}

/// A number with two or three significant digits.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
